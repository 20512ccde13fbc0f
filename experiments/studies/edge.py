"""Where the guided ODE ends: at the edge of the support, and with an error in the score beyond it.

Two uniforms, class 0 on [-1, 0] and class 1 on [0, 1], whose diffused scores are differences of Gaussian densities over
differences of error functions. Chidambaram et al. 2024.

python -m experiments.studies.edge --out=runs/studies
"""

import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.diffusion import guidance, process, samplers, schedule
from cfg_jax.models.mixture import Uniforms
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

OUT = gallery.define_out("edge")
W = flags.DEFINE_string("w", "0,1,3,10", "guidance weights")
ERROR = flags.DEFINE_float("error", 0.2, "size of an error of eps, smooth in z, gone where all is noise")
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 4000, "of class 1", lower_bound=2)
NUM_STEPS = flags.DEFINE_integer("num_steps", 512, "T", lower_bound=2)
CLEAN = 12.0  # log-SNR of the last step: what float32 tells of an edge


class Wrong(Uniforms):
    """With an error of eps, alpha times a fixed function of z, another one for each label."""

    def __init__(self, error):
        self.error = error

    def eps_fn(self, z, logsnr, c):
        return super().eps_fn(z, logsnr, c) + self.error * process.alpha(logsnr)[:, None] * 2**0.5 * jnp.sin(
            3 * z + 2 * c[:, None]
        )


def drawn(model, sampler, w):
    grid = schedule.grid(NUM_STEPS.value, logsnr_max=CLEAN)
    return gallery.drawn(model, guidance.ClassifierFree(w), sampler, grid, NUM_SAMPLES.value, c=1)[0][:, 0]


@plots.styled
def main():
    ws = gallery.weights(W.value)
    rows = [["w", "ODE: mean", "beyond 0.9", "beyond 1", "with an error: beyond 1", "greatest", "Algorithm 2: mean"],
            ["---:"] * 7]  # fmt: skip
    figure = Figure(figsize=(2.2 * len(ws), 2.6))
    for ax, w in zip(figure.subplots(1, len(ws), squeeze=False)[0], ws, strict=True):
        ode, wrong = (drawn(model, samplers.Heun(), w) for model in (Uniforms(), Wrong(ERROR.value)))
        sde = drawn(Uniforms(), samplers.Ancestral(0.3), w)
        beyond, wrong_beyond = ((x > 1 + 2 * np.exp(-CLEAN / 2)).mean() for x in (ode, wrong))
        shares = f"{(ode > 0.9).mean():.1%}", f"{beyond:.1%}", f"{wrong_beyond:.1%}"
        rows.append([f"{w:g}", f"{ode.mean():.3f}", *shares, f"{wrong.max():.3g}", f"{sde.mean():.3f}"])
        for x, label in ((ode, "ODE"), (wrong, "with an error"), (sde, "Algorithm 2")):
            ax.hist(x, np.linspace(-0.1, 1.3, 57), density=True, histtype="step", label=label)
        ax.axvspan(0, 1, alpha=0.1)
        ax.set(title=f"w = {w:g}", yticks=[])
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(f"Two uniforms, class 1: N = {NUM_SAMPLES.value:,}, T = {NUM_STEPS.value}, seed 0")
    about = (
        f"Class 1, T = {NUM_STEPS.value}, {NUM_SAMPLES.value:,} samples; beyond 1 by more than two of the last noise."
    )
    gallery.write(OUT.value, "edge", figure, markdown(rows), about)


if __name__ == "__main__":
    cli.run(main)
