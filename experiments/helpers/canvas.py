"""What the studies of the plane draw with: panels, arrows, paths, points and contours. Not a command."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.diffusion import flow
from experiments.studies import plane

COLORS = (*plots.COLORS[:2], plots.COLORS[-1])  # class 0, class 1, no class
EXACT = "0.65"
SIDE = 2.9


def _guided(model, w, told):
    return plane.velocity(model.replace(w=w)) if told else plane.velocity(model, w)


@partial(jax.jit, static_argnames="told")
def _velocity(model, z, t, c, w, told):
    return _guided(model, w, told)(z, t, c)


@partial(jax.jit, static_argnames="told")
def _path(model, z, c, w, g, times, told):
    velocity = _guided(model, w, told)
    return flow.euler(lambda z, t, c: g * velocity(z, t, c), z, c, times)


@dataclass(frozen=True)
class Walker:
    """A law or a field, guided or, where it is told w, asked for it. Arrays out are numpy's.

    What is compiled serves every w, and every law and field of one shape.
    """

    model: Any
    num_steps: int
    told: bool = False

    @property
    def times(self):
        return np.linspace(0, 1, self.num_steps + 1)

    def velocity(self, z, t, c, w=0.0):
        c = np.broadcast_to(c, len(z))
        return np.asarray(_velocity(self.model, z, np.float32(t), c, np.float32(w), self.told))

    def path(self, z, c, w=0.0, g=1.0, times=None):
        """[T, B, 2], by Euler's steps along g times the velocity."""
        times, c = self.times if times is None else times, np.broadcast_to(c, len(z))
        return np.asarray(_path(self.model, z, c, np.float32(w), np.float32(g), times, self.told))

    def at(self, path, t):
        return path[np.abs(self.times - t).argmin()]


def rms(a, b=0.0):
    return float(np.sqrt(np.square(a - b).mean()))


def panels(rows, columns, about, width=9.5):
    """A figure and its axes [rows, columns], all of the same square of the plane."""
    side = (width - 0.3) / len(columns)
    figure = Figure(figsize=(width, side * len(rows) + 0.6))
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for ax in axes.flat:
        square(ax)
    for ax, title in zip(axes[0], columns, strict=True):
        ax.set_title(title)
    for ax, label in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(label)
    figure.supxlabel(about)
    return figure, axes


def square(ax):
    ax.set(xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(True)


def mesh(num):
    """[num^2, 2]"""
    line = np.linspace(-SIDE, SIDE, num, dtype=np.float32)
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


_tilted = jax.jit(plane.tilted)


def density(law, t, c, w=0.0, num=80):
    """p(z_t | c)^(1 + w) p(z_t)^-w on a mesh, [num^2]."""
    return np.asarray(_tilted(law, mesh(num), np.float32(t), np.int32(c), np.float32(w)))


def contours(ax, law, t, c, w=0.0, masses=(0.9, 0.5), num=80, **style):
    """Lines around these shares of the density's mass."""
    values = density(law, t, c, w, num)
    ordered = np.sort(values)[::-1]
    levels = [ordered[np.searchsorted(ordered.cumsum(), mass)] for mass in masses]
    x = np.linspace(-SIDE, SIDE, num)
    ax.contour(x, x, values.reshape(num, num), levels, **{"colors": "k", "linewidths": 0.7} | style)


def points(ax, z, color, num=800):
    ax.scatter(*z[:num].T, s=2, color=color, alpha=0.5, lw=0)


def paths(ax, path, color, num=40, lw=0.7):
    ax.plot(*path[:, :num].transpose(2, 0, 1), color=color, lw=lw, alpha=0.8)
    ax.scatter(*path[-1, :num].T, s=5, color=color, zorder=3, lw=0)


def arrows(ax, at, by, color, width=0.006):
    ax.quiver(*at.T, *by.T, color=color, angles="xy", scale_units="xy", scale=1, width=width, headwidth=3, headlength=4)


def field(ax, exact, learned, t, c, w=0.0, length=None):
    """Both velocities on a mesh, where class c has some of its mass: what nobody is, no network has learned.

    length: of a velocity of 1; else the longest arrow is as long as the mesh is wide.
    """
    at, mass = mesh(15), density(exact.model, t, c, num=15)
    some = mass > 1e-3 * mass.max()
    found = [walker.velocity(at, t, c, w)[some] for walker in (exact, learned)]
    length = length or 2 * SIDE / 14 / np.linalg.norm(found[0], axis=1).max()
    for velocity, color, width in zip(found, (EXACT, COLORS[c]), (0.014, 0.006), strict=True):
        arrows(ax, at[some], length * velocity, color, width)
