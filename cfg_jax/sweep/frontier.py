"""Curves of guidance rules over their strength, compared with one baseline rule.

The curve of a rule is {training run: [row of each strength]}. Rules are compared within a run, whose rows share their
noise. A difference counts where every run has it beyond twice its bootstrap standard error.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.sweep import claims
from cfg_jax.sweep.claims import OPEN, REFUTED, SUPPORTED, UNTESTED, Claim, Curve, Difference
from cfg_jax.text import escaped, markdown

Rows = dict[str, list[dict]]  # {training run: [row of each strength]}
SCORES = ("fid", "is", "precision", "recall", "variety", "saturated")
PANELS = ("fid", "recall", "precision", "variety", "saturated")


def merged(runs: Rows) -> Curve:
    """Return the mean over training runs. Its resamples are of the images alone."""
    by_w = {}
    for row in itertools.chain.from_iterable(runs.values()):
        by_w.setdefault(row["w"], []).append(row)
    return Curve([claims.over_seeds(rows) for rows in by_w.values()])


def best(rows: list[dict]) -> dict:
    """Return the row with the least distance."""
    return min(rows, key=lambda row: claims.score(row, "fid"))


def least(rows: list[dict]) -> tuple[float, np.ndarray]:
    """Return the least distance and its resamples."""
    return claims.score(best(rows), "fid"), np.array(claims.resamples(best(rows), "fid"))


def at_level(rows: list[dict], name: str, level: float) -> tuple[float, np.ndarray]:
    """Return a score and its resamples where IS first reaches `level`, NaN where it never does.

    The score is interpolated linearly between two points.
    """
    curve = Curve(rows)
    inception = curve.values("is")
    if not inception[0] < level <= inception.max():
        return np.nan, np.full(2, np.nan)
    return tuple(claims.fid_at(inception, y, level) for y in (curve.values(name), curve.resampled(name).T))


def gaps(ours: Rows, theirs: Rows, measure: Callable, *args) -> list[Difference]:
    """Return ours less theirs for each run that both have, without those that are not finite.

    measure(rows, *args) returns a value and its resamples.
    """
    runs = sorted(ours.keys() & theirs.keys())
    differences = [claims.difference(*measure(ours[run], *args), *measure(theirs[run], *args)) for run in runs]
    return [gap for gap in differences if np.isfinite(gap.value)]


def verdict(differences: Sequence[Difference], direction: int) -> str:
    """Say whether all differences have the direction +1 or -1."""
    return claims.weakest([gap.verdict(direction) for gap in differences] or [UNTESTED])


def written(differences: Sequence[Difference], digits: int = 2) -> str:
    return ", ".join(gap.text(digits) for gap in differences) or "none"


def common_level(*curves: Rows) -> float:
    """Return an IS that all curves reach in all runs, at 0.8 of their common range. NaN if they have none."""
    spans = [Curve(rows).values("is") for runs in curves for rows in runs.values()]
    low, high = max(x[0] for x in spans), min(x.max() for x in spans)
    return low + 0.8 * (high - low) if low < high else np.nan


def judge(curves: dict[str, Rows], baseline: str) -> list[Claim]:
    """Judge what the authors of the rules claim. A claim whose curve is missing is not tested."""
    base = curves[baseline]

    def at_best(ours, reference=base, name=baseline):
        differences = gaps(ours, reference, least)
        return [(verdict(differences, -1), f"least distance less {name}'s: {written(differences)}")]

    def unguided(ours):
        first = {run: [row for row in rows if row["w"] == 0] for run, rows in ours.items()}
        return at_best(ours, first, "the unguided model")

    def at_equal_is(ours, **directions):
        """directions: +1 or -1 for a score that should move, 0 for one that should not fall."""
        level = common_level(base, ours)
        for name, direction in directions.items():
            differences = gaps(ours, base, at_level, name, level)
            result = verdict(differences, direction or 1)
            result = SUPPORTED if result == OPEN and not direction else result
            yield result, f"{name} less {baseline}'s at IS {level:.2f}: {written(differences, 3)}"

    def same(ours):
        for run in sorted(ours.keys() & base.keys()):
            both = [([a], [b]) for a in ours[run] for b in base[run] if a["w"] == b["w"] > 0]
            differences = [claims.difference(*least(a), *least(b)) for a, b in both]
            differ = any(gap.sign for gap in differences)
            yield (
                REFUTED if differ else SUPPORTED,
                f"{run}, distance at each w less {baseline}'s: {written(differences)}",
            )

    def claim(text, name, judge_rule, **directions):
        if name not in curves:
            return Claim(text, UNTESTED, f"needs the curve {name}")
        verdicts, figures = zip(*judge_rule(curves[name], **directions), strict=True)
        return Claim(text, claims.weakest(verdicts), "; ".join(figures))

    return [
        claim("An interval reaches a lower distance than w everywhere", "interval", at_best),
        claim("Autoguidance keeps variety at equal IS", "autoguidance", at_equal_is, variety=1, recall=1),
        claim(
            "APG keeps precision, with more recall and less saturation", "APG", at_equal_is,
            precision=0, recall=1, saturated=-1,
        ),
        claim("A random other label guides as the null label does", "other label", same),
        claim("A classifier improves the conditional model", "classifier", unguided),
    ]  # fmt: skip


def summary(curves: dict[str, Rows], baseline: str) -> tuple[list[str], list[tuple[list[str], str, str]]]:
    """Return the column names and, for each rule where its distance is least: cells, differs, gap.

    gap is its distance less the baseline's in each run, differs is "lower" or "higher" where all runs agree, else "".
    """
    first = next(iter(curves[baseline].values()))[0]
    names = [name for name in SCORES if claims.score_name(first, name)]
    lines = []
    for rule, runs in curves.items():
        row = best(merged(runs).rows)
        distance = f"{claims.score(row, 'fid'):.2f} ± {claims.spread(row, 'fid'):.2f}"
        scores = [distance, *(f"{claims.score(row, name):.3g}" for name in names[1:])]
        differences = gaps(runs, curves[baseline], least)
        differs = [word for word, sign in (("lower", -1), ("higher", 1)) if verdict(differences, sign) == SUPPORTED]
        cells = [rule, f"{row['w']:g}", *scores, str(row.get("passes", ""))]
        lines.append((cells, "".join(differs), "" if rule == baseline else written(differences)))
    titles = [str(claims.score_name(first, name)) for name in names]
    return ["rule", "w", *titles, "passes", f"distance less {baseline}'s"], lines


def table(curves: dict[str, Rows], baseline: str) -> str:
    """Return the summary as markdown, one line for each rule."""
    head, lines = summary(curves, baseline)
    written_lines = [[*cells, (f"**{differs}**: " if differs else "") + gap] for cells, differs, gap in lines]
    return markdown([head, ["---", *["---:"] * (len(head) - 1)], *written_lines])


def claims_text(judged: list[Claim]) -> str:
    return "\n".join(f"- {c.text}: **{c.verdict}**. {escaped(c.figure)}." for c in judged) + "\n"


@plots.styled
def plot(curves: dict[str, Rows], title: str = "") -> Figure:
    """Plot scores against IS, a curve for each rule over its strength, with the bootstrap standard error as a band.

    The axes are limited to the surroundings of the first curve, which has w written at its points.
    """
    first = next(iter(next(iter(curves.values())).values()))[0]
    names = [name for name in PANELS if claims.score_name(first, name)]
    height = -(-(len(names) + 1) // 3)
    figure = Figure(figsize=(11, 3 * height))
    axes = figure.subplots(height, 3).ravel()
    means = {rule: merged(runs) for rule, runs in curves.items()}
    base = next(iter(means.values()))
    for ax, name in zip(axes, names, strict=False):
        styles = itertools.cycle(itertools.product(plots.MARKERS, plots.COLORS))
        for (rule, curve), (marker, color) in zip(means.items(), styles, strict=False):
            x, y = curve.values("is"), curve.values(name)
            spread = np.array([claims.spread(row, name) for row in curve.rows])
            ax.plot(x, y, marker=marker, color=color, label=rule)
            if np.isfinite(spread).all():
                ax.fill_between(x, y - spread, y + spread, color=color, alpha=0.12, linewidth=0)
        scale = "log" if name == "fid" else "linear"
        ax.set(xlabel=claims.score_name(first, "is"), ylabel=claims.score_name(first, name), yscale=scale)
        for values, zoom in ((base.values("is"), ax.set_xlim), (base.values(name), ax.set_ylim)):
            margin = 0.3 * np.ptp(values) + 1e-3
            zoom(max(values.min() - margin, 0.6 * values.min()), values.max() + margin)
        ax.lines[0].set(linewidth=2, zorder=3)
    for ax in axes[len(names) :]:
        ax.axis("off")
    axes[len(names)].legend(*axes[0].get_legend_handles_labels(), ncols=2, loc="center")
    figure.suptitle(f"{title}. At the points of {next(iter(curves))}: w")
    for ax in axes[: len(names)]:
        plots.name_points({ax.lines[0]: [f"{w:g}" for w in base.along]})
    return figure
