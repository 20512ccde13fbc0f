"""uint8 images -> features and logits, by networks whose hash goes into every row."""

import hashlib
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np

from cfg_jax.errors import InputError
from cfg_jax.evaluation.moments import Moments
from cfg_jax.files import write_npz
from cfg_jax.images import to_float
from cfg_jax.models import classifier, inception
from cfg_jax.progress import progress
from cfg_jax.training import mesh as meshes

log = logging.getLogger(__name__)
HELD_OUT = 0.2
EPOCHS, MIN_STEPS, MAX_STEPS, BATCH_SIZE = 5, 300, 5000, 128
REFERENCE_BATCH = 3000  # images


class ClassifierFeatures:
    """A small classifier of the data set itself, trained once and kept in `cache`.

    Its Frechet distance is no FID: it is named fid_<data set>@N and compares only with itself.
    """

    def __init__(self, source, cache):
        num_classes = len(source.card.class_names)
        self.net = classifier.Classifier(num_classes, num_features=max(64, num_classes))
        self.name = source.card.name
        self.source = source
        self.cache = Path(cache)
        self.apply = jax.jit(self.net.apply)
        self.accuracy = self._read() if self.cache.exists() else self._train()
        flat = flax.traverse_util.flatten_dict(self.params, sep="/")
        self.digest = digest(*(np.asarray(flat[name]) for name in sorted(flat)))

    def __call__(self, images, batch_size=600):
        """uint8 [N, H, W, C] -> features float32 [N, D], logits float32 [N, K]."""
        parts = []
        for begin in range(0, len(images), batch_size):
            part = images[begin : begin + batch_size]
            filled = np.concatenate([part, np.repeat(part[-1:], batch_size - len(part), 0)])
            parts.append([np.asarray(a)[: len(part)] for a in self.apply(self.params, to_float(filled))])
        features, logits = zip(*parts, strict=True)
        return np.concatenate(features), np.concatenate(logits)

    def _train(self):
        """Set params -> accuracy on images held out."""
        images, labels = self.source.images, self.source.labels
        order = np.random.default_rng(0).permutation(len(labels))
        held_out, rest = np.split(order, [int(HELD_OUT * len(order))])
        num_steps = int(np.clip(EPOCHS * len(rest) / BATCH_SIZE, MIN_STEPS, MAX_STEPS))
        self.params = classifier.train(
            images, labels, rest, self.net, seed=0, num_steps=num_steps, batch_size=BATCH_SIZE
        )
        _, logits = self(images[held_out])
        accuracy = float((np.argmax(logits, 1) == labels[held_out]).mean())
        chance = 1 / self.net.num_classes
        if accuracy < min(3 * chance, (1 + chance) / 2):
            raise InputError(
                f"the feature classifier gets {accuracy:.1%} of held-out {self.name} right, chance is {chance:.1%}: "
                "its scores would mean nothing; set config.eval.features=inception"
            )
        log.info("feature classifier: %.2f %% of %d held-out %s", 100 * accuracy, len(held_out), self.name)
        flat = {k: np.asarray(v) for k, v in flax.traverse_util.flatten_dict(self.params, sep="/").items()}
        write_npz(self.cache, {**flat, "accuracy": np.float64(accuracy), "data": np.array(self.source.card.digest)})
        return accuracy

    def _read(self):
        """Set params -> accuracy, as they were kept."""
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
        self.params = flax.traverse_util.unflatten_dict(params, sep="/")
        return accuracy


class InceptionFeatures:
    """FID's own network as far as its weights go: to pool_3 and the logits, or to mixed_8, which gives no FID."""

    def __init__(self, path):
        params, _, sha256, until = inception.load(path)
        self.mesh = meshes.data_mesh()
        self.params = jax.device_put(params, meshes.replicated(self.mesh))
        self.apply = jax.jit(lambda params, images: inception.Inception(until).apply({"params": params}, images))
        self.digest = sha256[:12]
        self.distances = {"fd_mixed8": "mixed_8"}
        if until == "logits":
            self.distances = {"fid_inception": "pool_3", "sfid_inception": "mixed_6_conv"}

    def __call__(self, images, batch_size=64):
        """uint8 [N, H, W, 1 or 3] -> {stage: float32 [N, ...]}."""
        batch_size = -(-batch_size // self.mesh.size) * self.mesh.size
        parts = []
        for begin in range(0, len(images), batch_size):
            part = images[begin : begin + batch_size]
            filled = np.concatenate([part, np.repeat(part[-1:], batch_size - len(part), 0)])
            filled = jax.device_put(np.repeat(filled, 3 // filled.shape[-1], -1), meshes.split(self.mesh))
            parts.append({k: np.asarray(a)[: len(part)] for k, a in self.apply(self.params, filled).items()})
        return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


@dataclass(frozen=True)
class Extracted:
    """What the scores of N images are made of, by the name of the score: [N, ...] each."""

    distances: dict[str, np.ndarray]  # features of a Frechet distance
    logits: dict[str, np.ndarray]  # of an inception score
    class_logits: np.ndarray | None  # by the data set's own classes


class Features:
    """The feature networks of a config, and the moments of its data by them, kept in `directory`."""

    def __init__(self, config, source, directory):
        self.source, self.directory = source, Path(directory)
        self.num_reference = min(config.eval.reference_images or len(source), len(source))
        self.inception = InceptionFeatures(config.eval.inception) if config.eval.features == "inception" else None
        self.classifier = None
        if not (self.inception and "fid_inception" in self.inception.distances):
            self.classifier = ClassifierFeatures(source, self.directory / "classifier.npz")
        self.digest = digest(*(network.digest for network in (self.inception, self.classifier) if network))

    def __call__(self, images):
        distances, logits, class_logits = {}, {}, None
        if self.inception:
            stages = self.inception(images)
            distances = {
                name: stages[stage].reshape(len(images), -1) for name, stage in self.inception.distances.items()
            }
            logits = {"inception": stages["logits"]} if "logits" in stages else {}
        if self.classifier:
            features, class_logits = self.classifier(images)
            distances = distances or {f"fid_{self.source.card.name}": features}
            logits = {self.source.card.name: class_logits}
        return Extracted(distances, logits, class_logits)

    @property
    def reference_digest(self):
        """Names what `reference` is computed from: these weights and these images."""
        return digest(self.digest, self.source.card.digest, str(self.num_reference))

    def reference(self):
        """{distance: Moments} of the training images, or of config.eval.reference_images of them drawn once."""
        path = self.directory / f"reference-{self.reference_digest}.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as file:
                names = sorted({name.partition("/")[0] for name in file.files})
                return {n: Moments(int(file[f"{n}/count"]), file[f"{n}/sum"], file[f"{n}/outer"]) for n in names}
        index = np.sort(np.random.default_rng(0).permutation(len(self.source))[: self.num_reference])
        moments = {}
        for begin in progress(range(0, len(index), REFERENCE_BATCH), desc="reference", unit="batch"):
            for name, features in self(self.source.images[index[begin : begin + REFERENCE_BATCH]]).distances.items():
                part = Moments.of(features)
                moments[name] = moments[name].merge(part) if name in moments else part
        write_npz(path, {f"{n}/{k}": v for n, m in moments.items() for k, v in vars(m).items()})
        return moments


def digest(*parts):
    """Twelve hex digits of arrays and strings."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return sha.hexdigest()[:12]
