"""Guidance, samplers and objectives as values: held to closed forms, to identities, and to each other."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from cfg_jax import checks
from cfg_jax.data import sources
from cfg_jax.diffusion import guidance, loss, process, rules, samplers, schedule, struct
from cfg_jax.errors import InputError
from cfg_jax.models import build, network
from cfg_jax.models.mixture import Mixture
from cfg_jax.sampling import draw as drawing
from cfg_jax.sampling.model import Model
from cfg_jax.store import weights
from cfg_jax.sweep import report
from cfg_jax.sweep.run import sweep
from cfg_jax.training import state as states
from cfg_jax.training.step import train_step
from tests.conftest import fill
from tests.evaluation.test_references import Network

MIXTURE = Mixture(jnp.float32([[-1.0], [0.5]]), jnp.float32([0.1, 0.3]), jnp.float32([0.25, 0.75]))
NUM = 512


def draw(rule, sampler=None, logsnrs=None, model=MIXTURE, seed=0, num=NUM, c=0):
    """x [num, D] of class c; the program is compiled for the kinds of rule and sampler."""
    walk = samplers.Walk(sampler or samplers.Ancestral(0.3), schedule.grid(32) if logsnrs is None else logsnrs)

    @jax.jit
    def run(rule, walk):
        keys, z = samplers.start(seed, jnp.arange(num), (model.means.shape[1],))
        return walk(keys, guidance.Guidance(rule).on(model), z, jnp.full(num, c), guidance.Guidance(rule).init(keys, z))

    return np.asarray(run(rule, walk))


def test_the_papers_rule_is_its_equation_and_w_0_its_one_pass():
    keys, z = samplers.start(0, jnp.arange(NUM), (1,))
    for w in (0.0, 1.5):
        rule = guidance.ClassifierFree(w)
        eps_fn = guidance.guided(MIXTURE.eps_fn, w, MIXTURE.null)
        wanted = samplers.ancestral(keys, eps_fn, z, jnp.zeros(NUM, int), schedule.grid(32), v=0.3)
        np.testing.assert_allclose(draw(rule), wanted, atol=2e-5)
    np.testing.assert_allclose(draw(guidance.Unguided()), draw(guidance.ClassifierFree(0.0)), atol=2e-5)


class Counting:
    """A model that notes, while the program runs, how many images each pass of the network is given."""

    null = MIXTURE.null

    def __init__(self):
        self.passes = []

    def eps_fn(self, z, logsnr, c):
        count = len(z)
        jax.debug.callback(lambda _: self.passes.append(count), z[0, 0])
        return MIXTURE.eps_fn(z, logsnr, c)


def test_an_interval_guides_inside_and_takes_one_pass_elsewhere():
    logsnrs = np.float32([-6, -3, -1, 0, 2, 5])
    counting = Counting()
    walk = samplers.Walk(samplers.Ancestral(0.0), logsnrs)
    keys, z = samplers.start(0, jnp.arange(4), (1,))
    compiled = jax.jit(lambda g: walk(keys, g.on(counting), z, jnp.zeros(4, int), g.init(keys, z)))

    def passes(rule):
        counting.passes.clear()
        x = compiled(guidance.Guidance(rule))
        jax.effects_barrier()
        return np.asarray(x), counting.passes.copy()

    inner = guidance.ClassifierFree(2.0)
    x, seen = passes(rules.Interval(inner, -3.0, 2.0))
    assert seen == [4, 8, 8, 8, 4, 4]  # -3 is inside, 2 outside
    assert not np.allclose(x, passes(rules.Interval(inner, -1.0, 2.0))[0])  # bounds are data, as w is
    assert compiled._cache_size() == 1
    none, seen = passes(rules.Interval(inner, 10.0, 20.0))
    np.testing.assert_allclose(none, passes(guidance.Unguided())[0], rtol=1e-6)
    assert seen == [4] * 6
    everywhere, _ = passes(rules.Interval(inner))
    np.testing.assert_allclose(everywhere, passes(inner)[0], rtol=1e-6)


@pytest.mark.slow
def test_apg_without_its_three_changes_is_the_papers():
    for sampler in (samplers.Ancestral(0.3), samplers.DDIM(0.0)):
        same = rules.APG(1.5, momentum=0.0, radius=np.inf, parallel=1.0)
        np.testing.assert_allclose(draw(same, sampler), draw(guidance.ClassifierFree(1.5), sampler), atol=1e-4)


def test_apg_by_hand(rng):
    """Two steps of it in float64: momentum, the bound on the norm, then the part along x_c."""
    z, cond, uncond = rng.standard_normal((3, 2, 5))
    logsnr, w, rule = -0.7, np.array([0.5, 3.0]), rules.APG(jnp.float32([0.5, 3.0]), 0.4, 1.2, 0.25)
    alpha, sigma = np.sqrt(1 / (1 + np.exp(0.7))), np.sqrt(1 / (1 + np.exp(-0.7)))
    halves = guidance.Halves(lambda *_: jnp.float32(cond), lambda *_: (jnp.float32(cond), jnp.float32(uncond)))
    state, momentum = rule.init(jnp.float32(z)), 0
    for _ in range(2):
        out, state = rule(halves, jnp.float32(z), jnp.float32(logsnr), None, state)
        x_c, x_u = ((z - sigma * eps) / alpha for eps in (cond, uncond))
        momentum = x_c - x_u + 0.4 * momentum
        d = momentum * np.minimum(1, 1.2 / np.linalg.norm(momentum, axis=1, keepdims=True))
        along = (d * x_c).sum(1, keepdims=True) / (x_c**2).sum(1, keepdims=True) * x_c
        x = x_c + w[:, None] * (d - along + 0.25 * along)
        np.testing.assert_allclose(process.predict_x(jnp.asarray(z), out.eps, logsnr), x, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state, momentum, rtol=1e-4, atol=1e-5)


def test_apg_with_momentum_carries_its_state_through_the_walk():
    plain, carried = (draw(rules.APG(2.0, m, np.inf, 1.0)) for m in (0.0, -0.5))
    assert np.abs(plain - carried).max() > 1e-3


def test_ddim_with_eta_1_is_algorithm_2_with_the_smaller_variance():
    for rule in (guidance.Unguided(), guidance.ClassifierFree(1.0)):
        ddim, ancestral = draw(rule, samplers.DDIM(1.0)), draw(rule, samplers.Ancestral(0.0))
        np.testing.assert_allclose(ddim, ancestral, atol=2e-4)


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_ddim_recovers_a_gaussian(eta):
    gaussian = Mixture(jnp.float32([[0.5]]), jnp.float32([0.3]), jnp.float32([1.0]))
    x = draw(guidance.Unguided(), samplers.DDIM(eta), schedule.grid(256), gaussian, num=20_000)
    assert abs(x.mean() - 0.5) < 4 * 0.3 / np.sqrt(len(x)) + 1e-3 and 0.97 * 0.3 < x.std() < 1.02 * 0.3


@pytest.mark.slow
def test_ddim_of_a_gaussian_is_a_line_and_its_error_falls_as_1_over_t():
    """The probability-flow ODE maps N(0, 1) to N(m, s^2) by x = m + s z: the same z, whatever the steps."""
    gaussian = Mixture(jnp.float32([[0.5]]), jnp.float32([0.3]), jnp.float32([1.0]))
    _, z = samplers.start(0, jnp.arange(64), (1,))
    errors = []
    for num_steps in (64, 128, 256):
        x = draw(guidance.Unguided(), samplers.DDIM(0.0), schedule.grid(num_steps), gaussian, num=64)
        errors.append(np.abs(x - (0.5 + 0.3 * z)).max())
    rates = np.log2(errors[:-1]) - np.log2(errors[1:])
    assert errors[-1] < 0.02 and np.all((rates > 0.8) & (rates < 1.2)), errors


def test_dpmpp_2m_by_hand():
    """Three steps of Lu et al.'s Algorithm 2 in float64, the weight of the last change at most 1/2."""
    logsnrs, means = np.float64([-3.0, -1.0, 0.0, 4.0]), np.float64([0.3, -0.2])
    lam = logsnrs / 2
    alphas, sigmas = np.sqrt(1 / (1 + np.exp(-logsnrs))), np.sqrt(1 / (1 + np.exp(logsnrs)))
    keys, z = samplers.start(0, jnp.arange(8), (2,))
    walk = samplers.Walk(samplers.DPMpp2M(), np.float32(logsnrs))
    eps_fn = lambda z, logsnr, c: 0.5 * z - jnp.float32(means)  # noqa: E731
    x = walk(keys, samplers.plain(eps_fn), z, jnp.zeros(8))
    z, last = np.float64(z), None
    for i in range(3):
        h = lam[i + 1] - lam[i]
        now = (z - sigmas[i] * (0.5 * z - means)) / alphas[i]
        weight = 0 if i == 0 else min(h / (lam[i] - lam[i - 1]), 1) / 2  # 1 / 2r
        combined = now if last is None else (1 + weight) * now - weight * last
        z = sigmas[i + 1] / sigmas[i] * z - alphas[i + 1] * np.expm1(-h) * combined
        last = now
    np.testing.assert_allclose(x, (z - sigmas[3] * (0.5 * z - means)) / alphas[3], rtol=2e-4, atol=2e-4)


