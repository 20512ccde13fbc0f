import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.diffusion import exact, guidance, likelihood, schedule
from cfg_jax.models.mixture import Gaussians, Mixture

GRID = schedule.grid(305, -24, 14, "logsnr")
MIXTURE = Mixture(jnp.float32([[-1.0, 0.3], [0.5, 0.0]]), jnp.float32([0.4, 0.7]), jnp.float32([0.3, 0.7]))
X, C = MIXTURE.sample(jax.random.key(0), 64)


@pytest.mark.slow
def test_the_odes_likelihood_is_the_mixtures():
    """Exact trace, of the density that the cleanest noise blurs by its own variance, exp(-14)."""
    for c in (C, jnp.full(64, MIXTURE.null)):
        found, error = likelihood.log_likelihood(MIXTURE.eps_fn, X, c, jax.random.key(1), GRID)
        truth = jax.vmap(lambda x, c: MIXTURE.log_density(x, jnp.float32(40.0), c))(X, c)
        np.testing.assert_allclose(found, truth, atol=1e-4)
        assert (error == 0).all()


@pytest.mark.slow
def test_hutchinsons_estimate_has_the_error_that_it_says():
    null = jnp.full(64, MIXTURE.null)  # one component's Jacobian is a multiple of the identity: any direction tells it
    found, error = likelihood.log_likelihood(MIXTURE.eps_fn, X, null, jax.random.key(1), GRID[::4], probes=32)
    truth, _ = likelihood.log_likelihood(MIXTURE.eps_fn, X, null, jax.random.key(1), GRID[::4])
    off = np.abs(found - truth) / np.maximum(error, 1e-3)
    assert error.max() > 1e-3 and off.max() < 5 and np.mean(off < 2) > 0.8


@pytest.mark.slow
def test_the_bound_is_below_the_likelihood_and_near_it():
    """Where eps is exact only the noise of the estimate, and what the discrete ends leave, part them."""
    many = jnp.repeat(X[:8], 256, axis=0)
    bound = likelihood.lower_bound(MIXTURE.eps_fn, many, jnp.repeat(C[:8], 256), jax.random.key(2), GRID)
    bound = np.asarray(bound).reshape(8, 256)
    truth = jax.vmap(lambda x, c: MIXTURE.log_density(x, jnp.float32(40.0), c))(X[:8], C[:8])
    gap = truth - bound.mean(1)
    assert (gap > -4 * bound.std(1) / 16).all()  # a bound
    assert gap.mean() < 1.5


@pytest.mark.parametrize("w", [-0.5, 1.0, 2.0])
def test_what_guided_ddim_loses_of_the_tilted_density_on_two_gaussians(w):
    """p(x | c) = N(0, 1), p(x) = N(0, 2): the density is N(0, 2^-w); at w = 1 the loss is x^2 / 4."""
    two = Gaussians(jnp.zeros((2, 1)), jnp.sqrt(jnp.float32(exact.VARIANCES)))
    x, grid = jnp.linspace(-2, 2, 21)[:, None], schedule.grid(64, -16, 16, "logsnr")
    loss = likelihood.guided_loss(two.eps_fn, x, jnp.zeros(21, int), w, 1, grid)
    if w == 1:
        np.testing.assert_allclose(loss, x[:, 0] ** 2 / 4, atol=1e-4)
    log_density = (1 + w) * -(x[:, 0] ** 2) / 2 - w * -(x[:, 0] ** 2) / 4 - loss
    np.testing.assert_allclose(log_density, -(x[:, 0] ** 2) / 2 / exact.ode_variance(w), atol=1e-4)


@pytest.mark.slow
def test_the_density_of_guided_ddim_on_a_mixture_is_that_of_its_ode():
    """Up to a constant, by the trace of the guided ODE: two formulas that share nothing but eps."""
    w, c = 1.5, jnp.zeros(64, int)
    own, _ = likelihood.log_likelihood(guidance.guided(MIXTURE.eps_fn, w, MIXTURE.null), X, c, jax.random.key(1), GRID)
    of = lambda c: jax.vmap(lambda x: MIXTURE.log_density(x, jnp.float32(40.0), jnp.int32(c)))(X)  # noqa: E731
    loss = likelihood.guided_loss(MIXTURE.eps_fn, X, c, w, MIXTURE.null, GRID)
    apart = (1 + w) * of(0) - w * of(MIXTURE.null) - loss - own
    assert float(apart.std()) < 0.01 * float(loss.std())


def test_bits_per_dimension():
    """Uniform over all 256 levels: the density of x is 1/2 a dimension up to the outer half levels, 8 bits."""
    log_p = jnp.float32([-3 * np.log(256 / 127.5)])
    np.testing.assert_allclose(likelihood.bits_per_dimension(log_p, 3), [8.0], rtol=1e-6)


@pytest.mark.parametrize("w", [1.0])
def test_guided_samples_are_likelier_given_their_class_and_less_so_without(w):
    """Claim 5 on exact Gaussians of one covariance: guidance moves the mean away from all."""
    model = Gaussians(jnp.float32([[0.5], [0.0]]), jnp.float32([0.5, 1.0]))
    z = 0.5 + 0.5 * jax.random.normal(jax.random.key(0), (256, 1))
    c = jnp.zeros(256, int)
    given, _ = likelihood.log_likelihood(model.eps_fn, z, c, jax.random.key(1), GRID[::2])
    guided = guidance.guided(model.eps_fn, w, model.null)
    of_guided, _ = likelihood.log_likelihood(guided, z, c, jax.random.key(1), GRID[::2])
    assert np.abs(of_guided - given).mean() > 0.1  # the guided ODE's own density is another
    truth = -0.5 * ((z[:, 0] - 0.5) / 0.5) ** 2 - np.log(0.5 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(given, truth, atol=1e-3)
