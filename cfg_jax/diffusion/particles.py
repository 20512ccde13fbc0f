"""Feynman-Kac correction: images of one label and one w as weighted particles, so that guidance samples its density.

Guided by w at every noise level, Algorithm 2 does not sample p(x) p(c | x)^(1+w). Between two noise levels the ratio
of that density to what is sampled grows as each particle's log weight does; drawing particles anew by their weights
makes up for it. Skreta et al. 2025. An image then depends on its seed and its group, not on its index alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cfg_jax.diffusion import samplers, struct
from cfg_jax.diffusion.guidance import STATELESS


class Weighed(NamedTuple):
    log_weight: Float[Array, " b"]  # since the last resampling
    effective: Float[Array, " groups"]  # the least effective size of a group so far, as a share of its particles


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


@struct.dataclass
class ParticleWalk(samplers.Walk):
    """Algorithm 2 with images in groups of particles, whose rule gives log weights."""

    @property
    def group(self) -> int:
        """The number of images in a group. They follow one another in the batch."""
        return self.sampler.particles

    def __call__(self, keys, guided, z, c, state=STATELESS):
        """Return x [B, ...], from the same arguments as a Walk."""
        return self.weighed(keys, guided, z, c, state)[0]

    def weighed(self, keys, guided, z, c, state=STATELESS):
        """Return x [B, ...] and each group's least effective size, as a share of its particles, [groups]."""

        def resampled(t, weighed, z, least=0.5):
            group_keys = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, t), 1))(keys[:: self.group])
            return resample(group_keys, weighed, z, least)

        def step(carry, inputs):
            z, _, state, weighed = carry
            t, logsnr, logsnr_next = inputs
            out, state = guided(z, logsnr, c, state)
            answer = self.predicted(out, z, logsnr), state
            noise = samplers.noise_of(keys, t, z.shape[1:])
            z, x, _ = self.sampler.step(lambda *_: answer, z, (), logsnr, logsnr_next, noise)
            log_weight = weighed.log_weight + out.log_weight * (logsnr_next - logsnr)
            weighed, z = resampled(t, weighed._replace(log_weight=log_weight), z)
            return (z, x, state, weighed), None

        z, steps = jnp.asarray(z, jnp.float32), self.steps()
        equal = Weighed(jnp.zeros(len(z), jnp.float32), jnp.ones(len(z) // self.group, jnp.float32))
        (_, x, _, weighed), _ = jax.lax.scan(step, (z, z, state, equal), steps)
        weighed, x = resampled(len(steps[0]) + 1, weighed, x, least=1.0)
        return x, weighed.effective


def walk(sampler: Any, logsnrs: Any, threshold: Callable | None = None) -> samplers.Walk:
    """Return a sampler on its grid, a ParticleWalk where it has particles."""
    return (ParticleWalk if getattr(sampler, "particles", 0) else samplers.Walk)(sampler, logsnrs, threshold)


def problem(size: int, *of_image: np.ndarray) -> str | None:
    """Say why images with these labels and w, [N] each, cannot be groups of `size`. Return None where they can."""
    if len(of_image[0]) % size:
        return f"{len(of_image[0])} images are no whole number of groups"
    same = all((np.reshape(values, (-1, size)) == np.reshape(values, (-1, size))[:, :1]).all() for values in of_image)
    return None if same else "images of a group, one after another, must have one label and one w"
