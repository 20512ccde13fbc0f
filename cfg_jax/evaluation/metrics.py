"""One class for each score: update adds the next images, compute gives the score of all.

Each sums over the images themselves and over every resample at once. A resample is a row of counts: how often each
image is in it. compute returns {name: [resamples]}, with the value of the images themselves first, and {name: spread}
for scores whose definition has a spread. Memory does not grow with the number of images, except in Neighbours.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import log_softmax

from cfg_jax.evaluation import scores
from cfg_jax.evaluation.moments import Moments
from cfg_jax.evaluation.references import Reference


@dataclass(frozen=True)
class Seen:
    """The next images, in order, with the networks' features and logits of them."""

    here: slice  # their places among all images
    uint8: np.ndarray  # [n, H, W, C]
    labels: Any  # int [n], or None
    distances: dict[str, np.ndarray]
    logits: dict[str, np.ndarray]
    class_logits: dict[str, np.ndarray]
    weights: np.ndarray  # [resamples, n]


class Distance:
    """A Frechet distance of the images, and with `spread` of the resamples too."""

    def __init__(self, name: str, spread: bool) -> None:
        self.name, self.spread, self.moments = name, spread, None

    def update(self, seen: Seen) -> None:
        parts = [Moments.of(seen.distances[self.name], w) for w in (seen.weights if self.spread else seen.weights[:1])]
        self.moments = parts if self.moments is None else [m.merge(p) for m, p in zip(self.moments, parts, strict=True)]

    def compute(self, reference: Reference, real_features: np.ndarray | None) -> tuple[dict, dict]:
        """Return the distance, or nothing if the reference lacks its moments, as most published files do for sFID."""
        if self.moments is None or self.name not in reference.moments:
            return {}, {}
        return {self.name: [reference.distance(self.name, m) for m in self.moments]}, {}


class Neighbours:
    """KID, precision and recall by the features of one distance, which are all kept."""

    def __init__(self, distance: str) -> None:
        self.distance, self.kept, self.weights = distance, [], []
        _, self.of = scores.measure_and_of(distance)

    def update(self, seen: Seen) -> None:
        self.kept.append(np.asarray(seen.distances[self.distance], np.float32))
        self.weights.append(seen.weights)

    def compute(self, reference: Reference, real_features: np.ndarray | None) -> tuple[dict, dict]:
        fake = np.concatenate(self.kept)
        mean, spread = scores.kernel_distance(fake, real_features, np.random.RandomState(2020))
        precision, recall = scores.resampled_precision_recall(fake, real_features, np.concatenate(self.weights, axis=1))
        values = {f"kid_{self.of}": [mean], f"precision_{self.of}": precision, f"recall_{self.of}": recall}
        return values, {f"kid_{self.of}": spread}


@dataclass
class InceptionScore:
    """IS by one network's logits; its spread is the standard deviation over its parts."""

    name: str
    parts: sparse.csc_array  # [resamples * splits, N]: how often image j is in this part of this resample
    splits: int
    p: np.ndarray | float = 0.0
    negative_entropy: np.ndarray | float = 0.0

    def update(self, seen: Seen) -> None:
        p, negative_entropy = scores.probabilities(seen.logits[self.name])
        onto = self.parts[:, seen.here]
        self.p += onto @ p
        self.negative_entropy += onto @ negative_entropy

    def compute(self, reference: Reference, real_features: np.ndarray | None) -> tuple[dict, dict]:
        each = scores.split_scores(self.p, self.negative_entropy, self.parts.sum(1)).reshape(-1, self.splits)
        return {self.name: each.mean(1)}, {self.name: float(each[0].std())}


@dataclass
class Saturated:
    """The share of values at 0 or 255."""

    data: str
    num_images: int
    total: np.ndarray | float = 0.0

    def update(self, seen: Seen) -> None:
        self.total += seen.weights @ np.isin(seen.uint8, (0, 255)).mean((1, 2, 3))

    def compute(self, reference: Reference, real_features: np.ndarray | None) -> tuple[dict, dict]:
        return {f"saturated_{self.data}": self.total / self.num_images}, {}


@dataclass
class Classified:
    """Accuracy, and the mean log-probability of an image's label, by one classifier of the data's classes."""

    classifier: str
    num_images: int
    right: np.ndarray | float = 0.0
    log_p: np.ndarray | float = 0.0

    def update(self, seen: Seen) -> None:
        log_p = log_softmax(np.asarray(seen.class_logits[self.classifier], np.float64), axis=1)
        self.right += seen.weights @ (log_p.argmax(1) == seen.labels)
        self.log_p += seen.weights @ log_p[np.arange(len(log_p)), seen.labels]

    def compute(self, reference: Reference, real_features: np.ndarray | None) -> tuple[dict, dict]:
        sums = {"accuracy": self.right, "log_p_class": self.log_p}
        return {f"{name}_{self.classifier}": total / self.num_images for name, total in sums.items()}, {}


@dataclass
class Variety:
    """The standard deviation within a class, averaged over classes and pixels, in units of half the grey scale."""

    data: str
    classes: np.ndarray
    sums: dict[int, list] = field(default_factory=dict)  # {class: [count, sum of pixels, sum of pixels squared]}

    def update(self, seen: Seen) -> None:
        for c in np.unique(seen.labels):
            mine = seen.labels == c
            x, weights = coarse(seen.uint8[mine]).reshape(mine.sum(), -1), seen.weights[:, mine]
            parts = [weights.sum(1), weights @ x, weights @ x**2]
            self.sums[c] = [a + b for a, b in zip(self.sums[c], parts, strict=True)] if c in self.sums else parts

    def compute(self, reference: Reference, real_features: np.ndarray | None) -> tuple[dict, dict]:
        deviations = []
        for images, pixels, squared in (self.sums[c] for c in self.classes):
            count = np.maximum(images, 1)[:, None]
            deviations.append(np.sqrt(np.maximum(squared / count - (pixels / count) ** 2, 0)).mean(1))
        present = np.array([self.sums[c][0] > 0 for c in self.classes])  # a resample may lack a class
        return {f"variety_{self.data}": np.sum(deviations, axis=0) / present.sum(0) / 127.5}, {}


def coarse(uint8: np.ndarray) -> np.ndarray:
    """Return pictures averaged down to about 32 pixels a side, float64, so that sums over them stay small."""
    k = max(1, uint8.shape[1] // 32)
    n, height, width, channels = uint8.shape
    x = uint8[:, : height // k * k, : width // k * k].astype(np.float64)
    return x.reshape(n, height // k, k, width // k, k, channels).mean((2, 4))
