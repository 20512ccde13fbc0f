import itertools

import jax
import numpy as np
import pytest

from cfg_jax.evaluation import measure, metrics, moments, scores
from cfg_jax.evaluation.features import Extracted
from cfg_jax.evaluation.moments import Moments
from cfg_jax.evaluation.references import Reference
from tests.running import RECORDED

N, CLASSES = 60, 3


@pytest.fixture
def stream(rng):
    """Images, labels, and features as two networks would give them."""
    labels = np.arange(N) % CLASSES
    uint8 = rng.integers(0, 256, (N, 4, 4, 1)).astype(np.uint8)
    uint8[rng.random(uint8.shape) < 0.1] = 255
    logits, biased, of_class = rng.standard_normal((3, N, 5))
    features, spatial = rng.standard_normal((N, 7)), rng.standard_normal((N, 4))
    all_of = {"fid_x": features, "sfid_x": spatial}, {"is_x": logits, "isc_x": biased}, {"x": of_class[:, :CLASSES]}
    return uint8, labels, Extracted(*all_of)


def reference_of(rng):
    moments = {name: Moments.of(rng.standard_normal((50, d))) for name, d in (("fid_x", 7), ("sfid_x", 4))}
    moments = {name: (m.mean, m.cov) for name, m in moments.items()}
    return Reference(moments, np.zeros((0, 0, 0, 0), np.uint8), None, "digest")


def part(extracted, begin, end):
    return Extracted(*({k: v[begin:end] for k, v in field.items()} for field in vars(extracted).values()))


def tally(stream, bounds=(0, 17, 40, N), labels=True, **settings):
    uint8, of_class, extracted = stream
    settings = {"splits": 4, "bootstrap": 3, "seed": 0} | settings
    counted = measure.Tally(N, of_class if labels else None, "x", **settings)
    for begin, end in itertools.pairwise(bounds):
        counted.add(uint8[begin:end], part(extracted, begin, end))
    return counted


def test_in_batches_as_in_one(stream, rng):
    reference = reference_of(rng)
    whole, spreads = tally(stream, (0, N)).scores(reference)
    streamed, again = tally(stream).scores(reference)
    assert whole.keys() == streamed.keys() and spreads.keys() == again.keys()
    for name, value in whole.items():
        np.testing.assert_allclose(streamed[name], value, rtol=1e-10, err_msg=name)


def test_a_resample_is_the_scores_of_its_images(stream, rng):
    """Counts give what the images themselves give, put one by one into the places of the first ones."""
    uint8, labels, extracted = stream
    reference = reference_of(rng)
    counted = tally(stream)
    measured, spreads = counted.scores(reference)
    assert {len(v) for k, v in measured.items() if not k.startswith("sfid")} == {4} and len(measured["sfid_x@60"]) == 1
    for b, index in enumerate(counted.index):
        np.testing.assert_array_equal(labels[index], labels)
        again = Moments.of(extracted.distances["fid_x"][index])
        distance = scores.frechet_distance(*reference.moments["fid_x"], again.mean, again.cov)
        assert measured["fid_x@60"][b] == pytest.approx(distance, rel=1e-9)
        mean, std = scores.inception_score(extracted.logits["is_x"][index], 4)
        assert measured["is_x@60"][b] == pytest.approx(mean, rel=1e-9)
        order = np.random.RandomState(2020).permutation(N)
        shuffled, _ = scores.inception_score(extracted.logits["isc_x"][index][order], 4)
        assert measured["isc_x@60"][b] == pytest.approx(shuffled, rel=1e-9)
        right = extracted.class_logits["x"][index].argmax(1) == labels
        assert measured["accuracy_x@60"][b] == pytest.approx(right.mean())
        assert measured["saturated_x@60"][b] == pytest.approx(np.isin(uint8[index], (0, 255)).mean())
        per_class = [uint8[index][labels == c].std(0).mean() for c in range(CLASSES)]
        assert measured["variety_x@60"][b] == pytest.approx(np.mean(per_class) / 127.5)
        if b == 0:
            assert spreads["is_x@60"] == pytest.approx(std)
    assert len({*measured["fid_x@60"]}) == 4


def test_measurements_of_images_made_by_hand(rng):
    uint8 = np.full((8, 2, 2, 1), 100, np.uint8)
    labels = np.arange(8) % 2
    uint8[labels == 1, 0, 0, 0] = [0, 255, 0, 255]  # one pixel of four, in half of the images
    logits = np.log(np.where(np.arange(2) == labels[:, None], 0.8, 0.2))
    logits[0] = np.log([0.4, 0.6])  # one image of eight is taken for the other class
    features = rng.standard_normal((8, 3))
    m = Moments.of(features)
    counted = measure.Tally(8, labels, "x", splits=2)
    counted.add(uint8, Extracted({"fid_x": features}, {"is_x": logits}, {"x": logits}))
    got, _ = counted.scores(Reference({"fid_x": (m.mean, m.cov)}, np.zeros((0, 0, 0, 0)), None, ""))
    assert got["fid_x@8"] == pytest.approx([0], abs=1e-9) and got["accuracy_x@8"] == 7 / 8
    assert got["saturated_x@8"] == 1 / 8
    assert got["log_p_class_x@8"] == pytest.approx((7 * np.log(0.8) + np.log(0.4)) / 8)
    assert got["variety_x@8"] == pytest.approx(0.5 * 0.25 * 127.5 / 127.5)  # class 1: std 127.5 in a pixel of four


