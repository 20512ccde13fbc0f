"""Mergeable first and second moments of features, in float64."""

import logging
from dataclasses import dataclass

import numpy as np

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Moments:
    """Sums over N features of width D."""

    count: int
    sum: np.ndarray  # [D]
    outer: np.ndarray  # [D, D], sum of f f^T

    @classmethod
    def of(cls, features: np.ndarray, weights: np.ndarray | None = None) -> "Moments":
        """Sum features [N, D], each counted `weights` [N] times, as a bootstrap's resample does."""
        f = np.asarray(features, np.float64)
        if weights is None:
            return cls(len(f), f.sum(0), f.T @ f)
        f, weights = f[weights > 0], weights[weights > 0]
        weighted = f * weights[:, None]
        return cls(int(weights.sum()), weighted.sum(0), f.T @ weighted)

    def merge(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.sum + other.sum, self.outer + other.outer)

    @property
    def mean(self) -> np.ndarray:
        """The mean, [D]."""
        return self.sum / self.count

    @property
    def cov(self) -> np.ndarray:
        """The covariance, [D, D], divided by N - 1 as in numpy.cov and the public FID codes."""
        return (self.outer - self.count * np.outer(self.mean, self.mean)) / (self.count - 1)


def warn_of_rank(name: str, what: str, count: int, width: int) -> None:
    """Log a warning if `count` images are too few for a covariance of full rank `width`.

    The Frechet distance would be far too large.
    """
    if count <= width:
        line = "%s: %d %s give a covariance of rank %d of %d, and a distance that says little: take more than %d"
        log.warning(line, name, count, what, count - 1, width, width)
