"""Equations at their ends: the noisiest log-SNR in float32, bounds, and values where a formula divides by zero."""

import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.diffusion import distill, exact, flow, guidance, process, rules, samplers
from cfg_jax.diffusion.guidance import Guided, Halves
from cfg_jax.diffusion.loss import PREDICTIONS, convert

LOGSNRS = [-40.0, -20.0, -3.0, 0.0, 5.0, 20.0]


class Exact:
    """A model that predicts v or velocity and knows x of each label exactly: x = 0.1 label."""

    null = 9

    def __init__(self, predicts):
        self.predicts = predicts

    def predict(self, z, logsnr, c, *w):
        """In float64, rounded once."""
        z, logsnr = (np.asarray(a, np.float64) for a in (z, logsnr))
        alpha, sigma = (1 / np.sqrt(1 + np.exp(at))[:, None] for at in (-logsnr, logsnr))
        x = 0.1 * np.asarray(c, np.float64)[:, None]
        eps = (z - alpha * x) / sigma
        return jnp.float32(alpha * eps - sigma * x if self.predicts == "v" else x - eps)

    def eps_fn(self, z, logsnr, c, *w):
        return convert(self.predict(z, logsnr, c), z, logsnr, self.predicts, "eps")


@pytest.mark.parametrize("name", ["v", "velocity"])
@pytest.mark.parametrize("logsnr", LOGSNRS)
def test_v_and_velocity_tell_x_to_rounding(name, logsnr, rng):
    x, eps = rng.uniform(-1, 1, (2, 500))
    alpha, sigma = (1 / np.sqrt(1 + np.exp(s * logsnr)) for s in (-1, 1))
    z = jnp.float32(alpha * x + sigma * eps)[:, None]
    known = jnp.float32(alpha * eps - sigma * x if name == "v" else x - eps)[:, None]
    found = convert(known, z, logsnr, name, "x")
    np.testing.assert_allclose(found[:, 0], x, atol=1e-6)
    back = convert(found, z, logsnr, "x", "x")
    assert back is found


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("logsnr", [-3.0, 0.0, 3.0])
def test_the_slope_of_a_prediction_is_its_derivative(name, logsnr):
    z = jnp.float32([[0.3]])
    x = [convert(jnp.float32([[p]]), z, logsnr, name, "x")[0, 0] for p in (0.0, 1.0)]
    assert float(x[1] - x[0]) == pytest.approx(float(PREDICTIONS[name].slope(jnp.float32(logsnr))), rel=1e-4)


@pytest.mark.parametrize("predicts", ["v", "velocity"])
@pytest.mark.parametrize("logsnr", [-40.0, -20.0, 0.0])
@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (guidance.Unguided(), 0.3),
        (guidance.Unconditional(), 0.9),
        (guidance.ClassifierFree(2.0), 0.3 + 2 * (0.3 - 0.9)),
        (rules.PlusPlus(0.5), 0.9 + 0.5 * (0.3 - 0.9)),
        (rules.TwoLabels(1.0, 5, 0.5), 0.3 + (0.3 - 0.9) + 0.5 * (0.5 - 0.9)),
        (rules.APG(2.0, 0.0, np.inf, 1.0), 0.3 + 2 * (0.3 - 0.9)),
        (rules.PowerLaw(2.0, 0.0), 0.3 + 2 * (0.3 - 0.9)),
        (rules.Rescaled(guidance.ClassifierFree(2.0), 0.0), 0.3 + 2 * (0.3 - 0.9)),
        (rules.Interval(guidance.ClassifierFree(2.0)), 0.3 + 2 * (0.3 - 0.9)),
        (rules.Interval(guidance.ClassifierFree(2.0), 50.0), 0.3),
    ],
)
def test_no_rule_loses_x_where_noise_is_all(predicts, logsnr, rule, wanted):
    z, c = jnp.float32([[0.7], [-1.2]]), jnp.int32([3, 3])

    # eagerly: the model is numpy
    how = guidance.Guidance(rule).on(Exact(predicts))
    if isinstance(rule, rules.Interval):
        inside = rule.logsnr_low <= logsnr
        how = guidance.Guidance(rule.rule if inside else guidance.Unguided()).on(Exact(predicts))
    out, _ = how(z, jnp.float32(logsnr), c, guidance.Guidance(rule).init(None, z))
    out = out.whole(z, logsnr)
    np.testing.assert_allclose(out.x, wanted, atol=2e-6)
    np.testing.assert_allclose(process.diffuse(out.x, out.eps, logsnr), z, atol=2e-6)


