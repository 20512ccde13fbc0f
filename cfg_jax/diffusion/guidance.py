"""Classifier-free guidance: Algorithm 1's label dropout and Equation 6; and its baseline, a classifier's gradient.

w is the paper's: w = 0 is no guidance, w = -1 the unconditional model. Others' scale is s = 1 + w.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.diffusion import process


def drop_labels(key, c, p_uncond, null):
    """c -> null with probability p_uncond, each example alone. Algorithm 1, line 3."""
    return jnp.where(jax.random.bernoulli(key, p_uncond, c.shape), null, c)


def guide(eps_cond, eps_uncond, w):
    """eps~ = (1 + w) eps(z, c) - w eps(z), w scalar or [B]. Equation 6."""
    w = jnp.asarray(w)
    w = w.reshape(w.shape + (1,) * (eps_cond.ndim - 1)) if w.ndim else w
    return (1 + w) * eps_cond - w * eps_uncond


def guided(eps_fn, w, null):
    """eps_fn -> guided eps_fn: both halves in one batch of 2B. A concrete w = 0 needs, and runs, one half."""
    if _is_zero(w):
        return eps_fn

    def guided_eps(z, logsnr, c):
        logsnr = jnp.broadcast_to(logsnr, c.shape)
        labels = jnp.concatenate([c, jnp.full_like(c, null)])
        eps = eps_fn(jnp.concatenate([z, z]), jnp.concatenate([logsnr, logsnr]), labels)
        eps_cond, eps_uncond = jnp.split(eps, 2)
        return guide(eps_cond, eps_uncond, w)

    return guided_eps


def guided_by(eps_fn, other_fn, w):
    """Equation 6 with another model's eps in the place of eps(z): a separately trained pair, or autoguidance."""
    if _is_zero(w):
        return eps_fn
    return lambda z, logsnr, c: guide(eps_fn(z, logsnr, c), other_fn(z, logsnr, c), w)


def guided_by_classifier(eps_fn, log_prob, scale):
    """eps~ = eps - scale sigma grad_z log p(c | z, lambda). Dhariwal & Nichol 2021.

    log_prob: z [B, ...], logsnr [B], c [B] -> [B], each of its own image alone. scale 1 on the unconditional eps is
    Bayes' rule.
    """
    if _is_zero(scale):
        return eps_fn

    def guided_eps(z, logsnr, c):
        logsnr = jnp.broadcast_to(logsnr, c.shape)
        gradient = jax.grad(lambda z: log_prob(z, logsnr, c).sum())(z)
        sigma = process.sigma(logsnr).reshape(c.shape + (1,) * (z.ndim - 1))
        return eps_fn(z, logsnr, c) - scale * sigma * gradient

    return guided_eps


def _is_zero(w):
    return not isinstance(w, jax.core.Tracer) and bool(np.all(np.asarray(w) == 0))
