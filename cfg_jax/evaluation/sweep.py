"""Cells of (run, w): images, their scores and how far these spread, one JSON each, never computed twice."""

import logging
import time
from pathlib import Path

import jax
import numpy as np

from cfg_jax import __version__, images
from cfg_jax import config as configs
from cfg_jax.data import sources
from cfg_jax.errors import InputError
from cfg_jax.evaluation import features as feature_networks
from cfg_jax.evaluation import generate, scores
from cfg_jax.evaluation.moments import Moments
from cfg_jax.files import read_json, write_json
from cfg_jax.progress import progress

log = logging.getLogger(__name__)
GRID_COLUMNS = 8


def sweep(config, run_dirs, ws, workdir, other_reference=False):
    """Score every run at every w with config.sampler and config.eval -> rows, in that order.

    A cell is done when its file says it was made from the same weights, settings and reference. The same
    images' noise is shared by all w and all runs. other_reference: score against config.data even if a run was
    trained on something else.
    """
    source, config = sources.load(config)
    workdir = Path(workdir)
    ws = list(dict.fromkeys(float(w) for w in ws))
    models = [generate.load(run) for run in run_dirs]
    names = [Path(run).name for run in run_dirs]
    if len(set(names)) < len(names):
        raise InputError(f"two runs are called {max(names, key=names.count)}: a cell is named by its run's directory")
    for model in models:
        check_same_data(config, model, workdir, other_reference)
        for w in ws:
            configs.check_w(w, model.config.p_uncond, "--w")
    configs.check_sampler(config.sampler)
    configs.check_eval(config.eval)
    configs.save(workdir / "config.json", config)
    network = feature_networks.Features(config, source, workdir)

    todo = []
    for name, model in zip(names, models, strict=True):
        for w in ws:
            path = cell_path(workdir, name, w, config)
            todo.append((path, model, identity(config, name, model, w, network)))
    missing = [cell for cell in todo if not is_done(*cell)]
    log.info("%s: %d of %d cells are done", workdir, len(todo) - len(missing), len(todo))
    if missing:
        reference = network.reference()
        for path, model, cell in progress(missing, desc="sweep", unit="cell"):
            row, picture = score_cell(config, model, cell, network, reference)
            images.save_png(path.with_suffix(".png"), picture)
            write_json(path, row)
    return [read_json(path) for path, _, _ in todo]


def check_same_data(config, model, workdir, other_reference):
    """Frechet distances mean something against pictures of the same set and resize: flips do not matter."""
    fields = [f for f in configs.differences(model.config, config) if f.startswith("data.") and "flip" not in f]
    shape = ("data.image_size", "data.channels", "data.num_classes")
    if fields and (not other_reference or any(f.startswith(shape) for f in fields)):
        raise InputError(
            f"{workdir}: a run was trained on other data than --config says ({'; '.join(fields)}): name its data, or "
            "score against these all the same with --other_reference, of the same shape and classes"
        )


def cell_path(workdir, name, w, config):
    return workdir / "cells" / f"{name}_T{config.sampler.num_steps}_w{w:.12g}.json"


def identity(config, name, model, w, network):
    """Everything that decides a cell's numbers; w is the paper's and s = 1 + w the others' scale."""
    return {
        "run": name,
        "p_uncond": model.config.p_uncond,
        "w": w,
        "s": 1 + w,
        "T": config.sampler.num_steps,
        **settings(config),
        "step": model.step,
        "weights": "ema",
        "config": configs.digest(model.config),
        "trained_on": model.config.data.get("card"),
        "scored_on": config.data.card,
        "parameters": feature_networks.digest(*map(np.asarray, jax.tree.leaves(model.params))),
        "features": network.digest,
        "reference": network.reference_digest,
        "reference_N": network.num_reference,
    }


def settings(config):
    """What the cells of one table share, T apart."""
    sampler, evaluation = config.sampler, config.eval
    return {
        "N": evaluation.num_images,
        "v": sampler.variance_interp,
        "sampler": "ancestral",
        "threshold": sampler.threshold,
        "grid": sampler.grid,
        "seed": evaluation.seed,
        "labels": evaluation.labels,
        "splits": evaluation.splits,
        "bootstrap": evaluation.bootstrap,
        "quantize": "round",
    }


