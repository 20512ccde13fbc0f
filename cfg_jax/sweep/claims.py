"""The paper's testable claims, judged by the rows of one sweep.

A difference counts where it exceeds twice its standard error. The error comes from a bootstrap of the images (see
evaluation.measure) or from several image seeds, both paired between cells. Another training seed may differ by more.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cfg_jax.diffusion import exact, samplers, schedule
from cfg_jax.sweep import spec
from cfg_jax.sweep.spec import PAPER

SUPPORTED, PARTLY, REFUTED, OPEN, UNTESTED = "supported", "partly", "contradicted", "undecided", "not tested"


@dataclass(frozen=True)
class Claim:
    text: str
    verdict: str  # one of the five above
    figure: str  # the numbers that decide


class Difference(NamedTuple):
    """A difference and its standard error, NaN where that is unknown."""

    value: float
    error: float

    @property
    def sign(self) -> int:
        """+1 or -1 where the difference exceeds twice its error, else 0. It is 0 where the error is unknown."""
        return int(self.value > 2 * self.error) - int(self.value < -2 * self.error)

    def verdict(self, direction: int) -> str:
        """Say whether the difference has the direction +1 or -1."""
        return {1: SUPPORTED, 0: OPEN, -1: REFUTED}[direction * self.sign]

    def text(self, digits: int = 3) -> str:
        return f"{self.value:+.{digits}f}" + plus_minus(self.error, digits)


def plus_minus(error: float, digits: int) -> str:
    """Return " ± 0.30", or nothing for an error that is not known."""
    return "" if np.isnan(error) else f" ± {error:.{digits}f}"


def difference(a: float, a_resamples: Any, b: float, b_resamples: Any) -> Difference:
    """Return a - b and its standard error, from resamples that are paired."""
    return Difference(float(a - b), float(np.std(np.subtract(a_resamples, b_resamples), ddof=1)))


class Curve:
    """Scores of one run over w (or T), each as a value and its bootstrap resamples."""

    def __init__(self, rows: list[dict], along: str = "w") -> None:
        self.rows = sorted(rows, key=lambda row: row[along])
        self.along = [row[along] for row in self.rows]

    def values(self, name: str) -> np.ndarray:
        return np.array([score(row, name) for row in self.rows])

    def resampled(self, name: str) -> np.ndarray:
        """Return [resamples, points], NaN where the points have different numbers of resamples."""
        drawn = [resamples(row, name) for row in self.rows]
        return np.array(drawn if len({*map(len, drawn)}) == 1 else [[np.nan] * 2] * len(drawn)).T

    def change(self, name: str, start: int, end: int, share: float = 1.0) -> Difference:
        """Return the score at point `end` less `share` times the one at `start`."""
        values, drawn = self.values(name), self.resampled(name)
        return difference(values[end], drawn[:, end], share * values[start], share * drawn[:, start])


def rows_by(rows: Iterable[dict], *fields: str) -> dict[tuple, list[dict]]:
    """Return {values of the fields: the rows that have them}."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[field] for field in fields), []).append(row)
    return groups


def over_seeds(rows: list[dict]) -> dict:
    """Return one row with the means over rows that differ in the image seed alone, and resamples of these means.

    Without a bootstrap the n seeds are the resamples, scaled about their mean by 1/sqrt(n): they scatter as it does.
    """

    def shared(field):
        return [name for name in rows[0][field] if all(name in row[field] for row in rows)]

    scores = {name: float(np.mean([row["scores"][name] for row in rows])) for name in shared("scores")}
    resampled = {name: list(np.mean([row["resampled"][name] for row in rows], 0)) for name in shared("resampled")}
    if not resampled and len(rows) > 1:
        for name, mean in scores.items():
            values = np.array([row["scores"][name] for row in rows])
            resampled[name] = list(mean + (values - mean) / np.sqrt(len(rows)))
    return rows[0] | {"seeds": [row["seed"] for row in rows], "scores": scores, "resampled": resampled}


def score_name(row: dict, name: str) -> str | None:
    """Return the row's name for "fid", such as "fid_digits@1000" or "fd_mixed8@1000"; None if it was not measured."""
    prefixes = ("fid_", "fd_") if name == "fid" else (f"{name}_",)
    return next((key for key in row["scores"] if key.startswith(prefixes)), None)


def score(row: dict, name: str) -> float:
    return row["scores"][score_name(row, name)]


def resamples(row: dict, name: str) -> list[float]:
    """Return a score's resamples, or two NaN if it has none."""
    return row["resampled"].get(score_name(row, name), [float("nan")] * 2)


def spread(row: dict, name: str) -> float:
    """Return a score's standard error, NaN if it has no resamples."""
    return float(np.std(resamples(row, name), ddof=1))


def shown(row: dict, name: str = "fid", digits: int = 2) -> str:
    """Return a score and its standard error, where that is known: "9.57 ± 0.84"."""
    return f"{score(row, name):.{digits}f}" + plus_minus(spread(row, name), digits)


