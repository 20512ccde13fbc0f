"""Samplers walk z from noise (logsnrs[0]) up to clean (logsnrs[-1]) with any eps_fn.

Image i's randomness is its own key, so it depends neither on the batch it is in nor on w.
"""

import jax
import jax.numpy as jnp

from cfg_jax.diffusion import process


def start(seed, indices, shape):
    """(keys [B], z_1 ~ N(0, I) [B, *shape]) of the images `indices` [B] of a seed."""
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.asarray(indices))
    return keys, _noise(keys, 0, shape)


def ancestral(keys, eps_fn, z, c, logsnrs, *, v, threshold=None):
    """Algorithm 2. keys [B]; z [B, ...] ~ N(0, I); logsnrs increasing [T]; threshold: x -> x, after guidance."""

    def step(carry, inputs):
        z, _ = carry
        t, logsnr, logsnr_next = inputs
        eps = eps_fn(z, jnp.broadcast_to(logsnr, z.shape[:1]), c)
        x = process.predict_x(z, eps, logsnr)
        x = threshold(x) if threshold else x
        noise = _noise(keys, t, z.shape[1:])
        z = process.reverse_mean(z, x, logsnr, logsnr_next) + process.reverse_std(logsnr, logsnr_next, v) * noise
        return (z, x), None

    # x of the last step is the sample: its transition, to itself, moves nothing
    logsnrs = jnp.asarray(logsnrs)
    inputs = (jnp.arange(1, len(logsnrs) + 1), logsnrs, jnp.append(logsnrs[1:], logsnrs[-1]))
    (_, x), _ = jax.lax.scan(step, (z, z), inputs)
    return x


def clip(x):
    """Static threshold: x to [-1, 1]."""
    return jnp.clip(x, -1, 1)


def dynamic_threshold(x, quantile=0.995):
    """Clip to [-s, s] and divide by s, s = max(1, the image's quantile of |x|). Saharia et al. 2022."""
    s = jnp.quantile(jnp.abs(x), quantile, axis=tuple(range(1, x.ndim)), keepdims=True)
    s = jnp.maximum(s, 1)
    return jnp.clip(x, -s, s) / s


def _noise(keys, t, shape):
    """N(0, I) [B, *shape] of step t, each image from its own key."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, t), shape))(keys)
