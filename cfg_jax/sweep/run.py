"""Cells of (run, w, T, v, threshold, guidance, seed): scores of N images each and how far these spread, a JSON a cell.

A cell is done when its file says that it was made from the same weights, settings and reference. No cell is computed
twice: several jobs may work on one directory, and each claims a cell before it makes it.
"""

import itertools
import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import jax
import ml_collections
import numpy as np
from PIL import Image

from cfg_jax import __version__, checks, images
from cfg_jax import config as configs
from cfg_jax.data import sources
from cfg_jax.diffusion.guidance import Guidance, Unguided
from cfg_jax.errors import InputError
from cfg_jax.evaluation import measure, references, samples
from cfg_jax.evaluation.classifiers import features_of
from cfg_jax.evaluation.features import Features
from cfg_jax.files import read_json, shared, to_make, write_json
from cfg_jax.models import build
from cfg_jax.progress import progress
from cfg_jax.sampling import draw
from cfg_jax.sampling import model as models
from cfg_jax.sweep import read, spec
from cfg_jax.training.records import troubles

log = logging.getLogger(__name__)
GRID_COLUMNS = 8
COLLAPSED = 0.1  # of the particles
COLLAPSE = (
    "%s: %.1f %% of %d particles weigh anything at the worst step: the density is not sampled; lower w or raise T"
)


@dataclass(frozen=True)
class Cell:
    path: Path
    model: models.Model
    config: ml_collections.ConfigDict
    row: dict  # everything that decides its numbers
    npz: Path | None  # for all its images, where they are asked for

    def is_done(self, other_device: bool = False) -> bool:
        """Whether its file is there and whole. other_device allows features of another kind of device."""
        if self.npz and not self.npz.exists():
            return False
        try:
            row = read.read_row(self.path)
        except (ValueError, OSError):  # not there, or damaged
            return False
        free = spec.DEVICE_FIELDS if other_device else ()
        return all(row.get(field) == value for field, value in self.row.items() if field not in free)


def sweep(
    config: ml_collections.ConfigDict, run_dirs: Sequence[str | Path], ws: Sequence[float], workdir: str | Path, *,
    vary: dict | None = None, uncond_run=None, classifier_run=None, dtype: str | None = None,
    other_reference: bool = False, other_device: bool = False, save_npz: bool = False,
) -> list[dict]:  # fmt: skip
    """Score every run at every w with config.sampler and config.eval, and return the rows in that order.

    All combinations of `vary`, {field: values} of the sampler, the guidance or eval.seed, are made. All cells of a seed
    share their noise. dtype is that of the networks' bodies, see sampling.model.load. other_reference scores against
    config.data or config.eval.reference even if a run was trained on something else. other_device mixes features of
    several kinds of device. save_npz keeps all images. Raises InputError for what the user can mend.
    """
    source, config = sources.load(config)
    workdir = Path(workdir)
    variants = spec.variants(config, vary or {})
    loaded = [models.load(run, dtype=dtype) for run in run_dirs]
    guides = models.load_guides(uncond_run, classifier_run, dtype)
    names = [Path(run).name for run in run_dirs]
    if len(set(names)) < len(names):
        raise InputError(f"two runs are called {max(names, key=names.count)}: a cell is named by its run's directory")
    for model in loaded:
        check_same_data(config, model, workdir, other_reference)
        guides.check(model, ws, field="--w")
    for variant in variants:
        checks.sampling(variant)
        checks.groups(variant)
        checks.evaluation(variant.eval)
        if guides.classifier and (variant.guidance.name != spec.PAPER or build.guidance_fields(variant.guidance)):
            raise InputError("--classifier_run is a guidance of its own: leave config.guidance as it is")

    with shared(workdir, ", ".join(f"{name}={value}" for name, value in spec.settings(config).items())):
        features = features_of(config, source, workdir)
        reference = references.of_config(config, features, source, workdir, other_reference, other_device)
        configs.save(workdir / "config.json", config)
        real = None
        todo = []
        run_troubles = {name: troubles(run, m.step) for name, run, m in zip(names, run_dirs, loaded, strict=True)}
        for variant, (name, model) in itertools.product(variants, zip(names, loaded, strict=True)):
            for w in dict.fromkeys(map(float, ws)):
                row = spec.identity(variant, name, model, w, guides, features, reference) | run_troubles[name]
                path = spec.cell_path(workdir, row)
                todo.append(Cell(path, model, variant, row, path.with_suffix(".npz") if save_npz else None))
        missing = [cell for cell in todo if not cell.is_done(other_device)]
        if elsewhere := [cell.path for cell in missing if cell.is_done(other_device=True)]:
            raise InputError(
                f"{elsewhere[0]} was made on another kind of device than this ({features.made_on['platform']}): go on "
                "there, choose another --workdir, or mix them all the same with --other_device"
            )
        log.info("%s: %d of %d cells are done", workdir, len(todo) - len(missing), len(todo))
        for name, (mean, _) in reference.moments.items() if missing else ():
            measure.warn_of_rank(name, "images of config.eval.num_images", config.eval.num_images, len(mean))
        to_score = {cell.path: cell for cell in missing}
        paths = to_make(to_score, done=lambda path: to_score[path].is_done(other_device))
        for path in progress(paths, total=len(to_score), desc="sweep", unit="cell"):
            if path.exists():
                log.warning("%s is damaged, or was made otherwise than it would be now: it is made anew", path)
            if real is None:
                real = reference.features(features, config.eval.neighbours)
            row, picture = score_cell(to_score[path], guides, features, reference, real)
            if not to_score[path].npz:  # it would be of older weights
                path.with_suffix(".npz").unlink(missing_ok=True)
            images.save_png(path.with_suffix(".png"), picture)
            write_json(path, row | {"other_device": other_device})
            log.info("%s: %s", path.stem, ", ".join(f"{k} {v:.4g}" for k, v in row["scores"].items()))
        return [read_json(cell.path) for cell in todo]


