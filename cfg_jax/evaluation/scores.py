"""Scores of features and logits, in float64 on the host."""

import numpy as np
from scipy.special import log_softmax

from cfg_jax.errors import InputError

WIDTHS = {"fid_inception": 2048, "sfid_inception": 2023, "fd_mixed8": 1280}  # features of each Frechet distance


def measure_and_of(name: str) -> tuple[str, str]:
    """Return the measure in a score's name, and the network or data that it is of: "fid" and "inception"."""
    measure, _, of = name.partition("_")
    return measure, of


def frechet_distance(
    mu_a: np.ndarray, cov_a: np.ndarray, mu_b: np.ndarray, cov_b: np.ndarray, root_a: np.ndarray | None = None
) -> float:
    """Return |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), which is FID for Inception's features.

    Means are [D], covariances [D, D]. root_a is root(cov_a) if it is known. The last trace is the sum of the singular
    values of C_a^1/2 C_b^1/2. They need no root of their own, under which an eigenvalue's rounding would grow.
    """
    mu_a, cov_a, mu_b, cov_b = (np.asarray(a, np.float64) for a in (mu_a, cov_a, mu_b, cov_b))
    root_a = root(cov_a) if root_a is None else root_a
    cross = np.linalg.svd(root_a @ root(cov_b), compute_uv=False)
    trace = np.trace(cov_a) + np.trace(cov_b) - 2 * cross.sum()
    return float(np.square(mu_a - mu_b).sum() + trace)


def root(cov: np.ndarray) -> np.ndarray:
    """Return C^1/2 of a covariance [D, D]. Eigenvalues within rounding of 0 count as 0: their root would be 1e-8."""
    values, vectors = np.linalg.eigh(np.asarray(cov, np.float64))
    rounding = len(values) * np.finfo(np.float64).eps * max(values[-1], 0)
    return (vectors * np.sqrt(np.where(values > rounding, values, 0))) @ vectors.T


def inception_score(logits: np.ndarray, splits: int = 10) -> tuple[float, float]:
    """Return mean and std of exp E_x KL(p(y|x) || p(y)) over `splits` consecutive parts of logits [N, K]."""
    part = split_of(len(logits), splits)
    p, negative_entropy = probabilities(logits)
    onto = np.equal.outer(np.arange(splits), part).astype(np.float64)
    values = split_scores(onto @ p, onto @ negative_entropy, onto.sum(1))
    return float(np.mean(values)), float(np.std(values))


def split_of(count: int, splits: int) -> np.ndarray:
    """Return the part of each image, int [count]: part i begins at image i count / splits, rounded down."""
    bounds = np.arange(1, splits) * count // splits
    return np.searchsorted(bounds, np.arange(count), side="right")


def probabilities(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return p [N, K] and sum p log p [N], float64, of logits [N, K]."""
    log_p = log_softmax(np.asarray(logits, np.float64), axis=1)
    p = np.exp(log_p)
    return p, np.where(p > 0, p * log_p, 0).sum(1)  # 0 log 0 is 0


def split_scores(sum_p: np.ndarray, sum_negative_entropy: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return exp E_x KL(p(y|x) || p(y)) [...] from the sums over a part's images, [..., K] and [...]."""
    marginal = sum_p / count[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(marginal > 0, marginal * np.log(marginal), 0).sum(-1)
    return np.exp(sum_negative_entropy / count + entropy)


def kernel_distance(
    a: np.ndarray, b: np.ndarray, rng: np.random.RandomState, subsets: int = 100, size: int = 1000
) -> tuple[float, float]:
    """Return mean and std of KID: unbiased MMD^2, kernel (x y / D + 1)^3, on random subsets of features [N, D]."""
    size = min(size, len(a), len(b))
    values = []
    for _ in range(subsets):
        x, y = (np.asarray(f[rng.choice(len(f), size, replace=False)], np.float64) for f in (a, b))
        same = [k.sum() - k.trace() for k in (_cubic(x, x), _cubic(y, y))]
        values.append(sum(same) / (size * (size - 1)) - 2 * _cubic(x, y).mean())
    return float(np.mean(values)), float(np.std(values))


def _cubic(x, y):
    kernel = x @ y.T / x.shape[1] + 1
    return kernel * kernel * kernel


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return the root of 2 E|x - y| - E|x - x'| - E|y - y'| of points [N, D] and [M, D]. Szekely & Rizzo 2013.

    For two draws from one distribution it is not 0.
    """
    across, within_x, within_y = (np.sqrt(_squares(a, b)).mean() for a, b in ((x, y), (x, x), (y, y)))
    return max(2 * across - within_x - within_y, 0.0) ** 0.5


def precision_recall(fake: np.ndarray, real: np.ndarray, k: int = 3, block: int = 1000) -> tuple[float, float]:
    """Return improved precision and recall, 0..1, of features [N, D] and [M, D].

    Precision is the share of `fake` that lies in a ball around any `real`, whose radius is the distance to its k-th
    neighbour. Recall swaps the two. Distances are held for `block` rows at a time. Raises InputError for k or fewer
    rows, which have no k-th neighbour.
    """
    precision, recall = resampled_precision_recall(fake, real, np.ones((1, len(fake))), k, block)
    return float(precision[0]), float(recall[0])


def resampled_precision_recall(
    fake: np.ndarray, real: np.ndarray, weights: np.ndarray, k: int = 3, block: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall of every resample, [resamples] each, as precision_recall does for one.

    weights [resamples, N] is how often each fake is in a resample. The first resample has every fake once, and the
    balls of the fakes are always those of all fakes. A bootstrap's resample has fewer different fakes, which cover
    less; the mean of this effect is subtracted from recall, since only the spread of the resamples is used.
    """
    fewest = min(len(fake), len(real))
    if fewest <= k:
        raise InputError(f"precision and recall need {k + 1} images a side for a neighbour {k}: there are {fewest}")
    around_real, around_fake = _radii(real, k, block), _radii(fake, k, block)
    hit = np.concatenate([(_squares(part, real) <= around_real).any(1) for part in _parts(fake, block)])
    there = (weights > 0).T.astype(np.float32)
    covered = np.zeros(len(weights))
    for part in _parts(real, block):
        inside = (_squares(part, fake) <= around_fake).astype(np.float32)
        covered += (inside @ there > 0).sum(0)
    recall = covered / len(real)
    recall[1:] += recall[0] - recall[1:].mean() if len(recall) > 1 else 0
    return weights @ hit / weights.sum(1), recall


def _parts(a, block):
    return (a[i : i + block] for i in range(0, len(a), block))


def _radii(centres, k, block):
    """Return the squared distance of each centre to its k-th nearest neighbour."""
    return np.concatenate([np.partition(_squares(part, centres), k, axis=1)[:, k] for part in _parts(centres, block)])


def _squares(a, b):
    """Return squared distances [len(a), len(b)]."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.maximum(np.square(a).sum(1)[:, None] - 2 * a @ b.T + np.square(b).sum(1), 0)
