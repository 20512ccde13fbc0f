"""The exact laws of guidance on Gaussians, whose eps has no error: what is wrong is the code's or the step's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.diffusion import exact, guidance, particles, process, samplers, schedule, struct
from cfg_jax.models.mixture import Gaussians, Mixture

TWO = Gaussians(jnp.zeros((2, 1)), jnp.sqrt(jnp.float32(exact.VARIANCES)))
NUM = 20_000


def drawn(sampler, w, num_steps=256, num=NUM, model=TWO, spacing="paper", seed=0):
    """x [num, D] of class 0."""

    @jax.jit
    def run():
        rule = guidance.ClassifierFree(w)
        keys, z = samplers.start(seed, jnp.arange(num), (model.means.shape[1],))
        walk = particles.walk(sampler, schedule.grid(num_steps, spacing=spacing))
        whole = guidance.Guidance(rule)
        return walk.weighed(keys, whole.on(model), z, jnp.zeros(num, int), whole.init(keys, z))

    x, effective = run()
    return np.asarray(x), np.asarray(effective)


def assert_variance(x, wanted, slack=0.0):
    """To four standard errors of a Gaussian's variance, and what the steps leave out."""
    assert abs(x.var() - wanted) < wanted * (4 * np.sqrt(2 / len(x)) + slack)


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 3.0])
def test_three_answers_to_one_eps(w):
    """By many steps, without a sample: the numbers of GUIDANCE's table at w = 1 are 0.500, 0.583 and 0.667."""
    logsnrs = schedule.grid(2048)
    assert exact.sampled_variance(samplers.DDIM(0.0), logsnrs, w) == pytest.approx(exact.ode_variance(w), rel=0.01)
    for v in (0.0, 0.3):
        found = exact.sampled_variance(samplers.Ancestral(v), logsnrs, w)
        assert found == pytest.approx(exact.sde_variance(w), rel=0.02)
    if w == 1:
        laws = exact.ode_variance(w), exact.sde_variance(w), exact.tilted_variance(w)
        np.testing.assert_allclose(laws, [1 / 2, 7 / 12, 2 / 3])


@pytest.mark.parametrize("sampler", [samplers.Ancestral(0.3), samplers.DDIM(0.5), samplers.DPMpp2M(), samplers.Heun()])
def test_the_variance_without_a_sample_is_the_samples(sampler):
    x, _ = drawn(sampler, 1.0, num_steps=16)
    assert_variance(x, exact.sampled_variance(sampler, schedule.grid(16), 1.0))


def test_truncation_of_algorithm_2():
    """Exact eps of N(0, 1), v = 0.3: the steps alone take 18 % of the variance at T = 16."""
    for num_steps, wanted in ((16, 0.820), (64, 0.950), (256, 0.987)):
        found = exact.sampled_variance(samplers.Ancestral(0.3), schedule.grid(num_steps), 0.0)
        assert found == pytest.approx(wanted, abs=1e-3)


def ode_between(low, high, w):
    """The variance of x that the guided ODE leaves between two log-SNR, in float64: a product of powers of stds."""
    alpha2 = 1 / (1 + np.exp(-np.array([low, high], np.float64)))
    var_c, var_u = alpha2 * 1 + 1 - alpha2, alpha2 * 2 + 1 - alpha2
    begin, end = var_c ** (1 + w) / var_u**w
    share_of_x = 1 - (1 - alpha2[1]) * ((1 + w) / var_c[1] - w / var_u[1])  # of z, at the last step
    return end / begin * share_of_x**2 / alpha2[1]


@pytest.mark.parametrize(("sampler", "order"), [(samplers.DDIM(0.0), 1), (samplers.Heun(), 2), (samplers.DPMpp2M(), 2)])
def test_order_of_convergence(sampler, order):
    """Of the variance, on a grid uniform in log-SNR, where all steps shrink alike."""
    steps = np.array([64, 128, 256])
    grids = [schedule.grid(int(t), -10, 10, "logsnr") for t in steps]
    law = ode_between(-10, 10, w=1.0)
    errors = [abs(exact.sampled_variance(sampler, grid, 1.0) - law) for grid in grids]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order - 0.25 < slope < order + 0.6


def test_langevin_steps_of_size_0_are_ddim_and_a_size_of_1_is_the_sde():
    grid = schedule.grid(1024)
    ddim = exact.sampled_variance(samplers.DDIM(0.0), grid, 1.0)
    assert exact.sampled_variance(samplers.Langevin(0.0), grid, 1.0) == pytest.approx(ddim, rel=1e-4)
    found = exact.sampled_variance(samplers.Langevin(1.0), grid, 1.0)
    assert found == pytest.approx(exact.sde_variance(1.0), rel=0.02)  # DDIM and Langevin at one score
    # many corrections at every level sample that level's own density, in the end the tilted one
    many = exact.sampled_variance(samplers.Langevin(10.0), schedule.grid(4096, spacing="logsnr"), 1.0)
    assert abs(many - exact.tilted_variance(1.0)) < abs(found - exact.tilted_variance(1.0)) / 2


