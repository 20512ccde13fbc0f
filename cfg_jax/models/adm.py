"""The published ADM models: their configs, and their weights as this network's parameters.

The modules share ADM's indices, so a name is rewritten and never guessed. Attention here has the channels of
qkv as ADM's "new order": all heads' q, then k, then v. In the legacy order each head has its q, k and v side by
side: those channels are permuted once, at import.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from cfg_jax.errors import InputError
from cfg_jax.models.noise_level import cosine_logsnrs, linear_logsnrs
from cfg_jax.models.unet import Encoder, check_name

BLOCK = {
    "in_layers.0": "in_norm", "in_layers.2": "in_conv", "emb_layers.1": "emb", "out_layers.0": "out_norm",
    "out_layers.3": "out_conv", "skip_connection": "skip",
}  # fmt: skip
ATTENTION = {"norm": "norm", "qkv": "qkv", "proj_out": "out"}
TOP = {
    "time_embed.0": "time_embed_0", "time_embed.2": "time_embed_2", "label_emb": "label_emb",
    "input_blocks.0.0": "input_0_conv", "out.0": "out_norm", "out.2": "out_conv",
}  # fmt: skip
POOL = {"out.2.qkv_proj": "qkv_proj", "out.2.c_proj": "c_proj"}


# the published checkpoints by name, and what each needs changed in configs/imagenet64.py. All have 1,000 classes; the
# diffusion models have no null row and a learned variance
PUBLISHED = {
    "64x64_diffusion": {"model.time": "adm_cosine"},
    "128x128_diffusion": {
        "data.image_size": 128, "model.channels": 256, "model.multipliers": (1, 1, 2, 3, 4), "model.num_blocks": 2,
        "model.head_width": None, "model.num_heads": 4, "model.dropout": 0.0, "model.time": "adm_linear",
    },
    "256x256_diffusion": {
        "data.image_size": 256, "model.channels": 256, "model.multipliers": (1, 1, 2, 2, 4, 4), "model.num_blocks": 2,
        "model.dropout": 0.0, "model.time": "adm_linear",
    },
}  # fmt: skip
PUBLISHED["256x256_diffusion_uncond"] = PUBLISHED["256x256_diffusion"] | {"data.num_classes": 0}
# config.model.name says that these are classifiers; their gradient is taken in float32, as published
CLASSIFIER = {"model.channels": 128, "model.num_blocks": 2, "model.time": "adm_linear", "model.dtype": "float32"}
PUBLISHED |= {
    "64x64_classifier": CLASSIFIER | {"model.num_blocks": 4, "model.time": "adm_cosine"},
    "128x128_classifier": CLASSIFIER | {"data.image_size": 128, "model.multipliers": (1, 1, 2, 3, 4)},
    "256x256_classifier": CLASSIFIER | {"data.image_size": 256, "model.multipliers": (1, 1, 2, 2, 4, 4)},
}


def config_of(name: str, config, overrides: Mapping[str, Any] | tuple = ()) -> ConfigDict:
    """Change a config of configs/imagenet64.py into that of a published model and return it.

    name is a key of PUBLISHED. overrides: {dotted name: value} where the model differs from the published one. Raises
    InputError where the config is of another network.
    """
    check_name(config)
    overrides = dict(overrides)
    for given, other in (("model.head_width", "model.num_heads"), ("model.num_heads", "model.head_width")):
        if given in overrides:  # of the two one is None
            overrides.setdefault(other, None)
    config.update_from_flattened_dict({
        "p_uncond": 0.0, "model.null_label": False, "model.learned_variance": True, **PUBLISHED[name], **overrides
    })  # fmt: skip
    logsnrs = {"adm_cosine": cosine_logsnrs, "adm_linear": linear_logsnrs}[config.model.time]()
    config.logsnr_min, config.logsnr_max = float(logsnrs[-1]), float(logsnrs[0])
    return Encoder.config_of(config) if name.endswith("_classifier") else config


def published_orders(name: str) -> dict[str, str]:
    """{"attention_order": "new" or "legacy", "noise_schedule": "cosine" or "linear"} of a published model.

    The shapes of its weights show neither.
    """
    return {
        "attention_order": "new" if name == "64x64_diffusion" else "legacy",
        "noise_schedule": PUBLISHED[name]["model.time"].removeprefix("adm_"),
    }


def legacy_heads(attention_order: str, model: ConfigDict) -> Callable | None:
    """A function channels -> heads where attention is in the legacy order, else None.

    The attention of POOL is in the new order in every model.
    """
    if attention_order == "new":
        return None
    return lambda channels: model.num_heads or channels // model.head_width


def rename(name: str) -> tuple[tuple[str, ...], str] | None:
    """ "input_blocks.3.1.qkv.weight" -> (("input_3_attention", "qkv"), "weight"). None where ADM has no such name."""
    module, _, leaf = name.rpartition(".")
    if module in POOL:
        return ("out_pool", POOL[module]), leaf
    if name == "out.2.positional_embedding":  # no parameter of a U-Net's out.2
        return ("out_pool",), leaf
    if module in TOP:
        return (TOP[module],), leaf
    match = re.fullmatch(r"(input|middle|output)_blocks?\.(\d+)(?:\.(\d))?\.(.+)", module)
    if not match:
        return None
    side, index, position, rest = match.groups()
    if side == "middle":  # middle_block.1.qkv has no position
        rest = f"{position}.{rest}" if position else rest
        position = index
    if rest in ATTENTION:
        return (f"{side}_{index}_attention", ATTENTION[rest]), leaf
    if rest in BLOCK:
        return (f"{side}_{index}_{'up' if side == 'output' and position != '0' else 'block'}", BLOCK[rest]), leaf
    if rest in ("op", "conv"):  # plain resampling, without a residual block
        return (f"{side}_{index}_{'down' if side == 'input' else 'up'}",), leaf
    return None


def convert(
    state: dict[str, np.ndarray],
    template: dict,
    legacy_heads: Callable[[int], int] | None = None,
    rename: Callable[[str], tuple[tuple[str, ...], str] | None] = rename,
) -> dict[str, Any]:
    """{name: array} of PyTorch -> a network's parameters, with the shapes of `template`.

    legacy_heads: channels -> heads, given where attention is in the legacy order. rename: of a network that is not
    ADM's. Raises InputError with a line for every key that is missing, extra or mis-shaped.
    """
    flat, problems = {}, []
    wanted: dict = flatten_dict(template)
    for name, array in state.items():
        path, leaf = rename(name) or (("",), "")
        if leaf == "weight":
            leaf = "embedding" if path[-1] == "label_emb" else "scale" if path[-1].endswith("norm") else "kernel"
        key = (*path, leaf)
        if key not in wanted:
            problems.append(f"extra: {name} {array.shape} is no parameter of this network")
            continue
        if legacy_heads and path[-1] == "qkv":
            array = new_order(array, legacy_heads(len(array) // 3))
        array = to_jax(array, leaf, len(wanted[key].shape))
        if array.shape != wanted[key].shape:
            problems.append(f"mis-shaped: {name} gives {array.shape}, this network has {wanted[key].shape}")
        flat[key] = array
    problems += [f"missing: {'.'.join(key)} {wanted[key].shape}" for key in wanted.keys() - flat.keys()]
    if problems:
        raise InputError("the checkpoint is not of this network:\n" + "\n".join(sorted(problems)))
    return unflatten_dict(flat)


def to_jax(array: np.ndarray, leaf: str, ndim: int) -> np.ndarray:
    """A kernel [out, in, ...] of PyTorch -> float32 [..., in, out]; other leaves only become float32.

    ndim is the number of axes here: 2 makes a convolution a matrix [... * in, out], for what it is given as one.
    """
    if leaf not in ("kernel", "positional_embedding"):
        return np.asarray(array, np.float32)
    array = np.moveaxis(np.asarray(array, np.float32), (0, 1), (-1, -2))
    return array.reshape(-1, array.shape[-1]) if ndim == 2 else array


def new_order(array: np.ndarray, heads: int) -> np.ndarray:
    """Permute the first axis, the output channels, from (head, qkv, width) to (qkv, head, width)."""
    split = array.reshape(heads, 3, -1, *array.shape[1:])
    return np.moveaxis(split, 1, 0).reshape(array.shape)
