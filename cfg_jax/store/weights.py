"""Weights with their config: from a run directory or an exported .safetensors file, or into either.

Nothing read here is executed, and neither needs the devices that trained the run.
"""

import json
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
from ml_collections import ConfigDict
from safetensors import safe_open
from safetensors.numpy import save

from cfg_jax import checks
from cfg_jax import config as configs
from cfg_jax.errors import InputError, did_you_mean
from cfg_jax.files import digest, write_atomic
from cfg_jax.inputs import MOST, json_of, reading
from cfg_jax.models import build
from cfg_jax.store import hub
from cfg_jax.store.checkpoint import average, restore_params

PRETRAINED = Path(__file__).with_name("pretrained")


def read(
    path: str | Path, step: int | None = None, item: str | float = "ema", *, classifier: bool = False
) -> tuple[ConfigDict, int, Any]:
    """Return (config, step, params) of a run directory, of an export, or of a name of pretrained() or hf://OWNER/NAME.

    `step` and `item` are as in restore_params, or `item` is the length of an EMA, a share of the steps, as in
    averages.py; an export holds the EMA weights of one step, ignores `step` and the name of an item, and refuses a
    length. Raises InputError for files that cannot be read, for weights of another network than the config's, and for a
    classifier in the place of a diffusion model, or the other way round.
    """
    path = located(path)
    if path.is_file():
        if not isinstance(item, str):
            raise InputError(f"{path} holds one average: an EMA of length {item:g} is made of a run's checkpoints")
        config, step, params = _read_export(path)
    elif not (path / "config.json").exists():
        raise InputError(
            f"{path} is no run directory (it has no config.json): {did_you_mean(path, pretrained())}name one that "
            "experiments.train wrote, a file of experiments.export, hf://OWNER/NAME, or what comes with the package: "
            + ", ".join(pretrained())
        )
    else:
        step, params = restore_params(path, step, item) if isinstance(item, str) else average(path, item, step)
        config = configs.load(path / "config.json")
    is_classifier = build.is_classifier(config)
    if classifier and not is_classifier:
        raise InputError(f"{path} is no classifier: name one that experiments.train_classifier or import_adm wrote")
    if is_classifier and not classifier:
        raise InputError(f"{path} is a classifier and makes no images: name a diffusion model, it as --classifier_run")
    if not classifier:
        checks.saved(path, config)
    template = build.shapes(config)
    if problems := differences(params, template):
        raise InputError(
            f"{path} has weights of another network than its config says ({problems[0]}): put back the config that "
            "was saved there"
        )
    return config, step, params


def pretrained() -> list[str]:
    """Return the names of the weights that come with the package. Their cards lie beside them."""
    return sorted(path.stem for path in PRETRAINED.glob("*.safetensors"))


def located(path: str | Path) -> Path:
    """Return a path where a run or a file is there, else the file of a pretrained name. An hf:// name is fetched."""
    if str(path).startswith(hub.SCHEME):
        return hub.fetch(str(path))
    path = Path(path)
    there = path.is_file() or (path / "config.json").exists()
    return PRETRAINED / f"{path}.safetensors" if not there and str(path) in pretrained() else path


def export(path: str | Path, config: ConfigDict, step: int, params: Any, dtype: str = "float32") -> None:
    """Write one .safetensors file: arrays by their path in the network, the config and the step in its header.

    dtype "bfloat16" halves the file; read() turns the weights back into float32.
    """
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    flat = {name: np.asarray(a).astype(jax.numpy.dtype(dtype)) for name, a in flat.items()}
    write_atomic(path, save(flat, metadata=header(config, step)))


def header(config: ConfigDict, step: int) -> dict[str, str]:
    """Return what an exported file says about its weights."""
    return {"format": "cfg_jax 1", "step": str(step), "config": json.dumps(configs.to_json(config))}


def _read_export(path) -> tuple[ConfigDict, int, Any]:
    with reading(path, "cannot be read", "export it again", MOST):
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            if about.get("format") != "cfg_jax 1":
                raise InputError(f"{path} was not written by experiments.export: import its weights first")
            config, step = configs.from_json(json_of(about["config"], {})), json_of(about["step"], int)
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        params = flax.traverse_util.unflatten_dict(flat, sep="/")
    return config, step, jax.tree.map(jax.numpy.float32, params)


def digest_of(params: Any) -> str:
    """Return twelve hex digits of a network's parameters."""
    return digest(*map(np.asarray, jax.tree.leaves(params)))


def fit_to(params: Any, template: Any) -> Any:
    """Return `params` for the network whose new parameters are `template`.

    Where `params` has no row for the null label, no embedding of w or no inner head, that is the template's. Raises
    InputError with a line for every other parameter that differs in name or shape.
    """
    old: dict = flax.traverse_util.flatten_dict(params, sep="/")
    new: dict = flax.traverse_util.flatten_dict(template, sep="/")
    rows = "label_emb/embedding"
    if rows in old and rows in new and len(new[rows]) == len(old[rows]) + 1:
        old[rows] = np.concatenate([old[rows], new[rows][-1:]])
    old = {name: array for name, array in new.items() if name.startswith(("w_embed/", "inner_"))} | old
    if problems := differences(old, new):
        raise InputError("config.init_from has weights of another network:\n" + "\n".join(problems))
    return flax.traverse_util.unflatten_dict(old, sep="/")


def differences(params: Any, template: Any) -> list[str]:
    """Return a line for every parameter that differs in name or shape.

    One reads "out_conv/bias: (3,) there, (1,) by this config".
    """
    old, new = (flax.traverse_util.flatten_dict(tree, sep="/") for tree in (params, template))
    shape = lambda tree, name: tree[name].shape if name in tree else "absent"  # noqa: E731
    return [
        f"{name}: {shape(old, name)} there, {shape(new, name)} by this config"
        for name in sorted(old.keys() | new.keys())
        if shape(old, name) != shape(new, name)
    ]
