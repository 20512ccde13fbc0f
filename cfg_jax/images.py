"""Images: conversion between uint8 and the model's [-1, 1], batches through a network, grids as PNG."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, PngImagePlugin

from cfg_jax.errors import require
from cfg_jax.files import MARK, write_atomic
from cfg_jax.inputs import picture


def to_float(images: jax.Array | np.ndarray):
    """Convert uint8 0..255 to float32 in [-1, 1], on the device that holds the images."""
    return images.astype(np.float32) / 127.5 - 1


def to_uint8(x: jax.Array | np.ndarray, quantize: str = "round") -> np.ndarray:
    """Convert [-1, 1] to uint8 0..255 on the host, and clip values outside. Raises InputError for NaN or infinity.

    quantize is "round" to the nearest level, the inverse of to_float, or "truncate", as ADM does.
    """
    reason = "the weights diverged, or w is too large without a threshold"
    require(np.isfinite(x).all(), f"the images hold NaN or infinity: {reason}")
    levels = (np.asarray(x, np.float32) + 1) * 127.5
    return np.clip(np.round(levels) if quantize == "round" else levels, 0, 255).astype(np.uint8)


def in_batches(network: Callable, images: np.ndarray, batch_size: int) -> Any:
    """Return a network's outputs for images [N, ...]: a tree of host arrays [N, ...].

    The last batch is filled up with its last image, so that all batches have one shape and one program is compiled.
    """
    parts = []
    for begin in range(0, len(images), batch_size):
        part = images[begin : begin + batch_size]
        filled = np.concatenate([part, np.repeat(part[-1:], batch_size - len(part), 0)])
        parts.append(network(filled))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(images)], *parts)


GAP = 2  # pixels between the images of a grid


def grid(images: np.ndarray, columns: int, side: int = 64) -> Image.Image:
    """Return one picture of the images uint8 [N, H, W, C], with `columns` images in a row and GAP pixels between them.

    The rest of an unfinished row is grey.
    Images below `side` pixels are enlarged by the largest whole factor that keeps them within `side`.
    """
    zoom = max(1, side // images.shape[1])
    enlarged = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
    columns = min(columns, len(images))
    tiles = np.pad(enlarged, ((0, -len(images) % columns), (0, GAP), (0, GAP), (0, 0)), constant_values=96)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    whole = np.concatenate(rows, axis=0)[:-GAP, :-GAP]
    return Image.fromarray(whole[..., 0] if whole.shape[-1] == 1 else whole)


def mosaic(rows: Sequence[Sequence[Image.Image]], gap: int = 12) -> Image.Image:
    """Return one picture of rows of pictures on white, `gap` pixels apart. A row is as high as its highest picture."""
    width = max(sum(panel.width + gap for panel in row) - gap for row in rows)
    heights = [max(panel.height for panel in row) for row in rows]
    whole = Image.new("RGB", (width, sum(heights) + gap * (len(rows) - 1)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for panel in row:
            whole.paste(panel, (left, top))
            left += panel.width + gap
        top += height + gap
    return whole


def read_png(path: str | Path) -> Image.Image:
    """Return the picture of a PNG file in mode RGB. Raises ValueError if it is too large, else as Pillow does."""
    with picture(path, ("PNG",)) as image:
        return image.convert("RGB")


def save_png(path: str | Path, image: Image.Image) -> None:
    """Write a PNG file that carries the mark of this code."""
    buffer, about = io.BytesIO(), PngImagePlugin.PngInfo()
    about.add_text("Software", MARK)
    image.save(buffer, "PNG", pnginfo=about)
    write_atomic(path, buffer.getvalue())
