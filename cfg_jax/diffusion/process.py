"""The Gaussian forward process and its reverse transitions, Equations 1 to 4.

logsnr is a scalar or [B] and broadcasts against z of shape [B, ...]; larger logsnr is cleaner.
"""

import jax
import jax.numpy as jnp


def alpha(logsnr):
    """alpha^2 = sigmoid(lambda). Equation 1."""
    return jnp.exp(0.5 * jax.nn.log_sigmoid(logsnr))


def sigma(logsnr):
    """sigma^2 = 1 - alpha^2 = sigmoid(-lambda). Equation 1."""
    return alpha(-logsnr)


def diffuse(x, eps, logsnr):
    """z = alpha x + sigma eps. Equation 1."""
    logsnr = _per_image(logsnr, x)
    return alpha(logsnr) * x + sigma(logsnr) * eps


def predict_x(z, eps, logsnr):
    """x = (z - sigma eps) / alpha: Equation 1 solved for x."""
    logsnr = _per_image(logsnr, z)
    return (z - sigma(logsnr) * eps) / alpha(logsnr)


def reverse_mean(z, x, logsnr, logsnr_next):
    """r (alpha'/alpha) z + (1 - r) alpha' x with r = exp(lambda - lambda'), lambda' >= lambda. Equation 3."""
    logsnr, logsnr_next = _per_image(logsnr, z), _per_image(logsnr_next, z)
    r = jnp.exp(logsnr - logsnr_next)
    one_minus_r = -jnp.expm1(logsnr - logsnr_next)
    return r * (alpha(logsnr_next) / alpha(logsnr)) * z + one_minus_r * alpha(logsnr_next) * x


def reverse_std(logsnr, logsnr_next, v):
    """sqrt of ((1-r) sigma'^2)^(1-v) ((1-r) sigma^2)^v. Equation 4; v=0 is the smaller variance of Equation 3."""
    one_minus_r = -jnp.expm1(logsnr - logsnr_next)
    log_variance = (1 - v) * jax.nn.log_sigmoid(-logsnr_next) + v * jax.nn.log_sigmoid(-logsnr)
    return jnp.sqrt(one_minus_r * jnp.exp(log_variance))


def _per_image(logsnr, z):
    """[B] -> [B, 1, ..., 1] to broadcast against z; a scalar stays as it is."""
    logsnr = jnp.asarray(logsnr)
    return logsnr.reshape(logsnr.shape + (1,) * (z.ndim - 1)) if logsnr.ndim else logsnr
