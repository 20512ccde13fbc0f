"""Measure what bfloat16 costs in sampling: a model's eps, x and images against float32's, as a table.

python -m experiments.studies.precision --run=experiments/results/fashion_mnist_16/model.safetensors

The weights are the same; the dtype is what the network's body computes in.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.diffusion import guidance, process
from cfg_jax.files import write_atomic
from cfg_jax.images import to_float
from cfg_jax.perf.kernels import relative
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

RUN = cli.define_run()
LOGSNRS = cli.define_numbers("logsnrs", "-10,-5,-2,0,2,5,10", "log-SNRs, a row each")
W = cli.define_float("w", 1.0, "of the guided column and of the images", low=-1)
NUM_IMAGES = cli.define_count("num_images", 64, "number of images, of classes in turn")
SEED = cli.define_seed("of images and noise")
OUT = cli.define_path("out", None, "also write what is printed", writes=".md")


def main() -> None:
    half, full = (gallery.load(RUN.value, [W.value], dtype=dtype) for dtype in ("bfloat16", "float32"))
    config, num_steps = full.config, full.config.sampler.num_steps
    num_classes = config.data.num_classes
    c = jnp.arange(NUM_IMAGES.value) % max(1, num_classes)
    x = to_float(full.sample(c, 0.0, num_steps, SEED.value))
    noise = jax.random.normal(jax.random.key(SEED.value), x.shape)

    rows = [["lambda", "eps(z, c)", f"eps guided, w = {W.value:g}", "x guided, grey levels"]]
    for logsnr in LOGSNRS.value:
        at = jnp.full(len(x), logsnr)
        z = process.diffuse(x, noise, at)
        plain = [model.eps_fn(z, at, c) for model in (half, full)]
        guided = [guidance.guided(model.eps_fn, W.value, num_classes)(z, at, c) for model in (half, full)]
        of_half, of_full = (process.predict_x(z, eps, at) for eps in guided)
        grey = 127.5 * float(jnp.sqrt(jnp.square(of_half - of_full).mean()))
        rows.append([f"{logsnr:g}", f"{relative(*plain):.2%}", f"{relative(*guided):.2%}", f"{grey:.3g}"])
    a, b = (model.sample(c, W.value, num_steps, SEED.value).astype(int) for model in (half, full))
    text = (
        f"The network of {RUN.value} in bfloat16, compared with the same network in float32 on {len(x)} images: seed "
        f"{SEED.value}, {jax.devices()[0].device_kind}, jax {jax.__version__}. The columns of eps have the relative L2 "
        f"distance, that of the guided x the root mean square difference, before clipping.\n\n{markdown(rows, ())}\n"
        f"Images drawn from the same noise at w = {W.value:g}, T = {num_steps} differ by "
        f"{np.abs(a - b).mean():.3g} grey levels on average, {np.mean(np.abs(a - b) > 8):.1%} of the values by "
        "more than 8.\n"
    )
    print(text)
    if OUT.value:
        write_atomic(OUT.value, f"# What bfloat16 costs\n\n    {cli.command_line('studies.precision')}\n\n{text}")


if __name__ == "__main__":
    cli.run(main)
