"""Guidance in many dimensions: how far it moves and narrows a class, over the dimension and the number of classes.

Classes are N(m_k, I) with m_k uniform on {-1, 1}^D, so that they part as D grows. The mean is along the class's own m
(1 is undistorted), the standard deviation along it as well. Pavasovic et al. 2025 have the distortion vanish with D;
where the number of classes grows exponentially with D it need not.

python -m experiments.studies.dimension --out=runs/studies
"""

import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.diffusion import guidance, samplers, schedule
from cfg_jax.models.mixture import Mixture
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

OUT = gallery.define_out("dimension")
D = flags.DEFINE_string("D", "1,2,4,8,16,32,64,128,256,512", "dimensions")
W = flags.DEFINE_float("w", 1.0, "guidance weight")
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 2000, "of one class", lower_bound=2)
NUM_STEPS = flags.DEFINE_integer("num_steps", 128, "T", lower_bound=2)
SPREAD = 2.0  # standard deviation of a class, in units of its mean's components
MOST = 1024  # classes


def drawn(dim, num_classes, w):
    """Mean and standard deviation along the class's own mean, 1 and SPREAD without distortion."""
    rng = np.random.default_rng(0)
    means = rng.choice(np.float32([-1, 1]), (num_classes, dim))
    if dim <= 10:  # so few that two might be one
        means = 2 * (rng.permutation(2**dim)[:num_classes, None] >> np.arange(dim) & 1) - np.float32(1)
    model = Mixture(jnp.asarray(means), jnp.full(num_classes, SPREAD), jnp.full(num_classes, 1 / num_classes))
    how = guidance.ClassifierFree(w), samplers.Ancestral(0.3), schedule.grid(NUM_STEPS.value)
    x, _ = gallery.drawn(model, *how, NUM_SAMPLES.value, dim)
    along = x @ means[0] / dim
    return along.mean(), along.std() * dim**0.5 / SPREAD


@plots.styled
def main():
    dims, w = gallery.positive(D.value, "D"), gallery.weights(str(W.value))[0]
    kinds = {"2 classes": lambda d: 2, "16 classes": lambda d: 16, "2^D classes": lambda d: 2**d if d <= 10 else 0,
             "2^(D/16) classes": lambda d: 2 ** (d // 16) if 16 <= d <= 160 else 0}  # fmt: skip
    rows = [["D", *(f"{kind}: {of}" for kind in kinds for of in ("mean", "std"))], ["---:"] * (1 + 2 * len(kinds))]
    found = {kind: [] for kind in kinds}
    for dim in dims:
        cells = [str(dim)]
        for kind, classes in kinds.items():
            count = classes(dim)
            at = drawn(dim, count, w) if 2 <= count <= min(MOST, 2**dim) else (np.nan, np.nan)
            found[kind].append(at[0] - 1)
            cells += [f"{value:.3f}" if np.isfinite(value) else "" for value in at]
        rows.append(cells)
    figure = Figure()
    axes = figure.subplots()
    for kind, moved in found.items():
        axes.plot(dims, moved, "o-", label=kind)
    axes.set(xscale="log", xlabel="D", ylabel="mean along the class, less 1")
    axes.set_title(f"Gaussians: w = {w:g}, T = {NUM_STEPS.value}, N = {NUM_SAMPLES.value:,}, seed 0")
    axes.legend()
    about = (
        f"w = {w:g}, T = {NUM_STEPS.value}, {NUM_SAMPLES.value:,} samples of one class; std is a share of the class's."
    )
    gallery.write(OUT.value, "dimension", figure, markdown(rows), about)


if __name__ == "__main__":
    cli.run(main)
