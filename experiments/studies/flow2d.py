"""Flow matching and guidance in the plane: a small network of the velocity beside the exact one.

Two classes, rings apart and linked: samples, one pass, the field, paths, densities; a temperature and a classifier.

python -m experiments.studies.flow2d --out=runs/studies
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.tree_util import Partial

from cfg_jax import plots
from cfg_jax.diffusion import flow, guidance
from cfg_jax.evaluation.scores import energy_distance
from cfg_jax.models.mixture import Mixture
from cfg_jax.text import markdown
from experiments.helpers import canvas, cli, gallery
from experiments.studies import plane

OUT = gallery.define_out("flow2d")
S = flags.DEFINE_string("s", "1,2,4", "scales of guidance, s = 1 + w; the last is that of the probability path")
TRAIN_STEPS = flags.DEFINE_integer("train_steps", 3000, "of Adam, batch 256", lower_bound=1)
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 2000, "of a row of the tables", lower_bound=8)
NUM_STEPS = flags.DEFINE_integer("num_steps", 64, "Euler's, from t = 0 to 1", lower_bound=4)

NULL, CLASSES = 2, (0, 1)
TIMES_SHOWN = (0.0, 0.25, 0.5, 0.75, 1.0)
COOLED = {"unguided": {}, "velocity x 1.25": {"g": 1.25}, "noise variance x 1/4": {"spread": 0.5}}
OVER = "Thin and coloured: learned. Thick and grey: exact."


log_prob = jax.jit(Mixture.log_prob)


class Studied:
    """A law of the plane and a network trained on it, both walked from the same noise."""

    def __init__(self, name):
        self.name, self.law = name, plane.rings(name)
        self.field = plane.fit(jax.random.key(0), Partial(plane.data_loss, self.law), TRAIN_STEPS.value)
        self.exact, self.learned = (canvas.Walker(model, NUM_STEPS.value) for model in (self.law, self.field))
        self.noise, self.other = jax.random.normal(jax.random.key(1), (2, NUM_SAMPLES.value, 2))
        self.both, self.walked = {"exact": self.exact, "learned": self.learned}, {}

    def path(self, kind, c, w=0.0, g=1.0, spread=1.0):
        """[T, N, 2]; kind: exact, learned, or other, which is exact from other noise."""
        key = kind, c, w, g, spread
        if key not in self.walked:
            walker, z = (self.exact, self.other) if kind == "other" else (self.both[kind], self.noise)
            self.walked[key] = walker.path(spread * z, c, w, g)
        return self.walked[key]

    def compared(self, c, **how):
        """Ends, learned against exact: RMS from the same noise, energy distance from other noise, its floor."""
        exact, learned, other = (self.path(kind, c, **how)[-1] for kind in ("exact", "learned", "other"))
        off = canvas.rms(learned, exact)
        return [f"{v:.3f}" for v in (off, energy_distance(learned, other), energy_distance(exact, other))]

    def velocity_off(self, c, w=0.0):
        """The learned velocity's error over the diffused data of class c, a share of the velocity's RMS."""
        shares = []
        for t in (0.1, 0.5, 0.9):
            z, of = plane.diffused(self.law, jax.random.key(2), 4000, t)
            at = slice(None) if c == NULL else np.asarray(of) == c
            exact, learned = (walker.velocity(z, t, c, w)[at] for walker in (self.exact, self.learned))
            shares.append(canvas.rms(learned, exact) / canvas.rms(exact))
        return [f"{share:.1%}" for share in shares]

    def own(self, x, c):
        """The mean of p(c | x)."""
        return float(np.exp(log_prob(self.law, x, np.full(len(x), 20, np.float32), np.full(len(x), c))).mean())

    def tilted_draws(self, c, w):
        num = 160
        p = canvas.density(self.law, 1.0, c, w, num)
        cells = np.random.default_rng(0).choice(len(p), NUM_SAMPLES.value, p=np.float64(p) / np.float64(p).sum())
        return canvas.mesh(num)[cells]


def field_rows(studied, scales):
    header = ["classes", "label", "velocity off at t = 0.1", "0.5", "0.9", "ends off", "energy distance", "its floor"]
    rows = [[*header, "p(c given x): exact", "learned", "energy distance, exact flow to tilted density"],
            ["---", "---", *["---:"] * 9]]  # fmt: skip
    for of in studied:
        rows.append([of.name, "unconditional", *of.velocity_off(NULL), *of.compared(NULL), "", "", ""])
        for c in CLASSES:
            for s in scales:
                w = s - 1
                own = [f"{of.own(of.path(kind, c, w)[-1], c):.3f}" for kind in of.both]
                tilted = f"{energy_distance(of.path('exact', c, w)[-1], of.tilted_draws(c, w)):.3f}"
                rows.append(
                    [of.name, f"class {c}, s = {s:g}", *of.velocity_off(c, w), *of.compared(c, w=w), *own, tilted]
                )
    return rows


def samples(studied):
    figure, axes = canvas.panels([of.name for of in studied], ["noise", "data", "exact flow", "learned flow"],
                                 "Unconditional generation.")  # fmt: skip
    for of, row in zip(studied, axes, strict=True):
        drawn = of.law.sample(jax.random.key(3), NUM_SAMPLES.value)[0]
        ends = [of.path(kind, NULL)[-1] for kind in ("exact", "learned")]
        for ax, z in zip(row, (of.noise, drawn, *ends), strict=True):
            canvas.points(ax, z, canvas.COLORS[NULL], 1500)
    return figure


def one_pass(studied, c, at=0.4):
    """A pass at some noisy points with the x it predicts, the paths, and the field at three times."""
    times = (0.1, 0.5, 0.9)
    titles = [f"one pass, t = {at:g}", "paths", *(f"field, t = {t:g}" for t in times)]
    label = "Without a class" if c == NULL else f"Of class {c}"
    figure, axes = canvas.panels([of.name for of in studied], titles, f"{label}. {OVER} A pass points to its x.")
    for of, (first, second, *rest) in zip(studied, axes, strict=True):
        z, classes = (np.asarray(a) for a in plane.diffused(of.law, jax.random.key(4), 80, at))
        some = np.flatnonzero((classes == c) | (c == NULL))[:16]
        canvas.contours(first, of.law, 1.0, c, masses=[0.9], colors="0.8")
        for walker, color, width in ((of.exact, canvas.EXACT, 0.014), (of.learned, canvas.COLORS[c], 0.006)):
            canvas.arrows(first, z[some], (1 - at) * walker.velocity(z, at, c)[some], color, width)
        first.scatter(*z[some].T, s=6, color="k", zorder=3, lw=0)
        canvas.paths(second, of.path("exact", c), canvas.EXACT, lw=2)
        canvas.paths(second, of.path("learned", c), canvas.COLORS[c])
        for ax, t in zip(rest, times, strict=True):
            canvas.field(ax, of.exact, of.learned, t, c)
    return figure


def over_scales(studied, scales, draw, about):
    """draw(ax, of, label, w): a row for each law and class, a column for no class and each scale."""
    rows = [(of, c) for of in studied for c in CLASSES]
    titles = ["unconditional", *(f"s = {s:g}" for s in scales)]
    figure, axes = canvas.panels([f"{of.name}, class {c}" for of, c in rows], titles, about, 8.5)
    for (of, c), row in zip(rows, axes, strict=True):
        draw(row[0], of, NULL, 0.0)
        for ax, s in zip(row[1:], scales, strict=True):
            draw(ax, of, c, s - 1)
    return figure


def guided_field(ax, of, c, w):
    canvas.field(ax, of.exact, of.learned, 0.5, c, w, 0.15)


def guided_paths(ax, of, c, w):
    canvas.paths(ax, of.path("exact", c, w), canvas.EXACT, lw=2)
    canvas.paths(ax, of.path("learned", c, w), canvas.COLORS[c])


def probability_path(of, s):
    """The learned flow's points over the exact density at five times; guided, over the tilted one, and the exact's."""
    rows = [(kind, c, scale) for scale, kinds in ((1.0, ["learned"]), (s, ["exact", "learned"])) for c in CLASSES
            for kind in kinds]  # fmt: skip
    labels = [f"class {c}, s = {scale:g}\n{kind} flow" for kind, c, scale in rows]
    about = (
        "Points: the flow. Lines: half and 90 % of p(z_t | c)^s p(z_t)^(1 - s), which the guided flow does not sample."
    )
    figure, axes = canvas.panels(labels, [f"{of.name}, t = {t:g}" for t in TIMES_SHOWN], about, 8.5)
    for (kind, c, scale), row in zip(rows, axes, strict=True):
        path = of.path(kind, c, scale - 1)
        for ax, t in zip(row, TIMES_SHOWN, strict=True):
            canvas.points(ax, of.exact.at(path, t), canvas.COLORS[c])
            canvas.contours(ax, of.law, t, c, scale - 1)
    return figure


def temperature(studied, scales):
    """Guidance beside a velocity times g and beside noise of less variance: a figure and rows."""
    settings = COOLED | {f"guided, s = {s:g}": {"w": s - 1} for s in scales if s != 1}
    rows = [["classes", "setting", "spread", "mean moved outwards", "p(c given x)", "ends off", "energy distance",
             "its floor"], ["---", "---", *["---:"] * 6]]  # fmt: skip
    labels = [f"{of.name}\n{kind} flow" for of in studied for kind in of.both]
    figure, axes = canvas.panels(labels, list(settings), "Ends of both classes. Lines: 90 % of p(x | c).")
    for of, pair in zip(studied, axes.reshape(len(studied), 2, -1), strict=True):
        for (name, how), column in zip(settings.items(), pair.swapaxes(0, 1), strict=True):
            x, centre = of.path("exact", 0, **how)[-1], np.asarray(of.law.means)[: len(of.law.stds) // 2].mean(0)
            spread, moved = np.sqrt(x.var(0).mean()), (centre - x.mean(0))[0]
            said = [f"{spread:.3f}", f"{moved:+.3f}", f"{of.own(x, 0):.3f}"]
            rows.append([of.name, name, *said, *of.compared(0, **how)])
            for kind, ax in zip(of.both, column, strict=True):
                for c in CLASSES:
                    canvas.points(ax, of.path(kind, c, **how)[-1], canvas.COLORS[c], 500)
                    canvas.contours(ax, of.law, 1.0, c, masses=[0.9])
    return figure, rows


def by_classifier(studied, w=1.0):
    """The exact classifier's gradient on either eps, which is Equation 6 where both are exact: a figure and rows."""
    bases = {f"unconditional + {1 + w:g} x classifier": (NULL, 1 + w), f"conditional + {w:g} x classifier": (0, w)}
    rows = [["classes", "guided", "exact eps: greatest difference to Equation 6", "learned: ends off",
             "energy distance", "its floor"], ["---", "---", *["---:"] * 4]]  # fmt: skip
    titles = [*(f"{name}\n(learned)" for name in bases), "classifier-free (learned)", "classifier-free (exact)"]
    figure, axes = canvas.panels([of.name for of in studied], titles, f"Class 0, s = {1 + w:g}.")
    for of, row in zip(studied, axes, strict=True):
        exact, learned, other = (of.path(kind, 0, w) for kind in ("exact", "learned", "other"))
        for ax, (name, (label, scale)) in zip(row, bases.items(), strict=False):
            path = np.asarray(classifier_path(of.law, of.field, of.noise, label, scale, of.exact.times))
            apart = [canvas.rms(path[-1], exact[-1]), energy_distance(path[-1], other[-1])]
            apart = [f"{v:.3f}" for v in (*apart, energy_distance(exact[-1], other[-1]))]
            rows.append([of.name, name, f"{float(identity(of.law, label, scale, w)):.1e}", *apart])
            canvas.paths(ax, path, canvas.COLORS[0])
        rows.append([of.name, "classifier-free", "", *of.compared(0, w=w)])
        canvas.paths(row[2], learned, canvas.COLORS[0])
        canvas.paths(row[3], exact, "0.4")
    return figure, rows


