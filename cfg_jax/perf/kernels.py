"""Check whether the devices compute a config's kernels right, and time them."""

import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from cfg_jax import meshes
from cfg_jax.errors import InputError
from cfg_jax.models import build
from cfg_jax.models.attention import attend
from cfg_jax.perf import cost

TOLERANCE = 0.01  # of a kernel in the config's dtype, relative to float32
REPEATS = 5


def convolution(config: ConfigDict) -> str:
    """Return a line on the network's 3x3 convolution, at the level with most channels. Raises InputError as kernel."""
    net = build.network(config)
    if not hasattr(net, "largest_convolution"):
        return f"the network {config.model.name} names none"
    side, channels = net.largest_convolution(config.data.image_size)
    dims = ("NHWC", "HWIO", "NHWC")
    convolve = partial(jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=dims)
    return kernel(config, convolve, (images(), side, side, channels), (3, 3, channels, channels))


def attention(config: ConfigDict) -> str:
    """Return a line on the network's largest attention. Raises InputError as kernel."""
    net = build.network(config)
    if not hasattr(net, "largest_attention"):
        return f"the network {config.model.name} names none"
    return kernel(config, attend, *[(images(), *net.largest_attention(config.data.image_size))] * 3)


def images() -> int:
    """Return how many images a kernel is given."""
    return 8 if jax.default_backend() == "cpu" else 64


def kernel(config: ConfigDict, function: Callable, *shapes: tuple[int, ...]) -> str:
    """Run `function` on normal numbers of these shapes in the config's dtype, and say its error and speed.

    The error is relative to float32's result, the speed is one device's. Raises InputError where the error is TOLERANCE
    or more.
    """
    dtype = config.model.dtype
    args = [jax.random.normal(jax.random.key(i), shape, dtype) for i, shape in enumerate(shapes)]
    with jax.default_matmul_precision("highest"):
        exact = jax.jit(function)(*[a.astype(jnp.float32) for a in args])
    run = jax.jit(function)
    error = relative(run(*args).astype(jnp.float32), exact)
    what = f"{dtype} {' '.join('x'.join(map(str, shape)) for shape in shapes[:2])}"
    if not error < TOLERANCE:  # nor NaN
        raise InputError(
            f"{what} is {error:.2g} from float32's result, the limit is {TOLERANCE}: update the driver and jax, or set "
            "config.model.dtype=float32"
        )
    # in float32 attention is made of products that can be counted, on every device
    full = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    flops = cost.matmul_flops(jax.make_jaxpr(function)(*full).jaxpr) / seconds(run, *args)
    peak = meshes.peak_flops()
    share = f", {flops * jax.device_count() / peak:.0%} of its bf16 peak" if peak else ""
    return f"{what}: {flops / 1e12:.3g} TFLOP/s{share}, {error:.1g} from float32's"


def relative(a: jax.Array, b: jax.Array) -> float:
    """Return the L2 distance of a from b, relative to b."""
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


def seconds(run: Callable, *args) -> float:
    """Return the mean time of REPEATS calls that are queued at once, after one to warm up."""
    jax.block_until_ready(run(*args))
    began = time.perf_counter()
    jax.block_until_ready([run(*args) for _ in range(REPEATS)])
    return (time.perf_counter() - began) / REPEATS
