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
SHOWN = ("recall", "precision", "variety")  # scores that the plot shows to the right of the distance
COLUMNS = 5  # of panels


def merged(runs: Rows) -> Curve:
    """Return the mean over training runs. Its resamples are of the images alone."""
    by_w = claims.rows_by(itertools.chain.from_iterable(runs.values()), "w")
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

    def against(other):
        return lambda ours: at_best(ours, curves.get(other, {}), other)

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
            return Claim(text, UNTESTED, f"there is no curve {name}")
        rows = [row for runs in (base, curves[name]) for found in runs.values() for row in found]
        if absent := [score for score in directions if not all(claims.score_name(row, score) for row in rows)]:
            return Claim(text, UNTESTED, f"{absent[0]} was not measured")
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
        claim("A guide of less training is better than one of less capacity", "autoguidance", against("smaller guide")),
        claim("An interval reduces what autoguidance gains", "autoguidance", against("autoguidance, interval")),
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
        scores = [claims.shown(row), *(f"{claims.score(row, name):.3g}" for name in names[1:])]
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
    return markdown([head, *written_lines])


def claims_text(judged: list[Claim]) -> str:
    return "\n".join(f"- {c.text}: **{c.verdict}**. {escaped(c.figure)}." for c in judged) + "\n"


@plots.styled
def plot(curves: dict[str, Rows], title: str) -> Figure:
    """Plot each rule where its distance is least, a line a rule, the lowest on top. The first rule is the baseline.

    On the left its distance less the baseline's, a point for each training run with two standard errors; then its other
    scores and its passes, with the baseline's as a vertical line.
    """
    baseline = next(iter(curves))
    found = {rule: gaps(runs, curves[baseline], least) for rule, runs in curves.items()}
    rules = sorted(curves, key=lambda rule: np.mean([gap.value for gap in found[rule]] or [np.inf]))
    rows = {rule: best(merged(curves[rule]).rows) for rule in rules}
    names = [name for name in SHOWN if claims.score_name(rows[baseline], name)]
    figure = Figure(figsize=(7.4, 1.1 + 0.19 * len(rules)))
    first, *others = figure.subplots(1, 2 + len(names), sharey=True, width_ratios=[2.4, *[1] * (1 + len(names))])
    places = np.arange(len(rules))
    for place, rule in enumerate(rules):
        differences = [] if rule == baseline else found[rule]
        signs = {gap.sign for gap in differences}
        color = {-1: plots.COLORS[2], 1: plots.COLORS[1]}.get(signs.pop() if len(signs) == 1 else 0, "#777777")
        for gap, offset in zip(differences, np.linspace(-0.18, 0.18, len(differences)), strict=True):
            first.errorbar(gap.value, place + offset, xerr=2 * gap.error, fmt="o", color=color)
    first.set_xscale("symlog", linthresh=1, linscale=0.7)
    first.axvline(0, color="#999999")
    first.set(xlabel=f"distance less {baseline}'s", yticks=places)
    first.set_yticklabels([f"{rule}, w = {rows[rule]['w']:g}" for rule in rules])
    first.set_ylim(len(rules) - 0.4, -0.6)
    passes = [rows[rule].get("passes", np.nan) for rule in rules]
    values = [[claims.score(rows[rule], name) for rule in rules] for name in names]
    for ax, name, xs in zip(others, [*names, "passes"], [*values, passes], strict=True):
        ax.plot(xs, places, "o", color="#555555")
        ax.axvline(xs[rules.index(baseline)], color="#999999")
        ax.set(xlabel=name)
        ax.locator_params(axis="x", nbins=3)
        ax.tick_params(axis="y", length=0)
    colors = f"Green: lower than {baseline}'s in every run by more than two errors. Orange: higher. Grey: neither"
    figure.suptitle(f"{title}\n{colors}")
    return figure


@plots.styled
def panels(curves: dict[str, Rows], title: str) -> Figure:
    """Plot the distance against IS, in a panel for each rule.

    Each panel also has the first rule's curve, in grey, with a band of one standard error.
    """
    means = {rule: merged(runs) for rule, runs in curves.items()}
    (baseline, base), *others = means.items()
    height = -(-len(others) // COLUMNS)
    figure = Figure(figsize=(7.4, 0.6 + 1.5 * height))
    axes = figure.subplots(height, COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    inception, distance = base.values("is"), base.values("fid")
    error = np.array([claims.spread(row, "fid") for row in base.rows])
    for ax, (rule, curve) in zip(axes, others, strict=False):
        ax.fill_between(inception, distance - error, distance + error, color="#eeeeee")
        ax.plot(inception, distance, ".-", color="#aaaaaa")
        ax.plot(curve.values("is"), curve.values("fid"), ".-", color=plots.COLORS[0])
        ax.set_title(rule, fontsize=8)
    margin = 0.1 * np.ptp(inception)
    axes[0].set(
        yscale="log",
        ylim=(0.7 * distance.min(), 1.5 * distance.max()),
        xlim=(inception.min() - 5 * margin, inception.max() + margin),
    )
    for ax in axes[len(others) :]:
        ax.axis("off")
    row = base.rows[0]
    figure.supxlabel(str(claims.score_name(row, "is")), fontsize=8)
    figure.supylabel(str(claims.score_name(row, "fid")), fontsize=8)
    figure.suptitle(f"{title}\nGrey: {baseline} and its standard error")
    return figure
