"""Figure 2 of the paper on three isotropic Gaussians, and what Algorithm 2 really samples.

The top row is p(z|c) p(c|z)^w, normalised on a grid, the middle one Algorithm 2 with the exact guided eps. They agree
only at w = 0: guidance at every noise level does not sample that density. The bottom row does: Algorithm 2 with its
images drawn anew by their weights (cfg_jax/diffusion/particles.py).

python -m experiments.studies.gaussians --out=runs/gaussians
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from scipy import stats

from cfg_jax import plots
from cfg_jax.diffusion import guidance, samplers, schedule
from cfg_jax.errors import require
from cfg_jax.files import MARKED, check_output, write_atomic, write_json
from cfg_jax.models.mixture import Mixture
from experiments.helpers import cli, gallery
from experiments.studies import plane

OUT = cli.define_path("out", "runs/gaussians", "directory for gaussians.png and gaussians.json", writes="directory")
W = cli.define_numbers("w", "0,0.5,1,2,4", "guidance weights, a column each", low=-1)
NUM_SAMPLES = cli.define_count("num_samples", 8000, "samples for each class and w")
NUM_STEPS = cli.define_count("num_steps", 256, "T")

EXTENT, POINTS = 3.0, 241
GROUPS = 4  # of particles, over which their standard error is taken
CLEAN = 20.0
LABELS = "p(x|c) p(c|x)^w", "Algorithm 2, exact eps", "drawn anew by weights"


def guided_density(mixture: Mixture, c: int, w: float) -> tuple[Float[Array, "p p 2"], Float[Array, "p p"]]:
    """Return the points of a grid, and p(x|c) p(c|x)^w normalised on it."""
    axis = jnp.linspace(-EXTENT, EXTENT, POINTS)
    points = jnp.stack(jnp.meshgrid(axis, axis), -1)
    log_joint = mixture.log_joint(points, CLEAN)
    log_density = log_joint[..., c] + w * jax.nn.log_softmax(log_joint)[..., c]
    density = jnp.exp(log_density - log_density.max())
    return points, density / density.sum() / (axis[1] - axis[0]) ** 2


def guided_samples(mixture: Mixture, c: int, w: float, particles: int = 0) -> Float[np.ndarray, "n 2"]:
    """Sample by Algorithm 2 with the exact guided eps, no threshold. particles: in a group, 0 for the paper's."""
    sampler, grid = samplers.Ancestral(0.3, particles), schedule.grid(NUM_STEPS.value)
    return gallery.drawn(mixture, guidance.ClassifierFree(w), sampler, grid, NUM_SAMPLES.value, 2, c)[0]


@plots.styled
def main() -> None:
    out, ws, num, steps = Path(OUT.value), W.value, NUM_SAMPLES.value, NUM_STEPS.value
    for kind in (".png", ".json"):
        check_output(out / f"gaussians{kind}", kind)
    require(num % GROUPS == 0, f"--num_samples={num} must be a multiple of {GROUPS}, the groups of particles")
    mixture = plane.three_gaussians()
    figure = Figure(figsize=(2.1 * len(ws), 6.7))
    axes = figure.subplots(3, len(ws), squeeze=False)
    rows = []
    for w, (top, middle, bottom) in zip(ws, axes.T, strict=True):
        total, cloud, weighed = 0, [], []
        for c in range(mixture.null):
            points, density = guided_density(mixture, c, w)
            x, particles = guided_samples(mixture, c, w), guided_samples(mixture, c, w, num // GROUPS)
            cell = float(points[0, 1, 0] - points[0, 0, 0]) ** 2
            mean = np.tensordot(density, points, 2) * cell
            variance = float((density * np.square(points - mean).sum(-1)).sum()) * cell / 2
            toward = np.asarray(mixture.means[c])
            means = (particles.reshape(GROUPS, -1, 2) @ toward).mean(1)
            measured = {
                "density_mean": mean @ toward, "density_std": variance**0.5,
                "sampled_mean": x.mean(0) @ toward, "sampled_std": x.var(0).mean() ** 0.5,
                "particles_mean": means.mean(), "particles_std": particles.var(0).mean() ** 0.5,
                "particles_error": stats.sem(means),
            }  # fmt: skip
            rows.append({"w": w, "s": 1 + w, "class": c} | {name: float(value) for name, value in measured.items()})
            total = total + density / mixture.null
            cloud.append(x)
            weighed.append(particles)
        top.imshow(total, origin="lower", extent=[-EXTENT, EXTENT] * 2)
        top.set_title(f"w = {w:g} (s = {1 + w:g})")
        for ax, samples in ((middle, cloud), (bottom, weighed)):
            ax.hist2d(*np.concatenate(samples).T, bins=80, range=[[-EXTENT, EXTENT]] * 2)
            ax.set_aspect("equal")
    for ax, label in zip(axes[:, 0], LABELS, strict=True):
        ax.set_ylabel(label)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    figure.suptitle(f"Three Gaussians: N = {num:,} samples a class, T = {steps}, seed 0")
    write_atomic(out / "gaussians.png", plots.image(figure, "png"))
    write_json(out / "gaussians.json", MARKED | {"num_samples": num, "T": steps, "v": 0.3, "rows": rows})
    print("mean along the class's direction and standard deviation of a coordinate, of the density and of samples")
    for row in rows[:: mixture.null]:
        print("w = {w:g}: density {density_mean:.3f} ± {density_std:.3f}, Algorithm 2 {sampled_mean:.3f} ± "
              "{sampled_std:.3f}, particles {particles_mean:.3f} ± {particles_std:.3f}, standard error of their mean "
              "{particles_error:.3f}".format(**row))  # fmt: skip
    print(f"{out}/gaussians.png: Algorithm 2 does not sample p(x|c) p(c|x)^w unless w = 0; particles do up to w = 1")


if __name__ == "__main__":
    cli.run(main)
