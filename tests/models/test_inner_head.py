"""The inner head: trained with the network, or alone on one that is there, and guidance by it in one pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cfg_jax
from cfg_jax import checks
from cfg_jax.diffusion import guidance, loss, samplers
from cfg_jax.diffusion.guidance import ClassifierFree, Guidance, InnerHead
from cfg_jax.errors import InputError
from cfg_jax.models import build
from cfg_jax.sampling import draw
from cfg_jax.training import trainer
from tests.conftest import fill, tiny_config
from tests.models.test_jit import tiny_jit


def with_head():
    config = tiny_config()
    config.model.multipliers, config.model.inner_head = (1, 1), True
    return config


def jit_with_head():
    config = tiny_jit()
    config.model.inner_head = True
    return config


@pytest.fixture(scope="module", params=[with_head, jit_with_head])
def run(request, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "both"
    trainer.train(request.param(), workdir)
    return workdir


@pytest.mark.slow
def test_both_heads_are_trained_and_one_pass_guides(run):
    model = cfg_jax.load(run, params="params")
    fresh = jax.jit(lambda: build.parameters(model.config, jax.random.key(model.config.seed)))()
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), fresh, dict(model.denoiser.params))
    for start in "inner_", "out":
        assert max(jax.tree.leaves({name: moved[name] for name in moved if name.startswith(start)})) > 0
    z, c, logsnr = jax.random.normal(jax.random.key(0), (3, 8, 8, 1)), jnp.arange(3), jnp.float32(0.5)
    heads = model.denoiser.heads(z, jnp.full(3, logsnr), c)
    final, inner = (loss.convert(out, z, jnp.full(3, logsnr), model.denoiser.predicts, "eps") for out in heads)
    np.testing.assert_allclose(final, model.denoiser.eps_fn(z, jnp.full(3, logsnr), c), atol=1e-5)
    how = Guidance(ClassifierFree(2.0), InnerHead())
    out, _ = how.on(model.denoiser)(z, logsnr, c, guidance.STATELESS)
    np.testing.assert_allclose(out.eps, final + 2 * (final - inner), rtol=1e-4, atol=1e-4)
    assert draw.passes(how, samplers.Walk(samplers.DDIM(), np.zeros(7))) == 7
    assert (model.sample([1, 2], w=4.0, uncond="inner_head") != model.sample([1, 2], w=0.0)).any()


@pytest.mark.slow
@pytest.mark.parametrize("config_of", [with_head, jit_with_head])
def test_alone_it_is_trained_on_a_network_that_stays(tmp_path, config_of):
    whole = config_of()
    whole.model.inner_head = False
    trainer.train(whole, tmp_path / "whole")
    config = config_of()
    config.init_from, config.train.inner_head_alone = str(tmp_path / "whole"), True
    trainer.train(config, tmp_path / "head")
    before = cfg_jax.load(tmp_path / "whole").denoiser.params  # init_from takes the EMA
    after = cfg_jax.load(tmp_path / "head", params="params").denoiser.params
    inner = {name: after[name] for name in after if name.startswith("inner_")}
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(inner)) > 0
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves({n: after[n] for n in before}), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_the_head_between_the_levels_predicts_every_pixel():
    config = with_head()
    config.model.multipliers = (1, 1, 1, 1)
    net = build.network(config)
    params = fill(build.shapes(config))
    z = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))
    out, inner = net.apply({"params": params}, z, jnp.zeros(1), jnp.zeros(1, int), both_heads=True)
    assert inner.shape == out.shape == z.shape
    assert params["inner_conv"]["kernel"].shape[-1] == 4  # of half the resolution: four pixels a place
    assert float(inner.std()) > 0


@pytest.mark.slow
def test_what_has_no_such_head_is_told_so(tiny_run):
    model = cfg_jax.load(tiny_run[1])
    with pytest.raises(InputError, match="inner_head asks for a prediction that this model lacks"):
        model.sample([1], w=1.0, uncond="inner_head")
    config = tiny_config()
    config.model.inner_head = True
    with pytest.raises(InputError, match="is between two levels, and this network has one"):
        checks.everything(config)
    config = with_head()
    config.train.inner_head_alone = True
    with pytest.raises(InputError, match="inner_head_alone trains a head on a network"):
        checks.everything(config)