@jax.jit
def classifier_path(law, model, z, label, scale, times):
    """Euler's, of a model's label and scale times the exact classifier's gradient to class 0."""
    eps_fn = guidance.guided_by_classifier(plane.labelled(model, label), law.log_prob, scale)
    return flow.euler(flow.velocity_fn(eps_fn), z, jnp.zeros(len(z), int), times)


@jax.jit
def identity(law, label, scale, w):
    """The greatest difference of a classifier's guided eps and Equation 6, over noised data."""
    z, logsnr = plane.diffused(law, jax.random.key(5), 1000, 0.5)[0], jnp.linspace(-6, 6, 1000)
    c = jnp.zeros(1000, int)
    by = guidance.guided_by_classifier(plane.labelled(law, label), law.log_prob, scale)(z, logsnr, c)
    return jnp.abs(by - guidance.guided(law.eps_fn, w, law.null)(z, logsnr, c)).max()


@plots.styled
def main():
    scales = gallery.positive(S.value, "s", 0.0, float)
    studied = [Studied(name) for name in plane.RINGS]
    cooled, cooled_rows = temperature(studied, scales)
    classified, classified_rows = by_classifier(studied)
    more = {"samples": samples(studied), "pass": one_pass(studied, NULL), "class": one_pass(studied, 0),
            "temperature": cooled, "classifier": classified}  # fmt: skip
    for of in studied:
        more[f"guided_{of.name}"] = over_scales([of], scales, guided_paths, f"Paths. {OVER}")
        more[f"path_{of.name}"] = probability_path(of, scales[-1])
    first = over_scales(studied, scales, guided_field, f"The velocity at t = 0.5. {OVER}")
    table = "\n".join(markdown(rows) for rows in (field_rows(studied, scales), cooled_rows, classified_rows))
    about = (
        f"{TRAIN_STEPS.value:,} training steps, {NUM_SAMPLES.value:,} samples of {NUM_STEPS.value} Euler steps a row. "
        "Velocity off is the RMS of learned less exact over the class's diffused data, a share of the RMS of exact. "
        "Ends off is the RMS of learned less exact from the same noise. The energy distance is from learned to exact "
        "from other noise, its floor from exact to that. "
        "Spread, mean and p(c given x) of the second table are of class 0 of the exact flow."
    )
    gallery.write(OUT.value, "flow2d", first, table, about, more=more)


if __name__ == "__main__":
    cli.run(main)
