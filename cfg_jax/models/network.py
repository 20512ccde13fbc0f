"""Read the fields that a network takes from the config."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from ml_collections import ConfigDict

from cfg_jax.errors import InputError, choice
from cfg_jax.inputs import check
from cfg_jax.models.noise_level import NOISE_LEVELS

DTYPES = ("float32", "bfloat16")
STUDENTS = ("guided", "halved", "itself")  # of config.teacher.how: the network takes w as an input
SHARED = ("name", "time", "dtype")  # every config.model has them


class Summary(NamedTuple):
    """A network on a model card."""

    kind: str
    text: str  # its size, without a full stop


def takes_w(config: ConfigDict) -> bool:
    """Return whether the network takes w as an input. It then learns another run's guidance, or its own."""
    return config.teacher.how in STUDENTS


def fields(config: ConfigDict, *names: str, **types: Any) -> dict[str, Any]:
    """Return a network's fields: those `names` of config.model, and num_classes, noise_level and dtype.

    types: further names, with a type as inputs.check takes it, such as int | None or [int]. Raises InputError unless
    config.model has exactly these names and those of SHARED, of these types.
    """
    model, names = config.model.to_dict(), (*names, *types)
    if missing := sorted({*SHARED, *names} - model.keys()):
        raise InputError(
            f"config.model lacks {', '.join(missing)}, which the network {config.model.name} has: take that from "
            "a config of this network; a saved one is damaged, or another version of this code wrote it"
        )
    name, time, dtype = (model.pop(field) for field in SHARED)
    if unknown := sorted(model.keys() - set(names)):
        raise InputError(f"config.model has {', '.join(unknown)}, which the network {name} has not: take it out")
    try:
        check(model, types, "config.model")
    except ValueError as error:
        raise InputError(f"{error}: set another one") from error
    choice(time, NOISE_LEVELS, "config.model.time")
    choice(dtype, DTYPES, "config.model.dtype")
    return model | {
        "num_classes": config.data.num_classes, "noise_level": NOISE_LEVELS[time], "dtype": jnp.dtype(dtype)
    }  # fmt: skip
