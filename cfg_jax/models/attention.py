"""Attention whose logits stay on chip where the accelerator has a kernel for it; XLA writes them to memory in float32.

A GPU's kernel is cuDNN's, a TPU's is splash attention of jax.experimental.pallas. Both are for products of 16 bits:
float32 keeps its digits, and XLA's attention.
"""

import logging
from functools import cache
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from cfg_jax.errors import first_line

log = logging.getLogger(__name__)
BLOCKS = (512, 256, 128)  # tokens of a tile of logits on a TPU, the largest that divides them


def attend(
    q: Float[Array, "b t n d"], k: Float[Array, "b t n d"], v: Float[Array, "b t n d"], mesh: Mesh | None = None
) -> Float[Array, "b t n d"]:
    """softmax(q k^T / sqrt(d)) v over each head's tokens, by the device's kernel if it has one. mesh: as of kernel."""
    how = kernel(mesh, q.shape[1], q.shape[-1], q.dtype)
    if how == "splash":  # which needs a mesh
        q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))
        return splash(q, k, v, mesh).swapaxes(1, 2)  # type: ignore[arg-type]
    return jax.nn.dot_product_attention(q, k, v, implementation=how)


def shuffled(q: Float[Array, "b t n d"], k: Float[Array, "b t n d"], v: Float[Array, "b t n d"]) -> Array:
    """Attention whose tokens change places, always in the same way. Rajabi et al. 2025, TPG (arXiv 2506.10036)."""
    places = jax.random.permutation(jax.random.key(0), q.shape[1])
    return jax.nn.dot_product_attention(q, k, v)[:, places]


# attention made worse on purpose, whose prediction is a source of eps_u that needs no null label
PERTURBATIONS = {
    "pag": lambda q, k, v: v,  # each token attends to itself alone. Ahn et al. 2024 (arXiv 2403.17377)
    # queries blurred without bound, which is their mean. Hong 2024 (arXiv 2408.00760)
    "seg": lambda q, k, v: jax.nn.dot_product_attention(jnp.broadcast_to(q.mean(1, keepdims=True), q.shape), k, v),
    "tpg": shuffled,
}


def kernel(mesh: Mesh | None, tokens: int, width: int, dtype: jnp.dtype) -> Literal["splash", "cudnn"] | None:
    """Return whose attention heads of this width take; None is XLA's.

    mesh: the devices that the program is compiled for, over which the batch is split. Without it a TPU uses XLA's
    attention, since its compiler cannot split a kernel.
    """
    device = None if mesh is None else mesh.devices.flat[0]
    if jnp.dtype(dtype).itemsize != 2:
        return None
    if device is not None and device.platform == "tpu" and tokens % BLOCKS[-1] == 0:
        return "splash"
    if device is None or device in jax.devices():  # of any other a program is only compiled, and nothing can be tried
        return cudnn(width, dtype)
    return "cudnn" if device.platform == "gpu" else None


def splash(
    q: Float[Array, "b n t d"], k: Float[Array, "b n t d"], v: Float[Array, "b n t d"], mesh: Mesh
) -> Float[Array, "b n t d"]:
    """Attention by a TPU's kernel, of a batch that is split over a mesh; tokens in multiples of 128."""
    split = PartitionSpec(mesh.axis_names)
    return jax.shard_map(splash_on_one, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)(q, k, v)


def splash_on_one(
    q: Float[Array, "b n t d"], k: Float[Array, "b n t d"], v: Float[Array, "b n t d"], interpret: bool = False
) -> Float[Array, "b n t d"]:
    """splash on one device. interpret: on a CPU instead, slowly, as a test does."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    _, heads, tokens, width = q.shape
    block = next(size for size in BLOCKS if tokens % size == 0)
    sizes = {name: block for name in kernels.BlockSizes.__annotations__ if name.startswith("block_")}
    attention = kernels.make_splash_mha_single_device(
        masks.MultiHeadMask([masks.FullMask((tokens, tokens))] * heads),
        block_sizes=kernels.BlockSizes(**sizes),
        interpret=interpret,
    )
    with jax.default_matmul_precision("default"):  # a kernel of 16 bits knows no other
        return jnp.asarray(jax.vmap(attention)(q / width**0.5, k, v))


@cache
def cudnn(width: int, dtype: jnp.dtype) -> Literal["cudnn"] | None:
    """Return "cudnn" where this process's GPU computes heads of this width and dtype, by trying it once, else None."""
    if jax.default_backend() != "gpu":
        return None

    def total(q):
        return jax.nn.dot_product_attention(q, q, q, implementation="cudnn").astype(jnp.float32).sum()

    try:
        with jax.ensure_compile_time_eval():  # a network is being traced
            jax.block_until_ready(jax.jit(jax.grad(total))(jnp.ones((1, 64, 1, width), dtype)))
    except Exception as error:  # each version, chip and shape has a way of its own to refuse
        log.warning("attention is XLA's, cuDNN's does not run here: %s", first_line(error))
        return None
    return "cudnn"
