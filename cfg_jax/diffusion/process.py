"""The Gaussian forward process and its reverse transitions, Equations 1 to 4; what a network may predict of it.

logsnr is a scalar or [B] and broadcasts against z of shape [B, ...]; larger logsnr is cleaner.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


def alpha(logsnr: Float[ArrayLike, "*b"]) -> Float[Array, "*b"]:
    """alpha^2 = sigmoid(lambda). Equation 1."""
    return jnp.exp(-0.5 * jax.nn.softplus(-logsnr))  # log_sigmoid has the same bits, but is -inf below -18 in ONNX


def sigma(logsnr: Float[ArrayLike, "*b"]) -> Float[Array, "*b"]:
    """sigma^2 = 1 - alpha^2 = sigmoid(-lambda). Equation 1."""
    return alpha(-logsnr)


def diffuse(x: Float[Array, "b ..."], eps: Float[Array, "b ..."], logsnr) -> Float[Array, "b ..."]:
    """z = alpha x + sigma eps. Equation 1."""
    logsnr = per_image(logsnr, x)
    return alpha(logsnr) * x + sigma(logsnr) * eps


def predict_x(z: Float[Array, "b ..."], eps: Float[Array, "b ..."], logsnr) -> Float[Array, "b ..."]:
    """x = (z - sigma eps) / alpha: Equation 1 solved for x."""
    logsnr = per_image(logsnr, z)
    return (z - sigma(logsnr) * eps) / alpha(logsnr)


def predict_eps(z: Float[Array, "b ..."], x: Float[Array, "b ..."], logsnr) -> Float[Array, "b ..."]:
    """eps = (z - alpha x) / sigma: Equation 1 solved for eps."""
    logsnr = per_image(logsnr, z)
    return (z - alpha(logsnr) * x) / sigma(logsnr)


def v_of(x: Float[Array, "b ..."], eps: Float[Array, "b ..."], logsnr) -> Float[Array, "b ..."]:
    """v = alpha eps - sigma x. Salimans & Ho 2022, Appendix D."""
    logsnr = per_image(logsnr, x)
    return alpha(logsnr) * eps - sigma(logsnr) * x


def eps_of_v(z: Float[Array, "b ..."], v: Float[Array, "b ..."], logsnr) -> Float[Array, "b ..."]:
    """eps = sigma z + alpha v, since alpha^2 + sigma^2 = 1."""
    logsnr = per_image(logsnr, z)
    return sigma(logsnr) * z + alpha(logsnr) * v


def x_of_v(z: Float[Array, "b ..."], v: Float[Array, "b ..."], logsnr) -> Float[Array, "b ..."]:
    """x = alpha z - sigma v, which divides by nothing. Salimans & Ho 2022, Appendix D."""
    logsnr = per_image(logsnr, z)
    return alpha(logsnr) * z - sigma(logsnr) * v


def velocity_of(x: Float[Array, "b ..."], eps: Float[Array, "b ..."], logsnr) -> Float[Array, "b ..."]:
    """u = x - eps: d/dt of the straight path (1 - t) eps + t x, at any t. Lipman et al. 2023."""
    return x - eps


def eps_of_velocity(z: Float[Array, "b ..."], u: Float[Array, "b ..."], logsnr) -> Float[Array, "b ..."]:
    """eps = (z - alpha u) / (alpha + sigma).

    z / (alpha + sigma) = z_t is the point of the straight path at t = alpha / (alpha + sigma), and eps = z_t - t u.
    """
    logsnr = per_image(logsnr, z)
    return (z - alpha(logsnr) * u) / (alpha(logsnr) + sigma(logsnr))


def x_of_velocity(z: Float[Array, "b ..."], u: Float[Array, "b ..."], logsnr) -> Float[Array, "b ..."]:
    """x = (z + sigma u) / (alpha + sigma): eps + u. The divisor lies in [1, sqrt(2)]."""
    logsnr = per_image(logsnr, z)
    return (z + sigma(logsnr) * u) / (alpha(logsnr) + sigma(logsnr))


def reverse_mean(z: Float[Array, "b ..."], x: Float[Array, "b ..."], logsnr, logsnr_next) -> Float[Array, "b ..."]:
    """r (alpha'/alpha) z + (1 - r) alpha' x with r = exp(lambda - lambda'), lambda' >= lambda. Equation 3."""
    logsnr, logsnr_next = per_image(logsnr, z), per_image(logsnr_next, z)
    r = jnp.exp(logsnr - logsnr_next)
    one_minus_r = -jnp.expm1(logsnr - logsnr_next)
    return r * (alpha(logsnr_next) / alpha(logsnr)) * z + one_minus_r * alpha(logsnr_next) * x


def reverse_std(logsnr: Float[ArrayLike, "*b"], logsnr_next: Float[ArrayLike, "*b"], v) -> Float[Array, "*b"]:
    """sqrt of ((1-r) sigma'^2)^(1-v) ((1-r) sigma^2)^v. Equation 4; v=0 is the smaller variance of Equation 3."""
    one_minus_r = -jnp.expm1(logsnr - logsnr_next)
    log_variance = (1 - v) * jax.nn.log_sigmoid(-logsnr_next) + v * jax.nn.log_sigmoid(-logsnr)
    return jnp.sqrt(one_minus_r * jnp.exp(log_variance))


def per_image(value, z: Float[Array, "b ..."]) -> Array:
    """[B] -> [B, 1, ..., 1] to broadcast against z; a scalar stays as it is."""
    value = jnp.asarray(value)
    return value.reshape(value.shape + (1,) * (z.ndim - 1)) if value.ndim else value