def judge(rows: list[dict], num_steps: int) -> list[Claim]:
    """Judge the paper's eight claims by the rows of a sweep. num_steps is the T of its main table."""
    main = [row for row in rows if row["T"] == num_steps and row["w"] >= 0]
    runs = sorted(rows_by(main, "p_uncond", "run").items())
    curves = {run: Curve(of_run) for (_, run), of_run in runs if len(of_run) > 1}
    from_zero = {run: curve for run, curve in curves.items() if curve.along[0] == 0 and len(curve.rows) > 2}
    minimum = "FID falls and then rises with w: an interior minimum, in the paper at w = 0.1"
    likelihood = "Guidance raises the conditional and lowers the unconditional likelihood"
    gradient = "The guided eps is not the gradient field of any classifier"
    temperature = "Scaling the score, or less noise, does not do what guidance does"
    two = "needs two values of w"
    ratio = over_runs(likelihood, curves, class_probability, two, ("log_p_class",)).figure
    return [
        over_runs("IS rises monotonically with w", curves, is_rises, two),
        over_runs(minimum, from_zero, fid_has_minimum, "needs w = 0 and two values above it"),
        equal_is(curves),
        more_steps(rows),
        Claim(likelihood, UNTESTED, f"see experiments.studies.likelihood; here only their ratio. {ratio}"),
        over_runs(
            "Strong w saturates pixels and cuts variety", curves, saturation_and_variety, two, ("saturated", "variety")
        ),
        Claim(gradient, UNTESTED, "see experiments.studies.curl"),
        Claim(temperature, UNTESTED, "see experiments.studies.temperature"),
    ]


def over_runs(
    text: str, curves: dict[str, Curve], judge_one: Callable[[Curve], tuple[str, str]], needs: str, scores=()
) -> Claim:
    """Return the weakest verdict of judge_one(curve) -> verdict, numbers. UNTESTED if no curve has what it needs."""
    if not curves:
        return Claim(text, UNTESTED, needs)
    for name, curve in itertools.product(scores, curves.values()):
        if not all(score_name(row, name) for row in curve.rows):
            return Claim(text, UNTESTED, f"{name} was not measured")
    verdicts, figures = zip(*map(judge_one, curves.values()), strict=True)
    return Claim(text, weakest(verdicts), ". ".join(map(": ".join, zip(curves, figures, strict=True))))


def weakest(verdicts) -> str:
    """Return the worst of several verdicts."""
    return next(verdict for verdict in (UNTESTED, REFUTED, OPEN, PARTLY, SUPPORTED) if verdict in verdicts)


def is_rises(curve: Curve) -> tuple[str, str]:
    w, values = curve.along, curve.values("is")
    steps = [curve.change("is", i, i + 1) for i in range(len(w) - 1)]
    falls = [f"w {w[i]:g} to {w[i + 1]:g}: {step.text()}" for i, step in enumerate(steps) if step.value < 0]
    total = curve.change("is", 0, -1)
    if any(step.sign < 0 for step in [*steps, total]):
        verdict = REFUTED
    else:
        verdict = SUPPORTED if total.sign > 0 and not falls else OPEN
    figure = f"{values[0]:.3f} at w={w[0]:g} to {values[-1]:.3f} at w={w[-1]:g} ({total.text()})"
    return verdict, figure + (f", falls at {'; '.join(falls)}" if falls else ", no fall")


def fid_has_minimum(curve: Curve) -> tuple[str, str]:
    w, values = curve.along, curve.values("fid")
    best, last = int(values.argmin()), len(w) - 1
    fall, rise = curve.change("fid", best, 0), curve.change("fid", best, last)
    if 0 < best < last:
        verdict = SUPPORTED if fall.sign > 0 and rise.sign > 0 else OPEN
    else:
        neighbour = 1 if best == 0 else last - 1
        verdict = REFUTED if curve.change("fid", best, neighbour).sign > 0 else OPEN
    figure = f"{values[best]:.2f} at w={w[best]:g}, the least; higher at w=0 by {fall.text(2)}"
    return verdict, f"{figure}, at w={w[last]:g} by {rise.text(2)}"


def equal_is(curves: dict[str, Curve]) -> Claim:
    """Compare the FID of three p_uncond where their IS is the middle of the range that all of them reach."""
    text = "At equal IS, p_uncond 0.1 and 0.2 give about the same FID and 0.5 a worse one"
    by_p = {curve.rows[0]["p_uncond"]: curve for curve in curves.values()}
    if not {0.1, 0.2, 0.5} <= by_p.keys():
        return Claim(text, UNTESTED, "needs runs of p_uncond 0.1, 0.2 and 0.5")
    by_p = {p: by_p[p] for p in (0.1, 0.2, 0.5)}
    low = max(curve.values("is")[0] for curve in by_p.values())
    high = min(curve.values("is").max() for curve in by_p.values())
    if not low < high:
        return Claim(text, OPEN, f"no common range of IS: {low:.3f} to {high:.3f}")
    level = (low + high) / 2
    fid = {}  # at each p_uncond, the value and its resamples
    for p, curve in by_p.items():
        drawn = zip(curve.resampled("is"), curve.resampled("fid"), strict=True)
        fid[p] = fid_at(curve.values("is"), curve.values("fid"), level), [fid_at(i, f, level) for i, f in drawn]
    worse = {p: difference(*fid[0.5], *fid[p]) for p in (0.1, 0.2)}
    between = difference(*fid[0.1], *fid[0.2])
    signs = [gap.sign for gap in worse.values()]
    same = abs(between.value) < min(gap.value for gap in worse.values()) / 2
    verdict = SUPPORTED if min(signs) > 0 and same else REFUTED if min(signs) < 0 else OPEN
    parts = [f"at IS {level:.2f} FID is " + ", ".join(f"{value:.2f} (p={p:g})" for p, (value, _) in fid.items())]
    parts += [f"0.5 less {p:g}: {gap.text(2)}" for p, gap in worse.items()]
    parts += [f"0.1 less 0.2: {between.text(2)} (about the same if below half of the others)", "one training seed"]
    return Claim(text, verdict, "; ".join(parts))


