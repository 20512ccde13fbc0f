"""The pictures of a split as they are stored, and the conversion of one to an array."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cfg_jax import inputs
from cfg_jax.data.resize import RESIZES

ORIENTATION = 0x0112  # EXIF
# told from the content, not from the suffix; reading one runs no program, and `deep` knows the depth of each
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM")

ROOM = inputs.Room(inputs.MOST_PIXELS)


@dataclass(frozen=True)
class Pictures:
    """One split. Picture i is called names[i]; read(i) returns the bytes of its file, or its array, and its class.

    stamps[i] tells apart two pictures of the same name: it is the size of a file or the checksum of an array. classes
    is None if a picture must be read to know its class.
    """

    names: Sequence[str]
    stamps: Sequence
    classes: Sequence[str] | None
    read: Callable[[int], tuple[bytes | np.ndarray, str]]
    named: Sequence[str] = ()  # the classes that the source names, with or without a picture


@dataclass(frozen=True)
class Settings:
    """The settings that decide a picture's pixels."""

    size: int
    resize: str
    channels: int
    upright: bool


def convert_one(
    pictures: Pictures, i: int, *, settings: Settings
) -> tuple[np.ndarray | None, str, list[tuple[str, str]]]:
    """Return (uint8 [size, size, C] or None if unreadable, class, [(kind, remark)] of anything unusual)."""
    content, label = pictures.read(i)
    try:
        if isinstance(content, bytes):
            inputs.check_begin("it", content[:32])
            picture = inputs.picture(io.BytesIO(content), FORMATS)
        else:  # uint8 [H, W], [H, W, 1] or [H, W, 3]
            picture = Image.fromarray(content[..., 0] if content.shape[2:] == (1,) else content)
        if deep(picture):  # Pillow silently cuts colours to 8 bits
            raise ValueError("more than 8 bits a channel: convert it to 8")
        with ROOM.of(picture):
            picture.load()
            picture, kinds = normalise(picture, settings)
            image = RESIZES[settings.resize](picture, settings.size)
    except Exception as error:  # Pillow raises a dozen types for files that are damaged or no pictures
        reason = f"{type(error).__name__}: {inputs.reason(error)}"
        if isinstance(error, UnidentifiedImageError):
            reason = f"is none of {', '.join(FORMATS)}"
        return None, label, [("unreadable", f": {reason}")]
    return image, label, [(kind, "") for kind in kinds]


def deep(picture: Image.Image) -> bool:
    """Return whether a picture's file has more than 8 bits a channel. The picture must not be loaded yet."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return True
    for *_, arguments in getattr(picture, "tile", []):  # of the decoder
        for part in arguments if isinstance(arguments, tuple) else (arguments,):
            if isinstance(part, str) and re.match(r"(?!BGR).*;16", part):  # BGR;16 has 16 bits for a whole pixel
                return True
            if isinstance(part, int) and picture.format == "PPM" and part > 255:
                return True
    return False


def normalise(picture: Image.Image, settings: Settings) -> tuple[Image.Image, list[str]]:
    """Return a picture of 8 bits in mode L or RGB, and [anything unusual about it]. Transparency is put on white."""
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
