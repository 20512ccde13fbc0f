"""The drawing of the studies of the plane: panels, arrows, paths, points and contours. Not a command."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from cfg_jax import plots
from cfg_jax.diffusion import flow
from cfg_jax.evaluation.scores import energy_distance
from cfg_jax.models.mixture import Mixture
from experiments.studies import plane

COLORS = (*plots.COLORS[:2], plots.COLORS[-1])  # class 0, class 1, no class
EXACT = "0.65"
SIDE = 2.9
Points = Float[np.ndarray | Array, "n 2"]
Steps = Float[np.ndarray, "t n 2"]


@jax.jit
def _velocity(model: Any, z: Array, t: Array, c: Array, w: Array) -> Array:
    return plane.velocity(model, w)(z, t, c)


@jax.jit
def _path(model: Any, z: Array, c: Array, w: Array, g: Array, times: Array) -> Array:
    velocity = plane.velocity(model, w)
    return flow.euler(lambda z, t, c: g * velocity(z, t, c), z, c, times)


@dataclass(frozen=True)
class Walker:
    """A law or a field that is walked along. One program serves every w, and every law and field of one shape."""

    model: Any
    num_steps: int

    @property
    def times(self) -> Float[np.ndarray, " t"]:
        return np.linspace(0, 1, self.num_steps + 1)

    def velocity(self, z: Points, t: float, c: ArrayLike, w: float = 0.0) -> Points:
        return np.asarray(_velocity(self.model, z, np.float32(t), np.broadcast_to(c, len(z)), np.float32(w)))

    def path(self, z: Points, c: ArrayLike, w: float = 0.0, g: float = 1.0, times: Any = None) -> Steps:
        """Return the points of Euler's steps along g times the velocity."""
        times, c = self.times if times is None else times, np.broadcast_to(c, len(z))
        return np.asarray(_path(self.model, z, c, np.float32(w), np.float32(g), times))

    def at(self, path: Steps, t: float) -> Points:
        return path[np.abs(self.times - t).argmin()]


def rms(a: np.ndarray, b: np.ndarray | float = 0.0) -> float:
    return float(np.sqrt(np.square(a - b).mean()))


def off(learned: np.ndarray, exact: np.ndarray) -> str:
    """Return the RMS of the difference as a share of the RMS of exact."""
    return f"{rms(learned, exact) / rms(exact):.1%}"


def compared(ends: np.ndarray, exact: np.ndarray, other: np.ndarray) -> list[str]:
    """Compare ends with exact: RMS from the same noise, energy distance from other noise, its floor."""
    distances = rms(ends, exact), energy_distance(ends, other), energy_distance(exact, other)
    return [f"{distance:.3f}" for distance in distances]


def panels(rows: list[str], columns: list[str], about: str, width: float = 9.5) -> tuple[Figure, Any]:
    """Return a figure and its axes [rows, columns], all of the same square of the plane."""
    figure = Figure(figsize=(width, (width - 0.3) / len(columns) * len(rows) + 0.6))
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for ax in axes.flat:
        square(ax)
    for ax, title in zip(axes[0], columns, strict=True):
        ax.set_title(title)
    for ax, label in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(label)
    figure.supxlabel(about)
    return figure, axes


def square(ax: Axes) -> None:
    ax.set(xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(True)


def mesh(num: int) -> Float[np.ndarray, "n 2"]:
    line = np.linspace(-SIDE, SIDE, num, dtype=np.float32)
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


_tilted = jax.jit(plane.tilted)


def density(law: Mixture, t: float, c: int, w: float = 0.0, num: int = 80) -> Float[np.ndarray, " n"]:
    """Return p(z_t | c)^(1 + w) p(z_t)^-w on a mesh."""
    return np.asarray(_tilted(law, mesh(num), np.float32(t), np.int32(c), np.float32(w)))


def contours(ax: Axes, law: Mixture, t: float, c: int, w: float = 0.0, *masses: float, color: str = "k") -> None:
    """Draw lines around these shares of the density's mass; by default around 90 % and a half."""
    num, masses = 80, masses or (0.9, 0.5)
    values = density(law, t, c, w, num)
    ordered = np.sort(values)[::-1]
    levels = [ordered[np.searchsorted(ordered.cumsum(), mass)] for mass in masses]
    x = np.linspace(-SIDE, SIDE, num)
    ax.contour(x, x, values.reshape(num, num), levels, colors=color, linewidths=0.7)


def points(ax: Axes, z: Points, color: str, num: int = 800) -> None:
    ax.scatter(*z[:num].T, s=2, color=color, alpha=0.5, lw=0)


def paths(ax: Axes, path: Steps, color: str, lw: float = 0.7) -> None:
    """Draw the first forty of these paths, and where they end."""
    ax.plot(*path[:, :40].transpose(2, 0, 1), color=color, lw=lw, alpha=0.8)
    ax.scatter(*path[-1, :40].T, s=5, color=color, zorder=3, lw=0)


def arrows(ax: Axes, at: Points, exact: Points, learned: Points, c: int) -> None:
    """Draw learned arrows thin and in the class's colour over exact ones, thick and grey."""
    form = {"angles": "xy", "scale_units": "xy", "scale": 1, "headwidth": 3, "headlength": 4}
    for by, color, width in ((exact, EXACT, 0.014), (learned, COLORS[c], 0.006)):
        ax.quiver(*at.T, *by.T, color=color, width=width, **form)


def field(ax: Axes, exact: Walker, learned: Walker, t: float, c: int, w: float = 0.0, length: float = 0.0) -> None:
    """Draw both velocities on a mesh, where class c has some of its mass: elsewhere the network has learned nothing.

    length: of a velocity of 1; 0 makes the longest exact arrow as long as the mesh is wide.
    """
    at, mass = mesh(15), density(exact.model, t, c, num=15)
    some = mass > 1e-3 * mass.max()
    right, ours = (walker.velocity(at, t, c, w)[some] for walker in (exact, learned))
    length = length or 2 * SIDE / 14 / np.linalg.norm(right, axis=1).max()
    arrows(ax, at[some], length * right, length * ours, c)
