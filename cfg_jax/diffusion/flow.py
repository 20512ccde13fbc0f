"""Flow matching's own time and velocity: the straight path z_t = (1 - t) eps + t x, noise at t = 0, clean at t = 1.

It is Equation 1's process in other units, with alpha = t / l and sigma = (1 - t) / l at l = sqrt(t^2 + (1 - t)^2): the
log-SNR is 2 log(t / (1 - t)) and z of Equation 1 is z_t / l. So a network of one is walked as the other. Lipman et al.
2023; Liu et al. 2023 for straightness and rectified flow.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cfg_jax.diffusion import loss, process

CLOSEST = 1 / (1 + jnp.e**10)  # to either end, where the log-SNR is -20 or 20: beyond it float32 tells nothing


def logsnr_of(t):
    """2 log(t / (1 - t)), of a t no closer to 0 and 1 than a log-SNR of 20 is."""
    t = jnp.clip(t, CLOSEST, 1 - CLOSEST)
    return 2 * (jnp.log(t) - jnp.log1p(-t))


def time_of(logsnr):
    """t = alpha / (alpha + sigma) of a log-SNR, 0 (noise) to 1 (clean)."""
    return jax.nn.sigmoid(jnp.asarray(logsnr) / 2)


def velocity_fn(field: Callable, predicts: str = "eps") -> Callable:
    """An eps_fn, guided or not -> v(z_t [B, ...], scalar t, c [B]) = E[x - eps | z_t].

    predicts: what the field gives, if that is another one of loss.PREDICTIONS.
    """

    def velocity(z, t, c):
        logsnr = jnp.broadcast_to(logsnr_of(t), z.shape[:1])
        at = process.per_image(logsnr, z)
        z = z * (process.alpha(at) + process.sigma(at))  # 1 / l
        return loss.convert(field(z, logsnr, c), z, logsnr, predicts, "velocity")

    return velocity


def euler(velocity: Callable, z: Float[Array, "b ..."], c: Int[Array, " b"], times) -> Float[Array, "t b ..."]:
    """Euler's path along a velocity from z at times[0], with z itself: [T, B, ...] at the T times."""

    def step(z, inputs):
        t, t_next = inputs
        z = z + (t_next - t) * velocity(z, t, c)
        return z, z

    times = jnp.asarray(times)
    _, after = jax.lax.scan(step, z, (times[:-1], times[1:]))
    return jnp.concatenate([z[None], after])


def straightness(path: Float[Array, "t b ..."], times) -> Float[Array, " b"]:
    """The mean over t and elements of |v_t - (z_1 - z_0)|^2 on paths from t = 0 to 1; 0 of a straight line.

    Liu et al. 2023. path and times: as of euler.
    """
    times = process.per_image(jnp.asarray(times), path)
    lengths = jnp.diff(times, axis=0)
    velocity = jnp.diff(path, axis=0) / lengths
    off = jnp.square(velocity - (path[-1] - path[0]) / (times[-1] - times[0]))
    return (off * lengths).sum(0).mean(axis=tuple(range(1, path.ndim - 1))) / (times[-1] - times[0]).ravel()
