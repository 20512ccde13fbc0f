"""uint8 images -> features and logits, by networks whose digest goes into every row."""

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
    """What the scores of N images are made of, [N, ...] each, by the name of the score or of the classifier."""

    distances: dict[str, np.ndarray] = field(default_factory=dict)  # of the Frechet distances, the main one first
    logits: dict[str, np.ndarray] = field(default_factory=dict)  # of the inception scores, is_ and isc_
    class_logits: dict[str, np.ndarray] = field(default_factory=dict)  # by the data's own classes

    def __or__(self, other: "Extracted") -> "Extracted":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Extracted(*(ours | theirs for ours, theirs in pairs))


class FeatureExtractor(Protocol):
    """A network that gives features, logits or both, such as Inception or a classifier of the data's classes."""

    digest: str
    distances: Collection[str]  # names of the Frechet distances that it gives

    def __call__(self, images: np.ndarray, so_far: Extracted) -> Extracted:
        """Extract from images uint8 [N, H, W, C]; so_far is what the extractors before this one gave."""
        ...


class InceptionFeatures:
    """FID's own network, as far as the weights go.

    Weights up to the logits give FID, sFID and IS. Weights up to mixed_8 give another distance, and no FID.
    """

    def __init__(self, path: str | Path) -> None:
        """Load the weights of a file. Raises InputError where it has none of this network."""
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
        return Extracted({name: stages[of].reshape(len(images), -1) for name, of in self.distances.items()}, logits)

    def stages(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 [N, H, W, 1 or 3] -> {stage: float32 [N, ...]}."""
        batch_size = meshes.divided(64, self.mesh)

        def of_part(part):
            part = np.repeat(part, 3 // part.shape[-1], -1)
            return self.apply(self.params, jax.device_put(part, meshes.split(self.mesh)))

        return in_batches(of_part, images, batch_size)


class Features:
    """uint8 images -> Extracted, by one extractor after another."""

    def __init__(self, *extractors: FeatureExtractor) -> None:
        self.extractors = extractors
        self.made_on = {"platform": jax.default_backend(), "precision": PRECISION}
        self.network = digest(*(extractor.digest for extractor in extractors))
        self.digest = digest(self.network, *self.made_on.values())

    @property
    def distances(self) -> list[str]:
        """Names of the Frechet distances, the main one first."""
        return [name for extractor in self.extractors for name in extractor.distances]

    @property
    def distances_digest(self) -> str:
        """The digest of the networks with a distance: a reference depends on these alone."""
        digests = [extractor.digest for extractor in self.extractors if extractor.distances]
        return digests[0] if len(digests) == 1 else digest(*digests)

    @property
    def accuracy(self) -> float | None:
        """The accuracy, 0..1 on held-out pictures, of the classifier that was trained here; None without one."""
        return next((e.accuracy for e in self.extractors if hasattr(e, "accuracy")), None)

    def __call__(self, images: np.ndarray, classify: bool = True) -> Extracted:
        """Extract from images uint8 [N, H, W, C]. classify=False runs the extractors with a distance alone."""
        found = Extracted()
        for extractor in self.extractors:
            if classify or extractor.distances:
                found |= extractor(images, found)
        return found
