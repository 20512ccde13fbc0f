"""A run's config as a file: saved beside the weights, read as what it was, compared on resume."""

import dataclasses
from typing import Any

import ml_collections

from cfg_jax.fields import paper, types
from cfg_jax.files import digest_json, write_json
from cfg_jax.inputs import check, read_json, reading

VERSION = 8  # of the fields: a new one, or another meaning, raises it
PAPER = paper()
# the types of all fields but those of config.model, where each network has its own
SCHEMA = types(PAPER) | {"model": {"name": str, "time": str, "dtype": str}}
SCHEMA["data"]["card?"] = SCHEMA["data"].pop("card")  # some files of version 1 have none
# the fields of version 1
FIRST = {
    f"{group}{field}"
    for group, names in {
        "": "seed init_from p_uncond logsnr_min logsnr_max",
        "data.": "name root card image_size channels num_classes flip",
        "model.": "channels multipliers num_blocks attention_resolutions head_width num_heads null_label "
        "resample_blocks learned_variance time dropout dtype remat",
        "train.": "num_steps batch_size learning_rate warmup_steps grad_clip ema_decay log_every checkpoint_every "
        "sample_every keep_checkpoints keep_every max_skipped accumulate fsdp",
        "sampler.": "num_steps variance_interp threshold grid",
        "eval.": "seed num_images batch_size labels splits bootstrap features inception classifier reference "
        "reference_images neighbours w",
    }.items()
    for field in names.split()
}
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
    if version < VERSION:
        model = fields["model"]
        model.setdefault("name", "noisy_classifier" if model.pop("pool", None) else "unet")  # before version 3
        if model["name"] == "jit":
            model.setdefault("inner_head", False)  # before version 8
        for field, value in LATER.items():
            group, _, name = field.rpartition(".")
            if group != "model" or model["name"] == "unet":
                (fields.setdefault(group, {}) if group else fields).setdefault(name, value)
    check(fields, SCHEMA)
    return ml_collections.ConfigDict(fields)


def image_shape(data: ml_collections.ConfigDict) -> tuple[int, int, int]:
    """Return height, width and channels of the images of a config.data."""
    return data.image_size, data.image_size, data.channels


def digest(config: ml_collections.ConfigDict) -> str:
    """Return twelve hex digits of the fields that decide a run's parameters: all but those of FREE.

    A field that is not of FIRST counts only where it differs from the paper's, so that digests in old rows stay valid.
    """
    fields = flat(config)
    return digest_json({f: v for f, v in fields.items() if not f.startswith(FREE) and (f, v) not in LATER.items()})


def differences(old, new) -> list[str]:
    """Return ["train.batch_size: 128 -> 64", ...]: what differs of the fields that a continued run may not change.

    A data set may have another name, that of its folder, where its card is the same.
    """
    old, new = flat(old), flat(new)
    free = (*FREE, "train.keep_checkpoints")  # which counts in digests since older versions
    free += ("data.name",) if old.get("data.card") and old["data.card"] == new.get("data.card") else ()
    fields = [f for f in sorted(old.keys() | new.keys()) if not f.startswith(free)]
    return [f"{f}: {old.get(f, 'absent')} -> {new.get(f, 'absent')}" for f in fields if old.get(f) != new.get(f)]


def set_fields(section: ml_collections.ConfigDict, cls: Any) -> dict[str, Any]:
    """Return {name: value} of the fields of a dataclass that a section of the config sets: has, and not to None."""
    names = [f.name for f in dataclasses.fields(cls) if f.name in section]
    return {name: section[name] for name in names if section[name] is not None}


def flat(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Return all fields as {"train.batch_size": 128, ...}."""
    return _flat(tuples(config.to_dict()))


def _flat(tree, prefix=""):  # flax has such a function, but doctor reads configs where flax does not import
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {k: v for name, value in tree.items() for k, v in _flat(value, f"{prefix}{name}.").items()}


def tuples(value: Any) -> Any:
    """Turn JSON's lists, at any depth, back into the tuples that they were."""
    if isinstance(value, dict):
        return {k: tuples(v) for k, v in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value


# the other fields with their values, which a file of an earlier version may lack
LATER = {field: value for field, value in flat(PAPER).items() if field not in FIRST}
