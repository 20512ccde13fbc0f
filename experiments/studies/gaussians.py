"""Figure 2 of the paper on three isotropic Gaussians, and what Algorithm 2 really samples.

The top row is p(z|c) p(c|z)^w, normalised on a grid, the middle one Algorithm 2 with the exact guided eps. They agree
at w = 0 alone: guidance applied at every noise level is no sampler of that density. The bottom row is one: Algorithm 2
with its images drawn anew by their weights (cfg_jax/diffusion/particles.py).

python -m experiments.studies.gaussians --out=runs/gaussians
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.diffusion import guidance, samplers, schedule
from cfg_jax.errors import require
from cfg_jax.files import MARKED, check_output, write_atomic, write_json
from cfg_jax.models.mixture import Mixture
from experiments.helpers import cli, gallery

OUT = flags.DEFINE_string("out", "runs/gaussians", "directory for gaussians.png and gaussians.json")
W = flags.DEFINE_string("w", "0,0.5,1,2,4", "guidance weights, a column each")
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 8000, "a class, a weight", lower_bound=1)
NUM_STEPS = flags.DEFINE_integer("num_steps", 256, "T", lower_bound=1)

EXTENT, POINTS = 3.0, 241
GROUPS = 4  # of particles, over which their standard error is taken
CLEAN = 20.0


def three_gaussians():
    """Means on the unit circle 120 degrees apart, standard deviation 1/2, equal weights."""
    angles = np.pi / 2 + 2 * np.pi / 3 * np.arange(3)
    means = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return Mixture(jnp.asarray(means, jnp.float32), jnp.full(3, 0.5), jnp.full(3, 1 / 3))


def guided_density(mixture, c, w):
    """p(x|c) p(c|x)^w normalised on the grid -> grid points [P, P, 2], density [P, P]."""
    axis = jnp.linspace(-EXTENT, EXTENT, POINTS)
    points = jnp.stack(jnp.meshgrid(axis, axis), -1)
    log_joint = mixture.log_joint(points, CLEAN)
    log_c_given_x = jax.nn.log_softmax(log_joint)[..., c]
    log_density = log_joint[..., c] + w * log_c_given_x
    density = jnp.exp(log_density - log_density.max())
    return points, density / density.sum() / (axis[1] - axis[0]) ** 2


def guided_samples(mixture, c, w, num, num_steps, particles=0):
    """Algorithm 2 with the exact guided eps, no threshold: x [num, 2]. particles: in a group, 0 for the paper's."""
    sampler = samplers.Ancestral(0.3, particles)
    return gallery.drawn(mixture, guidance.ClassifierFree(w), sampler, schedule.grid(num_steps), num, 2, c)[0]


@plots.styled
def main():
    for kind in (".png", ".json"):
        check_output(Path(OUT.value) / f"gaussians{kind}", kind)
    ws, num, steps = gallery.weights(W.value), NUM_SAMPLES.value, NUM_STEPS.value
    require(num % GROUPS == 0, f"--num_samples={num} is no multiple of the {GROUPS} groups of particles: take one")
    mixture = three_gaussians()
    figure = Figure(figsize=(2.1 * len(ws), 6.7))
    axes = figure.subplots(3, len(ws), squeeze=False)
    rows = []
    for column, w in enumerate(ws):
        total, cloud, weighed = 0, [], []
        for c in range(mixture.null):
            points, density = guided_density(mixture, c, w)
            x = guided_samples(mixture, c, w, num, steps)
            particles = guided_samples(mixture, c, w, num, steps, num // GROUPS)
            cell = float(points[0, 1, 0] - points[0, 0, 0]) ** 2
            mean = np.tensordot(density, points, 2) * cell
            variance = float((density * np.square(points - mean).sum(-1)).sum()) * cell / 2
            toward = np.asarray(mixture.means[c])
            row = {"w": w, "s": 1 + w, "class": c, "density_mean": float(mean @ toward), "density_std": variance**0.5}
            row |= {"sampled_mean": float(x.mean(0) @ toward), "sampled_std": float(x.var(0).mean() ** 0.5)}
            means = (particles.reshape(GROUPS, -1, 2) @ toward).mean(1)
            of_particles = {"mean": means.mean(), "std": particles.var(0).mean() ** 0.5, "error": gallery.error(means)}
            rows.append(row | {f"particles_{name}": float(value) for name, value in of_particles.items()})
            total = total + density / mixture.null
            cloud.append(x)
            weighed.append(particles)
        axes[0, column].imshow(total, origin="lower", extent=[-EXTENT, EXTENT] * 2)
        for ax, points in ((axes[1, column], cloud), (axes[2, column], weighed)):
            ax.hist2d(*np.concatenate(points).T, bins=80, range=[[-EXTENT, EXTENT]] * 2)
            ax.set_aspect("equal")
        axes[0, column].set_title(f"w = {w:g} (s = {1 + w:g})")
    axes[0, 0].set_ylabel("p(x|c) p(c|x)^w")
    axes[1, 0].set_ylabel("Algorithm 2, exact eps")
    axes[2, 0].set_ylabel("drawn anew by weights")
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    figure.suptitle(f"Three Gaussians: N = {num:,} samples a class, T = {steps}, seed 0")
    out = Path(OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "gaussians.png", plots.image(figure, "png"))
    settings = {"num_samples": NUM_SAMPLES.value, "T": NUM_STEPS.value, "v": 0.3}
    write_json(out / "gaussians.json", MARKED | settings | {"rows": rows})
    print("along the class's own direction: mean and standard deviation of the density, and of what is sampled")
    for row in rows[:: mixture.null]:
        density, sampled = ("{:.3f} ± {:.3f}".format(row[f"{n}_mean"], row[f"{n}_std"]) for n in ("density", "sampled"))
        weighed = f"{row['particles_mean']:.3f} ± {row['particles_std']:.3f}, its mean to {row['particles_error']:.3f}"
        print(f"w = {row['w']:g}: density {density}, Algorithm 2 {sampled}, particles {weighed}")
    print(
        f"{out}/gaussians.png: Algorithm 2 does not sample p(x|c) p(c|x)^w but at w = 0; drawn anew by weights it does"
    )


if __name__ == "__main__":
    cli.run(main)
