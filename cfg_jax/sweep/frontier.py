"""Rules of guidance against each other: curves of what they reach over their strength, held to one baseline.

A curve is {training run: [row of each strength]}. Every comparison is made within a run, whose rows share their noise,
and a difference counts where all runs have it beyond twice its bootstrap standard error.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.sweep import claims
from cfg_jax.sweep.claims import OPEN, REFUTED, SUPPORTED, UNTESTED, Claim, Curve
from cfg_jax.text import markdown

Rows = dict[str, list[dict]]  # of each training run, a row of each strength
PANELS = (("fid", "log"), ("recall", "linear"), ("precision", "linear"), ("variety", "linear"), ("saturated", "linear"))


def merged(runs: Rows) -> Curve:
    """The mean over training runs; its resamples are of the images alone."""
    by_w = {}
    for row in (row for rows in runs.values() for row in rows):
        by_w.setdefault(row["w"], []).append(row)
    return Curve([claims.over_seeds(rows) for rows in by_w.values()])


def best(rows: list[dict]) -> dict:
    """The row with the least distance."""
    return min(rows, key=lambda row: claims.score(row, "fid"))


def gaps(ours: Rows, theirs: Rows, of: Callable[[list[dict]], tuple[float, np.ndarray]]) -> list[tuple[float, float]]:
    """(ours less theirs, its standard error) in each run that both have; of(rows) -> value, resamples."""
    found = []
    for run in sorted(ours.keys() & theirs.keys()):
        (a, a_drawn), (b, b_drawn) = of(ours[run]), of(theirs[run])
        found.append((a - b, float(np.std(a_drawn - b_drawn, ddof=1))))
    return found


def at_best(name: str) -> Callable:
    """A score where the distance is least, for gaps."""
    return lambda rows: (claims.score(best(rows), name), np.array(claims.resamples(best(rows), name)))


def at_level(name: str, level: float) -> Callable:
    """A score where the curve first reaches an IS, between two points linearly, for gaps. NaN where it never does."""

    def of(rows):
        curve = Curve(rows)
        x, y, drawn = curve.values("is"), curve.values(name), curve.resampled(name)
        if not x[0] < level <= x.max():
            return np.nan, np.full(2, np.nan)
        return claims.fid_at(x, y, level), claims.fid_at(x, drawn.T, level)

    return of


def verdict(differences: Sequence[tuple[float, float]], direction: int) -> str:
    """Whether differences, each with its error, all go in a direction beyond twice their error."""
    known = [(gap, error) for gap, error in differences if np.isfinite(gap)]
    if not known:
        return UNTESTED
    signs = {claims.sign(gap, error) * direction for gap, error in known}
    return REFUTED if -1 in signs else SUPPORTED if signs == {1} else OPEN


def written(differences: Sequence[tuple[float, float]], digits: int = 2) -> str:
    known = [(gap, error) for gap, error in differences if np.isfinite(gap)]
    return ", ".join(f"{gap:+.{digits}f} ± {error:.{digits}f}" for gap, error in known) or "none"


def level_of(curves: dict[str, Rows], names: Sequence[str]) -> float:
    """An IS that all of the named curves cross in all runs, as high as there is, NaN where there is none."""
    spans = [Curve(rows).values("is") for name in names for rows in curves[name].values()]
    low, high = max(x[0] for x in spans), min(x.max() for x in spans)
    return low + 0.8 * (high - low) if low < high else np.nan


def judge(curves: dict[str, Rows], baseline: str) -> list[Claim]:
    """The claims of the rules' authors, on these curves. A curve that is not there leaves its claim untested."""
    base = curves[baseline]

    def claim(text, name, measured):
        if name not in curves:
            return Claim(text, UNTESTED, f"needs the curve {name}")
        verdicts, figures = zip(*measured(curves[name]), strict=True)
        return Claim(text, UNTESTED if UNTESTED in verdicts else claims.weakest(list(verdicts)), "; ".join(figures))

    def better(ours):
        found = gaps(ours, base, at_best("fid"))
        yield verdict(found, -1), f"least distance less {baseline}'s: {written(found)}"

    def variety(ours):
        level = level_of({"": base, "ours": ours}, ("", "ours"))
        for name in ("variety", "recall"):
            found = gaps(ours, base, at_level(name, level))
            yield verdict(found, +1), f"{name} less {baseline}'s at IS {level:.2f}: {written(found, 3)}"

    def projected(ours):
        level = level_of({"": base, "ours": ours}, ("", "ours"))
        for name, direction in (("precision", 0), ("recall", +1), ("saturated", -1)):
            found = gaps(ours, base, at_level(name, level))
            said = verdict(found, direction or 1)
            equal = {SUPPORTED: SUPPORTED, OPEN: SUPPORTED, REFUTED: REFUTED}.get(said, said)
            yield said if direction else equal, f"{name} less {baseline}'s at IS {level:.2f}: {written(found, 3)}"

    def same(ours):
        for run in sorted(ours.keys() & base.keys()):
            both = [(a, b) for a in ours[run] for b in base[run] if a["w"] == b["w"] > 0]
            pairs = [gaps({run: [a]}, {run: [b]}, at_best("fid"))[0] for a, b in both]
            differ = any(claims.sign(*pair) for pair in pairs)
            yield (REFUTED if differ else SUPPORTED), f"{run}, distance at each w less {baseline}'s: {written(pairs)}"

    def helps(ours):
        first = {run: [row for row in rows if row["w"] == 0] for run, rows in ours.items()}
        found = gaps(ours, first, at_best("fid"))
        yield verdict(found, -1), f"least distance less the unguided model's: {written(found)}"

    return [
        claim("An interval reaches a lower distance than w everywhere", "interval", better),
        claim("Autoguidance keeps variety at equal IS", "autoguidance", variety),
        claim("APG keeps precision, with more recall and less saturation", "APG", projected),
        claim("A random other label guides as the null label does", "other label", same),
        claim("A classifier improves the conditional model", "classifier", helps),
    ]


