import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.diffusion import guidance, process, samplers, schedule
from cfg_jax.models.mixture import Mixture

NUM = 20_000
T256 = schedule.grid(256)


def gaussian_eps(means, std):
    """Exact eps of x | c ~ N(means[c], std^2)."""

    def eps_fn(z, logsnr, c):
        alpha, sigma = process.alpha(logsnr)[:, None], process.sigma(logsnr)[:, None]
        return sigma * (z - alpha * jnp.asarray(means)[c][:, None]) / (alpha**2 * std**2 + sigma**2)

    return eps_fn


def draw(eps_fn, c, logsnrs=T256, v=0.3, seed=0, threshold=None, dim=1):
    @jax.jit
    def run(c):
        keys, z = samplers.start(seed, jnp.arange(len(c)), (dim,))
        return samplers.ancestral(keys, eps_fn, z, c, logsnrs, v=v, threshold=threshold)

    return np.asarray(run(c))


def assert_moments(x, mean, std):
    """Mean to 4 standard errors; the discrete grid at T = 256 makes the spread up to 2 % too small."""
    assert abs(x.mean() - mean) < 4 * std / np.sqrt(len(x)) + 1e-3
    assert 0.97 * std < x.std() < 1.01 * std


@pytest.mark.parametrize("v", [0.0, 0.3, 1.0])
def test_exact_eps_recovers_a_gaussian(v):
    x = draw(gaussian_eps([1.0], 0.3), jnp.zeros(NUM, jnp.int32), v=v)
    assert_moments(x, 1.0, 0.3)


def test_exact_eps_recovers_a_mixture():
    mixture = Mixture(jnp.float32([[-1.0], [0.5]]), jnp.float32([0.1, 0.3]), jnp.float32([0.25, 0.75]))
    x = draw(mixture.eps_fn, jnp.full(NUM, mixture.null))[:, 0]
    left = x < -0.5
    assert abs(left.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / NUM) + 2e-3
    assert_moments(x[left], -1.0, 0.1)
    right = mixture.sample(jax.random.key(0), 400_000)[0]
    right = np.asarray(right[right > -0.5])
    assert_moments(x[~left], right.mean(), right.std())


@pytest.mark.parametrize("w", [0.5, 2.0])
def test_guided_gaussians_of_equal_covariance(w):
    """(1+w) score_c - w score_0 is the score of N((1+w) m_c - w m_0, s^2) at every lambda."""
    eps_fn = guidance.guided(gaussian_eps([0.2, -0.1], 0.3), w, null=1)
    x = draw(eps_fn, jnp.zeros(NUM, jnp.int32))
    assert_moments(x, (1 + w) * 0.2 + w * 0.1, 0.3)


def test_the_last_step_returns_x_and_not_z():
    """One step at logsnr 0 from z with eps = 0 is z / alpha = sqrt(2) z, without noise."""
    keys, z = samplers.start(0, jnp.arange(4), (3,))
    x = samplers.ancestral(keys, lambda z, *_: jnp.zeros_like(z), z, jnp.zeros(4), np.zeros(1, "f4"), v=0.3)
    np.testing.assert_allclose(x, np.sqrt(2) * z, rtol=1e-6)


def test_two_steps_by_hand():
    """x of the first step by eps = 0, the transition to logsnr 1, then x again."""
    keys, z = samplers.start(3, jnp.arange(5), (2,))
    x = samplers.ancestral(keys, lambda z, *_: 0 * z, z, jnp.zeros(5), np.float32([-1, 1]), v=1.0)
    alpha2, alpha2_next, r = 1 / (1 + np.e), np.e / (1 + np.e), np.exp(-2)
    x_1 = z / np.sqrt(alpha2)
    mean = r * np.sqrt(alpha2_next / alpha2) * z + (1 - r) * np.sqrt(alpha2_next) * x_1
    noise = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, 1), (2,)))(keys)
    z_2 = mean + np.sqrt((1 - r) * (1 - alpha2)) * noise
    np.testing.assert_allclose(x, z_2 / np.sqrt(alpha2_next), rtol=1e-5)


def test_an_image_depends_on_its_own_index_alone():
    eps_fn, c = gaussian_eps([1.0, -1.0], 0.3), jnp.arange(8) % 2
    logsnrs = schedule.grid(8)

    def run(indices):
        keys, z = samplers.start(0, indices, (2, 2))
        wide = lambda z, logsnr, c: eps_fn(z.reshape(len(z), -1), logsnr, c).reshape(z.shape)  # noqa: E731
        return samplers.ancestral(keys, wide, z, c[indices], logsnrs, v=0.3)

    whole = run(jnp.arange(8))
    np.testing.assert_allclose(run(jnp.int32([6, 1])), whole[jnp.int32([6, 1])], rtol=1e-6)
    assert len(np.unique(np.asarray(whole))) == whole.size


def test_thresholds():
    x = jnp.float32([[0.5, -3.0, 0.2, 0.1], [0.5, -0.3, 0.2, 0.1]])
    np.testing.assert_allclose(samplers.clip(x)[0], [0.5, -1, 0.2, 0.1])
    dynamic = samplers.dynamic_threshold(x, quantile=1.0)
    np.testing.assert_allclose(dynamic[0], x[0] / 3, rtol=1e-6)  # s = 3, per image
    np.testing.assert_allclose(dynamic[1], x[1], rtol=1e-6)  # s is never below 1
    clipped = draw(gaussian_eps([1.0], 0.3), jnp.zeros(500, jnp.int32), schedule.grid(16), threshold=samplers.clip)
    assert clipped.max() == 1


def test_the_mixtures_eps_is_the_posterior_mean():
    """eps = (z - alpha E[x|z]) / sigma, with E[x|z] from the components' posteriors."""
    mixture = Mixture(jnp.float32([[1.0, 0.0], [-1.0, 0.5]]), jnp.float32([0.5, 0.2]), jnp.float32([0.3, 0.7]))
    z, logsnr = np.float64([0.3, -0.2]), 0.7
    alpha2 = 1 / (1 + np.exp(-logsnr))
    variances = alpha2 * np.float64([0.5, 0.2]) ** 2 + 1 - alpha2
    means = np.sqrt(alpha2) * np.float64(mixture.means)
    weights = np.float64([0.3, 0.7]) * np.exp(-np.square(z - means).sum(1) / 2 / variances) / variances
    gain = np.sqrt(alpha2) * np.float64([0.5, 0.2]) ** 2 / variances
    posterior = np.float64(mixture.means) + gain[:, None] * (z - means)
    expected_x = (weights[:, None] * posterior).sum(0) / weights.sum()
    for c, x in ((mixture.null, expected_x), (1, posterior[1])):
        eps = mixture.eps_fn(jnp.float32([z]), jnp.float32([logsnr]), jnp.int32([c]))[0]
        np.testing.assert_allclose(eps, (z - np.sqrt(alpha2) * x) / np.sqrt(1 - alpha2), rtol=1e-4)
