import numpy as np
import pytest

from cfg_jax.errors import InputError
from cfg_jax.evaluation import scores
from cfg_jax.evaluation.moments import Moments
from tests.running import RECORDED


def distance(a, b):
    return scores.frechet_distance(a.mean, a.cov, b.mean, b.cov)


def test_two_gaussians_in_closed_form():
    """Commuting covariances: |m - n|^2 + sum (sqrt(a_i) - sqrt(b_i))^2 along the common axes."""
    a, b = np.array([1.0, 4.0, 0.25]), np.array([9.0, 1.0, 0.0])
    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    cov_a, cov_b = (axes * a) @ axes.T, (axes * b) @ axes.T
    expected = 3 * 0.5**2 + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert scores.frechet_distance(np.zeros(3), cov_a, np.full(3, 0.5), cov_b) == pytest.approx(expected, abs=1e-9)


def test_covariances_that_do_not_commute():
    """2x2: tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)), M = A B."""
    cov_a, cov_b = np.array([[2.0, 0.3], [0.3, 0.5]]), np.array([[1.0, -0.4], [-0.4, 3.0]])
    product = cov_a @ cov_b
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(cov_a) + np.trace(cov_b) - 2 * root
    got = scores.frechet_distance(np.zeros(2), cov_a, np.zeros(2), cov_b)
    assert got == pytest.approx(expected, abs=1e-12)
    assert got == pytest.approx(scores.frechet_distance(np.zeros(2), cov_b, np.zeros(2), cov_a), abs=1e-12)


def test_of_a_set_with_itself_is_zero(rng):
    x = Moments.of(rng.standard_normal((50, 70)))  # fewer images than features: singular
    assert distance(x, x) == pytest.approx(0, abs=1e-6)


def test_moments_merge_into_one_pass(rng):
    f = (100 + rng.standard_normal((101, 5))).astype("f4")
    merged = Moments.of(f[:7]).merge(Moments.of(f[7:60])).merge(Moments.of(f[60:]))
    np.testing.assert_allclose(merged.mean, f.astype("f8").mean(0), rtol=1e-12)
    np.testing.assert_allclose(merged.cov, np.cov(f.astype("f8").T), rtol=1e-7)


def test_inception_score_ends():
    """K sure classes in equal share give K; logits that do not depend on the image give 1."""
    sure = 1000.0 * np.eye(5)[np.arange(100) % 5]
    assert scores.inception_score(sure, splits=4) == pytest.approx((5, 0))
    assert scores.inception_score(np.ones((100, 5)), splits=4) == pytest.approx((1, 0))
    in_order = sure[np.argsort(np.arange(100) % 5)]  # sequential splits of sorted classes hold one class each
    assert scores.inception_score(in_order, splits=5)[0] == pytest.approx(1)


@pytest.fixture
def torch_fidelity():
    with np.load(RECORDED / "torch_fidelity_scores.npz", allow_pickle=False) as f:
        return dict(f)


def test_frechet_distance_and_inception_score_are_torch_fidelitys(torch_fidelity):
    f = torch_fidelity
    assert distance(Moments.of(f["a"]), Moments.of(f["b"])) == pytest.approx(float(f["fid"]), rel=1e-6)
    want = (float(f["is_mean"]), float(f["is_std"]))
    assert scores.inception_score(f["logits"], splits=10) == pytest.approx(want, rel=1e-6)


def test_kernel_distance_is_torch_fidelitys(torch_fidelity):
    a, b = torch_fidelity["a"], torch_fidelity["b"]
    got = scores.kernel_distance(a, b, np.random.RandomState(2020), subsets=7, size=50)
    assert got == pytest.approx((float(torch_fidelity["kid_mean"]), float(torch_fidelity["kid_std"])), rel=1e-6)


def test_precision_and_recall_are_torch_fidelitys(torch_fidelity):
    a, b = torch_fidelity["a"], torch_fidelity["b"]
    want = (float(torch_fidelity["precision"]), float(torch_fidelity["recall"]))
    assert want[0] != want[1]  # or a swap would not show
    assert scores.precision_recall(a, b, k=3, block=64) == pytest.approx(want, abs=1e-6)


def test_a_resample_of_precision_and_recall_is_that_of_its_fakes(torch_fidelity):
    """Without one fake: precision counts the rest, and recall what the rest of the balls covers."""
    a, b = torch_fidelity["a"], torch_fidelity["b"]
    weights = np.ones((3, len(a)))
    weights[1, : len(a) // 2] = 0
    weights[2, len(a) // 2 :] = 2
    precision, recall = scores.resampled_precision_recall(a, b, weights, block=64)
    assert (precision[0], recall[0]) == pytest.approx(scores.precision_recall(a, b))
    square = lambda x, y: ((x[:, None] - y[None]) ** 2).sum(-1)  # noqa: E731
    around = np.sort(square(a, a), 1)[:, 3]
    half = (square(b, a[len(a) // 2 :]) <= around[len(a) // 2 :]).any(1).mean()
    assert recall[1] - recall[2] == pytest.approx(half - recall[0]) and recall[1:].mean() == pytest.approx(recall[0])
    hit = (square(a, b) <= np.sort(square(b, b), 1)[:, 3]).any(1)
    assert precision[1] == pytest.approx(hit[len(a) // 2 :].mean())
    assert precision[2] == pytest.approx((hit.sum() + hit[len(a) // 2 :].sum()) / weights[2].sum())


def test_too_few_for_a_third_neighbour(torch_fidelity):
    a, b = torch_fidelity["a"], torch_fidelity["b"]
    for fake, real in ((a[:3], b), (a, b[:3])):
        with pytest.raises(InputError, match="need 4 images a side for a neighbour 3: there are 3"):
            scores.precision_recall(fake, real)
    scores.precision_recall(a[:4], b[:4])


def test_kernel_distance_of_one_distribution_is_about_zero(rng):
    """The estimator is unbiased: below zero as often as above."""
    a, b = rng.standard_normal((2, 400, 6))
    mean, _ = scores.kernel_distance(a, b, rng, subsets=20, size=200)
    shifted, _ = scores.kernel_distance(a, b + 0.5, rng, subsets=20, size=200)
    assert abs(mean) < 0.1 * shifted
