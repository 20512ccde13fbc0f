import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cfg_jax.diffusion import schedule


def test_ends_and_direction():
    assert schedule.logsnr(0.0) == pytest.approx(20, abs=1e-9)
    assert schedule.logsnr(1.0) == pytest.approx(-20, abs=1e-9)
    assert np.all(np.diff(schedule.logsnr(np.linspace(0, 1, 101))) < 0)


@pytest.mark.parametrize("ends", [(-20.0, 20.0), (-5.0, 9.0)])
def test_is_the_angle_of_the_paper(ends):
    """With phi = a u + b: alpha = cos(phi), sigma = sin(phi)."""
    low, high = ends
    u = np.linspace(0, 1, 33)
    b = np.arctan(np.exp(-high / 2))
    phi = (np.arctan(np.exp(-low / 2)) - b) * u + b
    alpha = np.sqrt(1 / (1 + np.exp(-schedule.logsnr(u, low, high))))
    np.testing.assert_allclose(alpha, np.cos(phi), rtol=1e-6, atol=1e-9)


def test_float32_on_device_is_as_good_as_float64_at_both_ends():
    u = np.concatenate([np.linspace(0, 1e-4, 50), 1 - np.linspace(0, 1e-4, 50), np.linspace(0, 1, 50)]).astype("f4")
    np.testing.assert_allclose(schedule.logsnr(jnp.asarray(u)), schedule.logsnr(u.astype("f8")), atol=2e-5)


def test_density_is_that_of_the_draws():
    """p(lambda) = |du / dlambda|, a hyperbolic secant that integrates to one."""
    u = np.linspace(0.01, 0.99, 2001)
    logsnr = schedule.logsnr(u)
    middle = (logsnr[1:] + logsnr[:-1]) / 2
    np.testing.assert_allclose(schedule.density(middle), -np.diff(u) / np.diff(logsnr), rtol=2e-3)
    fine = np.linspace(-20, 20, 20001)
    assert np.trapezoid(schedule.density(fine), fine) == pytest.approx(1, abs=1e-6)
    assert schedule.density(25.0) == 0


def test_a_logit_normal_t():
    """Quantiles of lambda / 2 are the normal's; no draw is infinite, and none lies beyond the ends."""
    u = np.linspace(0.001, 0.999, 999)
    half = schedule.logsnr_of_logit(jnp.float32(u), -20.0, 20.0, -0.8, 0.5) / 2
    np.testing.assert_allclose(half, stats.norm(-0.8, 0.5).ppf(1 - u), atol=1e-5)
    ends = schedule.logsnr_of_logit(jnp.float32([0, 1]), -20.0, 20.0, -0.8, 0.8)
    assert 6 < ends[0] < 8 and ends[1] == -20
    assert schedule.logsnr_of_logit(jnp.float32([0.01]), -1.0, 1.0, 0.0, 1.0) == 1


def test_grids():
    paper, shifted = schedule.grid(256), schedule.grid(256, spacing="shifted")
    assert paper.dtype == np.float32 and paper.shape == (256,)
    assert np.all(np.diff(paper) > 0) and np.all(np.diff(shifted) > 0)
    assert (paper[0], paper[-1]) == pytest.approx((-20, 20))
    np.testing.assert_allclose(paper, schedule.logsnr(1 - np.arange(256) / 255), rtol=1e-6)
    np.testing.assert_allclose(shifted, schedule.logsnr(np.arange(256, 0, -1) / 256), rtol=1e-6)
    assert len(schedule.grid(1)) == 1
    for bad in ({"num_steps": 0}, {"num_steps": 4, "spacing": "cosine"}):
        with pytest.raises(ValueError):
            schedule.grid(**bad)
