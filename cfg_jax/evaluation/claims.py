"""The paper's testable claims, held against the rows of one sweep.

A difference counts when it exceeds twice its bootstrap standard error: images resampled within their class,
paired between cells. That is the spread over images; another training seed may differ by more.
"""

from dataclasses import dataclass

import numpy as np

SUPPORTED, PARTLY, REFUTED, OPEN, UNTESTED = "supported", "partly", "not supported", "inconclusive", "not tested"


@dataclass(frozen=True)
class Claim:
    text: str
    verdict: str
    figure: str


class Curve:
    """One run's scores over w (or T), each as a value and its bootstrap resamples."""

    def __init__(self, rows: list[dict], along="w"):
        self.rows = sorted(rows, key=lambda row: row[along])
        self.along = [row[along] for row in self.rows]

    def values(self, name):
        return np.array([score(row, name) for row in self.rows])

    def resampled(self, name):
        """[resamples, points]."""
        return np.array([resamples(row, name) for row in self.rows]).T


def score_name(row, name):
    """ "fid" -> "fid_digits@1000", as this row calls it."""
    return next(key for key in row["scores"] if key.startswith(f"{name}_"))


def score(row, name):
    return row["scores"][score_name(row, name)]


def resamples(row, name):
    return row["resampled"].get(score_name(row, name), [float("nan")] * 2)


def spread(row, name):
    """Bootstrap standard error, nan without a bootstrap."""
    return float(np.std(resamples(row, name), ddof=1))


def judge(rows, num_steps):
    """Rows of a sweep -> the eight claims; num_steps is the T of its main table."""
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
        Claim("The guided eps is not the gradient field of any classifier", UNTESTED, "no measurement here"),
        Claim("Scaling the score, or less noise, does not do what guidance does", UNTESTED, "no such samples here"),
    ]


def is_rises(curves):
    text = "IS rises monotonically with w"
    if not curves:
        return Claim(text, UNTESTED, "needs two values of w")
    verdicts, figures = [], []
    for run, curve in curves.items():
        values, steps = curve.values("is"), np.diff(curve.values("is"))
        errors = np.diff(curve.resampled("is"), axis=1).std(0, ddof=1)
        falls = [
            f"w {curve.along[i]:g} to {curve.along[i + 1]:g}: {steps[i]:+.3f} ± {errors[i]:.3f}"
            for i in np.flatnonzero(steps < 0)
        ]
        clear_fall = bool(np.any(steps < -2 * errors))
        total = np.std(curve.resampled("is")[:, -1] - curve.resampled("is")[:, 0], ddof=1)
        rises = values[-1] - values[0] > 2 * total
        verdicts.append(REFUTED if clear_fall or not rises else OPEN if falls else SUPPORTED)
        figures.append(
            f"{run}: {values[0]:.3f} at w={curve.along[0]:g} to {values[-1]:.3f} at w={curve.along[-1]:g} "
            f"({values[-1] - values[0]:+.3f} ± {total:.3f})"
            + (f", falls at {'; '.join(falls)}" if falls else ", no fall")
        )
    return Claim(text, weakest(verdicts), ". ".join(figures))


def fid_has_minimum(curves):
    text = "FID falls and then rises with w: an interior minimum, in the paper at w = 0.1"
    if not any(len(curve.rows) > 2 for curve in curves.values()):
        return Claim(text, UNTESTED, "needs three values of w")
    verdicts, figures = [], []
    for run, curve in curves.items():
        values, again = curve.values("fid"), curve.resampled("fid")
        best = int(values.argmin())
        gain, error = values[0] - values[best], np.std(again[:, 0] - again[:, best], ddof=1)
        interior = 0 < best < len(values) - 1
        verdicts.append(SUPPORTED if interior and gain > 2 * error else OPEN if interior else REFUTED)
        figures.append(
            f"{run}: least at w={curve.along[best]:g}, {values[best]:.2f} against {values[0]:.2f} "
            f"at w={curve.along[0]:g} (lower by {gain:.2f} ± {error:.2f}) and {values[-1]:.2f} at w={curve.along[-1]:g}"
        )
    return Claim(text, weakest(verdicts), ". ".join(figures))


