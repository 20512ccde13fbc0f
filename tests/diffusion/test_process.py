import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.diffusion import process

LOGSNRS = np.array([-20, -7.5, -1, 0, 2, 9, 20], np.float32)


def variance(logsnr):
    """sigma^2, in float64 and by the other formula."""
    return 1 / (1 + np.exp(np.float64(logsnr)))


def test_alpha_and_sigma():
    alpha, sigma = np.float64(process.alpha(LOGSNRS)), np.float64(process.sigma(LOGSNRS))
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, atol=1e-6)
    np.testing.assert_allclose(np.log(alpha**2 / sigma**2), LOGSNRS, atol=1e-5)


def test_predict_x_inverts_diffuse(rng):
    x, eps = jnp.float32(rng.standard_normal((2, 3, 4, 4, 1)))
    logsnr = np.array([-2, 0, 5], "f4")
    z = process.diffuse(x, eps, logsnr)
    np.testing.assert_allclose(z[1], (x[1] + eps[1]) / np.sqrt(2), rtol=1e-5)  # per image, not per pixel
    np.testing.assert_allclose(process.predict_x(z, eps, logsnr), x, atol=1e-5)


@pytest.mark.parametrize(("logsnr", "logsnr_next"), [(-6.0, -4.5), (-0.5, 0.5), (3.0, 8.0)])
def test_reverse_transition_is_bayes_rule(logsnr, logsnr_next):
    """q(z'|z, x) from q(z'|x) and q(z|z') by precision weighting; Equation 2 gives the second."""
    alpha2, alpha2_next = 1 - variance(logsnr), 1 - variance(logsnr_next)
    ratio = np.sqrt(alpha2 / alpha2_next)
    variance_forward = (1 - np.exp(logsnr - logsnr_next)) * variance(logsnr)
    z, x = 0.7, -0.4
    prior_mean, prior_variance = np.sqrt(alpha2_next) * x, variance(logsnr_next)
    precision = 1 / prior_variance + ratio**2 / variance_forward
    mean = (prior_mean / prior_variance + ratio * z / variance_forward) / precision
    got = process.reverse_mean(jnp.float32([z]), jnp.float32([x]), logsnr, logsnr_next)
    np.testing.assert_allclose(got, [mean], rtol=1e-5)
    assert process.reverse_std(logsnr, logsnr_next, v=0.0) == pytest.approx(1 / np.sqrt(precision), rel=1e-5)


def test_v_interpolates_log_variance_between_its_ends():
    logsnr, logsnr_next = -1.0, 2.0
    one_minus_r = 1 - np.exp(logsnr - logsnr_next)
    small, large = one_minus_r * variance(logsnr_next), one_minus_r * variance(logsnr)
    for v, expected in ((0.0, small), (1.0, large), (0.3, small**0.7 * large**0.3)):
        assert process.reverse_std(logsnr, logsnr_next, v) == pytest.approx(np.sqrt(expected), rel=1e-5)


def test_a_transition_to_itself_moves_nothing():
    z = jnp.float32([0.3, -2.0])
    np.testing.assert_array_equal(process.reverse_mean(z, z * 9, 20.0, 20.0), z)
    assert process.reverse_std(20.0, 20.0, 1.0) == 0
