"""log p(x) of a diffusion model, by its probability-flow ODE and by the variational bound.

The ODE of Equation 1's process in lambda is dz/dlambda = sigma (sigma z - eps(z, lambda)) / 2, and along it
d log p_lambda(z) / dlambda = - its divergence. Song et al. 2021. Any eps_fn may be asked, but what comes out is the
likelihood of what this eps_fn's ODE samples: guided, that is no p(x)p(c | x)^(1 + w).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cfg_jax.diffusion import guidance, process

EXACT_UP_TO = 64  # dimensions of which the whole trace is taken; above, it is estimated


def log_likelihood(
    eps_fn: Callable, x: Float[Array, "b ..."], c: Int[Array, " b"], key: Array, logsnrs, probes: int = 0
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Return log p(x | c) in nats, and the standard error of the trace's estimate, 0 where it is exact.

    logsnrs increasing [T] are the ODE's steps, each by the classical Runge-Kutta formula: 4 evaluations of eps_fn and
    its derivatives. probes: random directions for the trace, the same at all steps (Hutchinson); 0 takes all of them.
    """
    x, dim = jnp.asarray(x, jnp.float32), math.prod(x.shape[1:])
    if probes:
        directions = jax.random.rademacher(key, (probes, *x.shape), x.dtype)
    else:
        directions = jnp.broadcast_to(jnp.eye(dim).reshape(dim, 1, *x.shape[1:]), (dim, *x.shape))

    def rate(state, logsnr):
        """d/dlambda of z, and of log p by each direction [probes, B]."""
        flow = lambda z: along_ode(z, eps_fn(z, jnp.broadcast_to(logsnr, c.shape), c), logsnr)  # noqa: E731
        velocity, pushed = jax.linearize(flow, state[0])
        along = lambda u: (u * pushed(u)).reshape(len(x), -1).sum(1)  # noqa: E731
        return velocity, -jax.lax.map(along, directions, batch_size=16)

    begin = x * process.alpha(jnp.asarray(logsnrs)[-1]), jnp.zeros((len(directions), len(x)))
    z, gained = runge_kutta(rate, begin, jnp.asarray(logsnrs)[::-1])
    prior = -0.5 * (jnp.square(z).reshape(len(x), -1).sum(1) + dim * jnp.log(2 * jnp.pi))
    if probes:  # each direction estimates the whole trace
        error = gained.std(0, ddof=1) / jnp.sqrt(probes) if probes > 1 else jnp.full(len(x), jnp.nan)
        return prior - gained.mean(0), error
    return prior - gained.sum(0), jnp.zeros(len(x))


def along_ode(z: Float[Array, "b ..."], eps: Float[Array, "b ..."], logsnr) -> Float[Array, "b ..."]:
    """dz/dlambda = sigma (sigma z - eps) / 2 of the probability-flow ODE."""
    sigma = process.sigma(logsnr)
    return sigma * (sigma * z - eps) / 2


def runge_kutta(rate: Callable, state, logsnrs: Float[Array, " t"]):
    """Return the state at logsnrs[-1], from that at logsnrs[0]. rate: (state, logsnr) -> d state / d logsnr."""

    def step(state, ends):
        begin, end = ends
        h = end - begin
        ahead = lambda rates, share: jax.tree.map(lambda s, r: s + share * h * r, state, rates)  # noqa: E731
        k1 = rate(state, begin)
        k2 = rate(ahead(k1, 0.5), begin + h / 2)
        k3 = rate(ahead(k2, 0.5), begin + h / 2)
        k4 = rate(ahead(k3, 1.0), end)
        return jax.tree.map(lambda s, a, b, c, d: s + h * (a + 2 * b + 2 * c + d) / 6, state, k1, k2, k3, k4), None

    return jax.lax.scan(step, state, (logsnrs[:-1], logsnrs[1:]))[0]


def guided_loss(
    eps_fn: Callable, x: Float[Array, "b ..."], c: Int[Array, " b"], w, null: int, logsnrs
) -> Float[Array, " b"]:
    """Return by how much the log density of guided DDIM is below that of p(x | c)^(1 + w) p(x)^-w, up to a constant.

    In nats, in the limit of many steps: the log density of guided DDIM is (1 + w) log p(x | c) - w log p(x) less this.
    It is w (1 + w) / 2 times the integral of |eps(z, c) - eps(z)|^2 over the log-SNR, along the guided path that ends
    at x: the log weight of a particle with its sign reversed. arXiv 2607.19725. logsnrs increasing [T], the steps of
    log_likelihood.
    """

    def rate(state, logsnr):
        halves = guidance.both_halves(eps_fn, null, state[0], logsnr, c)
        # the path is followed from its clean end to its noise, and the integral grows
        return along_ode(state[0], guidance.guide(*halves, w), logsnr), -guidance.log_weight_rate(*halves, w)

    x = jnp.asarray(x, jnp.float32)
    begin = x * process.alpha(jnp.asarray(logsnrs)[-1]), jnp.zeros(len(x))
    return runge_kutta(rate, begin, jnp.asarray(logsnrs)[::-1])[1]


def lower_bound(
    eps_fn: Callable, x: Float[Array, "b ..."], c: Int[Array, " b"], key: Array, logsnrs
) -> Float[Array, " b"]:
    """The variational bound of log p(x | c), in nats.

    E log p(x | z_clean) - KL(z_noise || N(0, I)) - 1/2 int |eps^ - eps|^2 dlambda. One noise at each of the
    logsnrs, increasing [T], and the trapezoidal rule. Kingma et al. 2021, in continuous time.
    """
    x, dim = jnp.asarray(x, jnp.float32), math.prod(x.shape[1:])
    ends = jnp.asarray(logsnrs)[0], jnp.asarray(logsnrs)[-1]

    def error(at):
        logsnr, key = at
        eps = jax.random.normal(key, x.shape)
        z = process.diffuse(x, eps, logsnr)
        wrong = eps_fn(z, jnp.broadcast_to(logsnr, c.shape), c) - eps
        return jnp.square(wrong).reshape(len(x), -1).sum(1)

    errors = jax.lax.map(error, (jnp.asarray(logsnrs), jax.random.split(key, len(logsnrs))))
    integral = jnp.trapezoid(errors, jnp.asarray(logsnrs), axis=0)
    variance, mean = process.sigma(ends[0]) ** 2, jnp.square(process.alpha(ends[0]) * x).reshape(len(x), -1).sum(1)
    kl = 0.5 * (mean + dim * (variance - 1 - jnp.log(variance)))
    log_std = -ends[1] / 2  # of x given the cleanest z
    reconstruction = -0.5 * dim * (1 + math.log(2 * math.pi)) - dim * log_std
    return reconstruction - kl - integral / 2


def bits_per_dimension(log_p: Float[Array, " b"], dim: int) -> Float[Array, " b"]:
    """-log2 of the probability of a picture's uint8 values, a dimension, from the density of x in [-1, 1].

    x has been dequantised: uniform noise of one level, 1 / 127.5, is added before the density is taken.
    """
    return -log_p / dim / math.log(2) + math.log2(127.5)
