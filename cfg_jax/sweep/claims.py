"""The paper's testable claims, held against the rows of one sweep.

A difference counts when it exceeds twice its standard error: by a bootstrap of the images (see measure), or over
several seeds of them; both paired between cells. Another training seed may differ by more.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cfg_jax.diffusion import exact, samplers, schedule
from cfg_jax.sweep import spec
from cfg_jax.sweep.spec import PAPER

SUPPORTED, PARTLY, REFUTED, OPEN, UNTESTED = "supported", "partly", "contradicted", "undecided", "not tested"
NOT_BY_A_SWEEP = {
    "The guided eps is not the gradient field of any classifier": "not by a sweep: experiments.studies.curl",
    "Scaling the score, or less noise, does not do what guidance does": "not by a sweep: "
    "experiments.studies.temperature",
}


@dataclass(frozen=True)
class Claim:
    text: str
    verdict: str  # one of the five above
    figure: str  # the numbers that it rests on


class Curve:
    """One run's scores over w (or T), each as a value and its bootstrap resamples."""

    def __init__(self, rows: list[dict], along: str = "w") -> None:
        self.rows = sorted(rows, key=lambda row: row[along])
        self.along = [row[along] for row in self.rows]

    def values(self, name: str) -> np.ndarray:
        return np.array([score(row, name) for row in self.rows])

    def resampled(self, name: str) -> np.ndarray:
        """[resamples, points]; NaN where points differ in their number of resamples."""
        drawn = [resamples(row, name) for row in self.rows]
        return np.array(drawn if len({*map(len, drawn)}) == 1 else [[np.nan] * 2] * len(drawn)).T


def over_seeds(rows: list[dict]) -> dict:
    """Return one row of the means over rows that differ in the images' seed alone, and resamples of these means.

    Without a bootstrap the n seeds are the resamples. They are drawn to their mean by sqrt(n), to scatter as it does.
    """
    scores = {name: float(np.mean([row["scores"][name] for row in rows])) for name in rows[0]["scores"]}
    drawn = [name for name in rows[0]["resampled"] if all(name in row["resampled"] for row in rows)]
    resampled = {name: list(np.mean([row["resampled"][name] for row in rows], 0)) for name in drawn}
    if not resampled and len(rows) > 1:
        for name, mean in scores.items():
            values = np.array([row["scores"][name] for row in rows])
            resampled[name] = list(mean + (values - mean) / np.sqrt(len(rows)))
    return rows[0] | {"seeds": [row["seed"] for row in rows], "scores": scores, "resampled": resampled}


def score_name(row: dict, name: str) -> str | None:
    """Return what this row calls "fid": "fid_digits@1000" or "fd_mixed8@1000"; None if it was not measured."""
    prefixes = ("fid_", "fd_") if name == "fid" else (f"{name}_",)
    return next((key for key in row["scores"] if key.startswith(prefixes)), None)


def score(row: dict, name: str) -> float:
    return row["scores"][score_name(row, name)]


def resamples(row: dict, name: str) -> list[float]:
    """Return a score's resamples, two NaN where it has none."""
    return row["resampled"].get(score_name(row, name), [float("nan")] * 2)


def spread(row: dict, name: str) -> float:
    """Return the standard error by the resamples, NaN without any."""
    return float(np.std(resamples(row, name), ddof=1))


def judge(rows: list[dict], num_steps: int) -> list[Claim]:
    """Hold the rows of a sweep against the eight claims; num_steps is the T of its main table."""
    main = [row for row in rows if row["T"] == num_steps]
    runs = sorted({row["run"] for row in main}, key=lambda run: next(r["p_uncond"] for r in main if r["run"] == run))
    curves = {run: Curve([row for row in main if row["run"] == run and row["w"] >= 0]) for run in runs}
    curves = {run: curve for run, curve in curves.items() if len(curve.rows) > 1}
    return [
        is_rises(curves),
        fid_has_minimum(curves),
        equal_is(curves),
        more_steps(rows),
        likelihood(curves),
        saturation_and_variety(curves),
        *(Claim(text, UNTESTED, why) for text, why in NOT_BY_A_SWEEP.items()),
    ]


def sign(change: float, error: float) -> int:
    """+1 or -1 where the change exceeds twice its error, else 0; it is 0 where the error is unknown (NaN)."""
    return int(change > 2 * error) - int(change < -2 * error)


def change(curve: Curve, name: str, start: int, end: int, share: float = 1.0) -> tuple[float, float]:
    """Return the score at point `end` less `share` of the one at `start`, and the paired standard error of that."""
    values, again = curve.values(name), curve.resampled(name)
    moved = values[end] - share * values[start]
    return float(moved), float(np.std(again[:, end] - share * again[:, start], ddof=1))


