"""Mergeable first and second moments of features, in float64."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Moments:
    count: int
    sum: np.ndarray  # [D]
    outer: np.ndarray  # [D, D], sum of f f^T

    @classmethod
    def of(cls, features):
        """Moments of features [N, D]."""
        f = np.asarray(features, np.float64)
        return cls(len(f), f.sum(0), f.T @ f)

    def merge(self, other):
        return Moments(self.count + other.count, self.sum + other.sum, self.outer + other.outer)

    @property
    def mean(self):
        return self.sum / self.count

    @property
    def cov(self):
        """With N - 1, as numpy.cov and the public FID codes."""
        return (self.outer - self.count * np.outer(self.mean, self.mean)) / (self.count - 1)
