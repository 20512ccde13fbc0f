"""Compare three laws of one guided eps: what the ODE, Algorithm 2 and weighted particles sample of two exact Gaussians.

p(x | c) = N(0, 1) and p(x) = N(0, 2). Lines are the laws of cfg_jax/diffusion/exact.py, points are our samplers'.

python -m experiments.studies.laws --out=runs/studies
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import stats

from cfg_jax import plots
from cfg_jax.diffusion import exact, guidance, samplers, schedule
from cfg_jax.models.mixture import Gaussians
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

OUT = gallery.define_out("laws")
W = cli.define_numbers("w", "0,0.25,0.5,1,1.5,2,3,4", "guidance weights", low=-1)
NUM_STEPS = cli.define_count("num_steps", 512, "T", low=2)
PARTICLES = cli.define_count("particles", 2000, "in a group", low=2)
GROUPS = cli.define_count("groups", 10, "of particles", low=2)

LAWS = {
    "ODE, 2^-w": (exact.ode_variance, samplers.DDIM(0.0), "DDIM"),
    "Algorithm 2, (2 - 2^-2w) / (1 + 2w)": (exact.sde_variance, samplers.Ancestral(0.3), "Algorithm 2"),
    "density, 2 / (2 + w)": (exact.tilted_variance, None, "particles"),
}


def drawn(sampler: Any, w: float) -> tuple[np.ndarray, float]:
    """Return the variance of each group's samples [GROUPS], and the groups' mean of the least effective size."""
    model, num = Gaussians(jnp.zeros((2, 1)), jnp.sqrt(jnp.float32(exact.VARIANCES))), PARTICLES.value * GROUPS.value
    x, effective = gallery.drawn(model, guidance.ClassifierFree(w), sampler, schedule.grid(NUM_STEPS.value), num)
    return x.reshape(GROUPS.value, -1).var(1), float(effective.mean()) if len(effective) else 1.0


@plots.styled
def main() -> None:
    ws = W.value
    rows = [["w"], *([f"{w:g}"] for w in ws)]
    figure, [axes] = gallery.subplots()
    line, effective = np.linspace(min(ws), max(ws), 100), ()
    for i, (label, (law, sampler, points)) in enumerate(LAWS.items()):
        sampler = sampler or samplers.Ancestral(0.3, PARTICLES.value)
        sampled, effective = zip(*(drawn(sampler, w) for w in ws), strict=True)
        mean, error = (np.array([*map(f, sampled)]) for f in (np.mean, stats.sem))
        axes.plot(line, law(line), color=f"C{i}", label=label)
        axes.errorbar(ws, mean, 2 * error, fmt=plots.MARKERS[i], color=f"C{i}", label=points)
        name = label.partition(",")[0]
        rows[0] += [f"{name}, law", f"{name}, sampled"]
        for row, w, value, spread in zip(rows[1:], ws, mean, error, strict=True):
            row += [f"{law(w):.3f}", f"{value:.3f} ± {spread:.3f}"]
    for row, cell in zip(rows, ["least effective size", *(f"{size:.2f}" for size in effective)], strict=True):
        row.append(cell)
    title = (
        f"p(x | c) = N(0, 1), p(x) = N(0, 2): T = {NUM_STEPS.value}, seed 0, N = {GROUPS.value} groups of "
        f"{PARTICLES.value:,}\nlines are the laws, points ± two standard errors our samplers'"
    )
    axes.set(xlabel="w", ylabel="variance", title=title)
    axes.legend()
    about = (
        f"T = {NUM_STEPS.value}, {GROUPS.value} groups of {PARTICLES.value:,}; ± is the standard error over the groups."
    )
    gallery.write(OUT.value, "laws", figure, markdown(rows, ()), about)


if __name__ == "__main__":
    cli.run(main)