@pytest.mark.slow
def test_dpmpp_2m_is_of_second_order_and_ddim_of_first():
    """Distance of each image to where many steps lead the same noise, on a mixture at w = 1."""
    mixture = Mixture(jnp.float32([[-1.0], [0.5]]), jnp.float32([0.1, 0.3]), jnp.float32([0.25, 0.75]))

    def drawn(sampler, num_steps, grid):
        return draw(
            guidance.ClassifierFree(1.0), sampler, schedule.grid(num_steps, -20.0, 20.0, grid), mixture, num=512
        )

    truth = drawn(samplers.DPMpp2M(), 2048, "logsnr")
    assert np.abs(truth - drawn(samplers.DDIM(0.0), 8192, "logsnr")).mean() < 3e-4  # as far as 1 / T goes
    error = lambda *args: np.abs(drawn(*args) - truth).mean()  # noqa: E731
    for sampler, order in ((samplers.DDIM(0.0), 1), (samplers.DPMpp2M(), 2)):
        errors = [error(sampler, num_steps, "logsnr") for num_steps in (64, 128, 256)]
        rates = np.log2(errors[:-1]) - np.log2(errors[1:])
        assert np.all(np.abs(rates - order) < 0.35), (sampler, errors)
    assert error(samplers.DPMpp2M(), 64, "paper") < error(samplers.DDIM(0.0), 256, "paper")


