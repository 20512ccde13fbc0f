"""The published JiT models: their sizes by their weights' shapes, and their weights as this network's parameters."""

import re
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cfg_jax.errors import InputError
from cfg_jax.models import adm

BLOCK = {
    "norm1": "attention_norm", "attn.q_norm": "self_attention.q_norm", "attn.k_norm": "self_attention.k_norm",
    "attn.qkv": "self_attention.qkv", "attn.proj": "self_attention.out", "norm2": "mlp_norm", "mlp.w12": "mlp_in",
    "mlp.w3": "mlp_out", "adaLN_modulation.1": "emb",
}  # fmt: skip
TOP = {
    "t_embedder.mlp.0": "time_embed_0", "t_embedder.mlp.2": "time_embed_2", "y_embedder.embedding_table": "label_emb",
    "x_embedder.proj1": "patch_embed_0", "x_embedder.proj2": "patch_embed_1", "final_layer.norm_final": "out_norm",
    "final_layer.adaLN_modulation.1": "emb", "final_layer.linear": "out",
}  # fmt: skip
CLASS_TOKENS, WAVES = "in_context_posemb", "pos_embed"


def config_of(state: dict[str, np.ndarray], config: ConfigDict) -> ConfigDict:
    """Give a config of configs/imagenet64_jit.py the sizes of weights by their names in the network, and return it.

    Two settings have no shape, and are those of the published models: class tokens join after a third of the blocks,
    and the noise scale is the image's size over 256, at least 1. Raises InputError where it is no JiT.
    """
    try:
        squeezed, channels, patch, _ = state["x_embedder.proj1.weight"].shape
        _, patches, width = state[WAVES].shape
        rows, _ = state["y_embedder.embedding_table.weight"].shape
        (head_width,) = state["blocks.0.attn.q_norm.weight"].shape
        depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
        heads, size = width // head_width, round(patches**0.5) * patch
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"the checkpoint is no JiT ({error}): name one of its .pth files") from error
    config.data.update(image_size=size, channels=channels, num_classes=rows - 1)
    config.model.update(
        patch=patch, width=width, depth=depth, num_heads=heads, bottleneck=squeezed, noise_scale=max(1.0, size / 256),
        class_tokens=state[CLASS_TOKENS].shape[1] if CLASS_TOKENS in state else 0, class_tokens_from=depth // 3,
    )  # fmt: skip
    return config


def convert(state: dict[str, np.ndarray], template: dict) -> dict[str, Any]:
    """Return weights by their names in the network as parameters with the shapes of `template`.

    The channels of queries and keys are in another order here, see jit.turned. Raises InputError with a line for every
    key that is missing, extra or mis-shaped.
    """
    state = {name: array for name, array in state.items() if name != WAVES}  # which the network computes
    if CLASS_TOKENS in state:
        state[CLASS_TOKENS] = state[CLASS_TOKENS][0]
    head_width = len(state["blocks.0.attn.q_norm.weight"])
    for name, array in state.items():
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            state[name] = halves(array, head_width)
        elif ".attn.qkv." in name:
            q, k, v = np.split(array, 3)
            state[name] = np.concatenate([halves(q, head_width), halves(k, head_width), v])
    return adm.convert(state, template, rename=rename)


def halves(array: np.ndarray, head_width: int) -> np.ndarray:
    """Permute the first axis, channels of heads: the first of each pair of neighbours, then the second of each."""
    pairs = array.reshape(-1, head_width // 2, 2, *array.shape[1:])
    return pairs.swapaxes(1, 2).reshape(array.shape)


def rename(name: str) -> tuple[tuple[str, ...], str] | None:
    """ "blocks.3.attn.qkv.weight" -> (("block_3", "self_attention", "qkv"), "weight"); None for an unknown name."""
    if name == CLASS_TOKENS:
        return (), "class_tokens"
    module, _, leaf = name.rpartition(".")
    if module in TOP:
        return (TOP[module],), leaf
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", module)
    if not match or match[2] not in BLOCK:
        return None
    return (f"block_{match[1]}", *BLOCK[match[2]].split(".")), leaf
