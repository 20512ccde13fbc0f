"""A run's config as a file: saved beside the weights, read as what it was, compared on resume."""

import ml_collections

from cfg_jax.errors import InputError
from cfg_jax.files import digest_json, read_json, write_json

VERSION = 3  # of the fields
# a config of an earlier version gets what it then had, by the version that brought the field or the group
ADDED = {
    2: {"eval.quantize": "round"},
    3: {
        "objective": {"predicts": "eps", "error": "eps", "density": "sech"},
        "guidance": {
            "name": "classifier-free", "logsnr_low": None, "logsnr_high": None, "momentum": 0.0, "radius": 2.5,
            "parallel": 0.0,
        },
        "model.name": "unet", "sampler.name": "ancestral", "sampler.eta": 0.0,
    },
}  # fmt: skip
# a run may be continued with these changed: none touches the parameters of a given step, but for sums in another order
FREE = (
    "data.root",
    "sampler.",
    "guidance.",
    "eval.",
    "train.num_steps",
    "train.log_every",
    "train.checkpoint_every",
    "train.sample_every",
    "train.keep_every",
    "train.max_skipped",
    "train.fsdp",
    "train.accumulate",
)


def save(path, config):
    write_json(path, to_json(config))


def to_json(config):
    """What from_json reads, of this version or a later one."""
    return {"version": VERSION, **config.to_dict()}


def load(path):
    """config.json -> ConfigDict."""
    try:
        return from_json(read_json(path))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no config ({error}): put back the one that was saved there") from error


def from_json(tree):
    """A config's dictionary as JSON gives it back -> ConfigDict with all fields of this version."""
    version = tree.get("version", 1) if isinstance(tree, dict) else 0
    if version not in range(1, VERSION + 1):
        raise ValueError(f"it is of version {version}, this code knows 1 to {VERSION}")
    fields: dict = {k: tuples(v) for k, v in tree.items() if k != "version"}
    for later in range(version + 1, VERSION + 1):
        for field, value in ADDED[later].items():
            group, _, name = field.rpartition(".")
            (fields[group] if group else fields)[name] = value
    if fields["model"].pop("pool", None):  # of a classifier before version 3
        fields["model"]["name"] = "noisy_classifier"
    return ml_collections.ConfigDict(fields)


def digest(config):
    """Twelve hex digits that name what decides a run's parameters: the fields it may not be continued across.

    A field that a later version brought counts where it differs from what there was before: old rows stay valid.
    """
    implied = {field: value for added in ADDED.values() for field, value in _flat(added).items()}
    fields = flat(config)
    return digest_json({f: v for f, v in fields.items() if not f.startswith(FREE) and (f, v) not in implied.items()})


def differences(old, new):
    """["train.batch_size: 128 -> 64", ...] for every field that a run may not be continued across."""
    old, new = flat(old), flat(new)
    fields = [f for f in sorted(old.keys() | new.keys()) if not f.startswith(FREE)]
    return [f"{f}: {old.get(f, 'absent')} -> {new.get(f, 'absent')}" for f in fields if old.get(f) != new.get(f)]


def flat(config):
    """{"train.batch_size": 128, ...}."""
    return _flat(tuples(config.to_dict()))


def _flat(tree, prefix=""):
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {k: v for name, value in tree.items() for k, v in _flat(value, f"{prefix}{name}.").items()}


def tuples(value):
    """JSON's lists as the tuples they were."""
    if isinstance(value, dict):
        return {k: tuples(v) for k, v in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value