def test_what_noise_is_put_back_with_leads_from_the_thresholded_x_to_z():
    """DDIM's step after a threshold that halves x, by hand: ADM's way."""
    keys, z = samplers.start(0, jnp.arange(8), (3,))
    walk = samplers.Walk(samplers.DDIM(0.0), np.float32([0.0, 1.0]), lambda x: x / 2)
    x = walk(keys, samplers.plain(lambda z, *_: 0 * z), z, jnp.zeros(8))
    x_1 = np.sqrt(2) * z / 2
    eps = (z - np.sqrt(0.5) * x_1) / np.sqrt(0.5)
    alpha, sigma = np.sqrt(1 / (1 + np.exp(-1))), np.sqrt(1 / (1 + np.exp(1)))
    np.testing.assert_allclose(x, (alpha * x_1 + sigma * eps) / alpha / 2, rtol=1e-5)


LOGSNRS = np.float32([-6, -2, -0.5, 0, 1, 4])


@pytest.mark.parametrize("kind", loss.PREDICTIONS)
def test_a_prediction_is_the_others_by_the_definitions(kind, rng):
    """At z = alpha x + sigma eps each of the four gives each other, in the words of its own definition."""
    x, eps = jnp.float32(rng.standard_normal((2, 6, 3)))
    alpha = np.sqrt(1 / (1 + np.exp(-np.float64(LOGSNRS))))[:, None]
    sigma = np.sqrt(1 - alpha**2)
    z = alpha * x + sigma * eps
    values = {"eps": eps, "x": x, "v": alpha * eps - sigma * x, "velocity": x - eps}
    np.testing.assert_allclose(loss.PREDICTIONS[kind].of(x, eps, LOGSNRS), values[kind], rtol=1e-5, atol=1e-5)
    for other, value in values.items():
        scale = np.exp(np.abs(LOGSNRS) / 2)[:, None]  # what dividing by a small alpha or sigma loses
        got = loss.convert(jnp.float32(values[kind]), jnp.float32(z), LOGSNRS, kind, other)
        assert np.all(np.abs(got - value) < 1e-5 * scale * (1 + np.abs(value))), other


