"""uint8 images -> features and logits, by networks whose digest goes into every row."""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from cfg_jax.errors import InputError
from cfg_jax.evaluation.classifiers import ClassifierFeatures, GivenClassifier, Probe
from cfg_jax.files import digest
from cfg_jax.images import in_batches
from cfg_jax.models import inception
from cfg_jax.models.precision import PRECISION
from cfg_jax.training import mesh as meshes


class InceptionFeatures:
    """FID's own network as far as its weights go: to pool_3 and the logits, or to mixed_8, which gives no FID."""

    def __init__(self, path):
        params, self.bias, sha256, until = inception.load(path)
        self.mesh = meshes.data_mesh()
        self.params = jax.device_put(params, meshes.replicated(self.mesh))
        self.apply = jax.jit(lambda params, images: inception.Inception(until).apply({"params": params}, images))
        self.digest = sha256[:12]
        first = {"fd_mixed8": "mixed_8"} if until == "mixed_8" else {"fid_inception": "pool_3"}
        self.distances = first | {"sfid_inception": "mixed_6_conv"}

    def __call__(self, images):
        """uint8 [N, H, W, 1 or 3] -> {stage: float32 [N, ...]}."""
        batch_size = meshes.divided(64, self.mesh)

        def stages(part):
            part = np.repeat(part, 3 // part.shape[-1], -1)
            return self.apply(self.params, jax.device_put(part, meshes.split(self.mesh)))

        return in_batches(stages, images, batch_size)


@dataclass(frozen=True)
class Extracted:
    """What the scores of N images are made of, [N, ...] each, by the name of the score or of the classifier."""

    distances: dict[str, np.ndarray]  # features of the Frechet distances, the main one first
    logits: dict[str, np.ndarray]  # of the inception scores, is_ and isc_
    class_logits: dict[str, np.ndarray]  # by the data's own classes


class Features:
    """uint8 images -> Extracted, by an Inception network, a classifier of the data's classes, or both."""

    def __init__(self, inception=None, classifier=None):
        self.inception, self.classifier = inception, classifier
        self.made_on = {"platform": jax.default_backend(), "precision": PRECISION}
        self.network = digest(*(network.digest for network in (inception, classifier) if network))
        self.digest = digest(self.network, *self.made_on.values())

    @property
    def distances_digest(self):
        """Names the network of the distances alone, which is all that a reference depends on."""
        return (self.inception or self.classifier).digest

    @property
    def distances(self):
        """Names of the Frechet distances, the main one first."""
        return [*self.inception.distances] if self.inception else [f"fid_{self.classifier.name}"]

    @classmethod
    def of(cls, config, source, directory):
        """Those of config.eval. A classifier of the data is trained in `directory` where logits are lacking."""
        evaluation, inception, classifier = config.eval, None, None
        if evaluation.features == "inception":
            inception = InceptionFeatures(evaluation.inception)
        if evaluation.classifier:
            classifier = GivenClassifier(evaluation.classifier)
            classifier.check(source.card.image_shape)
            if classifier.num_classes != config.data.num_classes:
                raise InputError(
                    f"config.eval.classifier={evaluation.classifier} has {classifier.num_classes} classes, "
                    f"config.data.num_classes={config.data.num_classes}: name one of the same classes"
                )
        elif not inception:
            classifier = ClassifierFeatures(source, Path(directory) / "classifier.npz")
        elif "fid_inception" not in inception.distances:
            path = Path(directory) / "classifier.npz"
            classifier = Probe(inception, "fd_mixed8", source, evaluation.reference_images, path)
        return cls(inception, classifier)

    def __call__(self, images, classify=True):
        """classify=False: of an Inception network the distances and logits alone."""
        distances, logits, class_logits = {}, {}, {}
        if self.inception:
            stages = self.inception(images)
            distances = {k: stages[stage].reshape(len(images), -1) for k, stage in self.inception.distances.items()}
            if "logits" in stages:
                logits["is_inception"] = logits["isc_inception"] = stages["logits"]
                logits["isc_biased_inception"] = stages["logits"] + self.inception.bias
        if self.classifier and (classify or not self.inception):
            if isinstance(self.classifier, Probe):
                of_class = self.classifier(distances[self.classifier.distance])
            else:
                features, of_class = self.classifier(images)
                distances = distances or {f"fid_{self.classifier.name}": features}
            class_logits[self.classifier.name] = of_class
            logits = logits or {f"is_{self.classifier.name}": of_class}
        return Extracted(distances, logits, class_logits)