@pytest.mark.parametrize("w", [0.5, 2.0])
def test_guided_ddpm_is_conditional_ddim_and_langevin_at_twice_the_w(w):
    """Predictor and corrector: gamma' = 2 gamma - 1 of Bradley & Nakkiran 2024 is w' = 2w."""

    @struct.dataclass
    class PredictorCorrector(samplers.Stateless):
        def step(self, _, z, state, logsnr, logsnr_next, noise):
            eps = exact.eps(z, logsnr, exact.VARIANCES[0])
            x, sigma = process.predict_x(z, eps, logsnr), process.sigma(logsnr_next)
            z = process.alpha(logsnr_next) * x + sigma * eps
            score = -exact.guided_eps(z, logsnr_next, 2 * w) / sigma
            delta = process.reverse_std(logsnr, logsnr_next, 0.0) ** 2
            return z + delta / 2 * score + jnp.sqrt(delta) * noise, x, state

    grid = schedule.grid(2048)
    both = exact.sampled_variance(PredictorCorrector(), grid, w)
    assert both == pytest.approx(exact.sampled_variance(samplers.Ancestral(0.0), grid, w), rel=0.02)
    assert both == pytest.approx(exact.sde_variance(w), rel=0.03)


@pytest.mark.parametrize("w", [1.0, 2.0])
def test_particles_sample_the_tilted_density(w):
    x, effective = drawn(samplers.Ancestral(0.0, particles=2000), w)
    # particles of a group share ancestors: fewer of them are independent
    assert_variance(x, exact.tilted_variance(w), slack=0.05)
    assert effective.shape == (NUM // 2000,) and (effective > 0.3).all()
    assert abs(exact.sde_variance(w) - exact.tilted_variance(w)) > 0.09 * exact.tilted_variance(w)


def test_particles_without_guidance_are_never_drawn_anew():
    plain, none = drawn(samplers.Ancestral(0.3), 0.0, num_steps=16, num=64)
    grouped, effective = drawn(samplers.Ancestral(0.3, particles=16), 0.0, num_steps=16, num=64)
    np.testing.assert_allclose(np.sort(grouped, axis=0), np.sort(plain, axis=0), atol=1e-6)
    assert none.shape == (0,) and (effective == 1).all()


def test_a_group_depends_on_its_own_images_alone():
    whole, _ = drawn(samplers.Ancestral(0.3, particles=16), 3.0, num_steps=16, num=64)
    first, _ = drawn(samplers.Ancestral(0.3, particles=16), 3.0, num_steps=16, num=32)
    np.testing.assert_allclose(whole[:32], first, atol=1e-5)
    assert len(np.unique(whole)) < 64


def test_effective_size_and_systematic_resampling():
    np.testing.assert_allclose(particles.effective_size(jnp.zeros((2, 8))), 1)
    one = jnp.where(jnp.arange(8) == 3, 0.0, -100.0)
    np.testing.assert_allclose(particles.effective_size(one[None]), 1 / 8, rtol=1e-6)
    assert (particles.ancestors(jax.random.key(0), one) == 3).all()
    weights = np.random.default_rng(0).dirichlet(np.ones(50))
    children = np.bincount(particles.ancestors(jax.random.key(1), jnp.log(jnp.float32(weights))), minlength=50)
    assert (np.floor(50 * weights) <= children).all() and (children <= np.ceil(50 * weights)).all()


@pytest.mark.slow
def test_the_effective_size_collapses_in_many_dimensions():
    """Never drawn anew, a seventh of 4,000 particles counts in 64 dimensions at w = 1, hardly one in 256."""
    grid = jnp.asarray(schedule.grid(256))

    def effective(dim, w):
        def step(carry, at):
            z, log_weight = carry
            logsnr, logsnr_next, key = at
            cond, uncond = (exact.eps(z, logsnr, variance) for variance in exact.VARIANCES)
            log_weight += guidance.log_weight_rate(cond, uncond, w) * (logsnr_next - logsnr)
            x = process.predict_x(z, guidance.guide(cond, uncond, w), logsnr)
            std = process.reverse_std(logsnr, logsnr_next, 0.0)
            z = process.reverse_mean(z, x, logsnr, logsnr_next) + std * jax.random.normal(key, z.shape)
            return (z, log_weight), None

        keys = jax.random.split(jax.random.key(0), len(grid))
        begin = jax.random.normal(keys[-1], (4000, dim)), jnp.zeros(4000)
        (_, log_weight), _ = jax.jit(lambda: jax.lax.scan(step, begin, (grid[:-1], grid[1:], keys[:-1])))()
        return float(particles.effective_size(log_weight[None])[0])

    assert effective(64, 0.3) == pytest.approx(0.91, abs=0.03)
    assert effective(256, 0.3) == pytest.approx(0.74, abs=0.08)
    assert effective(64, 1.0) == pytest.approx(0.14, abs=0.06)
    assert effective(256, 1.0) < 0.02


def test_temperature_is_not_guidance():
    """The score times g on N(0, 1): Algorithm 2 samples 1 / (2g - 1), the ODE goes to 0; the tempered law is 1 / g."""
    g, grid = 2.0, schedule.grid(4096)
    scaled = lambda z, logsnr, g: g * exact.eps(z, logsnr, 1.0)  # noqa: E731
    found = exact.sampled_variance(samplers.Ancestral(0.0), grid, g, scaled)
    assert found == pytest.approx(1 / (2 * g - 1), rel=0.02)
    assert exact.sampled_variance(samplers.DDIM(0.0), grid, g, scaled) < 1e-3


@pytest.mark.slow
def test_classifier_guidance_is_classifier_free_only_from_the_right_base():
    """From the conditional eps with scale w, or from the unconditional one with 1 + w."""
    model = Mixture(jnp.float32([[-1.0, 0.3], [0.5, 0.0]]), jnp.float32([0.4, 0.7]), jnp.float32([0.3, 0.7]))
    z, logsnr, c, w = jax.random.normal(jax.random.key(0), (6, 2)), jnp.linspace(-4.0, 4, 6), jnp.zeros(6, int), 1.5
    null = jnp.full(6, model.null)

    def log_prob(z, logsnr, c):
        joint = jax.vmap(model.log_joint)(z, logsnr)
        return jax.nn.log_softmax(joint)[jnp.arange(len(z)), c]

    free = guidance.guided(model.eps_fn, w, model.null)(z, logsnr, c)
    base = lambda z, logsnr, c: model.eps_fn(z, logsnr, null)  # noqa: E731
    on_cond = guidance.guided_by_classifier(model.eps_fn, log_prob, w)(z, logsnr, c)
    on_uncond = guidance.guided_by_classifier(base, log_prob, 1 + w)(z, logsnr, c)
    np.testing.assert_allclose(on_cond, free, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(on_uncond, free, rtol=1e-3, atol=1e-4)
    wrong = guidance.guided_by_classifier(base, log_prob, w)(z, logsnr, c)
    assert np.abs(wrong - free).max() > 0.1


@pytest.mark.parametrize("gap", [0.1, 1.0, 4.0])
def test_cfg_plus_plus_is_ddims_guidance_with_a_scale_that_grows_as_steps_shrink(gap):
    """x by eps_u + l d, noise put back by eps_u: DDIM at the scale l / (1 - exp(-gap / 2)). Chung et al. 2024."""
    scale, logsnr = 0.6, jnp.float32(-1.0)
    z = jax.random.normal(jax.random.key(0), (5, 3))
    cond, uncond = (exact.eps(z, logsnr, variance) for variance in exact.VARIANCES)
    step = samplers.DDIM(0.0).step

    def stepped(guided):
        x = process.predict_x(z, guided.eps, logsnr)
        predicted = samplers.Predicted(x, guided.eps + guided.shift, guided.log_weight)
        return step(lambda *_: (predicted, ()), z, (), logsnr, logsnr + gap, 0.0)[0]

    eps = uncond + scale * (cond - uncond)
    plus_plus = stepped(guidance.Guided.of(eps, shift=uncond - eps))
    s = scale / -np.expm1(-gap / 2)
    np.testing.assert_allclose(
        plus_plus, stepped(guidance.Guided.of(uncond + s * (cond - uncond))), rtol=1e-4, atol=1e-5
    )
    assert np.abs(plus_plus - stepped(guidance.Guided.of(eps))).max() > 1e-2


def test_less_noise_gives_its_own_variance():
    """The noise's variance times tau: tau, on N(0, 1)."""

    @struct.dataclass
    class Cooled(samplers.Ancestral):
        def step(self, predict, z, state, logsnr, logsnr_next, noise):
            return super().step(predict, z, state, logsnr, logsnr_next, 0.5**0.5 * noise)

    found = exact.sampled_variance(Cooled(0.0), schedule.grid(2048), 0.0)
    assert found == pytest.approx(0.5, rel=0.01)
