"""The plane's two classes and what is made of a network of their velocity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from cfg_jax.diffusion import flow, guidance, process
from cfg_jax.evaluation.scores import energy_distance
from cfg_jax.models.mixture import Gaussians, Mixture
from experiments.studies import plane

TIMES = np.linspace(0, 1, 33)


def noise(num):
    return jax.random.normal(jax.random.key(0), (num, 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", plane.RINGS)
def test_a_class_of_several_gaussians_is_the_mixture_of_them(name):
    law, logsnr, z = plane.rings(name), jnp.float32(0.7), noise(20)
    alpha, variance = process.alpha(logsnr), (process.alpha(logsnr) * 0.2) ** 2 + process.sigma(logsnr) ** 2
    squares = np.square(np.asarray(z)[:, None] - np.asarray(alpha * law.means)).sum(-1)
    densities = np.exp(-0.5 * squares / variance) / (2 * np.pi * variance)
    of = np.array(law.classes)
    for c in (0, 1, 2):
        wanted = densities[:, (of == c) | (c == law.null)].mean(1)
        found = np.exp(jax.jit(Mixture.log_density)(law, z, logsnr, c))
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
    x, c = law.sample(jax.random.key(1), 4000)
    for k in (0, 1):
        np.testing.assert_allclose(x[c == k].mean(0), law.means[of == k].mean(0), atol=0.07)


@pytest.mark.slow
def test_components_that_are_classes_of_their_own_are_what_they_were():
    law, z = Mixture(jnp.float32([[-1.0, 0.3], [0.8, 0.0]]), jnp.float32([0.3, 0.5]), jnp.float32([0.4, 0.6])), noise(9)
    named = Mixture(law.means, law.stds, law.weights, (0, 1))
    c, logsnr = jnp.arange(9) % 3, jnp.linspace(-4, 4, 9)
    found, wanted = (jax.jit(Mixture.eps_fn)(m, z, logsnr, c) for m in (named, law))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert named.null == law.null == 2


@pytest.mark.parametrize("name", plane.RINGS)
@pytest.mark.slow
def test_the_exact_classifier_on_either_eps_is_classifier_free(name):
    law, w, z, logsnr, c = plane.rings(name), 1.5, 2 * noise(60), jnp.linspace(-6, 6, 60), jnp.arange(60) % 2
    wanted = jax.jit(guidance.guided(law.eps_fn, w, law.null))(z, logsnr, c)
    for base, scale in ((plane.labelled(law, law.null), 1 + w), (law.eps_fn, w)):
        found = jax.jit(guidance.guided_by_classifier(base, law.log_prob, scale))(z, logsnr, c)
        np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_a_scaled_velocity_is_no_temperature():
    """z_1 = z_0 s^g of N(0, s^2), where the tempered law has s / g^0.5."""
    law, times, z = Gaussians(jnp.zeros((1, 2)), jnp.float32([0.5])), np.linspace(0, 1, 2001), noise(8)
    velocity = flow.velocity_fn(law.eps_fn)
    for g in (1.0, 1.5):
        ends = flow.euler(lambda z, t, c, g=g: g * velocity(z, t, c), z, jnp.zeros(8, int), times)[-1]
        np.testing.assert_allclose(ends / z, 0.5**g, rtol=0.01)


def test_the_density_on_a_mesh_is_tilted():
    law, points = plane.rings("overlapping"), noise(50)
    plain, none, tilted = (jax.jit(plane.tilted)(law, points, 0.6, *of) for of in ((1, 0.0), (law.null, 0.0), (1, 2.0)))
    wanted = np.asarray(plain) ** 3 / np.asarray(none) ** 2
    np.testing.assert_allclose(tilted, wanted / wanted.sum(), rtol=1e-2, atol=1e-7)


def test_energy_distance():
    x = np.random.default_rng(0).normal(size=(300, 2))
    assert energy_distance(x, x) < 1e-6 < energy_distance(x, x + 0.1) < energy_distance(x, x + 1)
    np.testing.assert_allclose(energy_distance(np.zeros((3, 2)), np.full((4, 2), [3.0, 4.0])), 10**0.5)


@pytest.mark.slow
def test_reflow_straightens_and_keeps_the_ends():
    """On pairs of the exact flow, from an untrained network."""
    law, z, c = plane.rings("separate"), noise(2000), jnp.arange(2000) % 2

    def walk(model):
        return jax.jit(lambda z, c: flow.euler(plane.velocity(model), z, c, TIMES))(z, c)

    before = walk(law)
    loss_fn = Partial(plane.pair_loss, z, before[-1], c, jnp.zeros(2000))
    rectified = plane.fit(jax.random.key(1), loss_fn, plane.untrained(), 400)
    after = walk(rectified)
    bent, straight = (float(flow.straightness(path, TIMES).mean()) for path in (before, after))
    assert bent > 0.2 and straight < bent / 20
    assert jnp.square(after[-1] - before[-1]).mean() ** 0.5 < 0.15


@pytest.mark.slow
def test_the_distilled_target_is_equation_6_of_the_teacher():
    """At w = 0 a teacher is its own student; at a greater w it is not, by w (v_c - v_u)."""
    law, teacher, key = plane.rings("overlapping"), plane.untrained(), jax.random.key(2)
    loss = jax.jit(plane.teacher_loss)
    assert float(loss(law, teacher, 0.0, teacher, key).max()) < 1e-8
    blind = teacher.replace(params=without_w(teacher.params))  # w as an input is seen by nobody
    one, two = (float(loss(law, blind, w, blind, key).mean()) for w in (1.0, 2.0))
    np.testing.assert_allclose(two, 4 * one, rtol=1e-3)
    assert one > 1e-6


def without_w(params):
    first = params["Dense_0"]
    return params | {"Dense_0": first | {"kernel": first["kernel"].at[-1].set(0)}}
