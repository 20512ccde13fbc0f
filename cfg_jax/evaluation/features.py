"""Features and logits of uint8 images, by networks whose digest goes into every row of results."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import jax
import numpy as np

from cfg_jax import meshes
from cfg_jax.files import digest
from cfg_jax.images import in_batches
from cfg_jax.models import inception
from cfg_jax.models.precision import PRECISION


@dataclass(frozen=True)
class Extracted:
    """The inputs of the scores of N images, [N, ...] each, by the name of the score or of the classifier."""

    distances: dict[str, np.ndarray] = field(default_factory=dict)  # for the Frechet distances, the main one first
    logits: dict[str, np.ndarray] = field(default_factory=dict)  # for the inception scores, is_ and isc_
    class_logits: dict[str, np.ndarray] = field(default_factory=dict)  # over the data's classes

    def __or__(self, other: "Extracted") -> "Extracted":
        class_logits = self.class_logits | other.class_logits
        return Extracted(self.distances | other.distances, self.logits | other.logits, class_logits)


class FeatureExtractor(Protocol):
    """A network with features, logits or both, such as Inception or a classifier of the data's classes."""

    digest: str
    distances: Collection[str]  # names of the Frechet distances that it gives

    def __call__(self, images: np.ndarray, so_far: Extracted) -> Extracted:
        """Extract from images uint8 [N, H, W, C]; so_far has the results of the extractors before this one."""
        ...


class InceptionFeatures:
    """The Inception network of FID, up to the layer that the weights reach.

    Weights up to the logits give FID, sFID and IS. Weights up to mixed_8 give another distance, which is no FID.
    """

    def __init__(self, path: str | Path) -> None:
        """Load the weights of a file. Raises InputError if it has no weights of this network."""
        params, self.bias, sha256, until = inception.load(path)
        self.mesh = meshes.data_mesh()
        self.params = jax.device_put(params, meshes.replicated(self.mesh))
        self.apply = jax.jit(lambda params, images: inception.Inception(until).apply({"params": params}, images))
        self.digest = sha256[:12]
        first = {"fd_mixed8": "mixed_8"} if until == "mixed_8" else {"fid_inception": "pool_3"}
        self.distances = first | {"sfid_inception": "mixed_6_conv"}

    def __call__(self, images: np.ndarray, so_far: Extracted = Extracted()) -> Extracted:
        stages, logits = self.stages(images), {}
        if "logits" in stages:
            logits["is_inception"] = logits["isc_inception"] = stages["logits"]
            logits["isc_biased_inception"] = stages["logits"] + self.bias
        flat = {name: stages[stage].reshape(len(images), -1) for name, stage in self.distances.items()}
        return Extracted(flat, logits)

    def stages(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return {stage: float32 [N, ...]} of images uint8 [N, H, W, 1 or 3]."""
        batch_size = meshes.divided(64, self.mesh)

        def of_part(part):
            part = np.repeat(part, 3 // part.shape[-1], -1)
            return self.apply(self.params, jax.device_put(part, meshes.split(self.mesh)))

        return in_batches(of_part, images, batch_size)


class Features:
    """Several extractors, applied one after another to uint8 images."""

    def __init__(self, *extractors: FeatureExtractor) -> None:
        self.extractors = extractors
        self.made_on = {"platform": jax.default_backend(), "precision": PRECISION}
        self.network = digest(*(extractor.digest for extractor in extractors))
        self.digest = digest(self.network, *self.made_on.values())

    @property
    def distances(self) -> list[str]:
        """The names of the Frechet distances, the main one first."""
        return [name for extractor in self.extractors for name in extractor.distances]

    @property
    def distances_digest(self) -> str:
        """The digest of the networks that have a distance. A reference depends on no other network."""
        digests = [extractor.digest for extractor in self.extractors if extractor.distances]
        return digests[0] if len(digests) == 1 else digest(*digests)

    @property
    def accuracy(self) -> float | None:
        """The accuracy, 0..1, on held-out pictures, of the classifier that was trained here; None without one."""
        known = (getattr(extractor, "accuracy", None) for extractor in self.extractors)
        return next((accuracy for accuracy in known if accuracy is not None), None)

    def __call__(self, images: np.ndarray, classify: bool = True) -> Extracted:
        """Extract from images uint8 [N, H, W, C]. classify=False runs only the extractors that have a distance."""
        extracted = Extracted()
        for extractor in self.extractors:
            if classify or extractor.distances:
                extracted |= extractor(images, extracted)
        return extracted