def equal_is(curves):
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
    fid = {p: fid_at(curve.values("is"), curve.values("fid"), level) for p, curve in by_p.items()}
    again = {
        p: np.array([fid_at(i, f, level) for i, f in zip(c.resampled("is"), c.resampled("fid"), strict=True)])
        for p, c in by_p.items()
    }
    worse = {p: (fid[0.5] - fid[p], np.std(again[0.5] - again[p], ddof=1)) for p in (0.1, 0.2)}
    between, between_error = abs(fid[0.1] - fid[0.2]), np.std(again[0.1] - again[0.2], ddof=1)
    if all(gap > 2 * error for gap, error in worse.values()) and between < min(gap for gap, _ in worse.values()) / 2:
        verdict = SUPPORTED
    elif any(gap < -2 * error for gap, error in worse.values()):
        verdict = REFUTED
    else:
        verdict = OPEN
    figure = f"at IS {level:.2f} FID is " + ", ".join(f"{f:.2f} (p={p:g})" for p, f in fid.items())
    gaps = ", ".join(f"0.5 above {p:g} by {gap:+.2f} ± {error:.2f}" for p, (gap, error) in worse.items())
    return Claim(
        text, verdict, f"{figure}; {gaps}; 0.1 and 0.2 differ by {between:.2f} ± {between_error:.2f}; one training seed"
    )


def fid_at(inception, fid, level):
    """FID where the curve, by rising w, first reaches an IS of `level`, linear between the cells."""
    reached = np.flatnonzero(inception >= level)
    i = reached[0] if len(reached) else len(fid) - 1
    if i == 0:
        return fid[0]
    share = np.clip((level - inception[i - 1]) / (inception[i] - inception[i - 1]), 0, 1)
    return fid[i - 1] + share * (fid[i] - fid[i - 1])


def more_steps(rows):
    text = "Quality improves with T, and T = 256 is a good balance"
    groups = {}
    for row in rows:
        groups.setdefault((row["run"], row["w"]), []).append(row)
    curves = {key: Curve(group, "T") for key, group in groups.items() if len({row["T"] for row in group}) > 1}
    if not curves:
        return Claim(text, UNTESTED, "needs cells of several T")
    verdicts, figures = [], []
    for (run, w), curve in curves.items():
        fid, again = curve.values("fid"), curve.resampled("fid")
        errors = np.diff(again, axis=1).std(0, ddof=1)
        falling = np.diff(fid) < -2 * errors
        verdicts.append(PARTLY if falling.all() else REFUTED if (np.diff(fid) > 2 * errors).any() else OPEN)
        cells = ", ".join(
            f"{f:.2f} ± {e:.2f} (T={t})" for f, e, t in zip(fid, again.std(0, ddof=1), curve.along, strict=True)
        )
        figures.append(f"{run}, w={w:g}: FID {cells}")
    verdict = weakest(verdicts)
    if verdict == PARTLY and any(256 in c.along and max(c.along) > 256 for c in curves.values()):
        verdict = SUPPORTED
    return Claim(
        text, verdict, ". ".join(figures) + ("" if verdict == SUPPORTED else "; T = 256 was not tested against more")
    )


def likelihood(curves):
    text = "Guidance raises the conditional and lowers the unconditional likelihood"
    return ends(
        text,
        curves,
        [("log_p_class", "mean log p(c|x) by the classifier", +1)],
        PARTLY,
        "; no unconditional likelihood measured",
    )


def saturation_and_variety(curves):
    text = "Strong w saturates pixels and cuts variety"
    scores = [
        ("saturated", "share of pixels at 0 or 255", +1),
        ("variety", "mean standard deviation within a class", -1),
    ]
    return ends(text, curves, scores, SUPPORTED, "")


def ends(text, curves, names, best_verdict, remark):
    """Compare the first and the last w: each named score should have moved by its sign."""
    if not curves:
        return Claim(text, UNTESTED, "needs two values of w")
    verdicts, figures = [], []
    for run, curve in curves.items():
        parts = []
        for name, words, sign in names:
            values, again = curve.values(name), curve.resampled(name)
            change, error = values[-1] - values[0], np.std(again[:, -1] - again[:, 0], ddof=1)
            verdicts.append(
                best_verdict if sign * change > 2 * error else REFUTED if sign * change < -2 * error else OPEN
            )
            parts.append(f"{words} {values[0]:.3f} to {values[-1]:.3f} ({change:+.3f} ± {error:.3f})")
        figures.append(f"{run}, w={curve.along[0]:g} to {curve.along[-1]:g}: {', '.join(parts)}")
    return Claim(text, weakest(verdicts), ". ".join(figures) + remark)


def weakest(verdicts):
    """The verdict over several runs: all must agree for the good one."""
    return next(v for v in (REFUTED, OPEN, PARTLY, SUPPORTED) if v in verdicts)
