"""Each resize against its filter written out from the definition, and its pixels pinned."""

import hashlib
import io
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from cfg_jax.data import resize

SAMPLE = os.path.join(os.environ.get("CFG_JAX_ASSETS") or "absent", "ilsvrc2012_sample.tar")
SIDES = ((150, 97), (97, 150), (131, 131), (40, 56), (64, 64), (301, 130))
GOLDEN = {"area": "9d558c5231f6b7af", "adm": "a176a0d6bb171de9", "lanczos": "3d8ad36fbddc7c1b"}
GOLDEN_ILSVRC = {"area": "2c4c49781f4ca4d9", "adm": "f9aa1b43ae7f71e8", "lanczos": "48684d47aceb3692"}


def picture(width, height):
    """Waves of every frequency, a colour each, by integers alone."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    channels = [(x * x // 16 + 3 * y) % 256, (y * y // 8 + x * y // 32) % 256, (7 * x + 11 * y) % 256]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


@pytest.fixture(scope="module")
def ilsvrc():
    if not os.path.exists(SAMPLE):
        pytest.skip("ilsvrc2012_sample.tar is not in CFG_JAX_ASSETS")
    with tarfile.open(SAMPLE) as tar:
        files = sorted((m for m in tar if m.isfile()), key=lambda m: m.name)
        return [Image.open(io.BytesIO(tar.extractfile(m).read())).convert("RGB") for m in files]


def centre_square(x, top, left):
    side = min(x.shape[:2])
    return x[top : top + side, left : left + side]


def area_by_repetition(x, size):
    """Every pixel cut into size pieces along each axis, so that each output pixel is the mean of whole pieces."""
    for axis in (0, 1):
        side = x.shape[axis]
        x = np.repeat(x, size, axis=axis)
        x = x.reshape(*x.shape[:axis], size, side, *x.shape[axis + 1 :]).mean(axis + 1)
    return x


FILTERS = {
    "box": (0.5, lambda t: ((t > -0.5) & (t <= 0.5)).astype(float)),
    "bicubic": (2, lambda t: np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2)),
    "lanczos": (3, lambda t: np.sinc(t) * np.sinc(t / 3)),
}


def filtered(x, width, height, name):
    """Convolution with a filter as wide as the output's pixels, columns first, rounded to bytes in between."""
    support, weight = FILTERS[name]
    for axis, size in ((1, width), (0, height)):
        scale = x.shape[axis] / size
        wide = max(scale, 1)
        centre, i = (np.arange(size)[:, None] + 0.5) * scale, np.arange(x.shape[axis])
        # a pixel on the very edge of a box falls in or out by these roundings
        inside = (i >= np.floor(centre - support * wide + 0.5)) & (i < np.floor(centre + support * wide + 0.5))
        t = (i - centre + 0.5) * (1 / wide)
        w = np.where(inside, weight(t if name == "box" else np.abs(t)), 0)
        w /= w.sum(1, keepdims=True)
        x = np.moveaxis(np.tensordot(w, x.astype(float), (1, axis)), 0, axis)
        x = np.clip(np.floor(x + 0.5), 0, 255)
    return x


def check_area(image):
    x = np.asarray(image)
    height, width = x.shape[:2]
    side = min(width, height)
    square = centre_square(x, height // 2 - side // 2, width // 2 - side // 2).astype(float)
    exact = area_by_repetition(square, 64)
    ours = resize.area(image, 64)
    assert ours.shape == (64, 64, 3) and ours.dtype == np.uint8
    assert np.abs(ours - exact).max() <= 0.5 + 1e-9


def check_adm(image):
    x = np.asarray(image)
    while min(x.shape[:2]) >= 128:
        x = filtered(x, x.shape[1] // 2, x.shape[0] // 2, "box")
    scale = 64 / min(x.shape[:2])
    x = filtered(x, round(x.shape[1] * scale), round(x.shape[0] * scale), "bicubic")
    x = centre_square(x, (x.shape[0] - 64) // 2, (x.shape[1] - 64) // 2)
    close(resize.adm(image, 64), x)


def check_lanczos(image):
    x = np.asarray(image)
    side = min(x.shape[:2])
    x = centre_square(x, (x.shape[0] - side) // 2, (x.shape[1] - side) // 2)
    close(resize.lanczos(image, 64), filtered(x, 64, 64, "lanczos"))


def close(ours, other):
    """Pillow's weights are fixed-point: a byte now and then rounds the other way, and that may be halved again."""
    difference = np.abs(ours.astype(float) - other)
    assert ours.shape == other.shape == (64, 64, 3)
    assert difference.max() <= 2 and (difference > 0).mean() < 0.02


CHECKS = {"area": check_area, "adm": check_adm, "lanczos": check_lanczos}


@pytest.mark.parametrize("name", CHECKS)
def test_a_resize_is_its_definition(name):
    for sides in SIDES:
        CHECKS[name](picture(*sides))
    twice = np.random.default_rng(0).integers(0, 256, (140, 128, 3), np.uint8)
    CHECKS[name](Image.fromarray(twice))  # exactly twice the size: adm halves it once more


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_a_resize_is_its_definition_on_real_pictures(name, ilsvrc):
    for image in ilsvrc:
        CHECKS[name](image)


def checksum(name, pictures):
    return hashlib.sha256(b"".join(resize.RESIZES[name](p, 64).tobytes() for p in pictures)).hexdigest()[:16]


@pytest.mark.parametrize("name", CHECKS)
def test_pixels_are_pinned(name):
    assert checksum(name, [picture(*sides) for sides in SIDES]) == GOLDEN[name]


@pytest.mark.parametrize("name", CHECKS)
def test_pixels_of_real_pictures_are_pinned(name, ilsvrc):
    assert checksum(name, ilsvrc) == GOLDEN_ILSVRC[name]


def test_the_resizes_differ():
    images = [f(picture(301, 130), 64).astype(int) for f in (resize.area, resize.adm, resize.lanczos)]
    assert min(np.abs(a - b).mean() for a, b in zip(images, [*images[1:], images[0]], strict=True)) > 1


def test_pad_puts_the_picture_in_the_middle():
    x = np.arange(1, 13, dtype=np.uint8).reshape(4, 3)
    padded = resize.pad(Image.fromarray(x), 8)
    assert padded.shape == (8, 8, 1) and padded.astype(int).sum() == x.sum()
    np.testing.assert_array_equal(padded[2:6, 2:5, 0], x)
    with pytest.raises(ValueError, match="does not fit"):
        resize.pad(picture(40, 20), 32)


def test_none_refuses_another_size():
    np.testing.assert_array_equal(resize.none(picture(8, 8), 8), np.asarray(picture(8, 8)))
    with pytest.raises(ValueError, match="choose a --resize"):
        resize.none(picture(8, 9), 8)
