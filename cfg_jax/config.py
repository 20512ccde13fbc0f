"""A run's config as a file: saved beside the weights, read as what it was, compared on resume."""

import dataclasses
from typing import Any

import ml_collections

from cfg_jax.files import digest_json, write_json
from cfg_jax.inputs import check, read_json, reading

VERSION = 8  # of the fields
# by version, the fields that it added, with the values that configs of earlier versions had in effect
ADDED: dict[int, dict[str, Any]] = {
    2: {"eval.quantize": "round"},
    3: {
        "objective": {"predicts": "eps", "error": "eps", "density": "sech"},
        "guidance": {
            "name": "classifier-free", "logsnr_low": None, "logsnr_high": None, "momentum": 0.0, "radius": 2.5,
            "parallel": 0.0,
        },
        "model.name": "unet", "sampler.name": "ancestral", "sampler.eta": 0.0,
    },
    4: {"sampler.size": 1.0, "sampler.particles": None},
    5: {
        "guidance": {
            "power": 0.9, "zero_below": None, "other_label": None, "other_w": 1.0, "schedule_logsnr": None,
            "schedule_w": None, "rescale": None, "rounds": None, "renoise_logsnr": None, "uncond": "null",
            "classifier": "eps",
        },
        "train.averages": (),
    },
    6: {
        "objective.omega": 0.0,
        "teacher": {"how": None, "run": None, "digest": None, "w_low": 0.0, "w_high": 4.0, "num_steps": None},
    },
    7: {
        "guidance": {
            "prior": 0.999, "temperature": 1.0, "offset": 0.0, "coarse": 0.5, "levels": 1, "ahead": 0.03,
            "damping": 8.0, "schedule": None, "perturbation": "pag", "perturbation_w": 1.0,
        },
        "train.inner_head_alone": False, "model.inner_head": False, "train.beta2": 0.999, "objective.logit_mean": 0.0,
        "objective.logit_std": 1.0,
    },
    8: {"model.inner_head": False},  # of the transformer
}  # fmt: skip
# the types of all fields but those of config.model, where each network has its own
SCHEMA = {
    "seed": int, "init_from": str | None, "p_uncond": float, "logsnr_min": float, "logsnr_max": float,
    "objective": {
        "predicts": str, "error": str, "density": str, "logit_mean": float, "logit_std": float, "omega": float,
    },
    "teacher": {
        "how": str | None, "run": str | None, "digest": str | None, "w_low": float, "w_high": float,
        "num_steps": int | None,
    },
    "data": {
        "name": str, "root": str, "card?": str | None, "image_size": int, "channels": int, "num_classes": int,
        "flip": bool,
    },
    "model": {"name": str, "time": str, "dtype": str},  # and what its network says
    "train": {
        "num_steps": int, "batch_size": int, "learning_rate": float, "warmup_steps": int, "grad_clip": float,
        "beta2": float, "ema_decay": float, "averages": [float], "log_every": int, "checkpoint_every": int,
        "sample_every": int, "keep_checkpoints": int, "keep_every": int, "inner_head_alone": bool, "max_skipped": int,
        "accumulate": int, "fsdp": int,
    },
    "sampler": {
        "name": str, "num_steps": int, "variance_interp": float, "eta": float, "size": float, "particles": int | None,
        "threshold": str, "grid": str,
    },
    "guidance": {
        "name": str, "uncond": str, "logsnr_low": float | None, "logsnr_high": float | None, "power": float,
        "momentum": float, "radius": float, "parallel": float, "zero_below": float | None, "other_label": int | None,
        "other_w": float, "prior": float, "temperature": float, "offset": float, "coarse": float, "levels": int,
        "ahead": float, "damping": float, "perturbation": str, "perturbation_w": float, "schedule": str | None,
        "schedule_logsnr": [float, None], "schedule_w": [float, None], "rescale": float | None,
        "rounds": int | None, "renoise_logsnr": float | None, "classifier": str,
    },
    "eval": {
        "seed": int, "num_images": int, "batch_size": int, "labels": str, "quantize": str, "splits": int,
        "bootstrap": int, "features": str, "inception": str, "classifier": str | None, "reference": str | None,
        "reference_images": int, "neighbours": int, "w": [float],
    },
}  # fmt: skip
# a run may be continued with these changed: they do not decide the parameters of a step, except by the order of sums
FREE = (
    "data.root", "teacher.run", "sampler.", "guidance.", "eval.", "train.num_steps", "train.log_every",
    "train.checkpoint_every", "train.sample_every", "train.keep_every", "train.max_skipped", "train.fsdp",
    "train.accumulate",
)  # fmt: skip


