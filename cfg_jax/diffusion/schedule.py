"""Log-SNR schedule: u -> logsnr = log(alpha^2 / sigma^2), larger is cleaner.

u = 0 is clean (logsnr_max), u = 1 is noise (logsnr_min). Section 3.1 of the paper.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def logsnr(u, logsnr_min=-20.0, logsnr_max=20.0):
    """lambda(u) = -2 log tan(a u + b), u ~ U[0, 1] in Algorithm 1.

    A jax array stays on device; anything else is computed in float64 on the host.
    """
    xp = jnp if isinstance(u, jax.Array) else np
    b = math.atan(math.exp(-logsnr_max / 2))
    b_end = math.atan(math.exp(logsnr_min / 2))  # pi/2 - (a + b)
    a = math.pi / 2 - b_end - b
    # tan(phi) = 1 / tan(pi/2 - phi): measured from the nearer end, so that float32 keeps both exact
    clean = -2 * xp.log(xp.tan(a * xp.minimum(u, 0.5) + b))
    noisy = 2 * xp.log(xp.tan(a * xp.minimum(1 - u, 0.5) + b_end))
    return xp.where(u <= 0.5, clean, noisy)


def logsnr_of_t(u, logsnr_min=-20.0, logsnr_max=20.0):
    """lambda = 2 log(t / (1 - t)) at t uniform between the t of the two ends: the straight path z = (1 - t) eps + t x.

    u ~ U[0, 1], an array; u = 0 is clean, as above.
    """
    xp = jnp if isinstance(u, jax.Array) else np
    low, high = (1 / (1 + math.exp(-end / 2)) for end in (logsnr_min, logsnr_max))
    noise = 1 / (1 + math.exp(logsnr_max / 2)) + (high - low) * u  # 1 - t, without what float32 loses of it near 0
    return 2 * (xp.log(low + (high - low) * (1 - u)) - xp.log(noise))


def logsnr_of_logit(u, logsnr_min=-20.0, logsnr_max=20.0, mean=0.0, std=1.0):
    """lambda = 2 logit(t), logit(t) ~ N(mean, std^2): the straight path at a logit-normal t. Esser et al. 2024.

    u ~ U[0, 1], a float32 array; u = 0 is clean, as above. What lies beyond the two ends is moved to them.
    """
    u = jnp.maximum(u, 2.0**-24)  # a float32 that is drawn as 0 stands for a number as small as this
    return jnp.clip(2 * (mean - std * jax.scipy.special.ndtri(u)), logsnr_min, logsnr_max)


def density(logsnr, logsnr_min=-20.0, logsnr_max=20.0):
    """p(lambda) = sech(lambda / 2) / (4 a): a hyperbolic secant, truncated to the range."""
    a = math.atan(math.exp(-logsnr_min / 2)) - math.atan(math.exp(-logsnr_max / 2))
    inside = (logsnr >= logsnr_min) & (logsnr <= logsnr_max)
    return np.where(inside, 1 / (4 * a * np.cosh(np.asarray(logsnr, np.float64) / 2)), 0.0)


def grid(num_steps, logsnr_min=-20.0, logsnr_max=20.0, spacing="paper"):
    """lambda_1 < ... < lambda_T of Algorithm 2 as float32 [T].

    "paper" is at uniformly spaced u with both ends, u = 1 ... 0; "shifted" has u = i/T, so the last evaluation is at
    u = 1/T. "t" is as that at uniformly spaced t of the straight path. "logsnr" is uniform in lambda itself, as solvers
    of the ODE ask for it.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps (T) must be at least 1, got {num_steps}")
    if spacing == "logsnr":
        return np.linspace(logsnr_min, logsnr_max, num_steps, dtype=np.float32)
    of_u = {"paper": (logsnr, 0.0), "shifted": (logsnr, 1 / num_steps), "t": (logsnr_of_t, 1 / num_steps)}
    if spacing not in of_u:
        raise ValueError(f"grid must be one of {sorted([*of_u, 'logsnr'])}, got {spacing!r}")
    schedule, last = of_u[spacing]
    return schedule(np.linspace(1.0, last, num_steps), logsnr_min, logsnr_max).astype(np.float32)