def fid_at(inception: np.ndarray, fid: np.ndarray, level: float) -> Any:
    """Return FID where IS, by rising w, first reaches `level`; both [points] are linear between the cells.

    fid may be another score, and may be [points, resamples].
    """
    reached = np.flatnonzero(inception >= level)
    i = reached[0] if len(reached) else len(fid) - 1
    if i == 0:
        return fid[0]
    share = np.clip((level - inception[i - 1]) / (inception[i] - inception[i - 1]), 0, 1)
    return fid[i - 1] + share * (fid[i] - fid[i - 1])


def more_steps(rows: list[dict]) -> Claim:
    """Judge each run at the w that has the least FID with the most steps, as the paper does."""
    curves = {}
    for (run,), of_run in rows_by(rows, "run").items():
        by_w = rows_by(of_run, "w").values()
        several = [Curve(group, "T") for group in by_w if len({row["T"] for row in group}) > 1]
        if several:
            most = max(curve.along[-1] for curve in several)
            best = min((c for c in several if c.along[-1] == most), key=lambda curve: curve.values("fid")[-1])
            curves[f"{run}, w={best.rows[0]['w']:g}"] = best
    text = "Quality improves with T, and T = 256 is a good balance"
    return over_runs(text, curves, fid_falls, "needs cells of several T")


def fid_falls(curve: Curve) -> tuple[str, str]:
    signs = {curve.along[i + 1]: curve.change("fid", i, i + 1).sign for i in range(len(curve.along) - 1)}
    beyond = [sign for t, sign in signs.items() if t > 256 and 256 in curve.along]
    improves = [sign < 0 for t, sign in signs.items() if t <= 256 or 256 not in curve.along]
    if max(signs.values()) > 0:
        verdict = REFUTED
    elif not all(improves):
        verdict = OPEN
    else:
        verdict = SUPPORTED if beyond and not any(beyond) else PARTLY
    cells = [f"{shown(row)} (T={row['T']})" for row in curve.rows]
    return verdict, f"FID {', '.join(cells)}" + ("" if beyond else "; T = 256 was not tested against more")


def class_probability(curve: Curve) -> tuple[str, str]:
    return UNTESTED, first_to_last(curve, "log_p_class", "mean log p(c|x) by the feature classifier")[1]


def saturation_and_variety(curve: Curve) -> tuple[str, str]:
    pixels, pixels_text = first_to_last(curve, "saturated", "share of pixels at 0 or 255")
    share = step_share(curve.rows[0], curve.rows[-1])
    variety, variety_text = first_to_last(curve, "variety", "mean standard deviation within a class", share)
    return weakest([pixels.verdict(+1), variety.verdict(-1)]), f"{pixels_text}; {variety_text}"


def first_to_last(curve: Curve, name: str, words: str, share: float = 1.0) -> tuple[Difference, str]:
    """Return a score at the last w less `share` times the one at the first w, and both as text."""
    values, moved = curve.values(name), curve.change(name, 0, -1, share)
    expected = "" if share == 1 else f", {share * values[0]:.3f} by the steps alone"
    ends = f"{values[0]:.3f} at w={curve.along[0]:g} to {values[-1]:.3f} at w={curve.along[-1]:g}"
    return moved, f"{words} {ends}{expected} ({moved.text()})"


def step_share(first: dict, last: dict) -> float:
    """Return the factor by which Algorithm 2's finite steps alone change a standard deviation from one row to another.

    Both rows have one T. The factor is that of exact Gaussians (diffusion/exact.py), relative to many steps. It is 1
    for other samplers and rules, for which it is unknown.
    """
    others = spec.fields_of(first, "sampler") | spec.fields_of(first, "guidance")
    if "v" not in first or first["guidance"] != PAPER or others:
        return 1.0
    grid = schedule.grid(first["T"], spacing=first["grid"])
    left = [
        exact.sampled_variance(samplers.Ancestral(first["v"]), grid, w) / exact.sde_variance(w)
        for w in (float(first["w"]), float(last["w"]))  # JSON may have integers, which jax takes up to 2^31 only
    ]
    return float(np.sqrt(left[1] / left[0]))
