"""A split's pictures as they are stored, and how one becomes an array."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cfg_jax.data.resize import RESIZES

ORIENTATION = 0x0112  # EXIF
# by their content, not by the ending; none of them runs a program, and deep sees the depth of each
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM")


@dataclass(frozen=True)
class Pictures:
    """One split. Picture i is called names[i]; read(i) gives its file's bytes or its array, and its class.

    stamps[i] differs where another picture has the same name: it is the size of a file or the checksum of an array.
    classes is None where only reading a picture tells its class.
    """

    names: Sequence[str]
    stamps: Sequence
    classes: Sequence[str] | None
    read: Callable[[int], tuple[bytes | np.ndarray, str]]
    named: Sequence[str] = ()  # the classes that the source names, with or without a picture

    def every_class(self) -> set[str]:
        return {*self.named, *(self.classes or ())}


@dataclass(frozen=True)
class Settings:
    """What decides a picture's pixels."""

    size: int
    resize: str
    channels: int
    upright: bool


def convert_one(
    pictures: Pictures, i: int, *, settings: Settings
) -> tuple[np.ndarray | None, str, list[tuple[str, str]]]:
    """(uint8 [size, size, C] or None if unreadable, class, [(kind, remark)] of what was unusual)."""
    content, label = pictures.read(i)
    try:
        picture = Image.open(io.BytesIO(content), "r", FORMATS) if isinstance(content, bytes) else from_array(content)
        if deep(picture):  # Pillow cuts colours to 8 bits without a word
            raise ValueError("more than 8 bits a channel: convert it to 8")
        picture.load()
        picture, kinds = normalise(picture, settings)
        image = RESIZES[settings.resize](picture, settings.size)
    except Exception as error:  # Pillow raises a dozen types for files that are damaged or no pictures
        strange = isinstance(error, UnidentifiedImageError)
        reason = f"is none of {', '.join(FORMATS)}" if strange else f"{type(error).__name__}: {error}"
        return None, label, [("unreadable", f": {(reason.splitlines() or [''])[0][:120]}")]
    return image, label, [(kind, "") for kind in kinds]


def from_array(x: np.ndarray) -> Image.Image:
    """uint8 [H, W], [H, W, 1] or [H, W, 3] -> a picture of mode L or RGB."""
    return Image.fromarray(x[..., 0] if x.shape[-1] == 1 and x.ndim == 3 else x)


def deep(picture: Image.Image) -> bool:
    """Return whether a picture's file has more than 8 bits a channel. The picture must not be loaded yet."""
    of_tiles = [tile[3] for tile in getattr(picture, "tile", [])]
    stored = [part for of in of_tiles for part in (of if isinstance(of, tuple) else (of,))]
    bits = any(isinstance(part, str) and re.match(r"(?!BGR).*;16", part) for part in stored)  # BGR;16 is a pixel's 16
    most = picture.format == "PPM" and any(isinstance(part, int) and part > 255 for part in stored)
    return bits or most or picture.mode.startswith("I") or picture.mode == "F"


def normalise(picture: Image.Image, settings: Settings) -> tuple[Image.Image, list[str]]:
    """Any picture of 8 bits -> (it in mode L or RGB, [what was unusual about it]). Transparency is put on white."""
    kinds = []
    if getattr(picture, "n_frames", 1) > 1:
        kinds.append("of several frames, the first taken")
    if picture.getexif().get(ORIENTATION, 1) != 1:
        kinds.append("rotated by EXIF, " + ("turned upright" if settings.upright else "left as stored"))
        picture = ImageOps.exif_transpose(picture) if settings.upright else picture
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        kinds.append("transparent, put on white")
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    mode = "L" if settings.channels == 1 else "RGB"
    if picture.mode != mode:
        kinds.append(f"of mode {picture.mode}, made {mode}")
        picture = picture.convert(mode)
    if min(picture.size) < settings.size and settings.resize not in ("pad", "none"):
        kinds.append("smaller than asked, enlarged")
    return picture, kinds
