"""Temperature is not guidance: the score times g, less noise (variance times tau), and guidance at w. Claim 8.

Of N(0, 1) with the exact eps, the score times g gives 1 / (2g - 1) by Algorithm 2 and 0 by the ODE, where the tempered
law has 1 / g; the noise's variance times tau gives tau. With --run, a trained model's Frechet distance and IS instead.

python -m experiments.studies.temperature --out=runs/studies --run=runs/digits-p0.1
"""

from typing import Any, ClassVar

import flax.struct
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.diffusion import exact, guidance, samplers, schedule
from cfg_jax.diffusion.guidance import Guided, Stateless
from cfg_jax.models.mixture import Mixture
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

OUT = gallery.define_out("temperature")
G = flags.DEFINE_string("g", "1,1.25,1.5,2,3", "powers of the score, above 1/2")
TAU = flags.DEFINE_string("tau", "1,0.75,0.5,0.25", "shares of the noise's variance")
W = flags.DEFINE_string("w", "0,0.25,0.5,1,2", "guidance weights")
RUN = flags.DEFINE_string("run", None, "run directory or exported file; its class conditional samples are scored")
NUM_IMAGES = flags.DEFINE_integer("num_images", 800, "of each setting of --run", lower_bound=20)
NUM_STEPS = flags.DEFINE_integer("num_steps", 64, "T of --run and of the mixtures", lower_bound=2)

MIXTURES = {"overlapping": ([-0.5, 0.5], [0.5, 0.5]), "separate": ([-1.0, 1.0], [0.15, 0.3])}


@flax.struct.dataclass
class Scaled(Stateless):
    """The conditional score times g, one pass."""

    g: Any

    passes: ClassVar = 1

    def __call__(self, halves, z, logsnr, c, state):
        return Guided.of(self.g * halves.cond(z, logsnr, c)), state


@flax.struct.dataclass
class Cooled(samplers.Ancestral):
    """Algorithm 2 with the variance of its noise times tau."""

    tau: Any = 1.0

    def step(self, predict, z, state, logsnr, logsnr_next, noise):
        return super().step(predict, z, state, logsnr, logsnr_next, self.tau**0.5 * noise)


def settings(gs, taus, ws):
    """(name, value, rule, sampler) of every point; those that change nothing are one and the same."""
    yield from (("g", g, Scaled(g), samplers.Ancestral(0.3)) for g in gs)
    yield from (("tau", tau, guidance.Unguided(), Cooled(0.3, tau=tau)) for tau in taus)
    yield from (("w", w, guidance.ClassifierFree(w), samplers.Ancestral(0.3)) for w in ws)


def exact_table(gs, taus):
    grid, scaled = schedule.grid(2048), lambda z, logsnr, g: g * exact.eps(z, logsnr, 1.0)
    rows = [["N(0, 1)", "Algorithm 2", "law", "ODE", "tempered law"], ["---", *["---:"] * 4]]
    for g in gs:
        sde, ode = (exact.sampled_variance(s, grid, g, scaled) for s in (samplers.Ancestral(0.0), samplers.DDIM(0.0)))
        rows.append([f"score times {g:g}", f"{sde:.3f}", f"{1 / (2 * g - 1):.3f}", f"{ode:.3f}", f"{1 / g:.3f}"])
    for tau in taus:
        found = exact.sampled_variance(Cooled(0.0, tau=tau), grid, 1.0, scaled)
        rows.append([f"noise variance times {tau:g}", f"{found:.3f}", f"{tau:.3f}", "", f"{tau:.3f}"])
    return markdown(rows)


def of_mixtures():
    """Class 0 of two mixtures: densities of what g = 2, tau = 1/2 and w = 1 sample."""
    figure = Figure(figsize=(9, 3.9))
    chosen = [("w", 0, guidance.Unguided(), samplers.Ancestral(0.3)), *settings([2.0], [0.5], [1.0])]
    num, bins = 20_000, np.linspace(-2.2, 1.6, 77)
    for row, (name, (means, stds)) in zip(figure.subplots(2, len(chosen)), MIXTURES.items(), strict=True):
        model = Mixture(jnp.float32(means)[:, None], jnp.float32(stds), jnp.float32([0.5, 0.5]))
        for ax, (letter, value, rule, sampler) in zip(row, chosen, strict=True):
            x, _ = gallery.drawn(model, rule, sampler, schedule.grid(NUM_STEPS.value), num)
            ax.hist(x[:, 0], bins, density=True, histtype="stepfilled")
            for k, color in ((0, "k"), (1, "0.7")):
                density = np.exp(-0.5 * ((bins - means[k]) / stds[k]) ** 2) / stds[k] / (2 * np.pi) ** 0.5
                ax.plot(bins, density, color=color)
            ax.set(title=f"{letter} = {value:g}", yticks=[], xticks=[])
        row[0].set_ylabel(name)
    figure.suptitle(f"Class 0 of two Gaussians: N = {num:,} samples, T = {NUM_STEPS.value}, seed 0; black: p(x | 0)")
    return figure


