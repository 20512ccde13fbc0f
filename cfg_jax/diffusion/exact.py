"""The variance that guidance gives on two Gaussians, in closed form, and what finitely many steps leave of it.

p(x | c) = N(0, 1) and p(x) = N(0, 2), in any number of independent dimensions. eps is linear in z then, so that every
sampler is a linear map of its noises and its variance is known for any T without a sample. The ODE, Algorithm 2 and
the density p(x) p(c | x)^(1 + w) give three different answers, though their eps is the same.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cfg_jax.diffusion import process
from cfg_jax.diffusion.guidance import Guided, guide
from cfg_jax.diffusion.samplers import Predicted, State

VARIANCES = 1.0, 2.0  # of p(x | c) and of p(x)


def ode_variance(w):
    """2^-w: of the guided probability-flow ODE, in the limit of many steps."""
    return 2.0 ** -np.asarray(w)


def sde_variance(w):
    """(2 - 2^-2w) / (1 + 2w): of Algorithm 2 with any v, in the limit of many steps; 2 log 2 at w = -1/2."""
    u = math.log(2) * (1 + 2 * np.asarray(w, np.float64))
    return 2 * math.log(2) * np.where(u == 0, 1, -np.expm1(-u) / np.where(u == 0, 1, u))


def tilted_variance(w):
    """2 / (2 + w): of the density p(x | c)^(1 + w) p(x)^-w."""
    return 2 / (2 + np.asarray(w))


def eps(z: Float[Array, "b ..."], logsnr, variance: float) -> Float[Array, "b ..."]:
    """sigma z / (alpha^2 variance + sigma^2): exact, of N(0, variance)."""
    logsnr = process.per_image(logsnr, z)
    alpha, sigma = process.alpha(logsnr), process.sigma(logsnr)
    return sigma * z / (alpha**2 * variance + sigma**2)


def guided_eps(z: Float[Array, "b ..."], logsnr, w) -> Float[Array, "b ..."]:
    """Equation 6 with both of them exact."""
    cond, uncond = (eps(z, logsnr, variance) for variance in VARIANCES)
    return guide(cond, uncond, w)


def sampled_variance(sampler: Any, logsnrs, w: float, eps_fn=guided_eps) -> float:
    """The variance that a sampler leaves after the steps logsnrs [T], at w: a sum over its T + 1 noises.

    eps_fn: (z, logsnr, w) -> eps, linear in z. Image i of a batch of T + 1 has a 1 in place of its i-th noise and 0 in
    place of all others.
    """
    return float(_sampled_variance(sampler, jnp.asarray(logsnrs, jnp.float32), w, eps_fn))


@partial(jax.jit, static_argnames="eps_fn")
def _sampled_variance(sampler, logsnrs, w, eps_fn):
    """One program for a kind of sampler and T: its numbers and w are data, as in draw."""
    noises = jnp.eye(len(logsnrs) + 1)

    def predict(z, logsnr, state):
        guided = Guided.of(eps_fn(z, logsnr, w))
        return Predicted(process.predict_x(z, guided.eps, logsnr), guided.eps, guided.push), state

    def step(carry, inputs):
        z, _, state = carry
        return sampler.step(predict, z, state, *inputs), None

    begin = noises[0], noises[0], State(sampler.init(noises[0]), ())
    inputs = logsnrs, jnp.append(logsnrs[1:], logsnrs[-1]), noises[1:]
    (_, x, _), _ = jax.lax.scan(step, begin, inputs)
    return jnp.square(x).sum()
