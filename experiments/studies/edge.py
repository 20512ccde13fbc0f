"""Show where the guided ODE ends: at the edge of the support, and with an error in the score beyond it.

Two uniforms, class 0 on [-1, 0] and class 1 on [0, 1], whose diffused scores are differences of Gaussian densities over
differences of error functions. Chidambaram et al. 2024.

python -m experiments.studies.edge --out=runs/studies
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax import plots
from cfg_jax.diffusion import guidance, process, samplers, schedule
from cfg_jax.models.mixture import Uniforms
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

OUT = gallery.define_out("edge")
W = cli.define_numbers("w", "0,1,3,10", "guidance weights", low=-1)
ERROR = cli.define_float("error", 0.2, "size of an error of eps, smooth in z, gone where all is noise")
NUM_SAMPLES = cli.define_count("num_samples", 4000, "of class 1", low=2)
NUM_STEPS = cli.define_count("num_steps", 512, "T", low=2)
CLEAN = 12.0  # log-SNR of the last step: above it float32 does not resolve an edge


class Wrong(Uniforms):
    """Has an error of eps: alpha times a fixed function of z, another one for each label."""

    def __init__(self, error: float) -> None:
        self.error = error

    def eps_fn(self, z: jax.Array, logsnr: jax.Array, c: jax.Array) -> jax.Array:
        wave = 2**0.5 * jnp.sin(3 * z + 2 * c[:, None])
        return super().eps_fn(z, logsnr, c) + self.error * process.alpha(logsnr)[:, None] * wave


def drawn(model: Uniforms, sampler: Any, w: float) -> np.ndarray:
    grid = schedule.grid(NUM_STEPS.value, logsnr_max=CLEAN)
    return gallery.drawn(model, guidance.ClassifierFree(w), sampler, grid, NUM_SAMPLES.value, c=1)[0][:, 0]


@plots.styled
def main() -> None:
    rows = [["w", "ODE: mean", "beyond 0.9", "beyond 1", "with an error: beyond 1", "greatest", "Algorithm 2: mean"]]
    figure, panels = gallery.subplots(len(W.value), (2.2 * len(W.value), 2.6))
    for ax, w in zip(panels, W.value, strict=True):
        ode, wrong = (drawn(model, samplers.Heun(), w) for model in (Uniforms(), Wrong(ERROR.value)))
        sde = drawn(Uniforms(), samplers.Ancestral(0.3), w)
        beyond, wrong_beyond = ((x > 1 + 2 * np.exp(-CLEAN / 2)).mean() for x in (ode, wrong))
        shares = f"{(ode > 0.9).mean():.1%}", f"{beyond:.1%}", f"{wrong_beyond:.1%}"
        rows.append([f"{w:g}", f"{ode.mean():.3f}", *shares, f"{wrong.max():.3g}", f"{sde.mean():.3f}"])
        for x, label in ((ode, "ODE"), (wrong, "with an error"), (sde, "Algorithm 2")):
            ax.hist(x, np.linspace(-0.1, 1.3, 57), density=True, histtype="step", label=label)
        ax.axvspan(0, 1, alpha=0.1)
        ax.set(title=f"w = {w:g}", yticks=[])
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(f"Two uniforms, class 1: N = {NUM_SAMPLES.value:,}, T = {NUM_STEPS.value}, seed 0")
    about = (
        f'Class 1, T = {NUM_STEPS.value}, {NUM_SAMPLES.value:,} samples. "Beyond 1" means by more than two standard '
        "deviations of the last noise level."
    )
    gallery.write(OUT.value, "edge", figure, markdown(rows, ()), about)


if __name__ == "__main__":
    cli.run(main)