@pytest.mark.parametrize("predicts", ["v", "velocity"])
def test_a_halved_student_is_held_to_the_x_that_its_teacher_means(predicts):
    teacher = Exact(predicts)
    ends = (jnp.float32([at, at]) for at in (-20.0, -2.0, np.inf))
    z, c = jnp.float32([[0.7], [-1.2]]), jnp.int32([3, 4])
    np.testing.assert_allclose(distill.halved(teacher.predict, z, *ends, c, predicts), [[0.3], [0.4]], atol=1e-6)
    velocity = flow.velocity_fn(teacher.predict, predicts)(z, jnp.float32(flow.CLOSEST), c)
    assert np.isfinite(velocity).all()


def test_the_interval_holds_its_lower_end():
    """sigma in (low, high]: log-SNR in [low, high). Kynkaanniemi et al. 2024."""
    halves = Halves(lambda *_: jnp.ones((1, 1)), lambda *_: (jnp.ones((1, 1)), jnp.zeros((1, 1))))
    rule = rules.Interval(guidance.ClassifierFree(1.0), -2.0, 3.0)
    guided = {
        at: float(rule(halves, jnp.zeros((1, 1)), jnp.float32(at), jnp.zeros(1, int), ())[0].eps[0, 0])
        for at in (-2.001, -2.0, 2.999, 3.0)
    }
    assert guided == {-2.001: 1.0, -2.0: 2.0, 2.999: 2.0, 3.0: 1.0}


def test_closed_forms_at_their_removable_points():
    assert exact.sde_variance(-0.5) == pytest.approx(2 * np.log(2), rel=1e-12)
    near = exact.sde_variance(np.array([-0.5 - 1e-9, -0.5, -0.5 + 1e-9, 0.0, 1.0]))
    np.testing.assert_allclose(near, [*[2 * np.log(2)] * 3, 1.0, 1.75 / 3], rtol=1e-8)


@pytest.mark.parametrize("level", [0.0, 0.4])
def test_rescaling_leaves_a_flat_image_as_it_is(level):
    z, logsnr = jnp.full((1, 2, 2, 1), level), jnp.float32(0)
    flat = Halves(lambda *_: 0 * z, lambda *_: (0 * z, 0 * z))
    out, _ = rules.Rescaled(guidance.ClassifierFree(0.0), 0.7)(flat, z, logsnr, jnp.zeros(1, int), ())
    np.testing.assert_allclose(out.x, process.predict_x(z, 0 * z, logsnr), rtol=1e-6)
    np.testing.assert_allclose(out.eps, 0, atol=1e-6)


def test_rounds_begin_a_rules_state_anew():
    rule = rules.Rounds(rules.APG(1.0, momentum=-0.5), rounds=1)
    halves = Halves(lambda *_: jnp.ones((1, 1)), lambda *_: (jnp.ones((1, 1)), jnp.zeros((1, 1))))
    z, c = jnp.zeros((1, 1)), jnp.zeros(1, int)
    state = jnp.full((1, 1), 100.0), jnp.float32(5.0), jnp.bool_(True)
    _, (carried, *_) = rule(halves, z, jnp.float32(6.0), c, state)
    _, (fresh, *_) = rule(halves, z, jnp.float32(-1.0), c, state)
    assert abs(float(carried[0, 0])) > 40 and abs(float(fresh[0, 0])) < 2


def test_a_walk_at_minus_40_is_that_of_x():
    """One step whose noise is all: the sample is what v says of x."""
    wanted = jnp.float32([[0.3], [-0.6]])

    def of_v(z, logsnr, c, state):
        v = -process.sigma(logsnr) * wanted + process.alpha(logsnr) * z
        whole = Halves(lambda *_: v, None, predicts="v")
        return whole.guided(v, z, logsnr), state

    keys, z = samplers.start(0, np.arange(2), (1,))
    x = samplers.Walk(samplers.DDIM(), np.float32([-40.0]))(keys, of_v, z, np.zeros(2, np.int32))
    np.testing.assert_allclose(x, wanted, atol=1e-6)
    assert isinstance(of_v(z, jnp.float32(0), None, ())[0], Guided)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    "rule", [rules.Interval(guidance.ClassifierFree(1.0)), rules.Rounds(guidance.ClassifierFree(1.0))]
)
def test_an_eps_fn_of_another_dtype_is_converted(rule, dtype):
    class Model:
        null = 9

        def eps_fn(self, z, logsnr, c):
            return (0.5 * z).astype(dtype)

    how = guidance.Guidance(rule)
    keys, z = samplers.start(0, np.arange(2), (1,))
    walk = samplers.Walk(samplers.DDIM(), np.float32([-5, 0, 5]))
    x = walk(keys, how.on(Model()), z.astype(dtype), np.zeros(2, np.int32), how.init(keys, z.astype(dtype)))
    assert x.dtype == jnp.float32 and np.isfinite(x).all()
