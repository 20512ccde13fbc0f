"""Whether the devices compute what they should: a line for each check, pass or how far off; status 1.

python -m experiments.bench.exact --config=configs/tiny_imagenet.py

It has the config's network with random weights that let every layer count, and looks at: images in batches of several
sizes, a step's loss here and on the CPU, eps in bfloat16 and float32, cuDNN's attention and XLA's.
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.nn import dot_product_attention

from cfg_jax import checks, images, meshes, pinned
from cfg_jax.diffusion.guidance import Guidance
from cfg_jax.files import check_output, write_atomic
from cfg_jax.models import build
from cfg_jax.perf import estimate, kernels
from cfg_jax.sampling import draw
from cfg_jax.sweep import spec
from experiments.helpers import cli

CONFIG = cli.define_config()
OUT = flags.DEFINE_string("out", None, "also write what is printed")
flags.mark_flags_as_required(["config"])

BATCHES = (8, 16, 24)  # images are drawn in; multiples of the devices of most machines
LEVELS = 1  # grey levels: rounding may fall to either side
BFLOAT16 = 0.05  # relative L2 of eps; a rounding is 0.4 %, and a network makes some hundred of them
LOSS = 0.01  # relative; a mean over many numbers, whose roundings partly cancel


def main():
    if OUT.value:
        check_output(OUT.value, ".md")
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


def filled(config):
    """Parameters as drawn, with noise on all: layers that begin at zero would hide the others."""
    rng = np.random.default_rng(0)
    params = jax.jit(partial(build.parameters, config))(pinned.key(config.seed))
    return jax.tree.map(lambda a: np.asarray(a) + rng.normal(0, 0.02, a.shape).astype(np.float32), params)


def batches(config, params):
    """Image i is a function of (seed, i), its label and w, not of its batch."""
    shape = (config.data.image_size, config.data.image_size, config.data.channels)
    labels = np.arange(BATCHES[-1], dtype=np.int32) % max(1, config.data.num_classes)
    walk = build.walk(spec.changed(config, {"sampler.num_steps": 4}))
    args = (
        build.denoiser(config, params, "float32"),
        labels,
        Guidance(build.rule(config.guidance, np.ones(len(labels)))),
    )
    drawn = [
        images.to_uint8(
            np.concatenate([*draw.batches(*args, walk, shape=shape, seed=0, batch_size=batch_size)])
        ).astype(int)
        for batch_size in BATCHES
    ]
    apart = max(int(np.abs(x - drawn[0]).max()) for x in drawn)
    said = f"{apart} grey levels at most between batches of {', '.join(map(str, BATCHES))}; limit {LEVELS}"
    return apart <= LEVELS, said


def loss(config, params):
    """Of one batch in the config's dtype here, and in float32 on the CPU."""
    data, objective = config.data, build.objective(config)
    x = np.random.default_rng(0).uniform(-1, 1, (8, data.image_size, data.image_size, data.channels))
    c = np.arange(len(x), dtype=np.int32) % max(1, data.num_classes)

    def mean_loss(params, x, c, dtype):
        z, logsnr, eps = objective.noised(jax.random.key(0), x)
        return objective.loss(build.denoiser(config, params, dtype).predict, z, logsnr, c, x, eps).mean()

    def on(device, dtype):
        args = jax.device_put((params, x.astype(np.float32), c), device)
        return float(jax.jit(partial(mean_loss, dtype=dtype))(*args))

    here, there = on(jax.local_devices()[0], config.model.dtype), on(jax.local_devices(backend="cpu")[0], "float32")
    apart = abs(here - there) / there
    return (
        apart < LOSS,
        f"{here:.6g} in {config.model.dtype}, the CPU's {there:.6g} in float32: {apart:.1g} apart; limit {LOSS}",
    )


def bfloat16(config, params):
    data = config.data
    z = jax.random.normal(jax.random.key(0), (8, data.image_size, data.image_size, data.channels))
    c = jnp.arange(len(z)) % max(1, data.num_classes)
    apart = []
    eps_fn = jax.jit(lambda denoiser, *args: denoiser.eps_fn(*args))
    for logsnr in (-5.0, 0.0, 5.0):
        half, full = (
            eps_fn(build.denoiser(config, params, dtype), z, jnp.full(len(z), logsnr), c)
            for dtype in checks.DTYPES[::-1]
        )
        apart.append(kernels.relative(half, full))
    said = ", ".join(f"{value:.2%}" for value in apart)
    return max(apart) < BFLOAT16, f"eps {said} from float32's at log-SNR -5, 0, 5; limit {BFLOAT16:.0%}"


def attention(config, _):
    """cuDNN's against XLA's at the network's largest attention, and the time of each."""
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
    if peak := meshes.peak_of(jax.devices()[:1]):
        share = 4 * len(q) * heads * tokens**2 * width / seconds["cudnn"] / peak
        times += f"; cudnn at {share:.0%} of the peak, bench.compile assumes {estimate.KERNELS['attention']:.0%}"
    return (
        apart < kernels.TOLERANCE,
        f"{'x'.join(map(str, shape))}: {apart:.2%} apart, limit {kernels.TOLERANCE:.0%}; {times}",
    )


if __name__ == "__main__":
    cli.run(main)