def of_run(points):
    """IS and Frechet distance of a trained model's samples: rows and a figure."""
    scored = gallery.Scored(RUN.value, NUM_IMAGES.value, NUM_STEPS.value, OUT.value)
    names = {"g": "score times g", "tau": "noise variance times tau", "w": "guidance at w"}
    rows, curves, plain = [], {}, None
    for letter, value, rule, sampler in points:
        unchanged = value == (0 if letter == "w" else 1)
        found = plain if unchanged and plain else scored(guidance.Unguided() if unchanged else rule, sampler)
        plain = plain or (found if unchanged else None)
        (fid, fid_error), (inception, is_error) = found["fid"], found["is"]
        rows.append([names[letter], f"{value:g}", f"{fid:.2f} ± {fid_error:.2f}", f"{inception:.3f} ± {is_error:.3f}"])
        curves.setdefault(letter, []).append((inception, fid, is_error, fid_error))
    figure = Figure()
    axes, named = figure.subplots(), {}
    for letter, curve in curves.items():
        [line] = axes.plot(*np.array(curve).T[:2], "o-", label=names[letter])
        named[line] = [value for name, value, *_ in rows if name == names[letter]]
    axes.set(xlabel=scored.names["is"], ylabel=scored.names["fid"], yscale="log")
    axes.set_title(
        f"{scored.name}: N = {NUM_IMAGES.value:,} images a point, T = {NUM_STEPS.value}, seed 0\n"
        "g, tau and w are beside their points"
    )
    axes.legend()
    plots.name_points(named)
    header = [["", "value", scored.names["fid"], scored.names["is"]], ["---", *["---:"] * 3]]
    return scored.name, [*header, *rows], figure, verdict(curves)


def verdict(curves):
    """Claim 8: at an IS of guidance each other knob has a higher distance, or never gets there, and at none a lower."""
    said, signs = [], {}
    for letter, name in (("g", "the scaled score"), ("tau", "less noise")):
        inception, fid, _, error = np.array(sorted(curves[letter])).T
        gaps = []
        for level, of_guidance, _, own_error in curves["w"][1:]:
            if inception[0] < level <= inception[-1]:
                gap, gap_error = np.interp(level, inception, fid) - of_guidance, np.interp(level, inception, error)
                gaps.append((level, gap, np.hypot(gap_error, own_error)))
        signs[letter] = [int(gap > 2 * error) - int(gap < -2 * error) for _, gap, error in gaps] or [1]
        at = ", ".join(f"{gap:+.1f} ± {error:.1f} at {level:.2f}" for level, gap, error in gaps)
        said.append(f"{name}: {at or f'none, it reaches {inception[-1]:.2f}'}")
    lower = any(-1 in of_knob for of_knob in signs.values())
    higher = all(1 in of_knob for of_knob in signs.values())
    word = "contradicted" if lower else "supported" if higher else "undecided"
    return f"Claim 8 is {word}: the distance less guidance's, at the IS of each w: {'; '.join(said)}."


@plots.styled
def main():
    gs = gallery.positive(G.value, "g", 0.5 + 1e-6, float)
    taus, ws = gallery.positive(TAU.value, "tau", 0.0, float), gallery.weights(W.value)
    if not RUN.value:
        return gallery.write(OUT.value, "temperature", of_mixtures(), exact_table(gs, taus), "T = 2,048, v = 0.")
    name, rows, figure, said = of_run([*settings(gs, taus, ws)])
    about = f"{RUN.value}, {NUM_IMAGES.value} images of one seed a row, T = {NUM_STEPS.value}, v = 0.3. {said}"
    gallery.write(OUT.value, "temperature", figure, markdown(rows), about, name)


if __name__ == "__main__":
    cli.run(main)
