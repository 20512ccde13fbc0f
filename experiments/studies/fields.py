"""Test whether a vector field is the gradient of a function."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def antisymmetric(field: Callable, z: jax.Array, key: jax.Array, probes: int) -> tuple[jax.Array, jax.Array]:
    """Return the antisymmetric share |(J - J^T) / 2| / |J| of a field's Jacobian, 0..1, and its standard error.

    field(z) maps z [B, ...] to the same shape and does not mix examples, over which the error is taken. `probes` random
    directions u ~ N(0, I) estimate it: E |J u|^2 = |J|^2, and J^T u is a vector-Jacobian product.
    """

    def probe(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        u = jax.random.normal(key, z.shape)
        _, forward = jax.jvp(field, (z,), (u,))
        _, transpose = jax.vjp(field, z)
        axes = tuple(range(1, z.ndim))
        return jnp.square((forward - transpose(u)[0]) / 2).sum(axes), jnp.square(forward).sum(axes)

    odd, whole = (a.mean(0) for a in jax.lax.map(probe, jax.random.split(key, probes)))
    share = jnp.sqrt(odd.sum() / whole.sum())
    # of a ratio of means, to first order; d sqrt(r) = dr / (2 sqrt(r))
    residual = (odd - share**2 * whole) / whole.mean()
    return share, residual.std(ddof=1) / jnp.sqrt(len(z)) / (2 * jnp.maximum(share, 1e-6))
