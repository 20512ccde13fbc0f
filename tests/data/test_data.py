import numpy as np
import pytest

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


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "cifar11", "make it with experiments.prepare_data --out=data/cifar11"),
        ("num_classes", 9, "set config.data.num_classes=10"),
        ("image_size", 16, "(16, 16, 1)"),
        ("channels", 3, "(8, 8, 3)"),
    ],
)
def test_a_source_that_is_not_what_the_config_says(tiny, field, value, message):
    tiny.data[field] = value
    with pytest.raises(InputError, match=r"config\.data") as error:
        sources.load(tiny)
    assert message in str(error.value)


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
