"""Cells of (run, w, T, v, threshold, guidance, seed): scores of N images each and how far these spread, a JSON a cell.

A cell is done when its file says that it was made from the same weights, settings and reference. No cell is computed
twice: several jobs may work on one directory, and each claims a cell before it makes it.
"""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_collections
import numpy as np
from PIL import Image

from cfg_jax import checks, images, pinned, taught
from cfg_jax import config as configs
from cfg_jax.data import sources
from cfg_jax.diffusion.guidance import Guidance
from cfg_jax.errors import InputError
from cfg_jax.evaluation import moments, references
from cfg_jax.evaluation.classifiers import GivenClassifier, features_of
from cfg_jax.files import check_directory, shared, to_make, write_json
from cfg_jax.models import build
from cfg_jax.progress import progress
from cfg_jax.sampling import model as models
from cfg_jax.sweep import read, spec
from cfg_jax.sweep.score import Against, score, warn_of_collapse
from cfg_jax.training.records import troubles

log = logging.getLogger(__name__)


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


@pinned.pinned()
def sweep(
    config: ml_collections.ConfigDict, run_dirs: Sequence[str | Path], ws: Sequence[float], workdir: str | Path, *,
    vary: dict | None = None, guide=None, classifier_run=None, dtype: str | None = None, ema: float | None = None,
    other_reference: bool = False, other_device: bool = False, save_npz: bool = False,
) -> list[dict]:  # fmt: skip
    """Score every run at every w with config.sampler and config.eval, and return the rows in that order.

    All combinations of `vary`, {field: values} of the sampler, the guidance or eval.seed, are made. All cells of a seed
    share their noise. guide is another run for the unconditional eps, RUN or RUN@STEP. dtype is that of the networks'
    bodies and ema the length of an average, see sampling.model.load. other_reference scores against config.data or
    config.eval.reference even if a run was trained on something else. other_device mixes features of several kinds of
    device. save_npz keeps all images. Raises InputError for what the user can mend.
    """
    check_directory(workdir, "sweep")
    source, config = sources.load(config)
    workdir = Path(workdir)
    variants = spec.variants(config, vary or {})
    loaded = [models.load(run, params=ema or "ema", dtype=dtype) for run in run_dirs]
    guides = models.load_guides(guide, classifier_run, dtype)
    names = [Path(run).name for run in run_dirs]
    if len(set(names)) < len(names):
        raise InputError(f"two runs are called {max(names, key=names.count)}: a cell is named by its run's directory")
    for model in loaded:
        check_same_data(config, model, workdir, other_reference)
    for w in ws:
        checks.finite(float(w), "--w")
    guided_at = [0.0] if guides.classifier else ws  # w is the classifier's scale then, and no other guidance
    for variant in variants:
        checks.sampling(variant)
        checks.groups(variant)
        checks.evaluation(variant.eval)
        for model in loaded:
            taught.walk(model.config, variant.sampler)
            guides.check(model, guided_at, field="--w", section=variant.guidance)
        if guides.classifier and variant.guidance.name not in (spec.PAPER, "unconditional"):
            raise InputError(
                "--classifier_run is a guidance of its own, whose scale is w: leave config.guidance.name as it is, for "
                "the conditional model, or set it to unconditional"
            )
        idle = [f for f in ("schedule_w", "rescale") if guides.classifier and variant.guidance[f] is not None]
        if idle:
            raise InputError(f"config.guidance.{idle[0]} has no effect on --classifier_run: leave it None")

    with shared(workdir, ", ".join(f"{name}={value}" for name, value in spec.settings(config).items())):
        (workdir / "cells").mkdir(exist_ok=True)  # it is a sweep's from here on
        features = features_of(config, source, workdir)
        reference = references.of_config(config, features, source, workdir, other_reference, other_device)
        configs.save(workdir / "config.json", config)
        against = None
        todo = []
        run_troubles = {name: troubles(run, m.step) for name, run, m in zip(names, run_dirs, loaded, strict=True)}
        for variant, (name, model) in itertools.product(variants, zip(names, loaded, strict=True)):
            for w in dict.fromkeys(map(float, ws)):
                row = spec.identity(variant, name, model, w, guides, features, reference, ema) | run_troubles[name]
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
            moments.warn_of_rank(name, "images of config.eval.num_images", config.eval.num_images, len(mean))
        to_score = {cell.path: cell for cell in missing}
        paths = to_make(to_score, done=lambda path: to_score[path].is_done(other_device))
        for path in progress(paths, total=len(to_score), desc="sweep", unit="cell"):
            if path.exists():
                log.warning("%s is damaged, or was made otherwise than it would be now: it is made anew", path)
            if against is None:
                against = Against(features, reference, reference.features(features, config.eval.neighbours))
            row, picture = score_cell(to_score[path], guides, against)
            if not to_score[path].npz:  # it would be of older weights
                path.with_suffix(".npz").unlink(missing_ok=True)
            images.save_png(path.with_suffix(".png"), picture)
            write_json(path, row | {"other_device": other_device})
            log.info("%s: %s", path.stem, ", ".join(f"{k} {v:.4g}" for k, v in row["scores"].items()))
        return [read.read_row(cell.path) for cell in todo]


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


def score_cell(cell: Cell, guides: models.Guides, against: Against) -> tuple[dict, Image.Image]:
    """Return the row of one cell and a grid of its first images."""
    # what guides has a word beside the classifier that does not
    judge = guides.classifier and GivenClassifier(guides.name.split()[1], guides.classifier)
    found, picture = score(
        cell.model, cell.config, guidance_of(cell, guides), build.walk(cell.model.config, cell.config.sampler), against,
        num_classes=judge.num_classes if judge else 0, judge=judge, npz=cell.npz,
    )  # fmt: skip
    warn_of_collapse(cell.path.stem, found, cell.config.sampler.particles)
    return cell.row | found, picture


def guidance_of(cell: Cell, guides: models.Guides) -> Guidance:
    """Return how a cell is guided: with a classifier by w as its scale alone, else by its config's rule at w."""
    w, section = cell.row["w"], cell.config.guidance
    if guides.classifier:
        return guides.beside(cell.model.rule(section, 0.0, classifier=True), section).replace(classifier_scale=w)
    return guides.beside(cell.model.rule(section, np.full(cell.config.eval.num_images, w, np.float32)), section)
