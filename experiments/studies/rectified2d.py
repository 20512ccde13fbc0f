"""Straight paths and guidance in the plane: reflow, guidance of what was rectified, and both of its remedies.

A flow is rectified on pairs of its own noise and end. Guidance bends it again. So the pairs are made with guidance
(rectified CFG), or the guided velocity is distilled into a network that is told w. Liu et al. 2023; Meng et al. 2023.

python -m experiments.studies.rectified2d --out=runs/studies
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.tree_util import Partial
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.diffusion import flow
from cfg_jax.errors import require
from cfg_jax.evaluation.scores import energy_distance
from cfg_jax.text import markdown
from experiments.helpers import canvas, cli, gallery
from experiments.studies import plane

OUT = gallery.define_out("rectified2d")
W = flags.DEFINE_string("w", "1,3", "guidance weights of rectified CFG and of the distilled field's rows, 0 to 4")
TRAIN_STEPS = flags.DEFINE_integer("train_steps", 3000, "of Adam, batch 256, of each field", lower_bound=1)
NUM_PAIRS = flags.DEFINE_integer("num_pairs", 6000, "of noise and end, to rectify on", lower_bound=8)
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 2000, "of a row of the tables", lower_bound=8)
NUM_STEPS = flags.DEFINE_integer("num_steps", 64, "Euler's, from t = 0 to 1", lower_bound=4)

W_MAX = 4.0  # Meng et al. 2023
STEPS, REFERENCE = (1, 2, 4, 8, 32), 128
BENT = (0.0, 0.5, 1.0, 2.0, 4.0)
TIMES_SHOWN = (0.25, 0.5, 0.75, 1.0)
METHODS = {"guided": "rectified CFG", "distilled": "distilled"}


class Studied:
    """A law of the plane, a network trained on it, and the three that are made of it, as walkers."""

    def __init__(self, name, ws):
        self.name, self.law = name, plane.rings(name)
        keys = jax.random.split(jax.random.key(0), 7)
        teacher = self.fit(keys[0], Partial(plane.data_loss, self.law), None)
        self.exact, self.teacher = (canvas.Walker(model, NUM_STEPS.value) for model in (self.law, teacher))
        rectified = self.fit(keys[1], self.pairs(keys[2], [0.0], 3), teacher)
        guided = self.fit(keys[3], self.pairs(keys[4], ws, 2), teacher)
        distilled = self.fit(keys[5], Partial(plane.teacher_loss, self.law, teacher, W_MAX), teacher)
        self.rectified = canvas.Walker(rectified, NUM_STEPS.value)
        self.guided, self.distilled = (
            canvas.Walker(field, NUM_STEPS.value, told=True) for field in (guided, distilled)
        )
        self.noise, self.other = jax.random.normal(keys[6], (2, NUM_SAMPLES.value, 2))
        self.c = np.arange(NUM_SAMPLES.value) % 2

    def fit(self, key, loss_fn, start):
        return plane.fit(key, loss_fn, TRAIN_STEPS.value, start)

    def pairs(self, key, ws, labels):
        """The teacher's own, of the first so many labels."""
        eps = jax.random.normal(key, (len(ws), NUM_PAIRS.value, 2))
        c = jnp.arange(NUM_PAIRS.value) % labels
        x = np.concatenate([self.teacher.path(z, c, w)[-1] for z, w in zip(eps, ws, strict=True)])
        w = jnp.repeat(jnp.float32(ws), NUM_PAIRS.value)
        return Partial(plane.pair_loss, eps.reshape(-1, 2), jnp.asarray(x), jnp.tile(c, len(ws)), w)

    def straightness(self, walker, w=0.0, num=500):
        return float(flow.straightness(walker.path(self.noise[:num], self.c[:num], w), walker.times).mean())

    def end(self, walker, num_steps, w=0.0):
        """Of few Euler steps: the rest of the grid stands still at t = 1, so that one program serves all."""
        times = np.ones(REFERENCE + 1)
        times[: num_steps + 1] = np.linspace(0, 1, num_steps + 1)
        return walker.path(self.noise, self.c, w, times=times)[-1]


