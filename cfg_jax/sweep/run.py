"""Score cells of (run, w, T, v, threshold, guidance, seed): N images each, one JSON file for each cell.

A cell is done if its file says that it was made from the same weights, settings and reference. No cell is computed
twice: several jobs may work on one directory, and each claims a cell before it makes it.
"""

import dataclasses
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_collections
import numpy as np
from PIL import Image

from cfg_jax import checks, images, meshes, pinned
from cfg_jax import config as configs
from cfg_jax.data import sources
from cfg_jax.diffusion.guidance import Guidance
from cfg_jax.errors import InputError, require
from cfg_jax.evaluation import moments, references
from cfg_jax.evaluation.classifiers import GivenClassifier, features_of
from cfg_jax.files import check_directory, shared, to_make, write_json
from cfg_jax.models import build
from cfg_jax.progress import progress
from cfg_jax.sampling import asked
from cfg_jax.sampling import model as models
from cfg_jax.sweep import read, spec
from cfg_jax.sweep.score import Against, score
from cfg_jax.training.records import troubles

log = logging.getLogger(__name__)
COLLAPSED = 0.1  # share of the particles


@dataclass(frozen=True)
class Cell:
    path: Path
    model: models.Model
    config: ml_collections.ConfigDict
    row: dict  # everything that decides its numbers
    npz: Path | None  # the file for all its images, if they are to be kept

    def is_done(self, other_device: bool = False) -> bool:
        """Return whether its file is whole and has these fields. other_device allows another kind of device."""
        if self.npz and not self.npz.exists():
            return False
        try:
            row = read.read_row(self.path)
        except InputError:  # missing or damaged
            return False
        free = spec.DEVICE_FIELDS if other_device else ()
        return all(row.get(field) == value for field, value in self.row.items() if field not in free)


@pinned.pinned()
def sweep(
    config: ml_collections.ConfigDict, run_dirs: Sequence[str | Path], ws: Sequence[float], workdir: str | Path, *,
    vary: dict | None = None, guide=None, classifier_run=None, dtype: str | None = None, ema: float | None = None,
    other_reference: bool = False, other_device: bool = False, save_npz: bool = False,
) -> list[dict]:  # fmt: skip
    """Score every run at every w with config.sampler and config.eval, and return the rows in that order.

    vary: {field: values} of the sampler, the guidance or eval.seed; all combinations are scored. All cells of a seed
    share their noise. guide is a second run for the unconditional prediction, RUN or RUN@STEP. classifier_run is a
    noisy-image classifier that guides instead, with w as its scale. dtype is that of the networks' bodies and ema the
    length of an average, see sampling.model.load. other_reference scores against config.data or config.eval.reference
    even if a run was trained on another set. other_device mixes features of several kinds of device. save_npz keeps
    all images. Raises InputError for what the user can correct.
    """
    check_directory(workdir, "sweep")
    source, config = sources.load(config)
    workdir = Path(workdir)
    variants = spec.variants(config, vary or {})
    names = [Path(run).name for run in run_dirs]
    twice = next((name for name in names if names.count(name) > 1), None)
    require(not twice, f"two runs are called {twice}, and a cell is named after the directory of its run: rename one")
    loaded = [models.load(run, params=ema or "ema", dtype=dtype) for run in run_dirs]
    guides = models.load_guides(guide, classifier_run, dtype)
    # a noisy-image classifier that guides also judges the images
    judge = guides.classifier and GivenClassifier(Path(classifier_run).name, guides.classifier)
    for model in loaded:
        check_same_data(config, model, workdir, other_reference)
    for w in ws:
        checks.finite(w, "w")
    for variant in variants:
        check_variant(variant, loaded, guides, ws)

    with shared(workdir, ", ".join(f"{name}={value}" for name, value in spec.settings(config).items())):
        (workdir / "cells").mkdir(exist_ok=True)  # it is a sweep's directory from here on
        features = features_of(config, source, workdir)
        if judge and judge.name in [getattr(extractor, "name", None) for extractor in features.extractors]:
            raise InputError(
                f"--classifier_run={classifier_run} has the same name as the classifier {judge.name} that scores the "
                "images, and scores have that name: rename its directory"
            )
        reference = references.of_config(config, features, source, workdir, other_reference, other_device)
        configs.save(workdir / "config.json", config)
        todo = []
        run_troubles = {name: troubles(run, m.step) for name, run, m in zip(names, run_dirs, loaded, strict=True)}
        for variant, (name, model), w in itertools.product(
            variants, zip(names, loaded, strict=True), dict.fromkeys(map(float, ws))
        ):
            row = spec.identity(variant, name, model, w, guides, features, reference, ema) | run_troubles[name]
            path = spec.cell_path(workdir, row)
            todo.append(Cell(path, model, variant, row, path.with_suffix(".npz") if save_npz else None))
        missing = {cell.path: cell for cell in todo if not cell.is_done(other_device)}
        if elsewhere := [path for path, cell in missing.items() if cell.is_done(other_device=True)]:
            raise InputError(
                f"{elsewhere[0]} was made on another kind of device than this ({features.made_on['platform']}): "
                "continue there, choose another --workdir, or allow both with --other_device"
            )
        log.info("%s: %d of %d cells are done", workdir, len(todo) - len(missing), len(todo))
        for name, (mean, _) in reference.moments.items() if missing else ():
            moments.warn_of_rank(name, "images of config.eval.num_images", config.eval.num_images, len(mean))
        against = None
        paths = to_make(missing, done=lambda path: missing[path].is_done(other_device))
        for path in progress(paths, total=len(missing), desc="sweep", unit="cell"):
            if path.exists():
                log.warning("%s is damaged, or was made with other settings: it is made again", path)
            if against is None:
                against = Against(features, reference, reference.features(features, config.eval.neighbours))
            row, picture = score_cell(missing[path], guides, against, judge)
            if not save_npz:  # an earlier one would be from older weights
                path.with_suffix(".npz").unlink(missing_ok=True)
            images.save_png(path.with_suffix(".png"), picture)
            write_json(path, row | {"other_device": other_device})
            log.info("%s: %s", path.stem, ", ".join(f"{k} {v:.4g}" for k, v in row["scores"].items()))
        return [read.read_row(cell.path) for cell in todo]