def table(curves: dict[str, Rows], baseline: str) -> str:
    """Markdown, a line a rule: where its distance is least, what that costs, and whether it beats the baseline."""
    names = ("fid", "is", "precision", "recall", "variety", "saturated")
    titled = {name: claims.score_name(next(iter(curves[baseline].values()))[0], name) for name in names}
    names = [name for name in names if titled[name]]
    lines = [
        ["rule", "w", *(titled[name] for name in names), "passes", f"distance less {baseline}'s"],
        ["---", *["---:"] * (len(names) + 3)],
    ]
    for rule, runs in curves.items():
        curve = merged(runs)
        row = best(curve.rows)
        scores = [f"{claims.score(row, n):.3g}" for n in names]
        scores[0] = f"{claims.score(row, 'fid'):.2f} ± {claims.spread(row, 'fid'):.2f}"
        found = gaps(runs, curves[baseline], at_best("fid"))
        differs = {SUPPORTED: "**lower**: ", REFUTED: "", OPEN: "", UNTESTED: ""}[verdict(found, -1)]
        differs = "**higher**: " if verdict(found, +1) == SUPPORTED else differs
        gap = "" if rule == baseline else differs + written(found)
        lines.append([rule, f"{row['w']:g}", *scores, f"{row.get('passes', '')}", gap])
    return markdown(lines)


def claims_text(judged: list[Claim]) -> str:
    return "\n".join(f"- {c.text}: **{c.verdict}**. {c.figure}." for c in judged) + "\n"


@plots.styled
def plot(curves: dict[str, Rows], title: str = "") -> Figure:
    """Scores against IS, a curve a rule over its strength, with the bootstrap standard error as a band.

    The axes show what lies around the first curve, and w at its points; what is far from it is outside.
    """
    first = next(iter(next(iter(curves.values())).values()))[0]
    panels = [(name, scale) for name, scale in PANELS if claims.score_name(first, name)]
    height = -(-(len(panels) + 1) // 3)
    figure = Figure(figsize=(11, 3 * height))
    axes = figure.subplots(height, 3).ravel()
    styles = dict(zip(curves, itertools.cycle(itertools.product(plots.MARKERS, plots.COLORS)), strict=False))
    base = merged(next(iter(curves.values())))
    for ax, (name, scale) in zip(axes, panels, strict=False):
        for rule, runs in curves.items():
            curve, (marker, color) = merged(runs), styles[rule]
            x, y = curve.values("is"), curve.values(name)
            spread = np.array([claims.spread(row, name) for row in curve.rows])
            ax.plot(x, y, marker=marker, color=color, label=rule)
            if np.isfinite(spread).all():
                ax.fill_between(x, y - spread, y + spread, color=color, alpha=0.12, linewidth=0)
        ax.set(xlabel=claims.score_name(first, "is"), ylabel=claims.score_name(first, name), yscale=scale)
        for values, zoom in ((base.values("is"), ax.set_xlim), (base.values(name), ax.set_ylim)):
            margin = 0.3 * np.ptp(values) + 1e-3
            zoom(max(values.min() - margin, 0.6 * values.min()), values.max() + margin)
        ax.lines[0].set(linewidth=2, zorder=3)
    for ax in axes[len(panels) :]:
        ax.axis("off")
    axes[len(panels)].legend(*axes[0].get_legend_handles_labels(), ncols=2, loc="center")
    figure.suptitle(f"{title}. At the points of {next(iter(curves))}: w")
    for ax in axes[: len(panels)]:
        plots.name_points({ax.lines[0]: [f"{w:g}" for w in base.along]})
    return figure
