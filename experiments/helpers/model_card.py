"""A model's card as the hub reads it: YAML for its index, then text for people."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import yaml
from ml_collections import ConfigDict

from cfg_jax import __version__
from cfg_jax import config as configs
from cfg_jax.data import cards
from cfg_jax.errors import InputError, require
from cfg_jax.inputs import read_csv, reading
from cfg_jax.models import build, network
from cfg_jax.store import weights
from cfg_jax.text import escaped, markdown

LICENCES = {"MIT": "mit", "CC BY 4.0": "cc-by-4.0"}  # a data card's name: the hub's name
TAGS = ["diffusion", "classifier-free-guidance", "image-generation", "jax", "flax"]
# with what, in addition to w, a score was measured
SETTINGS = ("N", "T", "sampler", "v", "threshold", "grid", "guidance", "labels", "seed", "weights", "reference_N")
Row = dict[str, str]  # of results.csv

TEXT = """
# {name}

EMA weights{length} of a {kind} {made} by cfg_jax {version}, step {step}.
Ho & Salimans, Classifier-Free Diffusion Guidance.

{use}

- Data: {data}
- p_uncond: {config.p_uncond:g}; {guidance}
- Parameters: {count:,}, {dtype}. Config {digest}, whole in the file's header.
- Network: {network}.
- Sampling, unless told: {config.sampler.name}, T = {config.sampler.num_steps}.{more}

## Scores

{scores}"""
USE = """\
    import cfg_jax
    model = cfg_jax.load("{load}")
    images = model.sample({labels}, w={w:.1f})    # uint8 [2, {size}, {size}, {channels}]"""
USE_ONNX = """\
    import onnxruntime
    session = onnxruntime.InferenceSession("{load}")
    [eps] = session.run(None, {{"z": z, "logsnr": logsnr, "c": c{of_w}}})  # float32 [B, {size}, {size}, {channels}]"""
ROUNDED = "Measured before the parameters were rounded to bfloat16.\n"
UNSCORED = "Not measured here. Score it with experiments.sweep before quoting any number.\n"


def card(
    path: Path, config: ConfigDict, step: int, params: Any, *, dtype: str, data: cards.Card | None = None,
    license: str | None = None, datasets: Sequence[str] = (), rows: Sequence[Row] = (), rounded: bool = False,
    length: str = "", made: str = "trained", more: str = "",
) -> str:  # fmt: skip
    """Return the card of the weights in `path`.

    data: the card of what they were trained on, where it is known. license and datasets: names of the hub; the license
    is by default that of the data. rows: what scores() read. rounded: whether the weights were rounded since.
    """
    size, summary = config.data.image_size, build.network(config).summary
    guidance, w, labels = "w > 0 guides it.", 1.0, [0, int(config.data.num_classes > 1)]
    if network.takes_w(config):
        w = config.teacher.w_high
        guidance = f"a student, it takes w itself, from {config.teacher.w_low:g} to {w:g}."
    elif not config.data.num_classes:
        guidance, w = "trained without classes: w must be 0, and labels are not looked at.", 0.0
    elif not config.p_uncond:
        guidance, w = "it has no unconditional half: w must be 0.", 0.0
    use = (USE_ONNX if path.suffix == ".onnx" else USE).format(
        load=path.stem if path.parent.resolve() == weights.PRETRAINED else path.name, labels=labels, w=w, size=size,
        channels=config.data.channels, of_w=', "w": w' * network.takes_w(config),
    )  # fmt: skip
    text = TEXT.format(
        config=config, name=escaped(path.stem), use=use, version=__version__, step=step, size=size, length=length,
        made=made, more=more, guidance=guidance,
        data=escaped(about(config.data, data, datasets)), count=sum(a.size for a in jax.tree.leaves(params)),
        dtype=dtype, digest=configs.digest(config), kind=summary.kind, network=summary.text,
        scores=(table(rows) + ROUNDED * rounded) if rows else UNSCORED,
    )  # fmt: skip
    index = {"license": license or (LICENCES.get(data.licence) if data else None) or "other"}
    if index["license"] == "other":
        index["license_name"] = "see-card"
    index |= {"library_name": "cfg_jax", "tags": TAGS} | ({"datasets": list(datasets)} if datasets else {})
    if rows:
        kind = "class-conditional" if config.data.num_classes else "unconditional"
        task = {"type": "other", "name": f"{kind} image generation"}
        named = {"type": (*datasets, config.data.name)[0], "name": f"{config.data.name}, {size}x{size}"}
        result = {"task": task, "dataset": named | {"split": "train"}, "metrics": metrics(rows)}
        index["model-index"] = [{"name": path.stem, "results": [result]}]
    return f"---\n{yaml.safe_dump(index, sort_keys=False)}---\n{text}"


