"""Straight paths and guidance in the plane: reflow, guidance of a rectified flow, and two remedies.

A flow is rectified on pairs of its noise and its end. Guidance bends it again. So the pairs are made with guidance
(rectified CFG), or the guided velocity is distilled into a network that takes w. Liu et al. 2023; Meng et al. 2023.

python -m experiments.studies.rectified2d --out=runs/studies
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.diffusion import flow
from cfg_jax.evaluation.scores import energy_distance
from cfg_jax.text import markdown
from experiments.helpers import canvas, cli, gallery
from experiments.helpers.canvas import Walker
from experiments.studies import plane

W_MAX = 4.0  # Meng et al. 2023
OUT = gallery.define_out("rectified2d")
W = cli.define_numbers("w", "1,3", "guidance weights of rectified CFG and of the distilled field's rows, 0 to 4",
                       low=0, high=W_MAX)  # fmt: skip
TRAIN_STEPS = cli.define_count("train_steps", 3000, "of Adam, batch 256, of each field")
NUM_PAIRS = cli.define_count("num_pairs", 6000, "of noise and end, to rectify on", low=8)
NUM_SAMPLES = cli.define_count("num_samples", 2000, "of a row of the tables", low=8)
NUM_STEPS = cli.define_count("num_steps", 64, "Euler's, from t = 0 to 1", low=4)

STEPS, REFERENCE = (1, 2, 4, 8, 32), 128
BENT = (0.0, 0.5, 1.0, 2.0, 4.0)
TIMES_SHOWN = (0.25, 0.5, 0.75, 1.0)
Rows = list[list[str]]


class Studied:
    """A law of the plane, a network trained on it, and the three that are made of it, as walkers."""

    def __init__(self, name: str) -> None:
        self.name, self.law = name, plane.rings(name)
        keys = jax.random.split(jax.random.key(0), 7)
        train_steps = TRAIN_STEPS.value
        teacher = plane.fit(keys[0], Partial(plane.data_loss, self.law), plane.untrained(), train_steps)
        self.exact, self.teacher = (Walker(model, NUM_STEPS.value) for model in (self.law, teacher))
        rectified = plane.fit(keys[1], self.pairs(keys[2], [0.0], 3), teacher, train_steps)
        guided = plane.fit(keys[3], self.pairs(keys[4], W.value, 2), teacher, train_steps)
        distilled = plane.fit(keys[5], Partial(plane.teacher_loss, self.law, teacher, W_MAX), teacher, train_steps)
        fields = rectified, dataclasses.replace(guided, takes_w=True), dataclasses.replace(distilled, takes_w=True)
        self.rectified, self.guided, self.distilled = (Walker(field, NUM_STEPS.value) for field in fields)
        self.noise, self.other = jax.random.normal(keys[6], (2, NUM_SAMPLES.value, 2))
        self.c = np.arange(NUM_SAMPLES.value) % 2

    def pairs(self, key: jax.Array, ws: list[float], labels: int) -> Partial:
        """Return the loss on the teacher's pairs. labels: how many labels take turns."""
        eps = jax.random.normal(key, (len(ws), NUM_PAIRS.value, 2))
        c = jnp.arange(NUM_PAIRS.value) % labels
        x = np.concatenate([self.teacher.path(z, c, w)[-1] for z, w in zip(eps, ws, strict=True)])
        w = jnp.repeat(jnp.float32(ws), NUM_PAIRS.value)
        return Partial(plane.pair_loss, eps.reshape(-1, 2), jnp.asarray(x), jnp.tile(c, len(ws)), w)

    def straightness(self, walker: Walker, w: float) -> float:
        """Return the mean over 500 paths."""
        return float(flow.straightness(walker.path(self.noise[:500], self.c[:500], w), walker.times).mean())

    def end(self, walker: Walker, num_steps: int, w: float = 0.0) -> np.ndarray:
        """End after few Euler steps: the rest of the grid stands still at t = 1, so that one program serves all."""
        times = np.ones(REFERENCE + 1)
        times[: num_steps + 1] = np.linspace(0, 1, num_steps + 1)
        return walker.path(self.noise, self.c, w, times=times)[-1]