def is_rises(curves: dict[str, Curve]) -> Claim:
    text = "IS rises monotonically with w"
    if not curves:
        return Claim(text, UNTESTED, "needs two values of w")
    verdicts, figures = [], []
    for run, curve in curves.items():
        w, values = curve.along, curve.values("is")
        steps = [change(curve, "is", i, i + 1) for i in range(len(w) - 1)]
        falls = [f"w {w[i]:g} to {w[i + 1]:g}: {d:+.3f} ± {e:.3f}" for i, (d, e) in enumerate(steps) if d < 0]
        total, error = change(curve, "is", 0, -1)
        if any(sign(*step) < 0 for step in steps) or sign(total, error) < 0:
            verdicts.append(REFUTED)
        else:
            verdicts.append(SUPPORTED if sign(total, error) > 0 and not falls else OPEN)
        figures.append(
            f"{run}: {values[0]:.3f} at w={w[0]:g} to {values[-1]:.3f} at w={w[-1]:g} ({total:+.3f} ± {error:.3f})"
            + (f", falls at {'; '.join(falls)}" if falls else ", no fall")
        )
    return Claim(text, weakest(verdicts), ". ".join(figures))


def fid_has_minimum(curves: dict[str, Curve]) -> Claim:
    text = "FID falls and then rises with w: an interior minimum, in the paper at w = 0.1"
    curves = {run: curve for run, curve in curves.items() if curve.along[0] == 0 and len(curve.rows) > 2}
    if not curves:
        return Claim(text, UNTESTED, "needs w = 0 and two values above it")
    verdicts, figures = [], []
    for run, curve in curves.items():
        w, values = curve.along, curve.values("fid")
        best, last = int(values.argmin()), len(w) - 1
        (fall, fall_error), (rise, rise_error) = change(curve, "fid", best, 0), change(curve, "fid", best, last)
        if 0 < best < last:
            clear = sign(fall, fall_error) > 0 and sign(rise, rise_error) > 0
            verdicts.append(SUPPORTED if clear else OPEN)
        else:
            beside = 1 if best == 0 else last - 1
            verdicts.append(REFUTED if sign(*change(curve, "fid", best, beside)) > 0 else OPEN)
        figures.append(
            f"{run}: least at w={w[best]:g}, {values[best]:.2f}, lower than at w=0 by {fall:.2f} ± {fall_error:.2f} "
            f"and than at w={w[last]:g} by {rise:.2f} ± {rise_error:.2f}"
        )
    return Claim(text, weakest(verdicts), ". ".join(figures))


def equal_is(curves: dict[str, Curve]) -> Claim:
    text = "At equal IS, p_uncond 0.1 and 0.2 give about the same FID and 0.5 a worse one"
    by_p = {curve.rows[0]["p_uncond"]: curve for curve in curves.values()}
    if not {0.1, 0.2, 0.5} <= by_p.keys():
        return Claim(text, UNTESTED, "needs runs of p_uncond 0.1, 0.2 and 0.5")
    by_p = {p: by_p[p] for p in (0.1, 0.2, 0.5)}
    low = max(curve.values("is")[0] for curve in by_p.values())
    high = min(curve.values("is").max() for curve in by_p.values())
    level = (low + high) / 2
    if not low < high:
        return Claim(text, OPEN, f"no common range of IS: {low:.3f} to {high:.3f}")
    fid = {p: fid_at(c.values("is"), c.values("fid"), level) for p, c in by_p.items()}
    again = {
        p: np.array([fid_at(i, f, level) for i, f in zip(c.resampled("is"), c.resampled("fid"), strict=True)])
        for p, c in by_p.items()
    }
    worse = {p: (fid[0.5] - fid[p], np.std(again[0.5] - again[p], ddof=1)) for p in (0.1, 0.2)}
    between, between_error = abs(fid[0.1] - fid[0.2]), np.std(again[0.1] - again[0.2], ddof=1)
    signs = [sign(*gap) for gap in worse.values()]
    about = between < min(gap for gap, _ in worse.values()) / 2  # the two agree within half of what 0.5 is worse by
    verdict = SUPPORTED if min(signs) > 0 and about else REFUTED if min(signs) < 0 else OPEN
    figure = f"at IS {level:.2f} FID is " + ", ".join(f"{f:.2f} (p={p:g})" for p, f in fid.items())
    gaps = ", ".join(f"0.5 above {p:g} by {gap:+.2f} ± {error:.2f}" for p, (gap, error) in worse.items())
    same = f"0.1 and 0.2 differ by {between:.2f} ± {between_error:.2f} (about the same: by less than half of that)"
    return Claim(text, verdict, f"{figure}; {gaps}; {same}; one training seed")


def fid_at(inception: np.ndarray, fid: np.ndarray, level: float) -> Any:
    """Return FID where IS, by rising w, first reaches `level`; both [points] are linear between the cells.

    fid may be another score, and have resamples behind its points.
    """
    reached = np.flatnonzero(inception >= level)
    i = reached[0] if len(reached) else len(fid) - 1
    if i == 0:
        return fid[0]
    share = np.clip((level - inception[i - 1]) / (inception[i] - inception[i - 1]), 0, 1)
    return fid[i - 1] + share * (fid[i] - fid[i - 1])