def check_same_data(
    config: ml_collections.ConfigDict, model: models.Model, workdir: Path, other_reference: bool
) -> None:
    """Raise InputError for a run that was trained on other data than the config's, flips apart.

    other_reference allows other data of the same shape and classes.
    """
    fields = [f for f in configs.differences(model.config, config) if f.startswith("data.") and "flip" not in f]
    shape = ("data.image_size", "data.channels", "data.num_classes")
    if fields and (not other_reference or any(f.startswith(shape) for f in fields)):
        raise InputError(
            f"{workdir}: a run was trained on other data than --config says ({'; '.join(fields)}): name its data, or "
            "score against these all the same with --other_reference, of the same shape and classes"
        )


def score_cell(
    cell: Cell,
    guides: models.Guides,
    features: Features,
    reference: references.Reference,
    real_features: np.ndarray | None,
) -> tuple[dict, Image.Image]:
    """Return the row of one cell and a grid of its first images.

    Images are drawn and measured a batch at a time, so that memory does not grow with their number.
    """
    evaluation, data = cell.config.eval, cell.config.data
    num_images = evaluation.num_images
    num_classes = (guides.classifier.config.data if guides.classifier else data).num_classes
    group = cell.config.sampler.particles or 1
    labels = draw.labels_by_rule(evaluation.labels, num_images, num_classes, evaluation.seed, group)
    tally = measure.Tally(
        num_images,
        labels if num_classes else None,
        data.name,
        splits=evaluation.splits,
        bootstrap=evaluation.bootstrap,
        seed=evaluation.seed,
        neighbours=real_features is not None,
        # groups have one label each: every part of IS is to have some of every group
        order=np.arange(num_images).reshape(group, -1).T.ravel(),
    )
    shape = (num_images, data.image_size, data.image_size, data.channels)
    index = grid_index(labels)
    shown, done, began = [], 0, time.perf_counter()
    effective = []  # sizes, of groups of particles
    batches = draw.batches(
        cell.model.denoiser, labels, guidance_of(cell, guides, num_images),
        build.walk(cell.model.config, cell.config.sampler), shape=cell.model.image_shape, seed=evaluation.seed,
        batch_size=evaluation.batch_size, effective=effective,
    )  # fmt: skip
    with samples.writer(cell.npz, shape, labels) if cell.npz else nullcontext() as save:
        for x in batches:
            uint8 = images.to_uint8(x, evaluation.quantize)
            tally.add(uint8, features(uint8))
            if save:
                save(uint8)
            shown += [(i, uint8[i - done]) for i in index.ravel() if done <= i < done + len(uint8)]
            done += len(uint8)
    measured, spreads = tally.scores(reference, real_features)
    row = cell.row | {
        "scores": {name: float(value[0]) for name, value in measured.items()},
        "resampled": {
            name: [float(f"{v:.6g}") for v in value[1:]] for name, value in measured.items() if len(value) > 1
        },
        "spreads": spreads,
        "classifier_accuracy": features.accuracy,
        "seconds": round(time.perf_counter() - began, 2),
        "device": f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}",
        "code": __version__,
    }
    if effective:
        row["effective_size"] = {"mean": float(np.mean(effective)), "min": min(effective)}
        if row["effective_size"]["mean"] < COLLAPSED:
            log.warning(COLLAPSE, cell.path.stem, 100 * row["effective_size"]["mean"], group)
    of_index = dict(shown)
    return row, images.grid(np.stack([of_index[i] for i in index.ravel()]), columns=index.shape[1])


def guidance_of(cell: Cell, guides: models.Guides, num_images: int) -> Guidance:
    """Return how a cell is guided: with a classifier by w as its scale alone, else by its config's rule at w."""
    w = cell.row["w"]
    if guides.classifier:
        return guides.beside(Unguided()).replace(classifier_scale=w)
    return guides.beside(build.rule(cell.config.guidance, np.full(num_images, w, np.float32)))


def grid_index(labels: np.ndarray, max_classes: int = 10) -> np.ndarray:
    """Return the indices [rows, GRID_COLUMNS] of the first images of the first classes, a row for each.

    Classes with fewer images are left out, unless all have fewer.
    """
    rows = [np.flatnonzero(labels == c)[:GRID_COLUMNS] for c in np.unique(labels)[:max_classes]]
    full = [row for row in rows if len(row) == GRID_COLUMNS] or [rows[0]]
    return np.stack(full)
