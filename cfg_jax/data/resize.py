"""Resizes by name. Each takes a PIL picture and a side in pixels and returns uint8 [side, side, C].

FIDs are comparable only within one resize.
"""

from functools import lru_cache

import numpy as np
from PIL import Image


def area(picture: Image.Image, size: int) -> np.ndarray:
    """Resize as the paper, by its authors' other code: centre square, then the mean over each output pixel's area.

    It is TensorFlow's "area". Those authors train on fractions; here they are rounded to the nearest integer. All sums
    are of integers that floats represent exactly, so the result is the same on every machine.
    """
    width, height = picture.size
    side = min(width, height)
    left, top = width // 2 - side // 2, height // 2 - side // 2
    x = np.asarray(picture.crop((left, top, left + side, top + side)))
    weights = overlaps(side, size)
    rows = weights @ x.reshape(side, -1).astype(np.float32)  # up to 255 side < 2^24
    columns = rows.reshape(size, side, -1).swapaxes(1, 2).astype(np.float64) @ weights.T  # up to 255 side^2
    return ((2 * columns.swapaxes(1, 2) + side**2) // (2 * side**2)).astype(np.uint8)


@lru_cache(maxsize=64)
def overlaps(side: int, size: int) -> np.ndarray:
    """Return float32 [size, side]: at [j, i] the part of input pixel i in output pixel j, in 1/size of a pixel."""
    i, j = np.arange(side), np.arange(size)[:, None]
    shared = np.minimum((i + 1) * size, (j + 1) * side) - np.maximum(i * size, j * side)
    return np.maximum(shared, 0).astype(np.float32)


def adm(picture: Image.Image, size: int) -> np.ndarray:
    """Resize as Dhariwal & Nichol: halve by box means while twice too large, bicubic to `size`, centre square."""
    while min(picture.size) >= 2 * size:
        picture = picture.resize(tuple(n // 2 for n in picture.size), Image.Resampling.BOX)
    scale = size / min(picture.size)
    picture = picture.resize(tuple(round(n * scale) for n in picture.size), Image.Resampling.BICUBIC)
    left, top = ((n - size) // 2 for n in picture.size)
    return uint8(picture.crop((left, top, left + size, top + size)))


def lanczos(picture: Image.Image, size: int) -> np.ndarray:
    """Resize as Karras et al. (EDM): centre square, then Lanczos."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    return uint8(square.resize((size, size), Image.Resampling.LANCZOS))


def pad(picture: Image.Image, size: int) -> np.ndarray:
    """Put the picture into the middle of a black square. Raises ValueError if it does not fit."""
    x = uint8(picture)
    if max(x.shape[:2]) > size:
        raise ValueError(f"{x.shape[1]}x{x.shape[0]} does not fit into {size}x{size}")
    before = [(size - n) // 2 for n in x.shape[:2]]
    return np.pad(x, [(b, size - n - b) for b, n in zip(before, x.shape[:2], strict=True)] + [(0, 0)])


def none(picture: Image.Image, size: int) -> np.ndarray:
    """Return a picture that has the size already. Raises ValueError for any other."""
    if picture.size != (size, size):
        raise ValueError(f"{picture.width}x{picture.height} is not {size}x{size}: choose a --resize")
    return uint8(picture)


def uint8(picture: Image.Image) -> np.ndarray:
    """Return a picture as uint8 [H, W, C], with C = 1 for grey."""
    x = np.asarray(picture, np.uint8)
    return x.reshape(*x.shape[:2], -1)


RESIZES = {"area": area, "adm": adm, "lanczos": lanczos, "pad": pad, "none": none}
