"""uint8 images -> features and logits, by a network whose hash goes into every row."""

import hashlib
import logging
import zipfile
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np

from cfg_jax.errors import InputError
from cfg_jax.evaluation.moments import Moments
from cfg_jax.files import write_npz
from cfg_jax.images import to_float
from cfg_jax.models import classifier

log = logging.getLogger(__name__)
STEPS = 300
HELD_OUT = 0.2


class ClassifierFeatures:
    """A small classifier of the data set itself, trained once and kept in `cache`.

    Its Frechet distance is no FID: it is named fid_<data set>@N and compares only with itself.
    """

    def __init__(self, source, cache):
        self.net = classifier.Classifier(len(source.card.class_names))
        self.name = source.card.name
        self.source = source
        self.cache = Path(cache)
        self.apply = jax.jit(self.net.apply)
        self.params, self.accuracy = self._read() if self.cache.exists() else self._train()
        flat = flax.traverse_util.flatten_dict(self.params, sep="/")
        self.digest = digest(*(np.asarray(flat[name]) for name in sorted(flat)))

    def __call__(self, images, batch_size=600):
        """uint8 [N, H, W, C] -> features float32 [N, D], logits float32 [N, K]."""
        return self._run(self.params, images, batch_size)

    def _run(self, params, images, batch_size=600):
        parts = []
        for begin in range(0, len(images), batch_size):
            part = images[begin : begin + batch_size]
            filled = np.concatenate([part, np.repeat(part[-1:], batch_size - len(part), 0)])
            parts.append([np.asarray(a)[: len(part)] for a in self.apply(params, to_float(filled))])
        features, logits = zip(*parts, strict=True)
        return np.concatenate(features), np.concatenate(logits)

    @property
    def reference_digest(self):
        """Names what `reference` is computed from: these weights and these images."""
        return digest(self.digest, self.source.card.digest)

    def reference(self):
        """Moments of the training images."""
        return Moments.of(self(self.source.images)[0])

    def _train(self):
        images, labels = self.source.images, self.source.labels
        order = np.random.default_rng(0).permutation(len(labels))
        held_out, rest = np.split(order, [int(HELD_OUT * len(order))])
        params = classifier.train(images, labels, rest, self.net.num_classes, seed=0, num_steps=STEPS)
        _, logits = self._run(params, images[held_out])
        accuracy = float((np.argmax(logits, 1) == labels[held_out]).mean())
        log.info("feature classifier: %.2f %% of %d held-out %s", 100 * accuracy, len(held_out), self.name)
        flat = {k: np.asarray(v) for k, v in flax.traverse_util.flatten_dict(params, sep="/").items()}
        write_npz(self.cache, {**flat, "accuracy": np.float64(accuracy), "data": np.array(self.source.card.digest)})
        return params, accuracy

    def _read(self):
        try:
            with np.load(self.cache, allow_pickle=False) as file:
                params = dict(file)
            accuracy, data = float(params.pop("accuracy")), str(params.pop("data"))
            shapes = jax.eval_shape(self.net.init, jax.random.key(0), to_float(self.source.images[:1]))
            wanted = {k: a.shape for k, a in flax.traverse_util.flatten_dict(shapes, sep="/").items()}
            if data == self.source.card.digest and {k: a.shape for k, a in params.items()} != wanted:
                raise ValueError("it has other arrays")
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{self.cache} cannot be read ({error}): remove it, it is trained again") from error
        if data != self.source.card.digest:
            raise InputError(f"{self.cache} was trained on other data than {self.name}: choose another sweep directory")
        return flax.traverse_util.unflatten_dict(params, sep="/"), accuracy


def create(config, source, cache):
    """The feature network of a config: config.eval.features, of which there is one so far."""
    return ClassifierFeatures(source, cache)


def digest(*parts):
    """Twelve hex digits of arrays and strings."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return sha.hexdigest()[:12]