def check_variant(
    config: ml_collections.ConfigDict, loaded: Sequence[models.Model], guides: models.Guides, ws: Sequence[float]
) -> None:
    """Raise InputError if the models cannot be sampled and guided at every w by this config."""
    checks.sampling(config)
    checks.groups(config)
    checks.evaluation(config.eval)
    meshes.check_batch(config, "eval")
    section = config.guidance
    for model in loaded:
        asked.student_walk(model.config, config.sampler)
        guides.check(model, [0.0] if guides.classifier else ws, field="--w", section=section)
    if guides.classifier:
        check_classifier_guides(section)


def check_classifier_guides(section: ml_collections.ConfigDict) -> None:
    """Raise InputError for what a config.guidance sets and a noisy-image classifier that guides would ignore."""
    require(
        section.name in (spec.PAPER, "unconditional"),
        "--classifier_run guides by itself, with w as its scale: leave config.guidance.name as it is for the "
        "conditional model, or set it to unconditional",
    )
    for field, unset in {"schedule": None, "schedule_w": None, "rescale": None, "uncond": "null"}.items():
        message = f"config.guidance.{field} has no effect on --classifier_run: leave it {unset}"
        require(section[field] == unset, message)


def check_same_data(
    config: ml_collections.ConfigDict, model: models.Model, workdir: Path, other_reference: bool
) -> None:
    """Raise InputError for a run that was trained on other data than the config's, except for flips.

    other_reference allows other data of the same shape and classes.
    """
    fields = [f for f in configs.differences(model.config, config) if f.startswith("data.") and "flip" not in f]
    shape = ("data.image_size", "data.channels", "data.num_classes")
    if fields and (not other_reference or any(f.startswith(shape) for f in fields)):
        raise InputError(
            f"{workdir}: a run was trained on other data than --config says ({'; '.join(fields)}): name its data, or "
            "add --other_reference to score it against data of the same shape and classes"
        )


def score_cell(
    cell: Cell, guides: models.Guides, against: Against, judge: GivenClassifier | None
) -> tuple[dict, Image.Image]:
    """Return the row of one cell and a grid of its first images."""
    scored, picture = score(
        cell.model, cell.config, guidance_of(cell, guides), build.walk(cell.model.config, cell.config.sampler), against,
        judge=judge, npz=cell.npz,
    )  # fmt: skip
    if "effective_size" in scored and (mean := scored["effective_size"]["mean"]) < COLLAPSED:
        log.warning(
            "%s: only %.1f %% of %d particles have weight at the worst step, so the density is not sampled: lower w or "
            "raise T", cell.path.stem, 100 * mean, cell.config.sampler.particles,
        )  # fmt: skip
    return cell.row | scored, picture


def guidance_of(cell: Cell, guides: models.Guides) -> Guidance:
    """Return the guidance of a cell: its config's rule at w, or a classifier with w as its scale."""
    w, section = cell.row["w"], cell.config.guidance
    if guides.classifier:
        guided = guides.beside(cell.model.rule(section, 0.0, classifier=True), section)
        return dataclasses.replace(guided, classifier_scale=w)
    return guides.beside(cell.model.rule(section, np.full(cell.config.eval.num_images, w, np.float32)), section)
