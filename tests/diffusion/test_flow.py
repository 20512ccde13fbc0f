"""Flow matching beside Equation 1: one process in two units, so one network is walked as either."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.diffusion import flow, guidance, loss, process, samplers, schedule
from cfg_jax.models.mixture import Gaussians, Mixture

PLANE = Mixture(jnp.float32([[-1.0, 0.3], [0.8, 0.0]]), jnp.float32([0.3, 0.5]), jnp.float32([0.4, 0.6]))
NUM = 64


def noise(num=NUM):
    return samplers.start(0, jnp.arange(num), (2,))


def walk(sampler, logsnrs, eps_fn, num=NUM):
    keys, z = noise(num)
    run = jax.jit(lambda keys, z: samplers.Walk(sampler, logsnrs)(keys, samplers.plain(eps_fn), z, jnp.zeros(num, int)))
    return run(keys, z)


@pytest.mark.slow
def test_the_velocity_is_the_mean_of_x_less_eps_and_t_v_is_z_plus_the_score():
    """v = (z_t + (1 - t) score) / t, the score of z_t, by a sum over a fine grid of x."""
    z, c = jnp.float32([[0.4, -0.2], [-1.5, 0.9]]), jnp.int32([1, 2])
    for t in (0.2, 0.5, 0.9):
        v = flow.velocity_fn(PLANE.eps_fn)(z, t, c)
        logsnr = flow.logsnr_of(t)
        scale = process.alpha(logsnr) + process.sigma(logsnr)
        log_density = lambda z, c: PLANE.log_density(z * scale, logsnr, c)  # noqa: B023, E731
        score = jax.vmap(jax.grad(log_density))(z, c)
        np.testing.assert_allclose(v, (z + (1 - t) * score) / t, atol=2e-4)


def test_time_and_log_snr_are_each_others_inverse_and_agree_with_equation_1():
    for t in (1e-3, 0.25, 0.5, 0.99):
        logsnr = flow.logsnr_of(t)
        np.testing.assert_allclose(flow.time_of(logsnr), t, rtol=1e-5)
        np.testing.assert_allclose(process.alpha(logsnr) / process.sigma(logsnr), t / (1 - t), rtol=1e-5)


@pytest.mark.parametrize("name", ["x", "v", "velocity"])
@pytest.mark.parametrize("w", [-1.0, 0.7, 4.0])
def test_guidance_is_the_same_whatever_is_guided(name, w):
    """(1 + w) and -w sum to 1, so that Equation 6 in any prediction is Equation 6 in eps."""
    z, logsnr, c = jnp.float32([[0.4, -0.2], [-1.5, 0.9]]), jnp.float32([-1.0, 2.0]), jnp.int32([0, 1])
    halves = PLANE.eps_fn(z, logsnr, c), PLANE.eps_fn(z, logsnr, jnp.full(2, PLANE.null))
    there = guidance.guide(*(loss.convert(eps, z, logsnr, "eps", name) for eps in halves), w)
    here = loss.convert(guidance.guide(*halves, w), z, logsnr, "eps", name)
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_eulers_path_in_t_is_ddim_on_its_grid():
    guided = guidance.guided(PLANE.eps_fn, 1.5, PLANE.null)
    for num_steps in (4, 16):
        logsnrs = schedule.grid(num_steps, spacing="t")
        x = walk(samplers.DDIM(0.0), logsnrs, guided)
        times = np.append(flow.time_of(logsnrs), 1.0)
        z = noise()[1] / (process.alpha(logsnrs[0]) + process.sigma(logsnrs[0]))
        path = flow.euler(flow.velocity_fn(guided), z, jnp.zeros(NUM, int), times)
        assert path.shape == (num_steps + 1, NUM, 2)
        np.testing.assert_allclose(x, path[-1], atol=2e-3)
    np.testing.assert_allclose(times, np.linspace(0, 1, 17), atol=1e-4)


@pytest.mark.slow
def test_heun_in_t_is_the_textbooks_and_of_second_order():
    """z + dt (v + v') / 2 along the velocity itself; twice the steps leave a quarter of the error."""
    velocity, c = flow.velocity_fn(PLANE.eps_fn), jnp.zeros(NUM, int)

    def textbook(num_steps):
        logsnrs = schedule.grid(num_steps, spacing="t")
        times = flow.time_of(logsnrs)
        z = noise()[1] / (process.alpha(logsnrs[0]) + process.sigma(logsnrs[0]))
        for t, t_next in itertools.pairwise(times):
            v = velocity(z, t, c)
            z = z + (t_next - t) * (v + velocity(z + (t_next - t) * v, t_next, c)) / 2
        return z + (1 - times[-1]) * velocity(z, times[-1], c)

    heun = {n: walk(samplers.FlowHeun(), schedule.grid(n, spacing="t"), PLANE.eps_fn) for n in (8, 16, 32, 256)}
    np.testing.assert_allclose(heun[8], textbook(8), atol=2e-3)
    errors = [float(jnp.abs(heun[n] - heun[256]).mean()) for n in (8, 16, 32)]
    euler = walk(samplers.DDIM(0.0), schedule.grid(32, spacing="t"), PLANE.eps_fn)
    assert errors[2] < errors[1] / 2.5 < errors[0] / 6 and errors[2] < jnp.abs(euler - heun[256]).mean() / 3


def test_paths_to_a_point_are_straight_and_to_a_normal_as_bent_as_its_closed_form():
    """All noise goes to a point on straight lines. To N(0, 1) it goes on z_0 sqrt(t^2 + (1 - t)^2), out and back."""
    law = Gaussians(jnp.float32([[0.7, -0.4], [0.0, 0.0]]), jnp.float32([1e-4, 1.0]))
    times, (_, z) = np.linspace(0, 1, 401), noise(2000)
    point, normal = (
        flow.straightness(flow.euler(flow.velocity_fn(law.eps_fn), z, jnp.full(2000, c), times), times).mean()
        for c in (0, 1)
    )
    assert point < 1e-3
    t = np.linspace(0, 1, 100_001)
    slope = (2 * t - 1) / np.sqrt(t**2 + (1 - t) ** 2)  # of |z_t| / |z_0|, which ends where it began
    np.testing.assert_allclose(normal, np.trapezoid(slope**2, t), rtol=0.1)


def test_a_grid_in_t_is_uniform_and_nested():
    for spacing in ("t", "shifted"):
        fine, coarse = (schedule.grid(n, spacing=spacing) for n in (8, 4))
        np.testing.assert_allclose(fine[::2], coarse, rtol=1e-4)
    np.testing.assert_allclose(flow.time_of(schedule.grid(8, spacing="t")), np.arange(8) / 8, atol=1e-4)
