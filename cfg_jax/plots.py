"""One style for every plot. A plot is written as a PNG and as an SVG whose text stays text.

A function that draws is decorated with `styled`. The same plot gives the same bytes: no date, no random names.
"""

import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterMathtext

from cfg_jax.files import MARK, write_atomic

# Okabe and Ito's colours, which colour-blind readers tell apart, without yellow, which is faint on white
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
MARKERS = "osD^v"
STYLE = {
    "figure.constrained_layout.use": True,
    "figure.figsize": (6.4, 4.4),
    "figure.titlesize": 9,
    "font.size": 8,
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.axisbelow": True,
    "axes.edgecolor": "#666666",
    "axes.formatter.min_exponent": 5,  # 1000, not 10^3
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "image.cmap": "magma",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "savefig.dpi": 150,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may have a $
    "svg.hashsalt": "cfg_jax",
    "xtick.color": "#666666",
    "xtick.labelcolor": "black",
    "ytick.color": "#666666",
    "ytick.labelcolor": "black",
}
styled = matplotlib.rc_context(STYLE)  # type: ignore[arg-type]
SIDES = [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]  # of a name, by preference
GAPS = 4, 9  # points between a name and its point


class Powers(LogFormatterMathtext):
    """The numbers of a logarithmic axis as plain text: the style shows none as formulas."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


@styled
def image(figure: Figure, kind: str) -> bytes:
    """Return the bytes of a figure of kind "png" or "svg"."""
    out = io.BytesIO()
    for axis in [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]:
        for ticks in (axis.major, axis.minor):
            if isinstance(ticks.formatter, LogFormatterMathtext):
                ticks.formatter.__class__ = Powers  # its base and its thresholds stay
    about = {"svg": {"Date": None, "Creator": MARK}, "png": {"Software": MARK}}[kind]
    figure.savefig(out, format=kind, metadata=about)
    return out.getvalue()


def save(path: str | Path, figure: Figure) -> None:
    """Write PATH.png and PATH.svg."""
    for kind in ("png", "svg"):
        write_atomic(Path(f"{path}.{kind}"), image(figure, kind))


@styled
def name_points(names: Mapping[Line2D, Sequence[str]]) -> None:
    """Write a name beside each point of the lines of one axes, where it covers least of the drawing.

    A name that would cover another or leave the axes is left out. Call this last, since it reads where the points lie.
    """
    axes: Any = next(iter(names)).axes
    axes.figure.draw_without_rendering()
    pixel = axes.figure.dpi / 72
    bars = [path for c in axes.collections if isinstance(c, LineCollection) for path in c.get_segments() if len(path)]
    paths = [axes.transData.transform(path) for path in [*(line.get_xydata() for line in axes.lines), *bars]]
    points, covered = np.concatenate(paths[: len(axes.lines)]), np.concatenate([_dense(path) for path in paths])
    taken = []
    for line, texts in names.items():
        for at, text in zip(line.get_xydata(), texts, strict=True):
            label = axes.annotate(
                text, at, (0, 0), textcoords="offset points", ha="center", va="center", fontsize=7,
                color=line.get_color(), in_layout=False,
            )  # fmt: skip
            box, free = label.get_window_extent(), []
            for gap, (right, up) in itertools.product(GAPS, SIDES):
                x, y = right * (box.width / 2 + gap * pixel), up * (box.height / 2 + gap * pixel)
                there = box.translated(x, y)
                if axes.bbox.count_contains(there.corners()) == 4 and not there.count_overlaps(taken):
                    near = there.padded(3)
                    cost = 20 * near.count_contains(points) + near.count_contains(covered)
                    free.append((cost, len(free), (x / pixel, y / pixel), there))
            if free:
                *_, offset, there = min(free)
                label.set_position(offset)
                taken.append(there)
            else:
                label.remove()


def _dense(path):
    """Return points along a path, about one a pixel."""
    path = path[np.isfinite(path).all(1)]
    steps = [np.linspace(a, b, 2 + int(np.hypot(*(b - a)))) for a, b in itertools.pairwise(path)]
    return np.concatenate([path, *steps])
