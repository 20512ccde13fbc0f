"""Flow matching and guidance in the plane: a small network of the velocity compared with the exact one.

Two classes, rings apart and linked: samples, one pass, the field, paths, densities; a temperature and a classifier.

python -m experiments.studies.flow2d --out=runs/studies
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.diffusion import flow, guidance
from cfg_jax.evaluation.scores import energy_distance
from cfg_jax.models.mixture import Mixture
from cfg_jax.text import markdown
from experiments.helpers import canvas, cli, gallery
from experiments.studies import plane

OUT = gallery.define_out("flow2d")
S = cli.define_numbers("s", "1,2,4", "scales of guidance, s = 1 + w; the last is that of the probability path", low=0)
TRAIN_STEPS = cli.define_count("train_steps", 3000, "of Adam, batch 256")
NUM_SAMPLES = cli.define_count("num_samples", 2000, "of a row of the tables", low=8)
NUM_STEPS = cli.define_count("num_steps", 64, "Euler's, from t = 0 to 1", low=4)

NULL, CLASSES, KINDS = 2, (0, 1), ("exact", "learned")
TIMES_SHOWN = (0.0, 0.25, 0.5, 0.75, 1.0)
COOLED = {"unguided": {}, "velocity x 1.25": {"g": 1.25}, "noise variance x 1/4": {"spread": 0.5}}
OVER = "Thin and coloured: learned. Thick and grey: exact."
LINES = "Points: the flow. Lines: half and 90 % of p(z_t | c)^s p(z_t)^(1 - s), which the guided flow does not sample."
Rows = list[list[str]]
log_prob = jax.jit(Mixture.log_prob)


class Studied:
    """A law of the plane and a network trained on it, both walked from the same noise."""

    def __init__(self, name: str) -> None:
        self.name, self.law = name, plane.rings(name)
        loss_fn = Partial(plane.data_loss, self.law)
        self.field = plane.fit(jax.random.key(0), loss_fn, plane.untrained(), TRAIN_STEPS.value)
        self.exact, self.learned = (canvas.Walker(model, NUM_STEPS.value) for model in (self.law, self.field))
        self.noise, self.other = jax.random.normal(jax.random.key(1), (2, NUM_SAMPLES.value, 2))
        self.path = cache(self._path)

    def _path(self, kind: str, c: int, w: float = 0.0, g: float = 1.0, spread: float = 1.0) -> np.ndarray:
        """Return the points [T, N, 2]. kind: exact, learned, or other, which is exact from other noise."""
        walker = self.learned if kind == "learned" else self.exact
        return walker.path(spread * (self.other if kind == "other" else self.noise), c, w, g)

    def compared(self, c: int, **how: float) -> list[str]:
        return canvas.compared(*(self.path(kind, c, **how)[-1] for kind in ("learned", "exact", "other")))

    def velocity_off(self, c: int, w: float = 0.0) -> list[str]:
        """Return the learned velocity's error over the diffused data of class c, a share of the velocity's RMS."""
        shares = []
        for t in (0.1, 0.5, 0.9):
            z, classes = plane.diffused(self.law, jax.random.key(2), 4000, t)
            at = slice(None) if c == NULL else np.asarray(classes) == c
            exact, learned = (walker.velocity(z, t, c, w)[at] for walker in (self.exact, self.learned))
            shares.append(canvas.off(learned, exact))
        return shares

    def classified(self, kind: str, c: int, **how: float) -> str:
        """Return the mean of p(c | x) at the ends."""
        x = self.path(kind, c, **how)[-1]
        p = np.exp(log_prob(self.law, x, np.full(len(x), 20, np.float32), np.full(len(x), c)))
        return f"{float(p.mean()):.3f}"

    def tilted_draws(self, c: int, w: float) -> np.ndarray:
        num = 160
        p = np.float64(canvas.density(self.law, 1.0, c, w, num))
        return canvas.mesh(num)[np.random.default_rng(0).choice(len(p), NUM_SAMPLES.value, p=p / p.sum())]

    def draw_paths(self, ax: Axes, c: int, w: float = 0.0) -> None:
        canvas.paths(ax, self.path("exact", c, w), canvas.EXACT, lw=2)
        canvas.paths(ax, self.path("learned", c, w), canvas.COLORS[c])

    def draw_field(self, ax: Axes, c: int, w: float) -> None:
        canvas.field(ax, self.exact, self.learned, 0.5, c, w, 0.15)


def field_rows(studied: list[Studied], scales: list[float]) -> Rows:
    rows = [["classes", "label", "velocity off at t = 0.1", "0.5", "0.9", "ends off", "energy distance", "its floor",
             "p(c given x): exact", "learned", "energy distance, exact flow to tilted density"]]  # fmt: skip
    for one in studied:
        rows.append([one.name, "unconditional", *one.velocity_off(NULL), *one.compared(NULL), "", "", ""])
        for c in CLASSES:
            for s in scales:
                w = s - 1
                tilted = energy_distance(one.path("exact", c, w=w)[-1], one.tilted_draws(c, w))
                of_label = [*one.velocity_off(c, w), *one.compared(c, w=w)]
                of_label += [one.classified(kind, c, w=w) for kind in KINDS]
                rows.append([one.name, f"class {c}, s = {s:g}", *of_label, f"{tilted:.3f}"])
    return rows


def samples(studied: list[Studied]) -> Figure:
    columns = ["noise", "data", "exact flow", "learned flow"]
    figure, axes = canvas.panels([one.name for one in studied], columns, "Unconditional generation.")
    for one, row in zip(studied, axes, strict=True):
        data = one.law.sample(jax.random.key(3), NUM_SAMPLES.value)[0]
        for ax, z in zip(row, (one.noise, data, *(one.path(kind, NULL)[-1] for kind in KINDS)), strict=True):
            canvas.points(ax, z, canvas.COLORS[NULL], 1500)
    return figure


def one_pass(studied: list[Studied], c: int) -> Figure:
    """Draw a pass at some noisy points with the x it predicts, the paths, and the field at three times."""
    at, times = 0.4, (0.1, 0.5, 0.9)
    titles = [f"one pass, t = {at:g}", "paths", *(f"field, t = {t:g}" for t in times)]
    label = "Without a class" if c == NULL else f"Of class {c}"
    figure, axes = canvas.panels([one.name for one in studied], titles, f"{label}. {OVER} A pass points to its x.")
    for one, (first, second, *rest) in zip(studied, axes, strict=True):
        z, classes = (np.asarray(a) for a in plane.diffused(one.law, jax.random.key(4), 80, at))
        some = np.flatnonzero((classes == c) | (c == NULL))[:16]
        canvas.contours(first, one.law, 1.0, c, 0.0, 0.9, color="0.8")
        exact, learned = ((1 - at) * walker.velocity(z, at, c)[some] for walker in (one.exact, one.learned))
        canvas.arrows(first, z[some], exact, learned, c)
        first.scatter(*z[some].T, s=6, color="k", zorder=3, lw=0)
        one.draw_paths(second, c)
        for ax, t in zip(rest, times, strict=True):
            canvas.field(ax, one.exact, one.learned, t, c)
    return figure


def over_scales(studied: list[Studied], scales: list[float], draw: Callable, about: str) -> Figure:
    """Call draw(law, ax, label, w): a row for each law and class, a column for no class and each scale."""
    rows = [(one, c) for one in studied for c in CLASSES]
    titles = ["unconditional", *(f"s = {s:g}" for s in scales)]
    figure, axes = canvas.panels([f"{one.name}, class {c}" for one, c in rows], titles, about, 8.5)
    for (one, c), (first, *rest) in zip(rows, axes, strict=True):
        draw(one, first, NULL, 0.0)
        for ax, s in zip(rest, scales, strict=True):
            draw(one, ax, c, s - 1)
    return figure


def probability_path(one: Studied, s: float) -> Figure:
    """Draw the learned flow's points over the exact density at five times; guided over the tilted one, both flows'."""
    rows = [("learned", c, 1.0) for c in CLASSES] + [(kind, c, s) for c in CLASSES for kind in KINDS]
    labels = [f"class {c}, s = {scale:g}\n{kind} flow" for kind, c, scale in rows]
    figure, axes = canvas.panels(labels, [f"{one.name}, t = {t:g}" for t in TIMES_SHOWN], LINES, 8.5)
    for (kind, c, scale), row in zip(rows, axes, strict=True):
        for ax, t in zip(row, TIMES_SHOWN, strict=True):
            canvas.points(ax, one.exact.at(one.path(kind, c, w=scale - 1), t), canvas.COLORS[c])
            canvas.contours(ax, one.law, t, c, scale - 1)
    return figure


def temperature(studied: list[Studied], scales: list[float]) -> tuple[Figure, Rows]:
    """Compare guidance with a velocity times g and with noise of less variance: a figure and rows."""
    settings: dict[str, Any] = COOLED | {f"guided, s = {s:g}": {"w": s - 1} for s in scales if s != 1}
    rows = [["classes", "setting", "spread", "mean moved outwards", "p(c given x)", "ends off", "energy distance",
             "its floor"]]  # fmt: skip
    labels = [f"{one.name}\n{kind} flow" for one in studied for kind in KINDS]
    figure, axes = canvas.panels(labels, list(settings), "Ends of both classes. Lines: 90 % of p(x | c).")
    for one, pair in zip(studied, axes.reshape(len(studied), 2, -1), strict=True):
        centre = np.asarray(one.law.means)[: len(one.law.stds) // 2].mean(0)
        for (name, how), column in zip(settings.items(), pair.swapaxes(0, 1), strict=True):
            x = one.path("exact", 0, **how)[-1]
            spread, moved = np.sqrt(x.var(0).mean()), (centre - x.mean(0))[0]
            cells = [f"{spread:.3f}", f"{moved:+.3f}", one.classified("exact", 0, **how)]
            rows.append([one.name, name, *cells, *one.compared(0, **how)])
            for kind, ax in zip(KINDS, column, strict=True):
                for c in CLASSES:
                    canvas.points(ax, one.path(kind, c, **how)[-1], canvas.COLORS[c], 500)
                    canvas.contours(ax, one.law, 1.0, c, 0.0, 0.9)
    return figure, rows


def by_classifier(studied: list[Studied], w: float = 1.0) -> tuple[Figure, Rows]:
    """Add the exact classifier's gradient to either eps; Equation 6 where both are exact. A figure and rows."""
    bases = {f"unconditional + {1 + w:g} x classifier": (NULL, 1 + w), f"conditional + {w:g} x classifier": (0, w)}
    rows = [["classes", "guided", "exact eps: greatest difference to Equation 6", "learned: ends off",
             "energy distance", "its floor"]]  # fmt: skip
    titles = [*(f"{name}\n(learned)" for name in bases), "classifier-free (learned)", "classifier-free (exact)"]
    figure, axes = canvas.panels([one.name for one in studied], titles, f"Class 0, s = {1 + w:g}.")
    for one, row in zip(studied, axes, strict=True):
        exact, learned, other = (one.path(kind, 0, w=w) for kind in ("exact", "learned", "other"))
        for ax, (name, (label, scale)) in zip(row, bases.items(), strict=False):
            path = np.asarray(classifier_path(one.law, one.field, one.noise, label, scale, one.exact.times))
            off = f"{float(identity(one.law, label, scale, w)):.1e}"
            rows.append([one.name, name, off, *canvas.compared(path[-1], exact[-1], other[-1])])
            canvas.paths(ax, path, canvas.COLORS[0])
        rows.append([one.name, "classifier-free", "", *one.compared(0, w=w)])
        canvas.paths(row[2], learned, canvas.COLORS[0])
        canvas.paths(row[3], exact, "0.4")
    return figure, rows


