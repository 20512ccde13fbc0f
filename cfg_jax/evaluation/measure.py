"""Everything that is measured of N images while they stream by, and how far it spreads over resamples of them.

Memory does not grow with N, except that KID, precision and recall keep the features of all images.
"""

import logging
from collections import defaultdict

import numpy as np
from scipy import sparse

from cfg_jax.evaluation import scores
from cfg_jax.evaluation.moments import Moments

log = logging.getLogger(__name__)


class Tally:
    """Sums over the images and over `bootstrap` resamples of them, each a row of counts: how often an image is in it.

    labels is int [N], or None where classes are not known: what needs them is not measured then. neighbours: keep
    features for KID, precision and recall.
    """

    def __init__(self, num_images, labels, data, *, splits, bootstrap=0, seed=0, neighbours=False):
        self.labels, self.data, self.num_images, self.splits = labels, data, num_images, splits
        rng = np.random.default_rng(seed)
        # labels in equal shares stay so; drawn at random, they are a part of the chance
        groups = labels if labels is not None and np.ptp(np.unique_counts(labels).counts) <= 1 else np.zeros(num_images)
        self.index = np.stack([np.arange(num_images), *(resample(groups, rng) for _ in range(bootstrap))])
        self.weights = self._counts(np.zeros(num_images, int), 1)
        part = scores.split_of(num_images, splits)
        self.parts = {"is": self._counts(part, splits)}  # consecutive, as ADM's evaluator
        shuffled = np.empty_like(part)  # as torch-fidelity
        shuffled[np.random.RandomState(2020).permutation(num_images)] = part
        self.parts["isc"] = self._counts(shuffled, splits)
        self.count, self.sums, self.moments = 0, defaultdict(float), {}
        self.kept = [] if neighbours else None

    def _counts(self, part, splits):
        """[(1 + bootstrap) * splits, N]: how often image j stands in this part of this resample."""
        rows = np.arange(len(self.index))[:, None] * splits + part
        shape = len(self.index) * splits, self.num_images
        ones = np.ones(self.index.size)
        return sparse.csc_array((ones, (rows.ravel(), self.index.ravel())), shape=shape)

    def add(self, uint8, extracted):
        """The next images, in order, and their features."""
        here = slice(self.count, self.count + len(uint8))
        self.count = here.stop
        weights = self.weights[:, here].toarray()
        for i, (name, features) in enumerate(extracted.distances.items()):
            for b, weight in enumerate(weights if i == 0 else weights[:1]):  # the first distance's spread is asked for
                part = Moments.of(features, weight)
                self.moments[name, b] = self.moments[name, b].merge(part) if (name, b) in self.moments else part
            if i == 0 and self.kept is not None:
                self.kept.append(np.asarray(features, np.float32))
        for name, logits in extracted.logits.items():
            p, negative_entropy = scores.probabilities(logits)
            onto = self.parts[name.partition("_")[0]][:, here]
            self.sums[name, "p"] += onto @ p
            self.sums[name, "negative entropy"] += onto @ negative_entropy
        self.sums["saturated", self.data] += weights @ np.isin(uint8, (0, 255)).mean((1, 2, 3))
        if self.labels is None:
            return
        labels = self.labels[here]
        for name, logits in extracted.class_logits.items():
            log_p = scores.log_softmax(logits)
            self.sums["accuracy", name] += weights @ (log_p.argmax(1) == labels)
            self.sums["log_p_class", name] += weights @ log_p[np.arange(len(labels)), labels]
        for c in np.unique(labels):
            own = labels == c
            x = coarse(uint8[own]).reshape(own.sum(), -1)
            self.sums["images", c] += weights[:, own].sum(1)
            self.sums["pixels", c] += weights[:, own] @ x
            self.sums["squared pixels", c] += weights[:, own] @ x**2

    def scores(self, reference, real_features=None):
        """{measure_of@N: [1 + bootstrap]}, the images' own first, and {measure_of@N: its spread by its definition}.

        real_features [M, D] of the first distance, for KID, precision and recall.
        """
        values, spreads = {}, {}
        for (name, _), moments in self.moments.items():
            if name in reference.moments:
                values.setdefault(name, []).append(reference.distance(name, moments))
        if self.kept is not None:
            fake, of = np.concatenate(self.kept), next(iter(self.moments))[0].partition("_")[2]
            mean, spreads[f"kid_{of}"] = scores.kernel_distance(fake, real_features, np.random.RandomState(2020))
            precision, recall = scores.precision_recall(fake, real_features)
            values |= {f"kid_{of}": [mean], f"precision_{of}": [precision], f"recall_{of}": [recall]}
        resamples = len(self.index)
        for name in dict.fromkeys(key[0] for key in self.sums if key[1] == "p"):
            p, negative_entropy = self.sums[name, "p"], self.sums[name, "negative entropy"]
            counts = self.parts[name.partition("_")[0]].sum(1)
            each = scores.split_scores(p, negative_entropy, counts).reshape(resamples, self.splits)
            values[name], spreads[name] = each.mean(1), float(each[0].std())
        for kind, of in self.sums:
            if kind in ("accuracy", "log_p_class", "saturated"):
                values[f"{kind}_{of}"] = self.sums[kind, of] / self.num_images
        if self.labels is not None:
            values[f"variety_{self.data}"] = self._variety()
        named = {f"{name}@{self.num_images}": np.asarray(value) for name, value in values.items()}
        return named, {f"{name}@{self.num_images}": value for name, value in spreads.items()}

    def _variety(self):
        """Mean over classes and pixels of the standard deviation within a class, in units of half the grey scale."""
        deviations = []
        for c in np.unique(self.labels):
            count = np.maximum(self.sums["images", c], 1)[:, None]
            mean, square = self.sums["pixels", c] / count, self.sums["squared pixels", c] / count
            deviations.append(np.sqrt(np.maximum(square - mean**2, 0)).mean(1))
        present = np.array([self.sums["images", c] > 0 for c in np.unique(self.labels)])  # a resample may lack a class
        return np.sum(deviations, axis=0) / present.sum(0) / 127.5


def coarse(uint8, side=32):
    """Pictures averaged down to at most about `side` pixels a side, float64: sums over them stay small."""
    k = max(1, uint8.shape[1] // side)
    n, height, width, channels = uint8.shape
    x = uint8[:, : height // k * k, : width // k * k].astype(np.float64)
    return x.reshape(n, height // k, k, width // k, k, channels).mean((2, 4))


def warn_of_rank(name, what, count, width):
    """Too few images for a covariance of full rank make a Frechet distance far too large."""
    if count <= width:
        line = "%s: %d %s give a covariance of rank %d of %d, and a distance that says little: take more than %d"
        log.warning(line, name, count, what, count - 1, width, width)


def resample(labels, rng):
    """Bootstrap indices [N]: each image gives way to a random one of its own group.

    They depend on the labels and the seed alone: differences between cells are paired.
    """
    index = np.empty(len(labels), int)
    for c in np.unique(labels):
        own = np.flatnonzero(labels == c)
        index[own] = rng.choice(own, len(own))
    return index
