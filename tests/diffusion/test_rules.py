"""Every rule of guidance: a closed form or an identity, what it costs, and what it may not stand beside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax import checks
from cfg_jax.diffusion import directions, exact, guidance, process, rules, samplers, schedule
from cfg_jax.diffusion.guidance import ClassifierFree, Guidance, SecondModel, Unguided
from cfg_jax.errors import InputError
from cfg_jax.models import build
from cfg_jax.models.mixture import Gaussians, Mixture
from cfg_jax.sampling import draw as drawing

TWO = Gaussians(jnp.zeros((2, 1)), jnp.sqrt(jnp.float32(exact.VARIANCES)))
THREE = Mixture(jnp.float32([[1, 0], [-1, 0.5], [0, -2]]), jnp.float32([0.3, 0.5, 1]), jnp.float32([0.2, 0.3, 0.5]))
NUM = 20_000


def drawn(how, sampler, logsnrs, model=TWO, num=NUM, c=0):
    """x [num, D] of class c."""

    @jax.jit
    def run():
        keys, z = samplers.start(0, jnp.arange(num), (model.means.shape[1],))
        walk = drawing.on_grid(samplers.Walk(sampler, logsnrs), how)
        return walk(keys, how.on(model), z, jnp.full(num, c), how.init(keys, z))

    return np.asarray(run())


@pytest.fixture
def halves(rng):
    """(Halves, z, logsnr, eps_c, eps_u, eps of label 1) of 2 images of 5 numbers, in float64; c is 0."""
    z, cond, uncond, other = rng.standard_normal((4, 2, 5))
    known = guidance.Halves(
        lambda z, logsnr, c: jnp.where(c[0] == 0, jnp.float32(cond), jnp.float32(other)),
        lambda *_: (jnp.float32(cond), jnp.float32(uncond)),
    )
    return known, z, -0.7, cond, uncond, other


def asked(rule, halves):
    out, _ = rule(halves[0], jnp.float32(halves[1]), jnp.float32(halves[2]), jnp.zeros(2, int), rule.init(halves[1]))
    return np.asarray(out.eps), np.asarray(out.shift)


W = np.float32([0.5, 3.0])


@pytest.mark.parametrize(
    "rule",
    [
        rules.PowerLaw(W, 0.0),
        rules.TwoLabels(W, 1, 0.0),
        rules.Rescaled(ClassifierFree(W), 0.0),
        rules.Scheduled(ClassifierFree(W / 2), (-5.0, 5.0), (2.0, 2.0)),
        rules.PlusPlus(1 + W),
        directions.MagnitudeAware(W, 0.0),
        directions.LookAhead(W, 0.0),
        rules.Rescaled(rules.Scheduled(rules.PowerLaw(2 * W, 0.0), (-0.7, 0.0), (0.5, 9.0)), 0.0),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_where_a_rule_changes_nothing_it_is_equation_6(rule, halves):
    _, _, _, cond, uncond, _ = halves
    wanted = cond + W[:, None] * (cond - uncond)
    np.testing.assert_allclose(asked(rule, halves)[0], wanted, rtol=1e-4, atol=1e-5)


def test_power_law_by_hand(halves):
    _, _, _, cond, uncond, _ = halves
    d = cond - uncond
    wanted = cond + W[:, None] * np.linalg.norm(d, axis=1, keepdims=True) ** 0.9 * d
    np.testing.assert_allclose(asked(rules.PowerLaw(W, 0.9), halves)[0], wanted, rtol=1e-4, atol=1e-5)


def test_cfg_zero_projects_velocities_by_hand(halves):
    _, z, logsnr, cond, uncond, _ = halves
    alpha, sigma = np.sqrt(1 / (1 + np.exp(-logsnr))), np.sqrt(1 / (1 + np.exp(logsnr)))
    v_c, v_u = ((z - sigma * eps) / alpha - eps for eps in (cond, uncond))
    k = (v_c * v_u).sum(1, keepdims=True) / (v_u**2).sum(1, keepdims=True)
    v = k * v_u + (1 + W[:, None]) * (v_c - k * v_u)
    # the straight path's point is z / (alpha + sigma), and eps is it less t v
    wanted = z / (alpha + sigma) - alpha / (alpha + sigma) * v
    np.testing.assert_allclose(asked(rules.ZeroStar(W), halves)[0], wanted, rtol=1e-4, atol=1e-5)
    still = asked(rules.ZeroStar(W, zero_below=0.0), halves)[0]
    np.testing.assert_allclose(
        still, process.predict_x(jnp.float32(z), jnp.asarray(still), jnp.float32(logsnr)), rtol=1e-4, atol=1e-5
    )


def test_two_labels_by_hand_and_of_one_label_twice_it_is_equation_6(halves):
    _, _, _, cond, uncond, other = halves
    wanted = cond + W[:, None] * (cond - uncond) - 0.6 * (other - uncond)
    np.testing.assert_allclose(asked(rules.TwoLabels(W, 1, -0.6), halves)[0], wanted, rtol=1e-4, atol=1e-5)
    same, sum_of_both = asked(rules.TwoLabels(W, 0, 0.6), halves)[0], asked(ClassifierFree(W + 0.6), halves)[0]
    np.testing.assert_allclose(same, sum_of_both, rtol=1e-4, atol=1e-5)


def test_magnitude_aware_guidance_by_hand(halves):
    _, _, _, cond, uncond, _ = halves
    share = np.linalg.norm(cond - uncond, axis=1, keepdims=True) / np.linalg.norm(uncond, axis=1, keepdims=True)
    wanted = cond + W[:, None] * np.exp(-2.0 * share) * (cond - uncond)
    np.testing.assert_allclose(asked(directions.MagnitudeAware(W, 2.0), halves)[0], wanted, rtol=1e-4, atol=1e-5)


def test_tangential_guidance_keeps_the_first_singular_vector(halves):
    known, z, logsnr, cond, uncond, _ = halves
    first = [np.linalg.svd(np.stack(rows), full_matrices=False)[2][0] for rows in zip(cond, uncond, strict=True)]
    kept = np.stack([(u @ v) * v for u, v in zip(uncond, first, strict=True)])
    wanted = cond + W[:, None] * (cond - kept)
    np.testing.assert_allclose(asked(directions.Tangential(W), halves)[0], wanted, rtol=1e-4, atol=1e-4)
    parallel = known._replace(both=lambda *_: (jnp.float32(cond), jnp.float32(-2 * cond)))
    found = asked(directions.Tangential(W), (parallel, z, logsnr))[0]
    np.testing.assert_allclose(found, cond * (1 + 3 * W[:, None]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("side", "levels"), [(8, 1), (8, 3), (7, 2)])
def test_frequencies_guided_alike_are_equation_6_and_a_flat_difference_is_all_coarse(rng, side, levels):
    z, cond, uncond = jnp.float32(rng.standard_normal((3, 2, side, side, 1)))
    of = lambda cond, uncond: guidance.Halves(lambda *_: cond, lambda *_: (cond, uncond))  # noqa: E731
    alike = asked(directions.FrequencyDecoupled(W, 1.0, levels), (of(cond, uncond), z, -0.7))[0]
    by_w = W.reshape(2, 1, 1, 1)
    np.testing.assert_allclose(alike, cond + by_w * (cond - uncond), rtol=1e-4, atol=1e-5)
    flat = asked(directions.FrequencyDecoupled(W, 0.25, levels), (of(cond, cond - 1), z, -0.7))[0]
    np.testing.assert_allclose(flat, cond + by_w * 0.25, rtol=1e-4, atol=1e-5)
    # a chequerboard of an even side has no coarse half
    fine = np.indices((side, side)).sum(0)[None, ..., None] % 2 * 2.0 - 1
    if side % 2 == 0:
        found = asked(directions.FrequencyDecoupled(W, 0.0, levels), (of(cond, cond - jnp.float32(fine)), z, -0.7))[0]
        inside = np.s_[:, 2:-2, 2:-2]
        np.testing.assert_allclose(found[inside], (np.asarray(cond) + by_w * fine)[inside], rtol=1e-3, atol=0.15)


@pytest.mark.parametrize("ahead", [0.1, 0.4])
def test_looking_ahead_by_hand_and_never_beyond_the_clean_end(ahead):
    """On exact Gaussians: eps is linear in z, so that each part is known."""
    w, logsnr, c = 1.5, -0.7, jnp.zeros(2, int)
    z = jnp.float32([[0.8], [-1.1]])

    def velocity(z, logsnr, variance):
        eps = exact.eps(z, jnp.float32(logsnr), variance)
        return process.predict_x(z, eps, jnp.float32(logsnr)) - eps, eps

    v, eps = velocity(z, logsnr, exact.VARIANCES[0])
    t = 1 / (1 + np.exp(-logsnr / 2))
    straight = (1 - t - ahead) * eps + (t + ahead) * (v + eps)
    logsnr_next = 2 * np.log((t + ahead) / (1 - t - ahead))
    there = straight / ((1 - t - ahead) / float(process.sigma(logsnr_next)))
    apart = velocity(there, logsnr_next, exact.VARIANCES[0])[0] - velocity(there, logsnr_next, exact.VARIANCES[1])[0]
    whole = Guidance(directions.LookAhead(w, ahead)).on(TWO)
    out, _ = whole(z, jnp.float32(logsnr), c, guidance.STATELESS)
    np.testing.assert_allclose(out.x - out.eps, v + w * apart, rtol=1e-4, atol=1e-4)
    late, _ = whole(z, jnp.float32(19.0), c, guidance.STATELESS)
    plain, _ = Guidance(ClassifierFree(w)).on(TWO)(z, jnp.float32(19.0), c, guidance.STATELESS)
    np.testing.assert_allclose(late.x, plain.whole(z, jnp.float32(19.0)).x, rtol=1e-3)


def test_the_gradient_of_reg_by_hand():
    """x_c of N(0, 1) is alpha z: g is alpha^2 everywhere, so that REG is Equation 6 at alpha^2 w."""
    z, logsnr, c = jnp.float32([[0.8], [-1.1]]), jnp.float32(0.9), jnp.zeros(2, int)
    found, _ = Guidance(directions.Rectified(2.0)).on(TWO)(z, logsnr, c, guidance.STATELESS)
    w = 2.0 * float(process.alpha(logsnr)) ** 2
    wanted, _ = Guidance(ClassifierFree(w)).on(TWO)(z, logsnr, c, guidance.STATELESS)
    np.testing.assert_allclose(found.eps, wanted.eps, rtol=1e-4)


def fed_back(rule, logsnrs, num=4000):
    """The walk of Algorithm 2 with v = 0 by feedback guidance: z [num, 1] and l [num] at its end."""
    keys, z = samplers.start(0, jnp.arange(num), (1,))
    step = Guidance(rule).on(TWO)
    c, state = jnp.zeros(num, int), Guidance(rule).init(keys, z)

    @jax.jit
    def walked(z, state):
        def one(carry, inputs):
            (z, state), (t, logsnr, logsnr_next) = carry, inputs
            out, state = step(z, logsnr, c, state)
            mean = process.reverse_mean(z, out.whole(z, logsnr).x, logsnr, logsnr_next)
            noise = samplers.noise_of(keys, t, (1,))
            return (mean + process.reverse_std(logsnr, logsnr_next, 0.0) * noise, state), None

        steps = jnp.arange(1, len(logsnrs)), logsnrs[:-1], logsnrs[1:]
        (z, state), _ = jax.lax.scan(one, (z, state), steps)
        return z, rule.gained(z, logsnrs[-1], *state[0])

    return walked(z, state)


def test_feedback_measures_how_likely_a_path_is_without_its_label():
    """On paths of the conditional model, by steps of the same variance, the mean of p(path) / p(path | c) is 1."""
    logsnrs = jnp.asarray(schedule.grid(32, -6, 6, "logsnr"))
    z, ratio = fed_back(directions.Feedback(1.0, prior=1.0), logsnrs, 20_000)
    assert float(ratio.max()) < 3  # nothing was clipped
    inverse = np.exp(-np.asarray(ratio))
    assert abs(inverse.mean() - 1) < 4 * inverse.std() / np.sqrt(len(inverse)) and inverse.std() > 0.1
    # far from 0, where p(x | c) is smaller, the ratio is smaller
    assert np.corrcoef(np.abs(z[:, 0]), ratio)[0, 1] < -0.5


def test_the_published_settings_of_feedback_by_hand():
    # ln(0.0015) = -6.5023, over 0.444 * 32; tan^2 at 0.429 and 0.39775 of a right angle is 0.6377 and 0.5201
    variance = (0.6377 - 0.5201) * 0.5201 / 0.6377
    assert directions.Feedback.published(32) == (-0.458, pytest.approx(0.2 * 0.458 * variance, abs=1e-4))


def test_feedback_is_bounded_by_w_and_guides_least_where_the_label_is_clear():
    rule = directions.Feedback(jnp.float32([4.0, 4.0, 4.0]), prior=0.9)
    least = float(rule.least()[0])
    np.testing.assert_allclose(rule.strength(jnp.float32([-9.0, least, 0.0])), [4, 4, 0.1 / 0.9], rtol=1e-3)
    logsnrs = jnp.asarray(schedule.grid(32, -6, 6, "logsnr"))
    _, ratio = fed_back(directions.Feedback(4.0, prior=0.9, temperature=4.0, offset=-0.2), logsnrs)
    assert float(ratio.min()) >= least - 1e-5 and float(ratio.max()) > least + 0.1


@pytest.mark.parametrize("name", rules.SCHEDULES)
def test_a_named_schedule_has_mean_1_over_the_cosine_schedules_time(name, halves):
    known, z, _, cond, uncond, _ = halves
    us = (np.arange(200) + 0.5) / 200
    rule = rules.Scheduled(ClassifierFree(1.0), schedule=name)
    at = lambda u: asked(rule, (known, z, -2 * np.log(np.tan(np.pi * u / 2))))[0]  # noqa: E731
    factors = np.stack([(at(u) - cond) / (cond - uncond) for u in us[::5]])
    assert abs(factors.mean() - np.mean([float(rules.SCHEDULES[name](u)) for u in us[::5]])) < 1e-3
    assert abs(np.mean([float(rules.SCHEDULES[name](u)) for u in us]) - 1) < 1e-3


def test_rescaled_to_1_has_the_spread_of_the_unguided_x(halves):
    _, z, logsnr, cond, _, _ = halves
    x_of = lambda eps: np.asarray(process.predict_x(jnp.float32(z), jnp.float32(eps), jnp.float32(logsnr)))  # noqa: E731
    guided = x_of(asked(ClassifierFree(W), halves)[0])
    x = x_of(asked(rules.Rescaled(ClassifierFree(W), 1.0), halves)[0])
    np.testing.assert_allclose(x.std(1), x_of(cond).std(1), rtol=1e-4)
    half = x_of(asked(rules.Rescaled(ClassifierFree(W), 0.5), halves)[0])
    np.testing.assert_allclose(half, (x + guided) / 2, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("around", [lambda rule: rule, lambda rule: rules.Scheduled(rule)], ids=["itself", "wrapped"])
def test_what_looks_elsewhere_is_not_rescaled(around, halves):
    with pytest.raises(InputError, match="leave rescale out"):
        asked(rules.Rescaled(around(directions.LookAhead(W)), 0.7), halves)


def test_a_schedule_is_linear_between_its_points_and_constant_beyond(halves):
    _, _, _, cond, uncond, _ = halves
    for at, factors, factor in (
        ((-1.7, 0.3), (0.0, 2.0), 1.0),
        ((0.0, 1.0), (3.0, 7.0), 3.0),
        ((-9.0, -2.0), (3.0, 7.0), 7.0),
    ):
        rule = rules.Scheduled(ClassifierFree(W), at, factors)
        wanted = cond + factor * W[:, None] * (cond - uncond)
        np.testing.assert_allclose(asked(rule, halves)[0], wanted, rtol=1e-4, atol=1e-5)


def test_cfg_plus_plus_is_ddim_with_a_w_for_each_step():
    """1 + w_t = l / (1 - exp(-(logsnr' - logsnr) / 2)): on exact Gaussians, sample by sample."""
    logsnrs = schedule.grid(24, -8, 8, "logsnr")
    factor = 1 / -np.expm1((logsnrs[0] - logsnrs[1]) / 2)  # the same for all steps of this grid
    x = drawn(Guidance(rules.PlusPlus(0.6)), samplers.DDIM(0.0), logsnrs, num=64)
    # the last evaluation has no step after it: x there is by l itself
    schedule_w = np.float32([factor * 0.6 - 1] * 23 + [0.6 - 1])
    there = rules.Scheduled(ClassifierFree(1.0), tuple(logsnrs), tuple(schedule_w))
    wanted = drawn(Guidance(there), samplers.DDIM(0.0), logsnrs, num=64)
    np.testing.assert_allclose(x, wanted, rtol=1e-3, atol=1e-4)
    assert np.abs(x - drawn(Guidance(ClassifierFree(0.6 - 1)), samplers.DDIM(0.0), logsnrs, num=64)).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [samplers.DDIM(0.0), samplers.Ancestral(0.3)])
def test_rounds_start_unguided_and_go_down_by_the_rule(sampler):
    """x of variance 1 noised to renoise_logsnr has it again: a round leaves what a walk that begins there does."""
    logsnrs, w = schedule.grid(512), 1.0
    rule = rules.Rounds(ClassifierFree(w), 1, 2.0)
    x = drawn(Guidance(rule), sampler, logsnrs)
    wanted = exact.sampled_variance(sampler, np.append(np.float32(2.0), logsnrs[logsnrs > 2.0]), w)
    assert abs(x.var() - wanted) < wanted * (4 * np.sqrt(2 / NUM) + 0.01)
    assert wanted > 1.1 * exact.sampled_variance(sampler, logsnrs, w)  # and not what the whole walk does
    still = drawn(Guidance(rules.Rounds(ClassifierFree(0.0), 3, -1.0)), sampler, schedule.grid(128))
    assert abs(still.var() - 1) < 4 * np.sqrt(2 / NUM) + 0.05


def test_a_random_other_label_is_never_the_own_and_of_two_the_other():
    keys, c = jax.random.split(jax.random.key(0), 3000), jnp.arange(3000) % 3
    ahead = (np.asarray(guidance.OtherLabel().labels(keys, c, 3)) - c) % 3
    assert set(np.unique(ahead)) == {1, 2} and abs((ahead == 1).mean() - 0.5) < 4 * 0.5 / np.sqrt(3000)

    pair = Mixture(jnp.float32([[-1.0], [1.0]]), jnp.float32([0.3, 0.5]), jnp.float32([0.5, 0.5]))

    class Swapped:  # the other class by name
        def eps_fn(self, z, logsnr, c):
            return pair.eps_fn(z, logsnr, 1 - c)

    grid = schedule.grid(16)
    by_chance = drawn(Guidance(ClassifierFree(1.0), guidance.OtherLabel()), samplers.DDIM(0.0), grid, pair, 64)
    by_name = drawn(Guidance(ClassifierFree(1.0), SecondModel(Swapped(), False)), samplers.DDIM(0.0), grid, pair, 64)
    np.testing.assert_allclose(by_chance, by_name, atol=1e-5)


@pytest.mark.slow
def test_other_labels_change_from_step_to_step_and_not_with_the_batch():
    how, grid = Guidance(ClassifierFree(1.0), guidance.OtherLabel()), schedule.grid(16)
    many, few = (drawn(how, samplers.Ancestral(0.3), grid, THREE, num) for num in (64, 7))
    np.testing.assert_allclose(many[:7], few, atol=1e-5)

    class Fixed:  # the same other label at each step
        def eps_fn(self, z, logsnr, c):
            return THREE.eps_fn(z, logsnr, (c + 1) % 3)

    fixed = drawn(Guidance(ClassifierFree(1.0), SecondModel(Fixed(), False)), samplers.Ancestral(0.3), grid, THREE, 64)
    assert np.mean(np.abs(many - fixed).max(1) > 1e-3) > 0.99


def test_the_mean_over_other_labels_is_not_the_unconditional_eps():
    """They weigh alike, and p(c | z) does not: near class 0 the gap is large, in pure noise it is 0."""
    z = jnp.full((1, 2), 0.9)

    def gap(logsnr):
        at = lambda c: THREE.eps_fn(z, jnp.float32([logsnr]), jnp.int32([c]))  # noqa: E731
        return float(jnp.abs((at(1) + at(2)) / 2 - at(3)).max())

    assert gap(2.0) > 0.5 and gap(-12.0) < 0.01


class Ratio:
    """log p(c | z) = log p(z | c) - log p(z) of TWO: what a perfect classifier would say, but for a constant."""

    def log_prob(self, z, logsnr, c):
        def log_p(variance):
            total = process.alpha(logsnr) ** 2 * variance + process.sigma(logsnr) ** 2
            return -0.5 * (z[:, 0] ** 2 / total + jnp.log(total))

        return log_p(exact.VARIANCES[0]) - log_p(exact.VARIANCES[1])


@pytest.mark.parametrize("w", [0.5, 2.0])
def test_a_perfect_classifier_is_classifier_free_guidance(w):
    """At w on the conditional model, at 1 + w on the unconditional one; sample by sample."""
    grid, sampler = schedule.grid(32), samplers.Ancestral(0.3)
    wanted = drawn(Guidance(ClassifierFree(w)), sampler, grid, num=64)
    for rule, scale in ((Unguided(), w), (guidance.Unconditional(), 1 + w)):
        x = drawn(Guidance(rule, classifier=Ratio(), classifier_scale=scale), sampler, grid, num=64)
        np.testing.assert_allclose(x, wanted, atol=1e-4)


@pytest.mark.slow
def test_the_classifiers_push_of_the_mean_is_the_shift_of_eps_where_steps_are_small():
    by = lambda as_mean, num_steps: drawn(  # noqa: E731
        Guidance(Unguided(), classifier=Ratio(), classifier_scale=1.0, as_mean=as_mean),
        samplers.Ancestral(0.3), schedule.grid(num_steps, -10, 10, "logsnr"), num=4000,
    )  # fmt: skip
    far, near = (np.abs(by(True, t) - by(False, t)).mean() for t in (16, 256))
    assert near < far / 8 and near < 0.02
    # one step by hand: mean + variance times the gradient. Dhariwal & Nichol 2021, Algorithm 1
    z, at, to = jnp.float32([[0.7]]), jnp.float32(-1.0), jnp.float32(0.5)
    how = Guidance(Unguided(), classifier=Ratio(), classifier_scale=2.0, as_mean=True)
    out, _ = how.on(TWO)(z, at, jnp.zeros(1, int), guidance.STATELESS)
    x = process.predict_x(z, TWO.eps_fn(z, at[None], jnp.zeros(1, int)), at)
    gradient = guidance.log_prob_gradient(Ratio().log_prob, z, at, jnp.zeros(1, int))
    predict = lambda z, logsnr, state: (samplers.Predicted(x, out.eps, out.push), state)  # noqa: E731
    found, _, _ = samplers.Ancestral(0.0).step(predict, z, None, at, to, jnp.zeros((1, 1)))
    wanted = process.reverse_mean(z, x, at, to) + 2 * process.reverse_std(at, to, 0.0) ** 2 * gradient
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("how", "sampler", "wanted"),
    [
        (Guidance(Unguided()), samplers.Ancestral(0.3), 6),
        (Guidance(ClassifierFree(np.ones(4))), samplers.Ancestral(0.3), 12),
        (Guidance(ClassifierFree(1.0)), samplers.Ancestral(0.3, particles=2), 12),
        (Guidance(ClassifierFree(1.0)), samplers.Heun(), 24),
        (Guidance(ClassifierFree(1.0), SecondModel(None, True)), samplers.DDIM(0.0), 12),
        (Guidance(ClassifierFree(1.0), guidance.OtherLabel()), samplers.DDIM(0.0), 12),
        (Guidance(rules.TwoLabels(1.0, 0)), samplers.DDIM(0.0), 18),
        (Guidance(rules.Interval(ClassifierFree(1.0), -3.0, 2.0)), samplers.DDIM(0.0), 9),
        (Guidance(rules.Rounds(ClassifierFree(1.0), 2, -2.0)), samplers.DDIM(0.0), 6 + 2 * 2 * 5),
        (
            Guidance(rules.Rounds(rules.Interval(ClassifierFree(1.0), -3.0, 2.0), 1, -4.0)),
            samplers.DDIM(0.0),
            6 + 6 + 3,
        ),
    ],
)
def test_passes_are_as_declared_and_no_more_than_a_rule_needs(how, sampler, wanted):
    """A walk of a few images of one pixel, whose model counts what it is given."""
    walk = samplers.Walk(sampler, np.float32([-6, -3, -1, 0, 2, 5]), samplers.clip)
    assert drawing.passes(how, walk) == wanted
    seen, count = [], 4

    class Counting:
        null = 2

        def eps_fn(self, z, logsnr, c, *w):
            jax.experimental.io_callback(lambda _: seen.append(len(z)), None, z[0, 0], ordered=True)
            return z

    if isinstance(how.second, SecondModel):
        how = how.replace(second=SecondModel(Counting(), how.second.unlabelled))

    @jax.jit
    def drawn():
        keys, z = samplers.start(0, np.arange(count), (1,))
        walk_of_rule = drawing.on_grid(walk, how)
        return walk_of_rule(keys, how.on(Counting()), z, jnp.zeros(count, jnp.int32), how.init(keys, z))

    jax.block_until_ready(drawn())
    jax.effects_barrier()
    assert sum(seen) == wanted * count


def test_a_config_composes_rules_in_their_order(tiny):
    tiny.guidance.update(
        name="cfg_zero", schedule_logsnr=(-5.0, 5.0), schedule_w=(0.0, 1.0), rescale=0.7, logsnr_low=-4.0, rounds=2,
        renoise_logsnr=0.0, uncond="other_label",
    )  # fmt: skip
    checks.everything(tiny)
    rule = build.rule(tiny.guidance, 1.0)
    names = []
    while hasattr(rule, "rule"):
        names.append(type(rule))
        rule = rule.rule
    assert [*names, type(rule)] == [rules.Rounds, rules.Interval, rules.Rescaled, rules.Scheduled, rules.ZeroStar]
    assert build.guidance_fields(tiny.guidance) == {
        "schedule_logsnr": (-5.0, 5.0), "schedule_w": (0.0, 1.0), "rescale": 0.7, "logsnr_low": -4.0, "rounds": 2,
        "renoise_logsnr": 0.0, "uncond": "other_label",
    }  # fmt: skip
    unguided = build.rule(tiny.guidance, 0.0)  # the rounds of w = 0 make another image than none
    assert isinstance(unguided, rules.Rounds) and isinstance(unguided.rule, Unguided)
    tiny.guidance.rounds = tiny.guidance.renoise_logsnr = None
    assert isinstance(build.rule(tiny.guidance, 0.0), Unguided)
    tiny.guidance.name = "cfg_pp"
    assert not isinstance(build.rule(tiny.guidance, 0.0), Unguided)  # its w = 0 is the unconditional model


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"guidance.name": "cfg_zer"}, "guidance.name='cfg_zer' is unknown: did you mean cfg_zero"),
        ({"guidance.uncond": "none"}, "guidance.uncond='none' is unknown"),
        ({"guidance.name": "cfg_pp"}, "cfg_pp is a step of DDIM: set config.sampler.name=ddim"),
        ({"guidance.name": "cfg_pp", "sampler.name": "ddim", "guidance.rescale": 0.7}, "rescale would change"),
        ({"guidance.rescale": 1.5}, r"guidance.rescale=1.5 must lie in \[0, 1\]"),
        ({"guidance.name": "two_labels"}, "other_label=None must be one of the 10 classes, 0 to 9"),
        ({"guidance.name": "two_labels", "guidance.other_label": 10}, "other_label=10 must be one of the 10 classes"),
        ({"guidance.logsnr_low": 2.0, "guidance.logsnr_high": 2.0}, "logsnr_low=2.0 must be below logsnr_high=2.0"),
        ({"guidance.schedule_w": (1.0, 2.0)}, "must increase, and have as many numbers"),
        ({"guidance.schedule_logsnr": (1.0, 0.0), "guidance.schedule_w": (1.0, 2.0)}, "must increase"),
        (
            {"guidance.schedule_logsnr": (0.0,), "guidance.schedule_w": (float("nan"),)},
            r"config.guidance.schedule_w\[0\] is nan, not a finite number",
        ),
        ({"guidance.rounds": 2}, "rounds=2 and renoise_logsnr=None go together"),
        ({"guidance.rounds": 2, "guidance.renoise_logsnr": 20.0}, r"a log-SNR in \(-20, 20\)"),
        ({"guidance.rounds": 2, "guidance.renoise_logsnr": 0.0, "sampler.name": "heun"}, "where sampler heun cannot"),
        ({"guidance.classifier": "mean", "sampler.name": "ddim"}, "classifier=mean moves the mean of Algorithm 2's"),
        ({"guidance.uncond": "other_label", "data.num_classes": 1}, "uncond=other_label needs two classes"),
        ({"guidance.name": "reg", "guidance.rescale": 0.5}, "leave rescale out"),
        ({"guidance.name": "fdg", "guidance.levels": 0}, r"guidance.levels=0 must lie in \[1, 8\]"),
        ({"guidance.name": "feedback", "guidance.prior": 1.5}, r"guidance.prior=1.5 must lie in \[0, 1\]"),
        ({"guidance.schedule": "sine"}, "guidance.schedule=sine is unknown: choose one of linear, cosine"),
        (
            {"guidance.schedule": "cosine", "guidance.schedule_logsnr": (0.0,), "guidance.schedule_w": (1.0,)},
            "leave out schedule_logsnr",
        ),
        ({"guidance.rescale": 0.5, "sampler.particles": 4}, "particles=4 has the weights of .* with nothing around it"),
    ],
)
def test_what_means_nothing_is_refused_with_the_reason(tiny, fields, message):
    for field, value in fields.items():
        group, _, name = field.partition(".")
        tiny[group][name] = value
    with pytest.raises(InputError, match=message):
        checks.sampling(tiny)
