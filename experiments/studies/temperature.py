"""Temperature is not guidance: the score times g, less noise (variance times tau), and guidance at w. Claim 8.

Of N(0, 1) with the exact eps, the score times g gives 1 / (2g - 1) by Algorithm 2 and 0 by the ODE, where the tempered
law has 1 / g; the noise's variance times tau gives tau. With --run, a trained model's Frechet distance and IS instead.

python -m experiments.studies.temperature --out=runs/studies --run=runs/digits-p0.1
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.diffusion import exact, guidance, samplers, schedule, struct
from cfg_jax.diffusion.guidance import Guided, Stateless
from cfg_jax.errors import require
from cfg_jax.models.mixture import Mixture
from cfg_jax.sweep import claims
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

OUT = gallery.define_out("temperature")
G = cli.define_numbers("g", "1,1.25,1.5,2,3", "factors of the score, above 1/2", low=0.5 + 1e-6)
TAU = cli.define_numbers("tau", "1,0.75,0.5,0.25", "shares of the noise's variance", low=0)
W = cli.define_numbers("w", "0,0.25,0.5,1,2", "guidance weights", low=0)
RUN = cli.define_path("run", None, "run directory or exported file; its class conditional samples are scored", hub=True)
NUM_IMAGES = cli.define_count("num_images", 800, "of each setting of --run", low=20)
NUM_STEPS = cli.define_count("num_steps", 64, "T of --run and of the mixtures", low=2)

MIXTURES = {"overlapping": ([-0.5, 0.5], [0.5, 0.5]), "separate": ([-1.0, 1.0], [0.15, 0.3])}
NAMES = {"g": "score times g", "tau": "noise variance times tau", "w": "guidance at w"}
PLAIN = guidance.Unguided(), samplers.Ancestral(0.3)


@struct.dataclass
class Scaled(Stateless):
    """Multiplies the conditional score by g, in one pass."""

    g: Any

    passes: ClassVar = 1

    def __call__(self, halves: guidance.Halves, z: Any, logsnr: Any, c: Any, state: Any) -> tuple[Guided, Any]:
        return Guided.of(self.g * halves.cond(z, logsnr, c)), state


@struct.dataclass
class Cooled(samplers.Ancestral):
    """Algorithm 2, with the variance of its noise multiplied by tau."""

    tau: Any = 1.0

    def step(self, predict: Any, z: Any, state: Any, logsnr: Any, logsnr_next: Any, noise: Any) -> tuple[Any, Any, Any]:
        return super().step(predict, z, state, logsnr, logsnr_next, self.tau**0.5 * noise)


def settings(gs: list[float], taus: list[float], ws: list[float]) -> Iterator[tuple[str, float, Any, Any]]:
    """Yield (name, value, rule, sampler) of every point."""
    yield from (("g", g, Scaled(g), samplers.Ancestral(0.3)) for g in gs)
    yield from (("tau", tau, guidance.Unguided(), Cooled(0.3, tau=tau)) for tau in taus)
    yield from (("w", w, guidance.ClassifierFree(w), samplers.Ancestral(0.3)) for w in ws)


def scaled_eps(z: jax.Array, logsnr: jax.Array, g: float) -> jax.Array:
    return g * exact.eps(z, logsnr, 1.0)


def exact_table() -> str:
    grid, rows = schedule.grid(2048), [["N(0, 1)", "Algorithm 2", "law", "ODE", "tempered law"]]
    for g in G.value:
        both = samplers.Ancestral(0.0), samplers.DDIM(0.0)
        sde, ode = (exact.sampled_variance(sampler, grid, g, scaled_eps) for sampler in both)
        rows.append([f"score times {g:g}", f"{sde:.3f}", f"{1 / (2 * g - 1):.3f}", f"{ode:.3f}", f"{1 / g:.3f}"])
    for tau in TAU.value:
        variance = exact.sampled_variance(Cooled(0.0, tau=tau), grid, 1.0, scaled_eps)
        rows.append([f"noise variance times {tau:g}", f"{variance:.3f}", f"{tau:.3f}", "", f"{tau:.3f}"])
    return markdown(rows)


def of_mixtures() -> Figure:
    """Draw class 0 of two mixtures: densities of what g = 2, tau = 1/2 and w = 1 sample."""
    figure = Figure(figsize=(9, 3.9))
    chosen = [("w", 0, *PLAIN), *settings([2.0], [0.5], [1.0])]
    num, bins = 20_000, np.linspace(-2.2, 1.6, 77)
    for row, (name, (means, stds)) in zip(figure.subplots(2, len(chosen)), MIXTURES.items(), strict=True):
        model = Mixture(jnp.float32(means)[:, None], jnp.float32(stds), jnp.float32([0.5, 0.5]))
        for ax, (letter, value, rule, sampler) in zip(row, chosen, strict=True):
            x, _ = gallery.drawn(model, rule, sampler, schedule.grid(NUM_STEPS.value), num)
            ax.hist(x[:, 0], bins, density=True, histtype="stepfilled")
            for mean, std, color in zip(means, stds, ("k", "0.7"), strict=True):
                ax.plot(bins, np.exp(-0.5 * ((bins - mean) / std) ** 2) / std / (2 * np.pi) ** 0.5, color=color)
            ax.set(title=f"{letter} = {value:g}", yticks=[], xticks=[])
        row[0].set_ylabel(name)
    figure.suptitle(f"Class 0 of two Gaussians: N = {num:,} samples, T = {NUM_STEPS.value}, seed 0; black: p(x | 0)")
    return figure


def of_run() -> tuple[str, str, Figure, str]:
    """Score a trained model's samples: the data's name, a table, a figure and the verdict."""
    ws = sorted(set(W.value))
    require(ws[0] == 0 and len(ws) > 1, f"--w={cli.listed(ws)}: give 0, and a weight above it to compare with")
    scorer = gallery.scorer(RUN.value, OUT.value, NUM_IMAGES.value, NUM_STEPS.value, bootstrap=20, splits=1)
    data = scorer.config.data
    require(data.num_classes > 1, f"--run={RUN.value} has no classes to guide to")
    cells, curves, plain = [], {letter: [] for letter in NAMES}, None
    for letter, value, rule, sampler in settings(G.value, TAU.value, ws):
        if value == (0 if letter == "w" else 1):  # the points that change nothing are one
            row = plain = plain or scorer(*PLAIN)
        else:
            row = scorer(rule, sampler)
        cells.append([NAMES[letter], f"{value:g}", claims.shown(row), claims.shown(row, "is", 3)])
        curves[letter].append([f(row, name) for f in (claims.score, claims.spread) for name in ("is", "fid")])
    fid, inception = claims.score_name(row, "fid"), claims.score_name(row, "is")
    figure, [axes] = gallery.subplots()
    labels = {}
    for letter, curve in curves.items():
        [line] = axes.plot(*np.array(curve).T[:2], "o-", label=NAMES[letter])
        labels[line] = [value for name, value, *_ in cells if name == NAMES[letter]]
    axes.set(xlabel=inception, ylabel=fid, yscale="log")
    axes.set_title(
        f"{data.name}: N = {NUM_IMAGES.value:,} images a point, T = {NUM_STEPS.value}, seed 0\n"
        "g, tau and w are beside their points"
    )
    axes.legend()
    plots.name_points(labels)
    return data.name, markdown([["", "value", fid, inception], *cells]), figure, verdict(curves)


def verdict(curves: dict[str, list[list[float]]]) -> str:
    """Judge claim 8: at an IS of guidance both other knobs have a higher distance somewhere, or never reach that IS.

    curves: lists of [IS, distance, error of the IS, error of the distance] by letter.
    """
    texts, signs = [], {}
    for letter, name in (("g", "the scaled score"), ("tau", "less noise")):
        inception, fid, _, error = np.array(sorted(curves[letter])).T
        gaps = []
        for level, guided, _, guided_error in curves["w"][1:]:
            if inception[0] < level <= inception[-1]:
                gap, gap_error = np.interp(level, inception, fid) - guided, np.interp(level, inception, error)
                gaps.append((level, gap, np.hypot(gap_error, guided_error)))
        signs[letter] = [claims.Difference(gap, error).sign for _, gap, error in gaps] or [1]
        at = ", ".join(f"{gap:+.1f} ± {error:.1f} at {level:.2f}" for level, gap, error in gaps)
        texts.append(f"{name}: {at or f'none, it reaches {inception[-1]:.2f}'}")
    lower, higher = any(-1 in s for s in signs.values()), all(1 in s for s in signs.values())
    word = claims.REFUTED if lower else claims.SUPPORTED if higher else claims.OPEN
    return f"Claim 8 is {word}: the distance less guidance's, at the IS of each w: {'; '.join(texts)}."


@plots.styled
def main() -> None:
    if not RUN.value:
        return gallery.write(OUT.value, "temperature", of_mixtures(), exact_table(), "T = 2,048, v = 0.")
    name, table, figure, judged = of_run()
    about = f"{RUN.value}, {NUM_IMAGES.value} images of one seed a row, T = {NUM_STEPS.value}, v = 0.3. {judged}"
    gallery.write(OUT.value, "temperature", figure, table, about, name)


if __name__ == "__main__":
    cli.run(main)
