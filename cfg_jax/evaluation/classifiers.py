"""Classifiers of the data's classes: trained here on pictures or on features, or given as a noisy-image classifier."""

import logging
import shutil
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np
from ml_collections import ConfigDict

from cfg_jax import config as configs
from cfg_jax.data.sources import Source
from cfg_jax.errors import require
from cfg_jax.evaluation.features import Extracted, FeatureExtractor, Features, InceptionFeatures
from cfg_jax.evaluation.scores import WIDTHS, measure_and_of
from cfg_jax.files import claimed, digest, digest_json, to_make, write_npz
from cfg_jax.images import in_batches, to_float
from cfg_jax.inputs import arrays, reading
from cfg_jax.models import classifier
from cfg_jax.progress import progress
from cfg_jax.sampling.model import Classifier, load_classifier

log = logging.getLogger(__name__)
HELD_OUT = 0.2
EPOCHS, MIN_STEPS, MAX_STEPS, BATCH_SIZE = 5, 300, 5000, 128
PROBED, PROBE_PART, PROBE_C = 20_000, 1000, 0.01  # pictures, pictures, 1 / (L2 penalty) for unit variance


def features_of(config: ConfigDict, source: Source, directory: str | Path) -> Features:
    """Return the feature networks of config.eval. If none of them has logits, train a classifier of the data's classes.

    The trained classifier is kept in `directory`. Raises InputError for a given noisy-image classifier of other images
    or classes, and for a classifier trained here that is not much better than chance.
    """
    evaluation, cache, judges = config.eval, Path(directory) / "classifier.npz", []
    if evaluation.features == "classifier":
        return Features(DataClassifier(source, cache))
    network = InceptionFeatures(evaluation.inception)
    if evaluation.classifier:
        given = GivenClassifier(Path(evaluation.classifier).name, load_classifier(evaluation.classifier))
        given.check(source.card.image_shape)
        require(
            given.num_classes == config.data.num_classes,
            f"config.eval.classifier={evaluation.classifier} has {given.num_classes} classes, "
            f"config.data.num_classes={config.data.num_classes}: name one of the same classes",
        )
        judges.append(given)
    if "fid_inception" not in network.distances:  # nor has it logits
        judges.append(Probe(network, source, evaluation.reference_images, cache))
    return Features(network, *judges)


def train_once(
    model: "DataClassifier | Probe", index: np.ndarray, cache: Path, made_from: str
) -> tuple[dict, float, str]:
    """Train a classifier on the pictures `index`, or read it from the file `cache`.

    `made_from` names everything that decides the parameters. Return the parameters, the accuracy on held-out pictures
    (0..1), and twelve hex digits of the parameters. Raises InputError with the model's `remedy` if the accuracy is near
    chance, and if the file is damaged or was made from something else.
    """
    with claimed(cache, wait=True):  # another job of the same sweep may be training it
        if cache.exists():
            params, accuracy = _read(model, cache, made_from)
        else:
            params, accuracy = _train(model, index)
            write_npz(cache, {**params, "accuracy": np.float64(accuracy), "data": np.array(made_from)})
    return params, accuracy, digest(*(np.asarray(params[name]) for name in sorted(params)))


def _train(model, index):
    name, num_classes = model.name, len(model.source.card.class_names)
    require(
        num_classes > 1,
        f"the classifier {name} has one class to learn from, and its scores would mean nothing: set "
        "config.eval.features=inception, with the network of experiments.fetch_inception, which needs none",
    )
    order = np.random.default_rng(0).permutation(index)
    held_out, rest = np.split(order, [max(1, int(HELD_OUT * len(order)))])
    params = model.fit(rest)
    accuracy = float((np.argmax(model.logits(params, held_out), 1) == model.source.labels[held_out]).mean())
    chance = 1 / num_classes
    require(
        accuracy >= min(3 * chance, (1 + chance) / 2),
        f"the classifier {name} gets {accuracy:.1%} of {len(held_out)} held-out pictures right, chance is "
        f"{chance:.1%}: its scores would mean nothing; {model.remedy}",
    )
    log.info("classifier %s: %.2f %% of %d held-out pictures", name, 100 * accuracy, len(held_out))
    return params, accuracy


