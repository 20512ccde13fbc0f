"""Classifiers of a data set's own classes: trained here on the pictures or on a network's features, or given."""

import logging
import shutil
import zipfile
from functools import cached_property
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np

from cfg_jax.errors import InputError
from cfg_jax.evaluation.references import WIDTHS
from cfg_jax.files import claimed, digest, digest_json, to_make, write_npz
from cfg_jax.images import in_batches, to_float
from cfg_jax.models import classifier
from cfg_jax.progress import progress
from cfg_jax.sampling.model import load_classifier

log = logging.getLogger(__name__)
HELD_OUT = 0.2
EPOCHS, MIN_STEPS, MAX_STEPS, BATCH_SIZE = 5, 300, 5000, 128
PROBED, PROBE_PART, PROBE_C = 20_000, 1000, 0.01  # pictures, pictures, 1 / (L2 penalty) for unit variance


class TrainedHere:
    """A classifier of the data's classes, trained once on a part of `source` and kept in `cache`."""

    def __init__(self, name, source, index, cache):
        self.name, self.source, self.index, self.cache = name, source, index, Path(cache)
        with claimed(self.cache, wait=True):  # another job of the same sweep may be training it
            self.accuracy = self._read() if self.cache.exists() else self._train()
        self.digest = digest(*(np.asarray(self.params[name]) for name in sorted(self.params)))

    def _train(self):
        """Set params -> accuracy on images held out."""
        labels, num_classes = self.source.labels, len(self.source.card.class_names)
        order = np.random.default_rng(0).permutation(self.index)
        held_out, rest = np.split(order, [max(1, int(HELD_OUT * len(order)))])
        self.params = self.fit(rest)
        accuracy = float((np.argmax(self.logits_of(held_out), 1) == labels[held_out]).mean())
        chance = 1 / num_classes
        if accuracy < min(3 * chance, (1 + chance) / 2):
            raise InputError(
                f"the classifier {self.name} gets {accuracy:.1%} of {len(held_out)} held-out pictures right, chance is "
                f"{chance:.1%}: its scores would mean nothing; {self.remedy}"
            )
        log.info("classifier %s: %.2f %% of %d held-out pictures", self.name, 100 * accuracy, len(held_out))
        write_npz(self.cache, {**self.params, "accuracy": np.float64(accuracy), "data": np.array(self.made_from)})
        return accuracy

    def _read(self):
        """Set params -> accuracy, as they were kept."""
        try:
            with np.load(self.cache, allow_pickle=False) as file:
                params = dict(file)
            accuracy, data = float(params.pop("accuracy")), str(params.pop("data"))
            if data == self.made_from and {k: a.shape for k, a in params.items()} != self.shapes():
                raise ValueError("it has other arrays")
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{self.cache} cannot be read ({error}): remove it, it is trained again") from error
        if data != self.made_from:
            raise InputError(
                f"{self.cache} was trained on other data or features than {self.name}: choose another sweep directory"
            )
        self.params = params
        return accuracy


class ClassifierFeatures(TrainedHere):
    """A small convolutional network of the data set itself: a feature space, and logits.

    Its Frechet distance is no FID: it is named fid_<data set>@N and compares only with itself.
    """

    remedy = "set config.eval.features=inception"

    def __init__(self, source, cache):
        num_classes = len(source.card.class_names)
        self.net = classifier.Classifier(num_classes, num_features=max(64, num_classes))
        self.apply = jax.jit(self.net.apply)
        self.made_from = source.card.digest
        super().__init__(source.card.name, source, np.arange(len(source)), cache)

    @cached_property
    def placed(self):
        return jax.device_put(flax.traverse_util.unflatten_dict(self.params, sep="/"))

    def __call__(self, images):
        """uint8 [N, H, W, C] -> features float32 [N, D], logits float32 [N, K]."""
        return in_batches(lambda part: self.apply(self.placed, to_float(part)), images, 128)

    def fit(self, index):
        num_steps = int(np.clip(EPOCHS * len(index) / BATCH_SIZE, MIN_STEPS, MAX_STEPS))
        params = classifier.train(
            self.source.images, self.source.labels, index, self.net, seed=0, num_steps=num_steps, batch_size=BATCH_SIZE
        )
        return jax.tree.map(np.asarray, flax.traverse_util.flatten_dict(params, sep="/"))

    def logits_of(self, index):
        return self(self.source.images[index])[1]

    def shapes(self):
        shapes = jax.eval_shape(self.net.init, jax.random.key(0), to_float(self.source.images[:1]))
        return {k: a.shape for k, a in flax.traverse_util.flatten_dict(shapes, sep="/").items()}


