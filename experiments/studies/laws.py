"""One guided eps, three answers: what the ODE, Algorithm 2 and weighted particles sample of two exact Gaussians.

p(x | c) = N(0, 1) and p(x) = N(0, 2). Lines are the laws of cfg_jax/diffusion/exact.py, points are our samplers'.

python -m experiments.studies.laws --out=runs/studies
"""

import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.diffusion import exact, guidance, samplers, schedule
from cfg_jax.models.mixture import Gaussians
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

OUT = gallery.define_out("laws")
W = flags.DEFINE_string("w", "0,0.25,0.5,1,1.5,2,3,4", "guidance weights")
NUM_STEPS = flags.DEFINE_integer("num_steps", 512, "T", lower_bound=2)
PARTICLES = flags.DEFINE_integer("particles", 2000, "in a group", lower_bound=2)
GROUPS = flags.DEFINE_integer("groups", 10, "of them", lower_bound=2)

LAWS = {
    "ODE, 2^-w": (exact.ode_variance, samplers.DDIM(0.0), "DDIM"),
    "Algorithm 2, (2 - 2^-2w) / (1 + 2w)": (exact.sde_variance, samplers.Ancestral(0.3), "Algorithm 2"),
    "density, 2 / (2 + w)": (exact.tilted_variance, None, "particles"),
}


def drawn(sampler, w):
    """The variance of each group's samples [GROUPS], and the groups' mean of the least effective size."""
    model, num = Gaussians(jnp.zeros((2, 1)), jnp.sqrt(jnp.float32(exact.VARIANCES))), PARTICLES.value * GROUPS.value
    grid = schedule.grid(NUM_STEPS.value)
    x, effective = gallery.drawn(model, guidance.ClassifierFree(w), sampler, grid, num)
    return x.reshape(GROUPS.value, -1).var(1), float(effective.mean()) if len(effective) else 1.0


@plots.styled
def main():
    ws = gallery.weights(W.value)
    header = [f"{name}, {what}" for name in ("ODE", "Algorithm 2", "density") for what in ("law", "sampled")]
    rows = [["w", *header, "least effective size"], ["---:"] * 8]
    figure = Figure()
    axes, line = figure.subplots(), np.linspace(min(ws), max(ws), 100)
    cells = {w: [f"{w:g}"] for w in ws}
    for i, (label, (law, sampler, points)) in enumerate(LAWS.items()):
        sampler = sampler or samplers.Ancestral(0.3, PARTICLES.value)
        found = {w: drawn(sampler, w) for w in ws}
        axes.plot(line, law(line), color=f"C{i}", label=label)
        mean, error = (np.array([f(variances) for variances, _ in found.values()]) for f in (np.mean, gallery.error))
        axes.errorbar(ws, mean, 2 * error, fmt=plots.MARKERS[i], color=f"C{i}", label=points)
        for w, (variances, _) in found.items():
            cells[w] += [f"{law(w):.3f}", f"{variances.mean():.3f} ± {gallery.error(variances):.3f}"]
    for w, (_, effective) in found.items():
        rows.append([*cells[w], f"{effective:.2f}"])
    axes.set(xlabel="w", ylabel="variance")
    axes.set_title(
        f"p(x | c) = N(0, 1), p(x) = N(0, 2): T = {NUM_STEPS.value}, seed 0, N = {GROUPS.value} groups of "
        f"{PARTICLES.value:,}\nlines are the laws, points ± two standard errors our samplers'"
    )
    axes.legend()
    gallery.write(OUT.value, "laws", figure, markdown(rows), f"T = {NUM_STEPS.value}, {GROUPS.value} groups of "
                  f"{PARTICLES.value:,}; ± is the standard error over the groups.")  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
