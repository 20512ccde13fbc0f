"""Whether the devices compute a config's kernels right, and how fast."""

import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from cfg_jax.errors import InputError
from cfg_jax.perf import cost
from cfg_jax.training import mesh as meshes

TOLERANCE = 0.01  # of a kernel in the config's dtype, relative to float32
REPEATS = 5


def convolution(config: ConfigDict) -> str:
    """A line on the network's 3x3 convolution, at the level with most channels."""
    side, channels = max(levels(config), key=lambda level: level[1])
    dims = ("NHWC", "HWIO", "NHWC")
    convolve = partial(jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=dims)
    return kernel(config, convolve, (images(), side, side, channels), (3, 3, channels, channels))


def attention(config: ConfigDict) -> str:
    """A line on its attention, at the level with most pixels of those that have it; the middle always has."""
    having = [level for level in levels(config) if level[0] in config.model.attention_resolutions]
    side, channels = (having or levels(config)[-1:])[0]
    heads = config.model.num_heads or channels // config.model.head_width
    return kernel(config, jax.nn.dot_product_attention, *[(images(), side**2, heads, channels // heads)] * 3)


def levels(config):
    """(side, channels) of the U-Net's."""
    return [(config.data.image_size >> i, m * config.model.channels) for i, m in enumerate(config.model.multipliers)]


def images():
    return 8 if on_cpu() else 64


def on_cpu():
    return jax.default_backend() == "cpu"


def kernel(config: ConfigDict, function: Callable, *shapes: tuple[int, ...]) -> str:
    """`function` of normal numbers in the config's dtype, held against float32, and its speed on one device."""
    dtype = config.model.dtype
    args = [jax.random.normal(jax.random.key(i), shape, dtype) for i, shape in enumerate(shapes)]
    with jax.default_matmul_precision("highest"):
        exact = jax.jit(function)(*[a.astype(jnp.float32) for a in args])
    run = jax.jit(function)
    error = float(jnp.linalg.norm(run(*args).astype(jnp.float32) - exact) / jnp.linalg.norm(exact))
    what = f"{dtype} {' '.join('x'.join(map(str, shape)) for shape in shapes[:2])}"
    if not error < TOLERANCE:  # nor NaN
        raise InputError(
            f"{what} is {error:.2g} from float32's result, the limit is {TOLERANCE}: update the driver and jax, or set "
            "config.model.dtype=float32"
        )
    flops = cost.matmul_flops(jax.make_jaxpr(function)(*args).jaxpr) / seconds(run, *args)
    peak = meshes.peak_flops()
    share = f", {flops * jax.device_count() / peak:.0%} of its bf16 peak" if peak else ""
    return f"{what}: {flops / 1e12:.3g} TFLOP/s{share}, {error:.1g} from float32's"


def seconds(run: Callable, *args) -> float:
    """Of one of several calls that are queued, after the first."""
    jax.block_until_ready(run(*args))
    began = time.perf_counter()
    jax.block_until_ready([run(*args) for _ in range(REPEATS)])
    return (time.perf_counter() - began) / REPEATS
