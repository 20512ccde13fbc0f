"""The named resizes: a PIL picture and a side -> uint8 [side, side, C]. FID compares within one of them only."""

from functools import lru_cache

import numpy as np
from PIL import Image


def area(picture, size):
    """The paper's, as its authors' other code: centre square, then the mean over each output pixel's area.

    TensorFlow's "area". Those authors train on its fractions; here they are rounded to nearest. All sums are of
    integers that their floats hold exactly, so the result is the same on every machine.
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
def overlaps(side, size):
    """[size, side]: how much of input pixel i lies in output pixel j, in units of 1/size of an input pixel."""
    i, j = np.arange(side), np.arange(size)[:, None]
    shared = np.minimum((i + 1) * size, (j + 1) * side) - np.maximum(i * size, j * side)
    return np.maximum(shared, 0).astype(np.float32)


def adm(picture, size):
    """Dhariwal & Nichol's: halve by box means while twice too large, bicubic to the shorter side, centre square."""
    while min(picture.size) >= 2 * size:
        picture = picture.resize(tuple(n // 2 for n in picture.size), Image.Resampling.BOX)
    scale = size / min(picture.size)
    picture = picture.resize(tuple(round(n * scale) for n in picture.size), Image.Resampling.BICUBIC)
    left, top = ((n - size) // 2 for n in picture.size)
    return uint8(picture.crop((left, top, left + size, top + size)))


def lanczos(picture, size):
    """Karras et al.'s (EDM): centre square, then Lanczos."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    return uint8(square.resize((size, size), Image.Resampling.LANCZOS))


def pad(picture, size):
    """No resampling: the picture in the middle of a black square."""
    x = uint8(picture)
    if max(x.shape[:2]) > size:
        raise ValueError(f"{x.shape[1]}x{x.shape[0]} does not fit into {size}x{size}")
    before = [(size - n) // 2 for n in x.shape[:2]]
    return np.pad(x, [(b, size - n - b) for b, n in zip(before, x.shape[:2], strict=True)] + [(0, 0)])


def none(picture, size):
    """Pictures that have the size already."""
    if picture.size != (size, size):
        raise ValueError(f"{picture.width}x{picture.height} is not {size}x{size}: choose a --resize")
    return uint8(picture)


def uint8(picture):
    x = np.asarray(picture, np.uint8)
    return x.reshape(*x.shape[:2], -1)


RESIZES = {"area": area, "adm": adm, "lanczos": lanczos, "pad": pad, "none": none}
