"""All scores of N images, which are added batch by batch, and the spread of the scores over resamples."""

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from cfg_jax.evaluation import metrics, scores
from cfg_jax.evaluation.references import Reference

if TYPE_CHECKING:  # the sums need no network
    from cfg_jax.evaluation.features import Extracted


class Tally:
    """All scores of N images and of `bootstrap` resamples of them.

    labels is int [N], or None if they are not known; scores that need them are left out then. `data` is the data set's
    name, for scores of the images themselves. `splits` is the number of parts of IS, each of consecutive images.
    `order`, int [N], is the place of each image, if they are added in another order. `neighbours` keeps all features,
    for KID, precision and recall.
    """

    def __init__(
        self, num_images: int, labels: np.ndarray | None, data: str, *, splits: int, bootstrap: int = 0, seed: int = 0,
        neighbours: bool = False, order: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.labels, self.data, self.num_images, self.splits = labels, data, num_images, splits
        self.order = np.arange(num_images) if order is None else order
        rng = np.random.default_rng(seed)
        # labels in equal shares stay in equal shares; labels drawn at random are resampled with their images
        balanced = labels is not None and np.ptp(np.unique_counts(labels).counts) <= 1
        groups = labels if balanced else np.zeros(num_images)
        self.index = np.stack([np.arange(num_images), *(resample(groups, rng) for _ in range(bootstrap))])
        self.weights = self._counts(np.zeros(num_images, int), 1)
        self.count, self.neighbours, self.metrics = 0, neighbours, None

    def _counts(self, part, splits):
        """Return [(1 + bootstrap) * splits, N]: how often image j is in this part of this resample."""
        rows = np.arange(len(self.index))[:, None] * splits + part
        shape = len(self.index) * splits, self.num_images
        ones = np.ones(self.index.size)
        return sparse.csc_array((ones, (rows.ravel(), self.index.ravel())), shape=shape)

    def _of(self, extracted):
        """Return the metrics for what the networks extract, in the order of a row."""
        part = scores.split_of(self.num_images, self.splits)[self.order]
        shuffled = np.empty_like(part)
        shuffled[np.random.RandomState(2020).permutation(self.num_images)] = part
        # consecutive as in ADM's evaluator, shuffled as in torch-fidelity
        parts = {"is": self._counts(part, self.splits), "isc": self._counts(shuffled, self.splits)}
        # only the first distance has resamples
        found = [metrics.Distance(name, spread=i == 0) for i, name in enumerate(extracted.distances)]
        if self.neighbours:
            found.append(metrics.Neighbours(next(iter(extracted.distances))))
        for name in extracted.logits:
            found.append(metrics.InceptionScore(name, parts[scores.measure_and_of(name)[0]], self.splits))
        found.append(metrics.Saturated(self.data, self.num_images))
        if self.labels is not None:
            found += [metrics.Classified(name, self.num_images) for name in extracted.class_logits]
            found.append(metrics.Variety(self.data, np.unique(self.labels)))
        return found

    def add(self, uint8: np.ndarray, extracted: "Extracted") -> None:
        """Add the next images, uint8 [n, H, W, C] in order, and what the networks extract from them."""
        here = slice(self.count, self.count + len(uint8))
        self.count = here.stop
        self.metrics = self.metrics or self._of(extracted)
        seen = metrics.Seen(
            here, uint8, None if self.labels is None else self.labels[here], extracted.distances, extracted.logits,
            extracted.class_logits, self.weights[:, here].toarray(),
        )  # fmt: skip
        for metric in self.metrics:
            metric.update(seen)

    def scores(self, reference: Reference, real_features: np.ndarray | None = None) -> tuple[dict, dict]:
        """Return {name: values} and {name: spread}. A name has the form fid_inception@50000, with N at its end.

        Values are [1 + bootstrap], that of the images themselves first. The spread is the one in a score's definition,
        such as over the parts of IS. KID, precision and recall need real_features [M, D] of the first distance.
        """
        values, spreads = {}, {}
        for metric in self.metrics or ():
            of_metric, spread = metric.compute(reference, real_features)
            values |= {f"{name}@{self.num_images}": np.asarray(value) for name, value in of_metric.items()}
            spreads |= {f"{name}@{self.num_images}": value for name, value in spread.items()}
        return values, spreads


def resample(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return bootstrap indices [N]: each image is replaced by a random one with the same label, of labels [N].

    They depend only on the labels and the seed, so that differences between cells are paired.
    """
    index = np.empty(len(labels), int)
    for c in np.unique(labels):
        places = np.flatnonzero(labels == c)
        index[places] = rng.choice(places, len(places))
    return index
