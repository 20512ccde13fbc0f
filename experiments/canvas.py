"""What the studies of the plane draw with: panels, arrows, paths, points and contours. Not a command."""

from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np

from cfg_jax.diffusion import flow
from cfg_jax.models import plane

COLORS = ("#0072B2", "#D55E00", "#333333")  # class 0, class 1, no class; the colour-blind tell them apart
EXACT = "0.65"
SIDE = 2.9


class Walker:
    """A velocity at w, compiled once for all weights. velocity_of: w -> (z, t, c) -> [B, 2]. Arrays out are numpy's."""

    def __init__(self, velocity_of, num_steps):
        self.times = np.linspace(0, 1, num_steps + 1)
        self._velocity = jax.jit(lambda z, t, c, w: velocity_of(w)(z, t, c))
        self._path = jax.jit(
            lambda z, c, w, g, times: flow.euler(lambda z, t, c: g * velocity_of(w)(z, t, c), z, c, times)
        )

    @classmethod
    def of(cls, model, num_steps):
        """A law or a field, guided."""
        return cls(lambda w: plane.velocity(model, w), num_steps)

    def velocity(self, z, t, c, w=0.0):
        return np.asarray(self._velocity(z, t, jnp.broadcast_to(c, len(z)), jnp.float32(w)))

    def path(self, z, c, w=0.0, g=1.0, times=None):
        """[T, B, 2], by Euler's steps along g times the velocity."""
        times = self.times if times is None else times
        return np.asarray(self._path(z, jnp.broadcast_to(c, len(z)), jnp.float32(w), jnp.float32(g), times))

    def at(self, path, t):
        return path[np.abs(self.times - t).argmin()]


def panels(rows, columns, about, width=9.5):
    """A figure and its axes [rows, columns], all of the same square of the plane."""
    side = (width - 0.3) / len(columns)
    figure = matplotlib.figure.Figure(figsize=(width, side * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for ax in axes.flat:
        square(ax)
    for ax, title in zip(axes[0], columns, strict=True):
        ax.set_title(title, fontsize=9)
    for ax, label in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(label, fontsize=9)
    figure.supxlabel(about, fontsize=8)
    return figure, axes


def square(ax):
    ax.set(xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), xticks=[], yticks=[], aspect="equal")


def mesh(num):
    """[num^2, 2]"""
    line = np.linspace(-SIDE, SIDE, num, dtype=np.float32)
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


@partial(jax.jit, static_argnums=0)
def _tilted(of, points, t, c, w):
    return plane.tilted(plane.rings(of), points, t, c, w)


def density(name, t, c, w=0.0, num=80):
    """p(z_t | c)^(1 + w) p(z_t)^-w on a mesh, [num^2], of the law of that name."""
    return np.asarray(_tilted(name, mesh(num), jnp.float32(t), jnp.int32(c), jnp.float32(w)))


def contours(ax, name, t, c, w=0.0, masses=(0.9, 0.5), num=80, **style):
    """Lines around these shares of the density's mass."""
    values = density(name, t, c, w, num)
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


def field(ax, name, exact, learned, t, c, w=0.0, length=None):
    """Both velocities on a mesh, where class c has some of its mass: what nobody is, no network has learned.

    length: of a velocity of 1; else the longest arrow is as long as the mesh is wide.
    """
    at, mass = mesh(15), density(name, t, c, num=15)
    at = at[mass > 1e-3 * mass.max()]
    found = [walker.velocity(at, t, c, w) for walker in (exact, learned)]
    length = length or 2 * SIDE / 14 / np.linalg.norm(found[0], axis=1).max()
    for velocity, color, width in zip(found, (EXACT, COLORS[c]), (0.014, 0.006), strict=True):
        arrows(ax, at, length * velocity, color, width)
