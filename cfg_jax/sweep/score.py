"""Draw N images of a model under one guidance, and score them batch by batch."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from cfg_jax import __version__, checks, images, pinned
from cfg_jax.config import image_shape
from cfg_jax.data import sources
from cfg_jax.diffusion.guidance import Guidance
from cfg_jax.diffusion.samplers import Walk
from cfg_jax.evaluation import measure, references, samples
from cfg_jax.evaluation.classifiers import GivenClassifier, features_of
from cfg_jax.evaluation.features import Extracted, Features
from cfg_jax.models import build
from cfg_jax.sampling import draw
from cfg_jax.sampling import model as models

GRID_COLUMNS = 8


@dataclass(frozen=True)
class Against:
    """The feature networks and the reference that images are scored against."""

    features: Features
    reference: references.Reference
    real: np.ndarray | None = None  # features of real images, for KID, precision and recall


def score(
    model: models.Model,
    config: ConfigDict,
    guidance: Guidance,
    walk: Walk,
    against: Against,
    *,
    judge: GivenClassifier | None = None,
    npz: Path | None = None,
) -> tuple[dict, Image.Image]:
    """Return the scores of config.eval.num_images images, and a grid of the first.

    Memory does not grow with the number of images. judge is a further classifier, of the labels' classes, whose
    accuracy on the images is measured. npz is a file for all images.
    """
    evaluation, data = config.eval, config.data
    num_images, group = evaluation.num_images, walk.group or 1
    num_classes = judge.num_classes if judge else data.num_classes
    labels = draw.labels_by_rule(evaluation.labels, num_images, num_classes, evaluation.seed, group)
    tally = measure.Tally(
        num_images,
        labels if num_classes else None,
        data.name,
        splits=evaluation.splits,
        bootstrap=evaluation.bootstrap,
        seed=evaluation.seed,
        neighbours=against.real is not None,
        # a group has one label: interleave the groups, so that every part of IS has images of each
        order=np.arange(num_images).reshape(group, -1).T.ravel(),
    )
    shape = (num_images, *image_shape(data))
    index = grid_index(labels)
    shown, done, began = {}, 0, time.perf_counter()
    effective = []  # effective sizes of groups of particles
    batches = draw.batches(
        model.denoiser, labels, guidance, walk, shape=model.image_shape, seed=evaluation.seed,
        batch_size=evaluation.batch_size, effective=effective,
    )  # fmt: skip
    with samples.writer(npz, shape, labels) if npz else nullcontext() as save:
        for x in batches:
            uint8 = images.to_uint8(x, evaluation.quantize)
            tally.add(uint8, against.features(uint8) | (judge(uint8) if judge else Extracted()))
            if save:
                save(uint8)
            shown |= {i: uint8[i - done] for i in index.ravel() if done <= i < done + len(uint8)}
            done += len(uint8)
    measured, spreads = tally.scores(against.reference, against.real)
    row = {
        "scores": {name: float(value[0]) for name, value in measured.items()},
        "resampled": {
            name: [float(f"{v:.6g}") for v in value[1:]] for name, value in measured.items() if len(value) > 1
        },
        "spreads": spreads,
        "passes": draw.passes(guidance, walk),
        "classifier_accuracy": against.features.accuracy,
        "seconds": round(time.perf_counter() - began, 2),
        "device": f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}",
        "code": __version__,
        **pinned.RECORD,
    }
    if effective:
        row["effective_size"] = {"mean": float(np.mean(effective)), "min": min(effective)}
    return row, images.grid(np.stack([shown[i] for i in index.ravel()]), columns=index.shape[1])


def grid_index(labels: np.ndarray) -> np.ndarray:
    """Return the indices [rows, GRID_COLUMNS] of the first images of the first ten classes, a row for each class.

    Classes with fewer images are left out, unless all classes have fewer.
    """
    rows = [np.flatnonzero(labels == c)[:GRID_COLUMNS] for c in np.unique(labels)[:10]]
    full = [row for row in rows if len(row) == GRID_COLUMNS] or [rows[0]]
    return np.stack(full)


class Scorer:
    """Score rules and samplers that are in no config, such as a rule that you wrote, as a sweep does."""

    @pinned.pinned()
    def __init__(self, run: str | Path, directory: str | Path, num_steps: int | None = None, **evaluation) -> None:
        """Load a run, and keep a feature network and a reference in `directory`. evaluation: fields of config.eval."""
        self.model = models.load(run)
        source, self.config = sources.load(self.model.config)
        self.config.eval.update(evaluation)
        if num_steps:
            self.config.sampler.num_steps = num_steps
        Path(directory).mkdir(parents=True, exist_ok=True)
        features = features_of(self.config, source, directory)
        reference = references.of_config(self.config, features, source, directory)
        self.against = Against(features, reference, reference.features(features, self.config.eval.neighbours))

    @pinned.pinned()
    def __call__(self, rule, sampler=None, guides: models.Guides | None = None) -> dict:
        """Return a row as a sweep writes it, without the fields that name its cell."""
        guides, walk = guides or models.Guides(), build.walk(self.config, value=sampler)
        checks.sampling(self.config, sampler, rule)
        section = self.config.guidance.copy_and_resolve_references()
        section.name, w = models.direction_of(rule, self.model.image_shape)
        guides.check(self.model, np.unique(w), section=section)
        row, _ = score(self.model, self.config, guides.beside(rule, section), walk, self.against)
        return row | {"seed": self.config.eval.seed}