def predicting(kind, factor=1.0):
    """The mixture's exact eps, made wrong by a factor, as a network that predicts another."""

    def predict(z, logsnr, c):
        return loss.convert(factor * MIXTURE.eps_fn(z, logsnr, c), z, logsnr, "eps", kind)

    return predict


@pytest.mark.parametrize("error", loss.PREDICTIONS)
@pytest.mark.slow
def test_equal_functions_predicted_four_ways_have_equal_losses_and_samples(error):
    x, c = MIXTURE.sample(jax.random.key(0), 4096)
    losses, images = [], []
    for kind in loss.PREDICTIONS:
        objective = loss.Objective(kind, error, logsnr_min=-8.0, logsnr_max=8.0)
        z, logsnr, eps = objective.noised(jax.random.key(1), x)
        losses.append(jax.jit(lambda *a, o=objective, k=kind: o.loss(predicting(k, 1.1), *a))(z, logsnr, c, x, eps))
        eps_fn = lambda z, logsnr, c, k=kind: loss.convert(predicting(k)(z, logsnr, c), z, logsnr, k, "eps")  # noqa: E731
        keys, z = samplers.start(0, jnp.arange(64), (1,))
        images.append(samplers.ancestral(keys, eps_fn, z, jnp.ones(64, int), schedule.grid(16, -8.0, 8.0), v=0.3))
    for values, drawn in zip(losses[1:], images[1:], strict=True):
        np.testing.assert_allclose(values, losses[0], rtol=2e-2, atol=1e-4)
        np.testing.assert_allclose(values.mean(), losses[0].mean(), rtol=1e-3)
        np.testing.assert_allclose(drawn, images[0], atol=1e-3)


@pytest.mark.slow
def test_an_error_of_another_kind_is_a_weight_of_the_log_snr():
    """|v - v'|^2 = |eps - eps'|^2 / alpha^2, |x - x'|^2 = e^-lambda |eps - eps'|^2, velocity (1 + sigma / alpha)^2."""
    x, c = MIXTURE.sample(jax.random.key(0), 512)
    z, logsnr, eps = loss.Objective(logsnr_min=-6.0, logsnr_max=6.0).noised(jax.random.key(1), x)
    of = {
        kind: loss.Objective("eps", kind).loss(predicting("eps", 1.3), z, logsnr, c, x, eps)
        for kind in loss.PREDICTIONS
    }
    alpha, sigma = process.alpha(logsnr), process.sigma(logsnr)
    weights = {"x": jnp.exp(-logsnr), "v": 1 / alpha**2, "velocity": (1 + sigma / alpha) ** 2}
    for kind, weight in weights.items():
        np.testing.assert_allclose(of[kind], weight * of["eps"], rtol=1e-2, atol=1e-5)


def test_flow_matching_is_three_fields():
    """velocity, its error, t uniform: the straight path's z at t is z / (alpha + sigma), its target x - eps."""
    objective = loss.Objective("velocity", "velocity", "uniform_t")
    x = jnp.full((40_000, 1), 2.0)
    z, logsnr, eps = objective.noised(jax.random.key(0), x)
    t = np.float64(process.alpha(logsnr) / (process.alpha(logsnr) + process.sigma(logsnr)))
    assert abs(t.mean() - 0.5) < 4 / np.sqrt(12 * len(t)) and abs(t.std() - 12**-0.5) < 0.005
    straight = z[:, 0] / (process.alpha(logsnr) + process.sigma(logsnr))
    np.testing.assert_allclose(straight, (1 - t) * eps[:, 0] + t * 2.0, atol=1e-5)
    assert objective.loss(lambda *_: x - eps, z, logsnr, jnp.zeros(len(x), int), x, eps).max() == 0
    assert logsnr.min() >= -20 and logsnr.max() <= 20


@struct.dataclass
class Constant(guidance.Stateless):
    """A made-up rule: eps_c moved by a number, with no second pass."""

    w: Any
    offset: Any = 0.1
    of: str = struct.static(default="eps")

    limits = {"offset": (0, 1)}  # noqa: RUF012

    def __call__(self, halves, z, logsnr, c, state):
        eps = halves.cond(z, logsnr, c)
        return guidance.Guided.of(eps + process.per_image(self.w, z) * self.offset), state


