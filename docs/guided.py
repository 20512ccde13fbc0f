"""Draw docs/guided.gif, the README's picture: the ten clothes of one noise while w rises from 0 to 4 and falls again.

python docs/guided.py
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import cfg_jax
from cfg_jax.images import grid

WS = np.linspace(0, 4, 21)
STRIP = 28  # pixels below the pictures, for w


def frame(pictures: Image.Image, w: float) -> Image.Image:
    """Return the pictures with a bar below them that is as long as w."""
    whole = Image.new("L", (pictures.width, pictures.height + STRIP))
    whole.paste(pictures)
    draw, middle = ImageDraw.Draw(whole), pictures.height + STRIP // 2
    draw.text((8, middle), f"w = {w:.1f}", fill=255, font=ImageFont.load_default(16), anchor="lm")
    left, right = 80, pictures.width - 12
    draw.line((left, middle, right, middle), fill=96, width=4)
    draw.line((left, middle, left + (right - left) * w / WS[-1], middle), fill=255, width=4)
    return whole


if __name__ == "__main__":
    model = cfg_jax.load("fashion_mnist_16")
    frames = [frame(grid(model.sample(range(10), w, seed=0), 5, side=96), w) for w in WS]
    frames += frames[-2:0:-1]
    still = {0: 1000, len(WS) - 1: 1000}  # milliseconds at both ends
    frames[0].save(
        Path(__file__).with_name("guided.gif"), save_all=True, append_images=frames[1:], loop=0,
        duration=[still.get(i, 120) for i in range(len(frames))],
    )  # fmt: skip