def is_done(path, _, cell):
    if not (path.exists() and path.with_suffix(".png").exists()):
        return False
    try:
        row = read_json(path)
    except ValueError:  # damaged: made again
        return False
    return all(row.get(field) == value for field, value in cell.items())


def score_cell(config, model, cell, network, reference):
    """(row, grid of its first images) of one cell."""
    evaluation = config.eval
    labels = generate.labels_by_rule(evaluation.labels, cell["N"], config.data.num_classes, evaluation.seed)
    began = time.perf_counter()
    batches = generate.sample_batches(
        model, labels, cell["w"], config.sampler, seed=evaluation.seed, batch_size=evaluation.batch_size
    )
    uint8 = np.concatenate([images.to_uint8(x) for x in batches])
    seconds = time.perf_counter() - began
    extracted = network(uint8)
    for name, features in extracted.distances.items():
        if features.shape[1] >= cell["N"]:
            rank = f"{cell['N']} images give a covariance of rank {cell['N'] - 1} of {features.shape[1]}"
            log.warning("%s: %s, a distance far too large: raise config.eval.num_images", name, rank)

    def measure(index):
        values = measurements(uint8, extracted, labels, index, reference, evaluation.splits, config.data.name)
        return {f"{name}@{cell['N']}": value for name, value in values.items()}

    rng = np.random.default_rng(evaluation.seed)
    resampled = [measure(resample(labels, rng)) for _ in range(evaluation.bootstrap)]
    row = cell | {
        "scores": measure(np.arange(len(labels))),
        "resampled": {k: [float(f"{r[k]:.6g}") for r in resampled] for k in (resampled or [{}])[0]},
        "classifier_accuracy": network.classifier and network.classifier.accuracy,
        "seconds": round(seconds, 2),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "code": __version__,
    }
    return row, class_grid(uint8, labels)


def measurements(uint8, extracted, labels, index, reference, splits, data):
    """{measure_of: value} of the images at `index`, with repetitions where it is a bootstrap's."""
    values = {}
    for name, features in extracted.distances.items():
        moments, of = Moments.of(features[index]), reference[name]
        values[name] = scores.frechet_distance(moments.mean, moments.cov, of.mean, of.cov)
    for name, logits in extracted.logits.items():
        values[f"is_{name}"] = scores.inception_score(logits[index], splits)[0]
    uint8, labels = uint8[index], labels[index]
    if extracted.class_logits is not None:
        log_p = scores.log_softmax(extracted.class_logits[index])
        values[f"accuracy_{data}"] = float((log_p.argmax(1) == labels).mean())
        values[f"log_p_class_{data}"] = float(log_p[np.arange(len(labels)), labels].mean())
    per_class = [uint8[labels == c].astype(np.float32) for c in np.unique(labels)]
    values[f"saturated_{data}"] = float(np.isin(uint8, (0, 255)).mean())
    values[f"variety_{data}"] = float(np.mean([c.std(axis=0).mean() for c in per_class]) / 127.5)
    return values


def resample(labels, rng):
    """Bootstrap indices [N]: each image gives way to a random one of its own class, so the label rule holds.

    They depend on the labels and the seed alone: differences between cells are paired.
    """
    index = np.empty(len(labels), int)
    for c in np.unique(labels):
        own = np.flatnonzero(labels == c)
        index[own] = rng.choice(own, len(own))
    return index


def class_grid(uint8, labels, max_classes=10):
    """The first GRID_COLUMNS images of each of the first classes, a row each."""
    rows = [np.flatnonzero(labels == c)[:GRID_COLUMNS] for c in np.unique(labels)[:max_classes]]
    full = [row for row in rows if len(row) == GRID_COLUMNS] or [rows[0]]
    return images.grid(uint8[np.concatenate(full)], columns=len(full[0]))
