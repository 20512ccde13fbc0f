"""The noise level that a network is told, a function of log-SNR: a continuous one, and the steps of ADM's schedules."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cfg_jax.diffusion import flow


def continuous(logsnr: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """logsnr -> ADM's time scale, 0 (clean) to 1000 (noise): 1000 arctan(exp(-logsnr/2)) / (pi/2)."""
    return 1000 * jnp.arctan(jnp.exp(-logsnr / 2)) / (jnp.pi / 2)


def cosine_logsnrs() -> Float[np.ndarray, " 1000"]:
    """lambda_t of the cosine schedule: beta_t = min(1 - f(t+1) / f(t), 0.999), f = cos^2(pi/2 (t/T + s) / (1 + s))."""
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    return _logsnrs(np.minimum(1 - f[1:] / f[:-1], 0.999))


def linear_logsnrs() -> Float[np.ndarray, " 1000"]:
    """lambda_t of the linear schedule: beta_t rises from 1e-4 to 0.02."""
    return _logsnrs(np.linspace(1e-4, 0.02, 1000))


def _logsnrs(betas: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """log(alpha_bar / (1 - alpha_bar)) with alpha_bar_t = prod_{i <= t} (1 - beta_i). In float64; it falls with t."""
    log_alpha_bar = np.cumsum(np.log1p(-betas))
    return log_alpha_bar - np.log(-np.expm1(log_alpha_bar))


def discrete_time(logsnrs: Float[np.ndarray, " 1000"]) -> Callable:
    """A function logsnr -> t in [0, 999]. It is exact at the levels of the schedule and linear between them."""
    return lambda logsnr: jnp.interp(-logsnr, jnp.asarray(-logsnrs), jnp.arange(float(len(logsnrs))))


# config.model.time -> what the time embedding sees of a log-SNR; one function object each, because jit compares it
NOISE_LEVELS = {
    "logsnr": continuous,
    "t": flow.time_of,
    "adm_cosine": discrete_time(cosine_logsnrs()),
    "adm_linear": discrete_time(linear_logsnrs()),
}