def more_steps(rows: list[dict]) -> Claim:
    """Judge at the w that has the least FID with the most steps, as the paper does."""
    text = "Quality improves with T, and T = 256 is a good balance"
    groups = {}
    for row in rows:
        groups.setdefault(row["run"], {}).setdefault(row["w"], []).append(row)
    curves = {}
    for run, of_run in groups.items():
        several = [Curve(group, "T") for group in of_run.values() if len({row["T"] for row in group}) > 1]
        if several:
            most = max(curve.along[-1] for curve in several)
            best = min((c for c in several if c.along[-1] == most), key=lambda curve: curve.values("fid")[-1])
            curves[run, best.rows[0]["w"]] = best
    if not curves:
        return Claim(text, UNTESTED, "needs cells of several T")
    verdicts, figures = [], []
    for (run, w), curve in curves.items():
        steps = [(sign(*change(curve, "fid", i, i + 1)), curve.along[i + 1]) for i in range(len(curve.along) - 1)]
        improves = [direction < 0 for direction, t in steps if t <= 256 or 256 not in curve.along]
        beyond = [direction for direction, t in steps if t > 256 and 256 in curve.along]
        if any(direction > 0 for direction, _ in steps):
            verdicts.append(REFUTED)
        elif not all(improves):
            verdicts.append(OPEN)
        else:
            verdicts.append(SUPPORTED if beyond and not any(beyond) else PARTLY)
        spreads = [spread(row, "fid") for row in curve.rows]
        cells = zip(curve.values("fid"), spreads, curve.along, strict=True)
        remark = "" if beyond else "; T = 256 was not tested against more"
        figures.append(f"{run}, w={w:g}: FID " + ", ".join(f"{f:.2f} ± {e:.2f} (T={t})" for f, e, t in cells) + remark)
    return Claim(text, weakest(verdicts), ". ".join(figures))


def likelihood(curves: dict[str, Curve]) -> Claim:
    text = "Guidance raises the conditional and lowers the unconditional likelihood"
    seen = ends(text, curves, [("log_p_class", "mean log p(c|x) by the classifier", +1)])
    return Claim(text, UNTESTED, f"{seen.figure}; that is their ratio; not by a sweep: experiments.studies.likelihood")


def saturation_and_variety(curves: dict[str, Curve]) -> Claim:
    text = "Strong w saturates pixels and cuts variety"
    pixels, deviation = "share of pixels at 0 or 255", "mean standard deviation within a class"
    return ends(text, curves, [("saturated", pixels, +1), ("variety", deviation, -1)], {"variety": step_share})


def step_share(first: dict, last: dict) -> float:
    """Return by how much Algorithm 2's steps alone change a standard deviation between two rows of one T.

    Of exact Gaussians (diffusion/exact.py): the share of what many steps leave, of the last row over the first's. 1 for
    other samplers and rules, of which nothing is known.
    """
    if "v" not in first or first["guidance"] != PAPER or spec.own(first, "sampler") or spec.own(first, "guidance"):
        return 1.0
    grid = schedule.grid(first["T"], spacing=first["grid"])
    left = [
        exact.sampled_variance(samplers.Ancestral(first["v"]), grid, row["w"]) / exact.sde_variance(row["w"])
        for row in (first, last)
    ]
    return float(np.sqrt(left[1] / left[0]))


def ends(text: str, curves: dict[str, Curve], names: list[tuple[str, str, int]], by_steps: dict | None = None) -> Claim:
    """Compare the first and last w; names are (score, its words, the direction +1 or -1 that it should move in).

    by_steps: {score: share(first row, last row)}, what the score is changed by without guidance having changed it.
    """
    if not curves:
        return Claim(text, UNTESTED, "needs two values of w")
    if not all(score_name(row, name) for curve in curves.values() for row in curve.rows for name, *_ in names):
        return Claim(text, UNTESTED, f"no {names[0][1]} was measured")
    verdicts, figures = [], []
    for run, curve in curves.items():
        parts = []
        for name, words, direction in names:
            share = by_steps[name](curve.rows[0], curve.rows[-1]) if by_steps and name in by_steps else 1.0
            values, (moved, error) = curve.values(name), change(curve, name, 0, -1, share)
            verdicts.append({1: SUPPORTED, 0: OPEN, -1: REFUTED}[direction * sign(moved, error)])
            beside = "" if share == 1 else f" against {share * values[0]:.3f} that the steps alone would leave"
            parts.append(f"{words} {values[0]:.3f} to {values[-1]:.3f}{beside} ({moved:+.3f} ± {error:.3f})")
        figures.append(f"{run}, w={curve.along[0]:g} to {curve.along[-1]:g}: {', '.join(parts)}")
    return Claim(text, weakest(verdicts), ". ".join(figures))


def weakest(verdicts: list[str]) -> str:
    """Return the worst verdict of several runs: the good one takes all of them."""
    return next(v for v in (REFUTED, OPEN, PARTLY, SUPPORTED) if v in verdicts)
