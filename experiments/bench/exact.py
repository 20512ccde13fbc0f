"""Check that the devices compute what they should: a line for each check. The status is 1 if one fails.

python -m experiments.bench.exact --config=configs/tiny_imagenet.py

It takes the config's network with random weights that let every layer count, and compares images in batches of several
sizes, a step's loss here and on the CPU, eps in bfloat16 and float32, cuDNN's attention and XLA's.
"""

import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import dot_product_attention
from ml_collections import ConfigDict

from cfg_jax import checks, images, meshes, pinned
from cfg_jax.config import image_shape
from cfg_jax.diffusion.guidance import Guidance
from cfg_jax.files import write_atomic
from cfg_jax.models import build
from cfg_jax.perf import estimate, kernels
from cfg_jax.sampling import draw
from cfg_jax.sweep import spec
from experiments.helpers import cli

CONFIG = cli.define_config(required=True)
OUT = cli.define_path("out", None, "also write what is printed", writes=".md")

BATCHES = (8, 16, 24)  # sizes; multiples of the devices of most machines
LEVELS = 1  # grey levels: rounding may fall to either side
BFLOAT16 = 0.05  # relative L2 of eps; a rounding is 0.4 %, and a network makes some hundred of them
LOSS = 0.01  # relative; a mean over many numbers, whose roundings partly cancel
Outcome = tuple[bool | None, str]  # whether a check passes, None where it cannot be made; how far off


def main() -> None:
    config = CONFIG.value
    checks.everything(config)
    params = filled(config)
    lines, failed = [f"{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}"], False
    for check in (batches, loss, bfloat16, attention):
        right, line = check(config, params)
        failed |= right is False
        outcome = {True: "pass", False: "FAIL", None: "none"}[right]
        lines.append(f"{outcome}  {check.__name__:9} {line}")
        print(lines[-1], flush=True)
        if OUT.value:
            write_atomic(OUT.value, "\n".join([f"    {cli.command_line('bench.exact')}\n", *lines]) + "\n")
    sys.exit(int(failed))


def filled(config: ConfigDict) -> Any:
    """Return parameters as drawn, with noise on all: layers that begin at zero would hide the others."""
    rng = np.random.default_rng(0)
    params = jax.jit(partial(build.parameters, config))(pinned.key(config.seed))
    return jax.tree.map(lambda a: np.asarray(a) + rng.normal(0, 0.02, a.shape).astype(np.float32), params)


def batches(config: ConfigDict, params: Any) -> Outcome:
    """Image i is a function of (seed, i), its label and w, not of its batch."""
    shape = image_shape(config.data)
    labels = np.arange(BATCHES[-1], dtype=np.int32) % max(1, config.data.num_classes)
    walk = build.walk(spec.changed(config, {"sampler.num_steps": 4}))
    guidance = Guidance(build.rule(config.guidance, np.ones(len(labels))))
    args = build.denoiser(config, params, "float32"), labels, guidance, walk
    drawn = []
    for batch_size in BATCHES:
        x = np.concatenate([*draw.batches(*args, shape=shape, seed=0, batch_size=batch_size)])
        drawn.append(images.to_uint8(x).astype(int))
    apart = max(int(np.abs(x - drawn[0]).max()) for x in drawn)
    sizes = ", ".join(map(str, BATCHES))
    return apart <= LEVELS, f"{apart} grey levels at most between batches of {sizes}; limit {LEVELS}"


def loss(config: ConfigDict, params: Any) -> Outcome:
    """The loss of one batch is the same in the config's dtype here, and in float32 on the CPU."""
    data, objective = config.data, build.objective(config)
    x = np.random.default_rng(0).uniform(-1, 1, (8, *image_shape(data)))
    c = np.arange(len(x), dtype=np.int32) % max(1, data.num_classes)

    def mean_loss(params: Any, x: jax.Array, c: jax.Array, dtype: str) -> jax.Array:
        z, logsnr, eps = objective.noised(jax.random.key(0), x)
        return objective.loss(build.denoiser(config, params, dtype).predict, z, logsnr, c, x, eps).mean()

    def on(device: Any, dtype: str) -> float:
        args = jax.device_put((params, x.astype(np.float32), c), device)
        return float(jax.jit(partial(mean_loss, dtype=dtype))(*args))

    here, there = on(jax.local_devices()[0], config.model.dtype), on(jax.local_devices(backend="cpu")[0], "float32")
    apart = abs(here - there) / there
    both = f"{here:.6g} in {config.model.dtype}, the CPU's {there:.6g} in float32"
    return apart < LOSS, f"{both}: {apart:.1g} apart; limit {LOSS}"


def bfloat16(config: ConfigDict, params: Any) -> Outcome:
    data = config.data
    z = jax.random.normal(jax.random.key(0), (8, *image_shape(data)))
    c = jnp.arange(len(z)) % max(1, data.num_classes)
    apart = []
    eps_fn = jax.jit(lambda denoiser, *args: denoiser.eps_fn(*args))
    half, full = (build.denoiser(config, params, dtype) for dtype in ("bfloat16", "float32"))
    for logsnr in (-5.0, 0.0, 5.0):
        args = z, jnp.full(len(z), logsnr), c
        apart.append(kernels.relative(eps_fn(half, *args), eps_fn(full, *args)))
    shares = ", ".join(f"{value:.2%}" for value in apart)
    return max(apart) < BFLOAT16, f"eps {shares} from float32's at log-SNR -5, 0, 5; limit {BFLOAT16:.0%}"


def attention(config: ConfigDict, _: Any) -> Outcome:
    """cuDNN's result is XLA's at the network's largest attention. The time of each is printed."""
    if jax.default_backend() != "gpu":
        return None, f"cuDNN's is for a GPU, this is {jax.default_backend()}"
    tokens, heads, width = build.network(config).largest_attention(config.data.image_size)
    shape = (kernels.images(), tokens, heads, width)
    q, k, v = (jax.random.normal(jax.random.key(i), shape, jnp.bfloat16) for i in range(3))
    run = {name: jax.jit(partial(dot_product_attention, implementation=name)) for name in ("cudnn", "xla")}
    ours, other = (run[name](q, k, v).astype(jnp.float32) for name in run)
    apart = kernels.relative(ours, other)
    seconds = {name: kernels.seconds(f, q, k, v) for name, f in run.items()}
    times = ", ".join(f"{name} {1e6 * s:,.0f} us" for name, s in seconds.items())
    if peak := meshes.peak_flops(jax.devices()[:1]):
        share = 4 * len(q) * heads * tokens**2 * width / seconds["cudnn"] / peak
        times += f"; cudnn at {share:.0%} of the peak, bench.compile assumes {estimate.KERNELS['attention']:.0%}"
    sizes = "x".join(map(str, shape))
    return apart < kernels.TOLERANCE, f"{sizes}: {apart:.2%} apart, limit {kernels.TOLERANCE:.0%}; {times}"


if __name__ == "__main__":
    cli.run(main)
