import numpy as np
import pytest
from PIL import Image

from cfg_jax import images
from cfg_jax.errors import InputError


def test_an_image_that_is_not_finite_is_an_error():
    with pytest.raises(InputError, match="NaN or infinity: the weights diverged"):
        images.to_uint8(np.array([0.0, np.nan]))


def test_uint8_survives_the_models_range():
    every = np.arange(256, dtype=np.uint8)
    x = images.to_float(every)
    assert (x.min(), x.max(), x.dtype) == (-1, 1, np.float32)
    np.testing.assert_array_equal(images.to_uint8(x), every)
    np.testing.assert_array_equal(images.to_uint8(np.float32([-1.5, 2.0])), [0, 255])
    between = np.float32([-2, -1, 0, 0.999, 1, 3])  # as ADM: (x + 1) * 127.5, what is behind the point cut off
    np.testing.assert_array_equal(images.to_uint8(between, "truncate"), [0, 0, 127, 254, 255, 255])
    np.testing.assert_array_equal(images.to_uint8(between), [0, 0, 128, 255, 255, 255])


@pytest.mark.parametrize(("side", "factor", "channels"), [(8, 8, 1), (16, 4, 3), (28, 2, 1), (32, 2, 3), (64, 1, 3)])
def test_a_grid_has_each_pixel_as_a_square_and_nothing_else(rng, side, factor, channels):
    """Tiny pictures by the largest whole factor that keeps them within 64 pixels; two of grey between them."""
    drawn = rng.integers(0, 256, (6, side, side, channels), np.uint8)
    whole, wide = np.asarray(images.grid(drawn, columns=3)), factor * side
    assert whole.shape[:2] == (2 * wide + 2, 3 * wide + 4)
    for i, image in enumerate(drawn):
        top, left = i // 3 * (wide + 2), i % 3 * (wide + 2)
        tile = whole[top : top + wide, left : left + wide].reshape(side, factor, side, factor, channels)
        assert (tile == image[:, None, :, None]).all()
    assert (whole[wide : wide + 2] == 96).all() and (whole[:, wide : wide + 2] == 96).all()


def test_the_last_row_of_a_grid_may_have_fewer_images(rng):
    drawn = rng.integers(1, 90, (5, 64, 64, 1), np.uint8)
    whole, wide = np.asarray(images.grid(drawn, columns=3)), np.asarray(images.grid(drawn, columns=9))
    assert whole.shape == (2 * 64 + 2, 3 * 64 + 4) and (whole[66:, 2 * 66 :] == 96).all()
    assert wide.shape == (64, 5 * 64 + 8)


def test_a_mosaic_is_as_high_as_its_highest_panels():
    panels = [Image.new("L", size, 0) for size in ((3, 2), (5, 4), (7, 6))]
    whole = np.asarray(images.mosaic([panels[:2], panels[2:]], gap=1))
    assert whole.shape == (4 + 1 + 6, 9, 3) and (whole == 0).sum() == 3 * (6 + 20 + 42)
    assert (whole[:2, :3] == 0).all() and (whole[:4, 4:] == 0).all() and (whole[5:, :7] == 0).all()
