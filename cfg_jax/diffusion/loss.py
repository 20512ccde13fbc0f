"""The training objective, Equation 5 and Algorithm 1."""

import jax
import jax.numpy as jnp

from cfg_jax.diffusion import process, schedule


def eps_loss(key, eps_fn, x, c, *, logsnr_min=-20.0, logsnr_max=20.0):
    """|| eps_theta(z, lambda, c) - eps ||^2, averaged over an image's elements. Equation 5, unweighted.

    x [B, ...] in [-1, 1], c int32 [B] with labels already dropped -> loss [B], logsnr [B].
    """
    z, logsnr, eps = noised(key, x, logsnr_min=logsnr_min, logsnr_max=logsnr_max)
    return squared_error(eps_fn, z, logsnr, c, eps), logsnr


def noised(key, x, *, logsnr_min, logsnr_max):
    """Every image at a log-SNR of its own -> z, logsnr [B], eps."""
    u_key, eps_key = jax.random.split(key)
    logsnr = schedule.logsnr(jax.random.uniform(u_key, x.shape[:1]), logsnr_min, logsnr_max)
    eps = jax.random.normal(eps_key, x.shape)
    return process.diffuse(x, eps, logsnr), logsnr, eps


def squared_error(eps_fn, z, logsnr, c, eps):
    """[B], the mean over an image's elements."""
    return jnp.square(eps_fn(z, logsnr, c) - eps).mean(axis=tuple(range(1, z.ndim)))