def test_without_labels_what_needs_them_is_left_out(stream, rng):
    measured, _ = tally(stream, labels=False).scores(reference_of(rng))
    assert [name for name in measured if name.startswith(("accuracy", "log_p", "variety"))] == []
    assert {"fid_x@60", "is_x@60", "saturated_x@60"} <= measured.keys()


def test_features_are_kept_for_neighbours_alone(stream, rng):
    assert not [m for m in tally(stream).metrics if isinstance(m, metrics.Neighbours)]
    real = rng.standard_normal((40, 7)).astype(np.float32)
    measured, spreads = tally(stream, neighbours=True).scores(reference_of(rng), real)
    fake = stream[2].distances["fid_x"].astype(np.float32)
    precision, recall = scores.precision_recall(fake, real)
    kid, spread = scores.kernel_distance(fake, real, np.random.RandomState(2020))
    got = [float(measured[f"{name}_x@60"][0]) for name in ("precision", "recall", "kid")]
    assert got == pytest.approx([precision, recall, kid]) and spreads["kid_x@60"] == pytest.approx(spread)
    assert precision != recall
    drawn = [measured[f"{name}_x@60"][1:] for name in ("precision", "recall")]
    assert all(0 < np.std(values) < 0.2 and abs(values.mean() - values[0]) < 0.1 for values in drawn)


def test_the_sums_do_not_grow_with_the_number_of_images(rng):
    """All that a tally holds but the counts, for 60 and for 600 images."""

    def held(n):
        counted = measure.Tally(n, np.arange(n) % CLASSES, "x", splits=4, bootstrap=2)
        for _ in range(0, n, 20):
            f = rng.standard_normal((20, 7))
            uint8 = rng.integers(0, 256, (20, 4, 4, 1)).astype(np.uint8)
            counted.add(uint8, Extracted({"fid_x": f}, {"is_x": f}, {"x": f}))
        arrays = jax.tree.leaves([[v for k, v in vars(m).items() if k != "parts"] for m in counted.metrics])
        moments = [m.outer for metric in counted.metrics for m in getattr(metric, "moments", ())]
        return sum(a.nbytes for a in [*arrays, *moments] if isinstance(a, np.ndarray))

    assert held(60) == held(600)


def test_few_images_warn_of_the_rank(caplog):
    with caplog.at_level("WARNING", "cfg_jax"):
        moments.warn_of_rank("fid_x", "images", 8, 7)
        assert not caplog.records
        moments.warn_of_rank("fid_x", "images", 7, 7)
    assert "fid_x: 7 images give a covariance of rank 6 of 7" in caplog.text and "take more than 7" in caplog.text


def test_the_bootstrap_resamples_within_a_class(rng):
    labels = np.repeat(np.arange(3), 40)
    index = measure.resample(labels, rng)
    np.testing.assert_array_equal(labels[index], labels)
    assert 0.5 < len(np.unique(index)) / len(labels) < 0.75  # 1 - 1/e of them are drawn
    assert not np.array_equal(index, measure.resample(labels, rng))


def test_labels_drawn_at_random_are_part_of_the_chance(rng):
    """Resampled within classes of one image each, nothing would ever scatter."""
    for labels, varies in ((np.arange(12), False), (np.r_[np.arange(11), 0], True)):
        index = measure.Tally(12, labels, "x", splits=2, bootstrap=3).index
        assert (not np.array_equal(index[1], index[0])) == varies
    labels = np.r_[np.arange(11), 0]
    uint8 = rng.integers(0, 256, (12, 4, 4, 1)).astype(np.uint8)
    counted = measure.Tally(12, labels, "x", splits=2, bootstrap=3)
    counted.add(uint8, Extracted({}, {}, {}))
    variety = counted.scores(None)[0]["variety_x@12"]
    for index, got in zip(counted.index, variety, strict=True):
        present = [uint8[index][labels[index] == c].std(0).mean() for c in np.unique(labels[index])]
        assert got == pytest.approx(np.mean(present) / 127.5)


def test_large_pictures_are_averaged_down_for_their_variety(rng):
    uint8 = rng.integers(0, 256, (3, 70, 70, 3)).astype(np.uint8)
    small = metrics.coarse(uint8)
    assert small.shape == (3, 35, 35, 3)
    np.testing.assert_allclose(small[1, 2, 3], uint8[1, 4:6, 6:8].mean((0, 1)))
    np.testing.assert_array_equal(metrics.coarse(uint8[:, :32, :32]), uint8[:, :32, :32])


def test_a_distance_without_a_reference_is_left_out(stream, rng):
    """Most published statistics have no sFID's."""
    reference = reference_of(rng)
    del reference.moments["sfid_x"]
    measured, _ = tally(stream).scores(reference)
    assert "fid_x@60" in measured and "sfid_x@60" not in measured


def test_shuffled_is_agrees_with_torch_fidelity():
    with np.load(RECORDED / "torch_fidelity_scores.npz", allow_pickle=False) as f:
        logits, want = f["logits"], (float(f["isc_mean"]), float(f["isc_std"]))
    counted = measure.Tally(len(logits), None, "x", splits=10)
    counted.add(np.zeros((len(logits), 1, 1, 1), np.uint8), Extracted({}, {"isc_x": logits}, {}))
    measured, spreads = counted.scores(None)
    name = f"isc_x@{len(logits)}"
    assert (float(measured[name][0]), spreads[name]) == pytest.approx(want, rel=1e-6)
