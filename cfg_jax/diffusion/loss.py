"""The training objective, Equation 5 and Algorithm 1."""

import jax
import jax.numpy as jnp

from cfg_jax.diffusion import process, schedule


def eps_loss(key, eps_fn, x, c, *, logsnr_min=-20.0, logsnr_max=20.0):
    """|| eps_theta(z, lambda, c) - eps ||^2, averaged over an image's elements. Equation 5, unweighted.

    x [B, ...] in [-1, 1], c int32 [B] with labels already dropped -> loss [B], logsnr [B].
    """
    u_key, eps_key = jax.random.split(key)
    logsnr = schedule.logsnr(jax.random.uniform(u_key, x.shape[:1]), logsnr_min, logsnr_max)
    eps = jax.random.normal(eps_key, x.shape)
    z = process.diffuse(x, eps, logsnr)
    error = jnp.square(eps_fn(z, logsnr, c) - eps)
    return error.mean(axis=tuple(range(1, x.ndim))), logsnr