def about(config: ConfigDict, data: cards.Card | None, datasets: Sequence[str]) -> str:
    """Return what the weights were trained on."""
    shape = f"{config.image_size}x{config.image_size}x{config.channels}, {config.num_classes or 'no'} classes"
    named = f"{config.name}{' of ' + ', '.join(datasets) if datasets else ''}, {shape}, card {config.card}"
    if data is None:
        return f"{named}; use is subject to the licence of these data."
    return f"{named}: {data.source}, {data.counts['train']:,} pictures, resize {data.resize}. Licence: {data.licence}."


def scores(directory: Path, params: Any) -> list[Row]:
    """Return the rows of a sweep's results.csv that were measured with these weights, in its order."""
    path = directory / "results.csv"
    require(path.exists(), f"--scores={directory} has no results.csv: name what experiments.sweep wrote")
    what, again = "is no table of a sweep", "run experiments.report again"
    rows = read_csv(path, what, again)
    with reading(path, what, again):
        for row in rows:
            if missing := {"w", "T", "seed"} - row.keys():
                raise ValueError(f"it has no {min(missing)}")
            if bad := [name for name in ("w", *columns(row)) if not math.isfinite(float(row[name]))]:
                raise ValueError(f"{bad[0]} is no finite number")
    digest = weights.digest_of(params)
    if measured := [row for row in rows if row.get("parameters") == digest]:
        return measured
    seen = ", ".join(sorted({row.get("parameters", "") for row in rows})) or "none"
    raise InputError(f"--scores={directory} has no scores of these weights, {digest}, but of {seen}: sweep these")


def columns(row: Row) -> list[str]:
    return [name for name in row if name.startswith(("fid_", "fd_", "is_")) and not name.endswith(("_se", "_std"))]


def metrics(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return FID and IS where the first seed's FID is least. Their names have the settings."""
    of_seed = [row for row in rows if row["seed"] == rows[0]["seed"]]
    row = min(of_seed, key=lambda row: float(row[columns(row)[0]]))
    at = f"w={float(row['w']):g}, T={row['T']}, seed {row['seed']}"
    return [{"type": name, "name": f"{name} at {at}", "value": round(float(row[name]), 2)} for name in columns(row)]


def table(rows: Sequence[Row]) -> str:
    """Return a table of w, the settings that vary, FID and IS with standard errors, and the shared settings below."""
    settings = {name: list(dict.fromkeys(row[name] for row in rows)) for name in SETTINGS if rows[0].get(name)}
    varied = [name for name, values in settings.items() if len(values) > 1]
    lines = [["w", *varied, *columns(rows[0])]]
    for row in rows:
        errors = [f" ± {float(row[f'{name}_se']):.2f}" if row.get(f"{name}_se") else "" for name in columns(row)]
        measured = [f"{float(row[name]):.2f}{error}" for name, error in zip(columns(row), errors, strict=True)]
        lines.append([f"{float(row['w']):g}", *(row[name] for name in varied), *measured])
    shared = ", ".join(f"{name} {values[0]}" for name, values in settings.items() if len(values) == 1)
    error = " ± is the bootstrap's standard error over images." if "±" in str(lines) else ""
    return f"{markdown(lines, ())}\n{shared}.{error}\n"