def save(path, config: ml_collections.ConfigDict) -> None:
    write_json(path, to_json(config))


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Return the dictionary that from_json reads back, in this version of the code and in later ones."""
    return {"version": VERSION, **config.to_dict()}


def load(path) -> ml_collections.ConfigDict:
    """Read what save wrote. Raises InputError where that is no config."""
    words = "is no config", "put back the one that was saved there, by this version of the code"
    with reading(path, *words):
        return from_json(read_json(path, {}, *words))


def from_json(tree: Any) -> ml_collections.ConfigDict:
    """Return the config that to_json wrote, with all fields of this version.

    Raises ValueError, KeyError or TypeError where it is none.
    """
    check(tree, {"version?": int} | {f"{name}?": {} for name, below in SCHEMA.items() if isinstance(below, dict)})
    version = tree.get("version", 1)
    if version not in range(1, VERSION + 1):
        raise ValueError(f"it is of version {version}, this code knows 1 to {VERSION}")
    fields: dict = {k: tuples(v) for k, v in tree.items() if k != "version"}
    for later in range(version + 1, VERSION + 1):
        for field, value in _flat(ADDED[later]).items():
            group, _, name = field.rpartition(".")
            (fields.setdefault(group, {}) if group else fields).setdefault(name, value)
    if fields["model"].pop("pool", None):  # of a classifier before version 3
        fields["model"]["name"] = "noisy_classifier"
    if version < 8 and fields["model"]["name"] not in ("unet", "jit"):
        fields["model"].pop("inner_head")
    check(fields, SCHEMA)
    return ml_collections.ConfigDict(fields)


def image_shape(data: ml_collections.ConfigDict) -> tuple[int, int, int]:
    """Return height, width and channels of the images of a config.data."""
    return data.image_size, data.image_size, data.channels


def digest(config: ml_collections.ConfigDict) -> str:
    """Return twelve hex digits of the fields that decide a run's parameters: all but those of FREE.

    A field of ADDED counts only where it differs from its value there, so that digests in old rows stay valid.
    """
    implied = {field: value for added in ADDED.values() for field, value in _flat(added).items()}
    fields = flat(config)
    return digest_json({f: v for f, v in fields.items() if not f.startswith(FREE) and (f, v) not in implied.items()})


def differences(old, new) -> list[str]:
    """Return ["train.batch_size: 128 -> 64", ...]: what differs of the fields that a continued run may not change.

    A data set may have another name, that of its folder, where its card is the same.
    """
    old, new = flat(old), flat(new)
    free = (*FREE, "train.keep_checkpoints")  # which counts in digests since older versions
    free += ("data.name",) if old.get("data.card") and old["data.card"] == new.get("data.card") else ()
    fields = [f for f in sorted(old.keys() | new.keys()) if not f.startswith(free)]
    return [f"{f}: {old.get(f, 'absent')} -> {new.get(f, 'absent')}" for f in fields if old.get(f) != new.get(f)]


def flat(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Return all fields as {"train.batch_size": 128, ...}."""
    return _flat(tuples(config.to_dict()))


def _flat(tree, prefix=""):  # flax has such a function, but doctor reads configs where flax does not import
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {k: v for name, value in tree.items() for k, v in _flat(value, f"{prefix}{name}.").items()}


def set_fields(section: ml_collections.ConfigDict, cls: Any) -> dict[str, Any]:
    """Return {name: value} of the fields of a dataclass that a section of the config sets: has, and not to None."""
    names = [f.name for f in dataclasses.fields(cls) if f.name in section]
    return {name: section[name] for name in names if section[name] is not None}


def tuples(value: Any) -> Any:
    """Turn JSON's lists, at any depth, back into the tuples that they were."""
    if isinstance(value, dict):
        return {k: tuples(v) for k, v in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value