@struct.dataclass
class Halting(samplers.Ancestral):
    """A made-up sampler with a state of its own: it counts its steps, and stands still after `last` of them."""

    last: Any = 2

    def init(self, z):
        return jnp.int32(0)

    def step(self, predict, z, state, logsnr, logsnr_next, noise):
        (x, _, _), state = predict(z, logsnr, state)
        go_on = state.sampler < self.last
        return jnp.where(go_on, z + 1, z), jnp.where(go_on, x, 7.0), state._replace(sampler=state.sampler + 1)


def test_a_made_up_sampler_has_a_state_of_its_own():
    assert np.all(draw(guidance.ClassifierFree(1.0), Halting(), schedule.grid(4)) == 7)
    assert np.all(draw(rules.APG(1.0), Halting(last=9), schedule.grid(4)) != 7)


@pytest.fixture
def model(tiny, tmp_path):
    """An export of an untrained network."""
    tiny.data.card = sources.digits().card.digest
    weights.export(tmp_path / "m.safetensors", tiny, 7, fill(build.shapes(tiny)))
    return tmp_path / "m.safetensors"


def test_a_made_up_rule_works_by_itself(tiny, model, tmp_path, monkeypatch):
    """A class, a line in the dictionary, a field in the config: sampled, swept, varied, in rows, files and report."""
    monkeypatch.setitem(rules.RULES, "constant", Constant)
    monkeypatch.setattr("cfg_jax.sweep.run.features_of", lambda *_: Network())
    tiny.eval.update(bootstrap=0)
    with tiny.unlocked():
        tiny.guidance.update(name="constant", offset=0.5, of="all")
    checks.guidance(tiny)
    rows = sweep(tiny, [model], [0.0, 1.0], tmp_path / "sweep", vary={"guidance.offset": [0.5, 0.25]})
    assert [(row["guidance"], row["guidance.offset"], row["w"]) for row in rows] == [
        ("constant", 0.5, 0.0), ("constant", 0.5, 1.0), ("constant", 0.25, 0.0), ("constant", 0.25, 1.0)
    ]  # fmt: skip
    names = {path.stem for path in (tmp_path / "sweep" / "cells").glob("*.json")}
    assert names == {
        f"m.safetensors_T3_v0.3_static_paper_seed0_constant-offset{o}-ofall_w{w}"
        for o in ("0.5", "0.25")
        for w in (0, 1)
    }
    assert "guidance constant (offset=0.5, of=all), labels" in report.write(tmp_path / "sweep")
    assert "constant (offset=0.25, of=all)" in (tmp_path / "sweep" / "table.md").read_text()
    images = Model(tiny, build.denoiser(tiny, fill(build.shapes(tiny)))).sample
    by_name, by_value = images([1, 2], 1.0), images([1, 2], guidance=Constant(np.float32([1, 1]), 0.5))
    np.testing.assert_array_equal(by_name, by_value)
    np.testing.assert_array_equal(by_name, images([1, 2], 1.0, guidance=None, sampler=None))
    assert not np.array_equal(by_name, images([1, 2], 1.0, guidance="classifier-free"))
    tiny.guidance.offset = 1.5
    with pytest.raises(InputError, match=r"config\.guidance\.offset=1\.5 must lie in \[0, 1\]"):
        checks.guidance(tiny)


@pytest.mark.slow
def test_one_program_serves_an_interval_and_its_w(tiny, model, tmp_path, monkeypatch):
    monkeypatch.setattr("cfg_jax.sweep.run.features_of", lambda *_: Network())
    tiny.eval.update(bootstrap=0)
    tiny.guidance.logsnr_high = 5.0
    sweep(tiny, [model], [1.0], tmp_path / "a")
    compiled = drawing.draw._cache_size()
    rows = sweep(tiny, [model], [0.5, 2.0], tmp_path / "b", vary={"guidance.logsnr_high": [1.0, 3.0]})
    assert drawing.draw._cache_size() == compiled
    assert [row["guidance.logsnr_high"] for row in rows] == [1.0, 1.0, 3.0, 3.0]
    assert {row["guidance"] for row in rows} == {"classifier-free"}
    ddim = sweep(tiny, [model], [0.5], tmp_path / "b", vary={"sampler.name": ["ddim"], "sampler.eta": [0.0, 1.0]})
    assert [(row["sampler"], row["sampler.eta"], "v" in row) for row in ddim] == [
        ("ddim", 0.0, False),
        ("ddim", 1.0, False),
    ]