def _read(model, cache, made_from):
    with reading(cache, "cannot be read", "remove it, it is trained again"):
        with arrays(cache) as file:
            params = dict(file)
        accuracy, data = float(params.pop("accuracy")), str(params.pop("data"))
        if data == made_from and {k: a.shape for k, a in params.items()} != model.shapes():
            raise ValueError("it has other arrays")
        if not all(a.dtype == np.float32 and np.isfinite(a).all() for a in params.values()):
            raise ValueError("it has numbers that are not finite, or not of float32")
    other = f"{cache} was trained on other data or features than {model.name}: choose another sweep directory"
    require(data == made_from, other)
    return params, accuracy


class DataClassifier:
    """A small convolutional network trained here on the data's classes: a feature space, and logits.

    Its Frechet distance is no FID. It is named fid_<data set>@N and compares only with itself.
    """

    remedy = "set config.eval.features=inception"

    def __init__(self, source: Source, cache: str | Path) -> None:
        """Train it, or read it from the file `cache`. Raises InputError as train_once does."""
        num_classes, self.name, self.source = len(source.card.class_names), source.card.name, source
        self.net = classifier.Classifier(num_classes, num_features=max(64, num_classes))
        self.apply = jax.jit(self.net.apply)
        self.distances = [f"fid_{self.name}"]
        trained = train_once(self, np.arange(len(source)), Path(cache), source.card.digest)
        params, self.accuracy, self.digest = trained
        self.params = jax.device_put(params)

    def __call__(self, images: np.ndarray, so_far: Extracted | None = None) -> Extracted:
        features, logits = self.run(self.params, images)
        return Extracted({self.distances[0]: features}, {f"is_{self.name}": logits}, {self.name: logits})

    def run(self, params: dict, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return features float32 [N, D] and logits float32 [N, K] of images uint8 [N, H, W, C]."""
        tree = flax.traverse_util.unflatten_dict(params, sep="/")
        return in_batches(lambda part: self.apply(tree, to_float(part)), images, 128)

    def logits(self, params: dict, index: np.ndarray) -> np.ndarray:
        """Return logits float32 [N, K] of the pictures `index`."""
        return self.run(params, self.source.images[index])[1]

    def fit(self, index: np.ndarray) -> dict:
        """Train on the pictures `index` and return {parameter: array}."""
        num_steps = int(np.clip(EPOCHS * len(index) / BATCH_SIZE, MIN_STEPS, MAX_STEPS))
        params = classifier.train(self.source.images, self.source.labels, index, self.net, num_steps, BATCH_SIZE)
        return jax.tree.map(np.asarray, flax.traverse_util.flatten_dict(params, sep="/"))

    def shapes(self) -> dict:
        """Return {parameter: shape}."""
        shapes = jax.eval_shape(self.net.init, jax.random.key(0), to_float(self.source.images[:1]))
        flat: dict = flax.traverse_util.flatten_dict(shapes, sep="/")
        return {name: a.shape for name, a in flat.items()}


class Probe:
    """Logistic regression on a network's features, for IS and accuracy if the network has no logits.

    It learns from up to PROBED training pictures, and from no more than the reference is made of.
    """

    distances, distance = (), "fd_mixed8"  # those it gives, and whose features it reads
    remedy = "take more pictures (config.eval.reference_images), or set config.eval.features=classifier"

    def __init__(self, network: FeatureExtractor, source: Source, num_images: int, cache: str | Path) -> None:
        """Train on the network's features, or read `cache`. num_images=0 takes all. Raises as train_once does."""
        self.network, self.source = network, source
        self.name = f"{source.card.name}_{measure_and_of(self.distance)[1]}"
        index = np.random.default_rng(0).permutation(len(source))[: min(num_images or len(source), PROBED)]
        made_from = digest_json([source.card.digest, len(index), network.digest])
        self.parts = Path(cache).with_name(f"features-{made_from}.parts")
        self.params, self.accuracy, self.digest = train_once(self, index, Path(cache), made_from)
        shutil.rmtree(self.parts, ignore_errors=True)

    def __call__(self, images: np.ndarray, so_far: Extracted) -> Extracted:
        logits = linear(self.params, so_far.distances[self.distance])
        return Extracted({}, {f"is_{self.name}": logits}, {self.name: logits})

    def logits(self, params: dict, index: np.ndarray) -> np.ndarray:
        """Return logits float32 [N, K] of the pictures `index`."""
        return linear(params, self.features_of(index))

    def fit(self, index: np.ndarray) -> dict:
        """Fit to the pictures `index`: kernel [D, K], bias [K]. Raises InputError if a class has no picture."""
        from sklearn.linear_model import LogisticRegression

        labels, num_classes = self.source.labels[index], len(self.source.card.class_names)
        absent = num_classes - len(np.unique(labels))
        lacks = f"no picture of {absent} of its {num_classes} classes"
        require(not absent, f"the classifier {self.name} has {lacks} to learn from: {self.remedy}")
        features = self.features_of(index)
        mean, scale = features.mean(0, dtype=float), features.std(0, dtype=float) + 1e-3
        normal = ((features - mean) / scale).astype(np.float32)
        fitted = LogisticRegression(C=PROBE_C, max_iter=500).fit(normal, labels)
        rows, bias = fitted.coef_ / scale, fitted.intercept_ - fitted.coef_ @ (mean / scale)
        if len(rows) == 1:  # for two classes scikit-learn gives one row, their log-odds
            rows, bias = np.concatenate([-rows, rows]) / 2, np.concatenate([-bias, bias]) / 2
        return {"kernel": rows.T.astype(np.float32), "bias": bias.astype(np.float32)}

    def features_of(self, index: np.ndarray) -> np.ndarray:
        """Return features [N, D] of the pictures `index`. They are kept on disk in parts until training ends."""
        parts = {self.parts / f"{digest(p)}.npz": p for p in np.split(index, range(PROBE_PART, len(index), PROBE_PART))}
        paths = to_make(parts)
        for path in progress(paths, total=len(parts), desc=f"features for {self.name}", unit="part"):
            extracted = self.network(self.source.images[parts[path]], Extracted())
            write_npz(path, {"features": extracted.distances[self.distance]})
        found = []
        for path in parts:
            with reading(path, "is damaged", "remove it and run the same command"), arrays(path) as file:
                found.append(file["features"])
        return np.concatenate(found)

    def shapes(self) -> dict:
        """Return {parameter: shape}."""
        num_classes = len(self.source.card.class_names)
        return {"kernel": (WIDTHS[self.distance], num_classes), "bias": (num_classes,)}


def linear(params: dict, features: np.ndarray) -> np.ndarray:
    """Return logits float32 [N, K] of features float32 [N, D]."""
    return features @ params["kernel"] + params["bias"]


class GivenClassifier:
    """A noisy-image classifier, trained or imported, evaluated at the clean end of its log-SNR."""

    distances, accuracy = (), None

    def __init__(self, name: str, model: Classifier) -> None:
        self.name, self.data = name, model.config.data
        self.num_classes = self.data.num_classes
        self.params, self.clean = model.params, model.config.logsnr_max
        self.digest = model.digest
        self.apply = jax.jit(lambda params, z, logsnr: model.network.net.apply({"params": params}, z, logsnr))

    def __call__(self, images: np.ndarray, so_far: Extracted | None = None) -> Extracted:
        def logits(part):
            return self.apply(self.params, to_float(part), np.full(len(part), self.clean, np.float32))

        return Extracted({}, {}, {self.name: in_batches(logits, images, 64)})

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise InputError unless it classifies images of (height, width, channels)."""
        shape = configs.image_shape(self.data)
        sizes = f"is of images {shape}, these are {tuple(image_shape)}"
        require(shape == tuple(image_shape), f"the classifier {self.name} {sizes}: name another")