@jax.jit
def classifier_path(law: Mixture, model: plane.Field, z: Array, label: int, scale: float, times: Array) -> Array:
    """Walk by Euler's steps, guided by scale times the exact classifier's gradient to class 0 from eps at a label."""
    eps_fn = guidance.guided_by_classifier(plane.labelled(model, label), law.log_prob, scale)
    return flow.euler(flow.velocity_fn(eps_fn), z, jnp.zeros(len(z), int), times)


@jax.jit
def identity(law: Mixture, label: int, scale: float, w: float) -> Array:
    """Return the greatest difference of a classifier's guided eps and Equation 6, over noised data."""
    z, logsnr = plane.diffused(law, jax.random.key(5), 1000, 0.5)[0], jnp.linspace(-6, 6, 1000)
    c = jnp.zeros(1000, int)
    by = guidance.guided_by_classifier(plane.labelled(law, label), law.log_prob, scale)(z, logsnr, c)
    return jnp.abs(by - guidance.guided(law.eps_fn, w, law.null)(z, logsnr, c)).max()


@plots.styled
def main() -> None:
    scales = S.value
    studied = [Studied(name) for name in plane.RINGS]
    cooled, cooled_rows = temperature(studied, scales)
    classified, classified_rows = by_classifier(studied)
    more = {"samples": samples(studied), "pass": one_pass(studied, NULL), "class": one_pass(studied, 0),
            "temperature": cooled, "classifier": classified}  # fmt: skip
    for one in studied:
        more[f"guided_{one.name}"] = over_scales([one], scales, Studied.draw_paths, f"Paths. {OVER}")
        more[f"path_{one.name}"] = probability_path(one, scales[-1])
    first = over_scales(studied, scales, Studied.draw_field, f"The velocity at t = 0.5. {OVER}")
    table = "\n".join(markdown(r, (0, 1)) for r in (field_rows(studied, scales), cooled_rows, classified_rows))
    about = (
        f"{TRAIN_STEPS.value:,} training steps, {NUM_SAMPLES.value:,} samples of {NUM_STEPS.value} Euler steps a row. "
        "Velocity off is the RMS error of the learned velocity on noised data of the class, divided by the RMS of the "
        "exact velocity. Ends off is the RMS distance between learned and exact end points of the same noise. The "
        "energy distance is that of learned samples to exact samples of other noise; the floor is that of two exact "
        "sets. The second table describes class 0 of the exact flow."
    )
    gallery.write(OUT.value, "flow2d", first, table, about, more=more)


if __name__ == "__main__":
    cli.run(main)