@pytest.mark.parametrize(
    ("section", "field", "value", "said"),
    [
        ("sampler", "name", "ddmi", "did you mean ddim? choose ancestral, ddim, dpmpp_2m"),
        ("sampler", "variance_interp", 1.5, "config.sampler.variance_interp=1.5 must lie in [0, 1]"),
        ("sampler", "eta", float("nan"), "config.sampler.eta is nan, not a finite number"),
        ("guidance", "name", "agp", "did you mean apg?"),
        ("guidance", "radius", -1.0, "config.guidance.radius=-1.0 must lie in"),
        ("guidance", "logsnr_low", 9.0, "config.guidance.logsnr_low=9.0 must be below logsnr_high=3.0"),
        ("guidance", "logsnr_low", float("nan"), "logsnr_low"),
        ("objective", "predicts", "velocitty", "did you mean velocity?"),
        ("objective", "density", "uniform", "did you mean uniform_t?"),
        ("objective", "error", "noise", "config.objective.error='noise' is unknown"),
    ],
)
def test_bad_values_are_named(tiny, section, field, value, said):
    tiny.sampler.name, tiny.guidance.name, tiny.guidance.logsnr_high = "ddim", "apg", 3.0
    if field == "variance_interp":
        tiny.sampler.name = "ancestral"
    getattr(tiny, section)[field] = value
    with pytest.raises(InputError) as error:
        checks.everything(tiny)
    assert said in str(error.value)


class Linear(nn.Module):
    """A made-up network: a line of z for each class, shifted by the noise level."""

    width: int
    num_classes: int
    out_channels: int
    noise_level: Callable
    dtype: jnp.dtype
    null_label: bool = True

    @classmethod
    def from_config(cls, config):
        fields = network.fields(config, "width", "null_label")
        return cls(out_channels=config.data.channels, **fields)

    @nn.compact
    def __call__(self, z, logsnr, c, *, train=False):
        emb = nn.Embed(self.num_classes + self.null_label, self.width)(c)
        emb += nn.Dense(self.width)(self.noise_level(logsnr)[:, None] / 1000)
        return nn.Dense(self.out_channels)(nn.Dense(self.width)(z) + emb[:, None, None])


def test_a_made_up_network_trains_and_samples(tiny, monkeypatch):
    monkeypatch.setitem(build.NETWORKS, "linear", Linear)
    common = {name: tiny.model[name] for name in ("time", "dtype", "null_label")}
    with tiny.unlocked():
        tiny.model = ConfigDict({"name": "linear", "width": 4, **common})
    checks.everything(tiny)
    state = jax.jit(lambda: states.create(tiny))()
    batch = {"image": jnp.zeros((8, 8, 8, 1), jnp.uint8), "label": jnp.arange(8)}
    step = jax.jit(partial(train_step, config=tiny))
    state, metrics = step(*step(state, batch, jax.random.key(0), jnp.float32(0.1))[:1], batch, jax.random.key(0), 0.1)
    assert int(state.step) == 2 and 0 < metrics.loss.compute() < 10
    model = Model(tiny, build.denoiser(tiny, state.ema))
    assert model.sample([1, 2], 1.0).shape == (2, 8, 8, 1)
    with tiny.unlocked():
        tiny.model.depth = 3
    with pytest.raises(InputError, match=r"config\.model has depth, which the network linear has not"):
        build.network(tiny)
    tiny.model.name = "linaer"
    with pytest.raises(InputError, match=r"config\.model\.name='linaer' is unknown: did you mean linear"):
        build.network(tiny)


@pytest.mark.parametrize("predicts", ["x", "v", "velocity"])
def test_a_network_that_predicts_another_is_asked_for_eps(tiny, predicts):
    tiny.objective.predicts = predicts
    params = fill(build.shapes(tiny))
    z, logsnr, c = jnp.ones((2, 8, 8, 1)), jnp.float32([-1.0, 2.0]), jnp.int32([1, 10])
    model = build.denoiser(tiny, params)
    out = jax.jit(model.predict)(z, logsnr, c)
    np.testing.assert_allclose(
        jax.jit(model.eps_fn)(z, logsnr, c), loss.convert(out, z, logsnr, predicts, "eps"), rtol=1e-4, atol=1e-5
    )
