"""Guidance in many dimensions: how far it moves and narrows a class, over the dimension and the number of classes.

Classes are N(m_k, I) with m_k uniform on {-1, 1}^D, so that they part as D grows. The mean is along the class's m
(1 is undistorted), the standard deviation along it as well. Pavasovic et al. 2025 have the distortion vanish with D;
where the number of classes grows exponentially with D it need not.

python -m experiments.studies.dimension --out=runs/studies
"""

import jax.numpy as jnp
import numpy as np

from cfg_jax import plots
from cfg_jax.diffusion import guidance, samplers, schedule
from cfg_jax.models.mixture import Mixture
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

OUT = gallery.define_out("dimension")
D = cli.define_numbers("D", "1,2,4,8,16,32,64,128,256,512", "dimensions", int, 1)
W = cli.define_float("w", 1.0, "guidance weight", low=-1)
NUM_SAMPLES = cli.define_count("num_samples", 2000, "of one class", low=2)
NUM_STEPS = cli.define_count("num_steps", 128, "T", low=2)
SPREAD = 2.0  # standard deviation of a class, in units of its mean's components
MOST = 1024  # classes
KINDS = {
    "2 classes": lambda d: 2,
    "16 classes": lambda d: 16,
    "2^D classes": lambda d: 2**d if d <= 10 else 0,
    "2^(D/16) classes": lambda d: 2 ** (d // 16) if 16 <= d <= 160 else 0,
}


def drawn(dim: int, num_classes: int) -> tuple[float, float]:
    """Return mean and standard deviation along the class's mean, as shares of those without distortion."""
    rng = np.random.default_rng(0)
    means = rng.choice(np.float32([-1, 1]), (num_classes, dim))
    if dim <= 10:  # so few that two might be one
        means = 2 * (rng.permutation(2**dim)[:num_classes, None] >> np.arange(dim) & 1) - np.float32(1)
    model = Mixture(jnp.asarray(means), jnp.full(num_classes, SPREAD), jnp.full(num_classes, 1 / num_classes))
    how = guidance.ClassifierFree(W.value), samplers.Ancestral(0.3), schedule.grid(NUM_STEPS.value)
    x, _ = gallery.drawn(model, *how, NUM_SAMPLES.value, dim)
    along = x @ means[0] / dim
    return along.mean(), along.std() * dim**0.5 / SPREAD


@plots.styled
def main() -> None:
    rows = [["D", *(f"{kind}: {measure}" for kind in KINDS for measure in ("mean", "std"))]]
    moved = {kind: [] for kind in KINDS}
    for dim in D.value:
        row = [str(dim)]
        for kind, classes in KINDS.items():
            count = classes(dim)
            mean, std = drawn(dim, count) if 2 <= count <= min(MOST, 2**dim) else (np.nan, np.nan)
            moved[kind].append(mean - 1)
            row += ["", ""] if np.isnan(mean) else [f"{mean:.3f}", f"{std:.3f}"]
        rows.append(row)
    title = f"Gaussians: w = {W.value:g}, T = {NUM_STEPS.value}, N = {NUM_SAMPLES.value:,}, seed 0"
    figure = gallery.curves(D.value, moved, title, xscale="log", xlabel="D", ylabel="mean along the class, less 1")
    samples = f"w = {W.value:g}, T = {NUM_STEPS.value}, {NUM_SAMPLES.value:,} samples of one class"
    table = markdown(rows, ())
    gallery.write(OUT.value, "dimension", figure, table, f"{samples}; std is relative to the class's own.")


if __name__ == "__main__":
    cli.run(main)