class Probe(TrainedHere):
    """Logistic regression on a network's features: IS and accuracy where its own logits are not at hand.

    It learns from up to PROBED training pictures, no more than the reference is of.
    """

    remedy = "take more pictures (config.eval.reference_images), or set config.eval.features=classifier"

    def __init__(self, network, distance, source, num_images, cache):
        self.network, self.distance = network, distance
        index = np.random.default_rng(0).permutation(len(source))[: min(num_images or len(source), PROBED)]
        self.made_from = digest_json([source.card.digest, len(index), network.digest])
        self.parts = Path(cache).with_name(f"features-{self.made_from}.parts")
        super().__init__(f"{source.card.name}_{distance.partition('_')[2]}", source, index, cache)
        shutil.rmtree(self.parts, ignore_errors=True)

    def __call__(self, features):
        """float32 [N, D] -> logits float32 [N, K]."""
        return features @ self.params["kernel"] + self.params["bias"]

    def fit(self, index):
        from sklearn.linear_model import LogisticRegression

        labels, num_classes = self.source.labels[index], len(self.source.card.class_names)
        absent = num_classes - len(np.unique(labels))
        if absent or num_classes == 1:
            lacks = f"no picture of {absent} of its {num_classes} classes" if absent else "one class"
            raise InputError(f"the classifier {self.name} has {lacks} to learn from: {self.remedy}")
        features = self.features_of(index)
        mean, scale = features.mean(0, dtype=float), features.std(0, dtype=float) + 1e-3
        normal = ((features - mean) / scale).astype(np.float32)
        found = LogisticRegression(C=PROBE_C, max_iter=500).fit(normal, labels)
        # of two classes it gives one row, their log-odds
        rows, bias = found.coef_ / scale, found.intercept_ - found.coef_ @ (mean / scale)
        if len(rows) == 1:
            rows, bias = np.concatenate([-rows, rows]) / 2, np.concatenate([-bias, bias]) / 2
        return {"kernel": rows.T.astype(np.float32), "bias": bias.astype(np.float32)}

    def logits_of(self, index):
        return self(self.features_of(index))

    def features_of(self, index):
        """[N, D] of pictures of the source, in parts that are kept until the classifier is whole."""
        stage = self.network.distances[self.distance]
        parts = {self.parts / f"{digest(p)}.npz": p for p in np.split(index, range(PROBE_PART, len(index), PROBE_PART))}
        paths = to_make(parts)
        for path in progress(paths, total=len(parts), desc=f"features for {self.name}", unit="part"):
            write_npz(path, {"features": self.network(self.source.images[parts[path]])[stage]})
        return np.concatenate([np.load(path, allow_pickle=False)["features"] for path in parts])

    def shapes(self):
        num_classes = len(self.source.card.class_names)
        return {"kernel": (WIDTHS[self.distance], num_classes), "bias": (num_classes,)}


class GivenClassifier:
    """A run that experiments.import_adm made of ADM's classifiers, at the clean end of its log-SNR."""

    def __init__(self, run_dir):
        model = load_classifier(run_dir)
        self.name, self.data, self.accuracy = Path(run_dir).name, model.config.data, None
        self.num_classes = self.data.num_classes
        self.params, self.clean = model.network.params, model.config.logsnr_max
        self.digest = model.digest
        self.apply = jax.jit(lambda params, z, logsnr: model.network.net.apply({"params": params}, z, logsnr))

    def __call__(self, images):
        def logits(part):
            return self.apply(self.params, to_float(part), np.full(len(part), self.clean, np.float32))

        return None, in_batches(logits, images, 64)

    def check(self, image_shape):
        own = (self.data.image_size, self.data.image_size, self.data.channels)
        if own != tuple(image_shape):
            raise InputError(
                f"the classifier {self.name} is of images {own}, these are {tuple(image_shape)}: name another"
            )