def reflow(studied):
    """Before and after: straightness, what few steps cost, and how guidance bends either. A figure and two tables."""
    rows = [["classes", "flow", "straightness", *(f"ends off at {n}" for n in STEPS), "energy distance at 1",
             f"at {REFERENCE}", "its floor"], ["---", "---", *["---:"] * 9]]  # fmt: skip
    bent = [["classes", "flow", *(f"straightness, w = {w:g}" for w in BENT)], ["---", "---", *["---:"] * len(BENT)]]
    figure = Figure(figsize=(10, 5.4))
    for of, axes in zip(studied, figure.subplots(len(studied), 4), strict=True):
        data, again = (np.asarray(of.law.sample(jax.random.key(seed), len(of.c))[0]) for seed in (1, 2))
        floor = energy_distance(data, again)
        for ax, (name, walker) in zip(axes, {"before": of.teacher, "after": of.rectified}.items(), strict=False):
            ends = {n: of.end(walker, n) for n in (*STEPS, REFERENCE)}
            off = [canvas.rms(ends[n], ends[REFERENCE]) for n in STEPS]
            curve = [of.straightness(walker, w) for w in BENT]
            distances = [energy_distance(ends[n], data) for n in (1, REFERENCE)]
            said = [*(f"{v:.2g}" for v in off), *(f"{v:.3f}" for v in (*distances, floor))]
            rows.append([of.name, name, f"{curve[0]:.2g}", *said])
            bent.append([of.name, f"{name}, guided", *(f"{v:.2g}" for v in curve)])
            canvas.square(ax)
            for c in (0, 1):
                canvas.paths(ax, walker.path(of.noise, c), canvas.COLORS[c])
            ax.set_title(f"paths {name} reflow")
            style = {"before": "o--", "after": "s-"}[name]
            axes[2].loglog(STEPS, off, style, color="k", label=name)
            axes[3].semilogy(BENT, curve, style, color="k", label=name)
        axes[0].set_ylabel(of.name)
        axes[2].set_title("RMS error of few Euler steps")
        axes[2].set(xlabel="steps", xticks=STEPS, xticklabels=STEPS)
        axes[2].minorticks_off()
        axes[3].set_title("straightness when guided")
        axes[3].set(xlabel="w")
        for ax in axes[2:]:
            ax.legend()
            ax.set_box_aspect(1)
    figure.suptitle(f"{NUM_PAIRS.value:,} pairs, N = {NUM_SAMPLES.value:,} paths, seed 0")
    return figure, rows, bent


def remedies(studied, ws):
    """Each against the exact guided ODE from the same noise, both classes in turn."""
    rows = [["classes", "w", "field", "passes a step", "velocity off at t = 0.5", "straightness", "ends off",
             "energy distance", "its floor", "energy distance at 1"],
            ["---", "---:", "---", *["---:"] * 7]]  # fmt: skip
    for of in studied:
        z, c = plane.diffused(of.law, jax.random.key(3), 4000, 0.5)
        for w in ws:
            exact, other = (of.exact.path(noise, of.c, w)[-1] for noise in (of.noise, of.other))
            wanted = of.exact.velocity(z, 0.5, c, w)
            fields = {"guided, two passes": of.teacher, "rectified CFG": of.guided, "distilled": of.distilled}
            for name, walker in fields.items():
                ends, one = walker.path(of.noise, of.c, w)[-1], of.end(walker, 1, w)
                off = f"{canvas.rms(walker.velocity(z, 0.5, c, w), wanted) / canvas.rms(wanted):.1%}"
                said = canvas.rms(ends, exact), energy_distance(ends, other), energy_distance(exact, other)
                rows.append([of.name, f"{w:g}", name, "2" if walker is of.teacher else "1",
                             "" if walker is of.guided else off, f"{of.straightness(walker, w):.2g}",
                             *(f"{v:.3f}" for v in said), f"{energy_distance(one, other):.3f}"])  # fmt: skip
    return rows


def beside_exact(of, method, ws):
    """Paths and the probability path of a remedy and of the exact guided ODE, from the same noise."""
    walkers = {"exact": of.exact, METHODS[method]: getattr(of, method)}
    rows = [(name, walker, w) for w in ws for name, walker in walkers.items()]
    titles, labels = (
        [f"{of.name}, paths", *(f"t = {t:g}" for t in TIMES_SHOWN)],
        [f"w = {w:g}\n{n}" for n, _, w in rows],
    )
    about = "All rows from one noise. What is rectified has the ends of the guided flow, and another way to them."
    figure, axes = canvas.panels(labels, titles, about if method == "guided" else "All rows from one noise.")
    for (_, walker, w), (first, *rest) in zip(rows, axes, strict=True):
        for c in (0, 1):
            path = walker.path(of.noise, c, w)
            canvas.paths(first, path, canvas.COLORS[c])
            for ax, t in zip(rest, TIMES_SHOWN, strict=True):
                canvas.points(ax, walker.at(path, t), canvas.COLORS[c])
    return figure


@plots.styled
def main():
    ws = gallery.weights(W.value)
    require(all(0 <= w <= W_MAX for w in ws), f"--w={W.value}: give weights from 0 to {W_MAX:g}")
    studied = [Studied(name, ws) for name in plane.RINGS]
    figure, rows, bent = reflow(studied)
    tables = rows, bent, remedies(studied, ws)
    more = {f"{method}_{of.name}": beside_exact(of, method, ws) for method in METHODS for of in studied}
    about = (
        f"{TRAIN_STEPS.value:,} training steps a field, {NUM_PAIRS.value:,} pairs, {NUM_SAMPLES.value:,} samples, "
        f"{NUM_STEPS.value} Euler steps where no number is named. Ends off is the RMS from the same noise: in the "
        f"first table to {REFERENCE} steps of the same flow, in the third to the exact guided ODE. Energy distances "
        "are to draws of the data, in the third table to the exact guided ODE from other noise. A floor is of two "
        "draws."
    )
    gallery.write(OUT.value, "rectified2d", figure, "\n".join(map(markdown, tables)), about, more=more)


if __name__ == "__main__":
    cli.run(main)
