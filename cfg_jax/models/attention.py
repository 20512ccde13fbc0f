"""Attention by cuDNN where a GPU has it: its logits stay on chip, where XLA writes them to memory in float32."""

import logging
from functools import cache
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

log = logging.getLogger(__name__)


def attend(q: Float[Array, "b t n d"], k: Float[Array, "b s n d"], v: Float[Array, "b s n d"]) -> Array:
    """softmax(q k^T / sqrt(d)) v over the tokens of each head, [B, T, heads, d]."""
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation(q.shape[-1], q.dtype))


@cache
def implementation(width: int, dtype: jnp.dtype) -> Literal["cudnn"] | None:
    """Return "cudnn" where it computes heads of this width and dtype, by trying it once, else None for XLA's.

    Only products of 16 bits are cuDNN's: float32 keeps its digits.
    """
    if jax.default_backend() != "gpu" or dtype not in (jnp.bfloat16, jnp.float16):
        return None

    def total(q):
        return jax.nn.dot_product_attention(q, q, q, implementation="cudnn").astype(jnp.float32).sum()

    try:
        with jax.ensure_compile_time_eval():  # a network is being traced
            jax.block_until_ready(jax.jit(jax.grad(total))(jnp.ones((1, 64, 1, width), dtype)))
    except Exception as error:  # each version, chip and shape has a way of its own to refuse
        log.warning("attention is XLA's, cuDNN's does not run here: %s", (str(error).splitlines() or [""])[0])
        return None
    return "cudnn"
