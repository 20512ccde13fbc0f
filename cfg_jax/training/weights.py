"""Weights with their config: from a run directory or an exported .safetensors file, and into either.

Nothing read here is executed, and neither needs the devices that trained the run.
"""

import json
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cfg_jax import checks
from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.files import write_atomic
from cfg_jax.models import build
from cfg_jax.training.checkpoint import restore_params


def read(path, step=None, item="ema", *, classifier=False):
    """(config, step, params) of a run directory, or of an export, which holds one step's EMA weights.

    Raises InputError for a classifier in the place of a diffusion model, and the other way round.
    """
    path = Path(path)
    if path.is_file():
        config, step, params = _read_export(path)
    elif not (path / "config.json").exists():
        raise InputError(f"{path} is no run directory (it has no config.json): name one that experiments.train wrote")
    else:
        step, params = restore_params(path, step, item)
        config = configs.load(path / "config.json")
    is_classifier = build.is_classifier(config)
    if classifier and not is_classifier:
        raise InputError(f"{path} is no classifier: name one that experiments.import_adm wrote")
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


def export(path, config, step, params, dtype="float32"):
    """One .safetensors file: arrays by their path in the network, the config and the step in its header.

    dtype "bfloat16" halves it; whoever reads it computes on float32 all the same.
    """
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    flat = {name: np.asarray(a).astype(jax.numpy.dtype(dtype)) for name, a in flat.items()}
    header = {"format": "cfg_jax 1", "step": str(step), "config": json.dumps(configs.to_json(config))}
    write_atomic(path, save(flat, metadata=header))


def _read_export(path):
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != "cfg_jax 1":
                raise InputError(f"{path} was not written by experiments.export: import its weights first")
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        config, step = configs.from_json(json.loads(header["config"])), int(header["step"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}): export it again") from error
    params = jax.tree.map(jax.numpy.float32, flax.traverse_util.unflatten_dict(flat, sep="/"))
    return config, step, params


def adopt(params, template):
    """Weights for the network of `template` (new parameters): the null label's row is taken from there if missing.

    Raises InputError with a line for every other parameter that differs in name or shape.
    """
    old: dict = flax.traverse_util.flatten_dict(params, sep="/")
    new: dict = flax.traverse_util.flatten_dict(template, sep="/")
    rows = "label_emb/embedding"
    if rows in old and rows in new and len(new[rows]) == len(old[rows]) + 1:
        old[rows] = np.concatenate([old[rows], new[rows][-1:]])
    if problems := differences(old, new):
        raise InputError("config.init_from has weights of another network:\n" + "\n".join(problems))
    return flax.traverse_util.unflatten_dict(old, sep="/")


def differences(params, template):
    """["out_conv/bias: (3,) there, (1,) by this config", ...] for every parameter that differs in name or shape."""
    old, new = (flax.traverse_util.flatten_dict(tree, sep="/") for tree in (params, template))
    shape = lambda tree, name: tree[name].shape if name in tree else "absent"  # noqa: E731
    return [
        f"{name}: {shape(old, name)} there, {shape(new, name)} by this config"
        for name in sorted(old.keys() | new.keys())
        if shape(old, name) != shape(new, name)
    ]
