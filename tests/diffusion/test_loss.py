import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.diffusion import process, schedule
from cfg_jax.diffusion.loss import Objective

STD, NUM = 0.3, 200_000


def exact_eps(z, logsnr, c):
    """E[eps | z] for x ~ N(1, STD^2)."""
    alpha, sigma = process.alpha(logsnr)[:, None], process.sigma(logsnr)[:, None]
    return sigma * (z - alpha) / (alpha**2 * STD**2 + sigma**2)


def draw(eps_fn):
    x = 1 + STD * jax.random.normal(jax.random.key(1), (NUM, 1))
    z, logsnr, eps = Objective().noised(jax.random.key(0), x)
    return Objective().loss(eps_fn, z, logsnr, jnp.zeros(NUM, jnp.int32), x, eps), logsnr


def test_the_exact_eps_reaches_the_minimum_in_closed_form():
    """min E |eps_theta - eps|^2 = integral p(lambda) alpha^2 s^2 / (alpha^2 s^2 + sigma^2) dlambda."""
    logsnr = np.linspace(-20, 20, 100_001)
    alpha2 = 1 / (1 + np.exp(-logsnr))
    remaining = alpha2 * STD**2 / (alpha2 * STD**2 + 1 - alpha2)
    minimum = np.trapezoid(schedule.density(logsnr) * remaining, logsnr)
    loss, _ = draw(exact_eps)
    assert loss.shape == (NUM,)
    assert abs(loss.mean() - minimum) < 4 * loss.std() / np.sqrt(NUM)
    worse, _ = draw(lambda z, logsnr, c: 1.1 * exact_eps(z, logsnr, c))
    assert worse.mean() > minimum + 4 * loss.std() / np.sqrt(NUM)


def test_an_eps_of_zero_costs_one():
    loss, logsnr = draw(lambda z, logsnr, c: jnp.zeros_like(z))
    assert abs(loss.mean() - 1) < 4 * loss.std() / np.sqrt(NUM)
    u = (np.arctan(np.exp(-np.float64(logsnr) / 2)) - 4.539993e-5) / 1.5707055269  # uniform, by the paper's a and b
    assert abs(u.mean() - 0.5) < 4 / np.sqrt(12 * NUM)