def reflow(studied: list[Studied]) -> tuple[Figure, Rows, Rows]:
    """Compare before and after: straightness, the error of few steps, and bending. A figure and two tables."""
    rows = [["classes", "flow", "straightness", *(f"ends off at {n}" for n in STEPS), "energy distance at 1",
             f"at {REFERENCE}", "its floor"]]  # fmt: skip
    bent = [["classes", "flow", *(f"straightness, w = {w:g}" for w in BENT)]]
    figure = Figure(figsize=(10, 5.4))
    for one, axes in zip(studied, figure.subplots(len(studied), 4), strict=True):
        _, _, errors, curves = axes
        data, again = (np.asarray(one.law.sample(jax.random.key(seed), len(one.c))[0]) for seed in (1, 2))
        floor = energy_distance(data, again)
        flows = ("before", one.teacher, "o--"), ("after", one.rectified, "s-")
        for ax, (name, walker, style) in zip(axes, flows, strict=False):
            ends = {n: one.end(walker, n) for n in (*STEPS, REFERENCE)}
            off = [canvas.rms(ends[n], ends[REFERENCE]) for n in STEPS]
            curve = [one.straightness(walker, w) for w in BENT]
            distances = [energy_distance(ends[n], data) for n in (1, REFERENCE)]
            cells = [*(f"{v:.2g}" for v in (curve[0], *off)), *(f"{v:.3f}" for v in (*distances, floor))]
            rows.append([one.name, name, *cells])
            bent.append([one.name, f"{name}, guided", *(f"{v:.2g}" for v in curve)])
            canvas.square(ax)
            for c in (0, 1):
                canvas.paths(ax, walker.path(one.noise, c), canvas.COLORS[c])
            ax.set_title(f"paths {name} reflow")
            errors.loglog(STEPS, off, style, color="k", label=name)
            curves.semilogy(BENT, curve, style, color="k", label=name)
        axes[0].set_ylabel(one.name)
        errors.set(title="RMS error of few Euler steps", xlabel="steps", xticks=STEPS, xticklabels=STEPS)
        errors.minorticks_off()
        curves.set(title="straightness when guided", xlabel="w")
        for ax in (errors, curves):
            ax.legend()
            ax.set_box_aspect(1)
    figure.suptitle(f"{NUM_PAIRS.value:,} pairs, N = {NUM_SAMPLES.value:,} paths, seed 0")
    return figure, rows, bent


def remedies(studied: list[Studied]) -> Rows:
    """Compare each with the exact guided ODE from the same noise, both classes in turn."""
    rows = [["classes", "w", "field", "passes a step", "velocity off at t = 0.5", "straightness", "ends off",
             "energy distance", "its floor", "energy distance at 1"]]  # fmt: skip
    for one in studied:
        z, c = plane.diffused(one.law, jax.random.key(3), 4000, 0.5)
        for w in W.value:
            exact, other = (one.exact.path(noise, one.c, w)[-1] for noise in (one.noise, one.other))
            velocity = one.exact.velocity(z, 0.5, c, w)
            fields = {"guided, two passes": one.teacher, "rectified CFG": one.guided, "distilled": one.distilled}
            for name, walker in fields.items():
                ends = walker.path(one.noise, one.c, w)[-1]
                off = canvas.off(walker.velocity(z, 0.5, c, w), velocity)
                after_one = energy_distance(one.end(walker, 1, w), other)
                rows.append([one.name, f"{w:g}", name, "2" if walker is one.teacher else "1",
                             "" if walker is one.guided else off, f"{one.straightness(walker, w):.2g}",
                             *canvas.compared(ends, exact, other), f"{after_one:.3f}"])  # fmt: skip
    return rows


def beside_exact(one: Studied, remedy: Walker, name: str, about: str) -> Figure:
    """Draw paths and the probability path of a remedy and of the exact guided ODE, from the same noise."""
    rows = [(label, walker, w) for w in W.value for label, walker in (("exact", one.exact), (name, remedy))]
    titles = [f"{one.name}, paths", *(f"t = {t:g}" for t in TIMES_SHOWN)]
    figure, axes = canvas.panels([f"w = {w:g}\n{label}" for label, _, w in rows], titles, about)
    for (_, walker, w), (first, *rest) in zip(rows, axes, strict=True):
        for c in (0, 1):
            path = walker.path(one.noise, c, w)
            canvas.paths(first, path, canvas.COLORS[c])
            for ax, t in zip(rest, TIMES_SHOWN, strict=True):
                canvas.points(ax, walker.at(path, t), canvas.COLORS[c])
    return figure


@plots.styled
def main() -> None:
    studied = [Studied(name) for name in plane.RINGS]
    figure, rows, bent = reflow(studied)
    tables = (rows, (0, 1)), (bent, (0, 1)), (remedies(studied), (0, 2))
    noise, more = "All rows from one noise.", {}
    for one in studied:
        other_way = f"{noise} What is rectified has the ends of the guided flow, and another way to them."
        more[f"guided_{one.name}"] = beside_exact(one, one.guided, "rectified CFG", other_way)
        more[f"distilled_{one.name}"] = beside_exact(one, one.distilled, "distilled", noise)
    about = (
        f"{TRAIN_STEPS.value:,} training steps a field, {NUM_PAIRS.value:,} pairs, {NUM_SAMPLES.value:,} samples, "
        f"{NUM_STEPS.value} Euler steps unless another number is named. Ends off is the RMS distance between end "
        f"points of the same noise: in the first table to {REFERENCE} steps of the same flow, in the third to the "
        "exact guided ODE. Energy distances are to samples of the data, in the third table to samples of the exact "
        "guided ODE from other noise. A floor is the energy distance of two such sets of samples."
    )
    text = "\n".join(markdown(rows, left) for rows, left in tables)
    gallery.write(OUT.value, "rectified2d", figure, text, about, more=more)


if __name__ == "__main__":
    cli.run(main)
