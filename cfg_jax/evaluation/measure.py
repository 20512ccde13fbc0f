"""Everything that is measured of N images while they stream by, and how far it spreads over resamples of them."""

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from cfg_jax.evaluation import metrics, scores
from cfg_jax.evaluation.references import Reference

if TYPE_CHECKING:  # no network is needed to sum up
    from cfg_jax.evaluation.features import Extracted


class Tally:
    """All metrics of N images and of `bootstrap` resamples of them.

    labels is int [N], or None where classes are not known: scores that need them are left out then. `data` is the data
    set's name, for scores of the images themselves. `splits` is the parts of IS, which are consecutive images; `order`,
    int [N], has the place of each image where they do not come in the order that is meant. `neighbours` keeps all
    features, for KID, precision and recall.
    """

    def __init__(
        self,
        num_images: int,
        labels: np.ndarray | None,
        data: str,
        *,
        splits: int,
        bootstrap: int = 0,
        seed: int = 0,
        neighbours: bool = False,
        order: np.ndarray | None = None,
    ) -> None:
        self.labels, self.data, self.num_images, self.splits = labels, data, num_images, splits
        self.order = np.arange(num_images) if order is None else order
        rng = np.random.default_rng(seed)
        # labels in equal shares stay so; drawn at random, they are a part of the chance
        groups = labels if labels is not None and np.ptp(np.unique_counts(labels).counts) <= 1 else np.zeros(num_images)
        self.index = np.stack([np.arange(num_images), *(resample(groups, rng) for _ in range(bootstrap))])
        self.weights = self._counts(np.zeros(num_images, int), 1)
        self.count, self.neighbours, self.metrics = 0, neighbours, None

    def _counts(self, part, splits):
        """[(1 + bootstrap) * splits, N]: how often image j stands in this part of this resample."""
        rows = np.arange(len(self.index))[:, None] * splits + part
        shape = len(self.index) * splits, self.num_images
        ones = np.ones(self.index.size)
        return sparse.csc_array((ones, (rows.ravel(), self.index.ravel())), shape=shape)

    def _of(self, extracted):
        """The metrics of what the networks give, in a row's order."""
        part = scores.split_of(self.num_images, self.splits)[self.order]
        shuffled = np.empty_like(part)  # as torch-fidelity
        shuffled[np.random.RandomState(2020).permutation(self.num_images)] = part
        of_part = {"is": part, "isc": shuffled}  # consecutive, as ADM's evaluator
        parts = {measure: self._counts(of, self.splits) for measure, of in of_part.items()}
        # the first distance's spread is asked for
        found = [metrics.Distance(name, spread=i == 0) for i, name in enumerate(extracted.distances)]
        if self.neighbours:
            found.append(metrics.Neighbours(next(iter(extracted.distances))))
        for name in extracted.logits:
            found.append(metrics.InceptionScore(name, parts[scores.Name.parse(name).measure], self.splits))
        found.append(metrics.Saturated(self.data, self.num_images))
        if self.labels is not None:
            found += [metrics.Classified(name, self.num_images) for name in extracted.class_logits]
            found.append(metrics.Variety(self.data, np.unique(self.labels)))
        return found

    def add(self, uint8: np.ndarray, extracted: "Extracted") -> None:
        """Take the next images, uint8 [n, H, W, C] in order, and what the networks give of them."""
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
        """Return {name: values} and {name: spread}; a name is measure_of@N, as in fid_inception@50000.

        Values are [1 + bootstrap], those of the images themselves first. The spread is the one in a score's definition,
        as over the parts of IS. real_features [M, D] of the first distance are for KID, precision and recall.
        """
        values, spreads = {}, {}
        for metric in self.metrics or ():
            of_metric, spread = metric.compute(reference, real_features)
            values |= {f"{name}@{self.num_images}": np.asarray(value) for name, value in of_metric.items()}
            spreads |= {f"{name}@{self.num_images}": value for name, value in spread.items()}
        return values, spreads


def resample(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return bootstrap indices [N]: each image gives way to a random one with the same of the labels [N].

    They depend on the labels and the seed alone, so that differences between cells are paired.
    """
    index = np.empty(len(labels), int)
    for c in np.unique(labels):
        own = np.flatnonzero(labels == c)
        index[own] = rng.choice(own, len(own))
    return index
