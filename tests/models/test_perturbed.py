"""Worse attention as a source of eps_u: what it does to the tokens, and guidance by it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cfg_jax
from cfg_jax import checks
from cfg_jax.diffusion import directions, guidance
from cfg_jax.diffusion.guidance import ClassifierFree, Guidance, Perturbed
from cfg_jax.errors import InputError
from cfg_jax.models import attention
from cfg_jax.training import trainer
from tests.conftest import tiny_config


def test_what_each_does_to_the_tokens(rng):
    q, k, v = jnp.float32(rng.standard_normal((3, 2, 5, 3, 4)))
    plain = jax.nn.dot_product_attention(q, k, v)
    same, blurred, shuffled = (attention.PERTURBATIONS[name](q, k, v) for name in ("pag", "seg", "tpg"))
    np.testing.assert_array_equal(same, v)
    weights = jax.nn.softmax(jnp.einsum("bhd,bkhd->bhk", q.mean(1), k) / 2, -1)
    for token in range(5):
        np.testing.assert_allclose(blurred[:, token], jnp.einsum("bhk,bkhd->bhd", weights, v), rtol=1e-4, atol=1e-5)
    by_norm = lambda a: np.sort(np.linalg.norm(a.reshape(2, 5, -1), axis=-1))  # noqa: E731
    np.testing.assert_allclose(by_norm(np.asarray(shuffled)), by_norm(np.asarray(plain)), rtol=1e-5)
    assert np.abs(shuffled - plain).max() > 0.1


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model that was trained without a null label."""
    config, run = tiny_config(), tmp_path_factory.mktemp("run") / "labelled"
    config.p_uncond = 0.0
    trainer.train(config, run)
    return cfg_jax.load(run, params="params")


@pytest.mark.slow
@pytest.mark.parametrize("kind", attention.PERTURBATIONS)
def test_every_rule_takes_a_perturbed_pass_for_eps_u(model, kind):
    z, c, logsnr = jax.random.normal(jax.random.key(0), (3, 8, 8, 1)), jnp.arange(3), jnp.float32(0.5)
    cond, worse = (of.eps_fn(z, jnp.full(3, logsnr), c) for of in (model.denoiser, model.denoiser.perturbed(kind)))
    assert jnp.abs(cond - worse).max() > 1e-5
    out, _ = Guidance(ClassifierFree(2.0), Perturbed(kind)).on(model.denoiser)(z, logsnr, c, guidance.STATELESS)
    np.testing.assert_allclose(out.eps, cond + 2 * (cond - worse), rtol=1e-3, atol=1e-4)
    images = [model.sample([1, 2], w=w, uncond=kind) for w in (0.0, 4.0)]
    assert (images[0] != images[1]).any()
    assert (images[0] == model.sample([1, 2], w=0.0)).all()


@pytest.mark.slow
def test_a_perturbed_pass_beside_equation_6(model):
    z, c, logsnr = jax.random.normal(jax.random.key(0), (3, 8, 8, 1)), jnp.arange(3), jnp.float32(0.5)
    on = lambda rule: Guidance(rule).on(model.denoiser)(z, logsnr, c, guidance.STATELESS)[0].eps  # noqa: E731
    plain = on(ClassifierFree(1.5))
    np.testing.assert_allclose(on(directions.BesidePerturbed(1.5, "seg", 0.0)), plain, rtol=1e-4, atol=1e-5)
    cond, worse = (of.eps_fn(z, jnp.full(3, logsnr), c) for of in (model.denoiser, model.denoiser.perturbed("seg")))
    wanted = plain + 0.7 * (cond - worse)
    np.testing.assert_allclose(on(directions.BesidePerturbed(1.5, "seg", 0.7)), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_network_that_has_none_is_told_so(model, tiny, monkeypatch):
    with pytest.raises(InputError, match="the perturbation='sag' is unknown: did you mean"):
        model.denoiser.perturbed("sag")
    tiny.guidance.uncond = "seg"
    checks.sampling(tiny)
    monkeypatch.setattr(type(model.denoiser.net), "perturbations", ())
    with pytest.raises(InputError, match="uncond=seg is no perturbation that the network unet has: it has none"):
        checks.sampling(tiny)
    tiny.guidance.update(uncond="null", name="beside_perturbed")
    with pytest.raises(InputError, match="perturbation=pag is no perturbation"):
        checks.sampling(tiny)
