"""Feynman-Kac correction: images of one label and one w as weighted particles, so that guidance samples its density.

Guided by w at every noise level, Algorithm 2 does not sample p(x) p(c | x)^(1+w). Between two noise levels the ratio
of that density to what is sampled grows as each particle's log weight does; drawing particles anew by their weights
makes up for it. Skreta et al. 2025. An image then depends on its seed and its group, not on its index alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Weighed(NamedTuple):
    log_weight: Float[Array, " b"]  # since the last resampling
    effective: Float[Array, " groups"]  # the least effective size of a group so far, as a share of its particles


def start(num: int, size: int) -> Weighed:
    """Equal weights of `num` particles in groups of `size`."""
    return Weighed(jnp.zeros(num, jnp.float32), jnp.ones(num // size, jnp.float32))


def effective_size(log_weight: Float[Array, "g p"]) -> Float[Array, " g"]:
    """(sum w)^2 / (P sum w^2), 1/P to 1."""
    weight = jax.nn.softmax(log_weight, axis=1)
    return 1 / (jnp.square(weight).sum(1) * weight.shape[1])


def ancestors(key: Array, log_weight: Float[Array, " p"]) -> Int[Array, " p"]:
    """Systematic resampling: a particle of weight w has floor(P w) or ceil(P w) children. Sorted."""
    size = len(log_weight)
    at = (jax.random.uniform(key, dtype=jnp.float32) + jnp.arange(size)) / size
    return jnp.clip(jnp.searchsorted(jnp.cumsum(jax.nn.softmax(log_weight)), at), 0, size - 1)


def resample(
    keys: Array, weighed: Weighed, particles: Float[Array, "b ..."], least: float = 0.5
) -> tuple[Weighed, Float[Array, "b ..."]]:
    """Draw the particles of those groups anew whose effective size is at most `least`. keys: one a group."""
    log_weight = weighed.log_weight.reshape(len(keys), -1)
    size = log_weight.shape[1]
    effective = effective_size(log_weight)
    low = effective <= least
    chosen = jnp.where(low[:, None], jax.vmap(ancestors)(keys, log_weight), jnp.arange(size))
    particles = particles[(chosen + size * jnp.arange(len(keys))[:, None]).ravel()]
    kept = jnp.where(low[:, None], 0, log_weight).ravel()
    return Weighed(kept, jnp.minimum(weighed.effective, effective)), particles


def problem(size: int, *of_image: np.ndarray) -> str | None:
    """What keeps images with these labels and w, [N] each, from being groups of `size`, or None."""
    if len(of_image[0]) % size:
        return f"{len(of_image[0])} images are no whole number of groups"
    same = all((np.reshape(values, (-1, size)) == np.reshape(values, (-1, size))[:, :1]).all() for values in of_image)
    return None if same else "images of a group, one after another, must have one label and one w"
