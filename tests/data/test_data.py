import numpy as np
import pytest
from PIL import Image

from cfg_jax import images
from cfg_jax.data import pipeline, sources
from cfg_jax.errors import InputError


@pytest.fixture(scope="module")
def digits():
    return sources.digits()


def numbered(n=40):
    """A source whose image is its own index, so that a batch tells what it holds; asymmetric left to right."""
    images = np.arange(n * 4, dtype=np.uint8).reshape(n, 2, 2, 1)
    return sources.in_memory("numbered", images, np.arange(n), map(str, range(n)), source="", licence="")


def batches(source, batch_size=8, seed=0, flip=False, **kwargs):
    return pipeline.batches(source, batch_size=batch_size, seed=seed, flip=flip, **kwargs)


def test_digits_are_whole(digits):
    assert digits.images.shape == (1797, 8, 8, 1) and digits.images.dtype == np.uint8
    assert (digits.images.min(), digits.images.max()) == (0, 255)
    counts = np.bincount(digits.labels)
    assert len(counts) == 10 and counts.min() >= 174 and counts.max() <= 183
    assert digits.card.class_names == tuple("0123456789")


def test_a_batch_is_a_function_of_seed_and_step():
    one, two = batches(numbered()), batches(numbered())
    for step in (7, 0, 12_345):
        np.testing.assert_array_equal(one[step]["image"], two[step]["image"])
    assert one[3]["image"].shape == (8, 2, 2, 1) and one[3]["image"].dtype == np.uint8
    assert not np.array_equal(one[0]["label"], batches(numbered(), seed=1)[0]["label"])
    np.testing.assert_array_equal(one[3]["image"][:, 0, 0, 0], 4 * one[3]["label"])


def test_an_epoch_is_a_permutation_and_the_next_another():
    ds = batches(numbered())
    first, second = (np.concatenate([ds[step]["label"] for step in range(5 * e, 5 * e + 5)]) for e in (0, 1))
    np.testing.assert_array_equal(np.sort(first), np.arange(40))
    np.testing.assert_array_equal(np.sort(second), np.arange(40))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("num_processes", [2, 4])
def test_the_processes_shares_make_the_same_global_batch(num_processes):
    whole = batches(numbered())
    parts = [batches(numbered(), process=i, num_processes=num_processes) for i in range(num_processes)]
    for step in (0, 6):
        shares = [part[step]["label"] for part in parts]
        assert {len(share) for share in shares} == {8 // num_processes}
        np.testing.assert_array_equal(np.concatenate(shares), whole[step]["label"])


def test_flip_is_random_fair_and_repeatable():
    ds, again = batches(numbered(), flip=True), batches(numbered(), flip=True)
    flipped = []
    for step in range(50):
        image, label = ds[step]["image"], ds[step]["label"]
        np.testing.assert_array_equal(image, again[step]["image"])
        flipped.extend(image[:, 0, 0, 0] != 4 * label)
        np.testing.assert_array_equal(np.sort(image[:, 0, :, 0]), np.sort(numbered().images[label][:, 0, :, 0]))
    assert abs(np.mean(flipped) - 0.5) < 4 * 0.5 / np.sqrt(400)


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


def test_a_mosaic_is_as_high_as_its_highest_panels():
    panels = [Image.new("L", size, 0) for size in ((3, 2), (5, 4), (7, 6))]
    whole = np.asarray(images.mosaic([panels[:2], panels[2:]], gap=1))
    assert whole.shape == (4 + 1 + 6, 9, 3) and (whole == 0).sum() == 3 * (6 + 20 + 42)
    assert (whole[:2, :3] == 0).all() and (whole[:4, 4:] == 0).all() and (whole[5:, :7] == 0).all()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "cifar11", "make it with experiments.prepare_data --out=data/cifar11"),
        ("num_classes", 9, "set config.data.num_classes=10"),
        ("image_size", 16, "(16, 16, 1)"),
        ("channels", 3, "(8, 8, 3)"),
    ],
)
def test_a_source_that_is_not_what_the_config_says(tiny, field, value, said):
    tiny.data[field] = value
    with pytest.raises(InputError, match=r"config\.data") as error:
        sources.load(tiny)
    assert said in str(error.value)


def test_synthetic_fits_any_config(tiny):
    tiny.data.update(name="synthetic", image_size=32, channels=3, num_classes=7)
    source, _ = sources.load(tiny)
    assert source.images.shape[1:] == (32, 32, 3) and source.labels.max() == 6


def test_batches_made_ahead_are_the_same_in_the_same_order():
    ds = batches(numbered(), flip=True)
    ahead = list(pipeline.ahead(ds, 7, 12))
    assert len(ahead) == 5
    for step, batch in zip(range(7, 12), ahead, strict=True):
        np.testing.assert_array_equal(batch["image"], ds[step]["image"])
        np.testing.assert_array_equal(batch["label"], ds[step]["label"])
