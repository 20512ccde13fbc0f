import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.models import build, noise_level, unet
from tests.conftest import fill


def abstract(config, batch=2):
    """(network, abstract inputs, abstract parameters) of a config, nothing computed."""
    size, channels = config.data.image_size, config.data.channels
    shapes = (((batch, size, size, channels), "float32"), ((batch,), "float32"), ((batch,), "int32"))
    inputs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
    net = build.network(config)
    return net, inputs, jax.eval_shape(net.init, jax.random.key(0), *inputs)


def count(params):
    return sum(int(np.prod(a.shape)) for a in jax.tree.leaves(params))


def test_imagenet64_is_adms_to_the_parameter():
    config = importlib.import_module("configs.imagenet64").get_config()
    net, inputs, params = abstract(config)
    assert count(params) == 295_900_035
    assert count(params["params"]["label_emb"]) == 1001 * 768
    eps = jax.eval_shape(net.apply, params, *inputs)
    assert (eps.shape, eps.dtype) == ((2, 64, 64, 3), jnp.float32)
    assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(params))


def test_published_adm64_has_its_own_count():
    config = importlib.import_module("configs.imagenet64").get_config()
    net, inputs, _ = abstract(config)
    params = jax.eval_shape(net.clone(out_channels=6, num_classes=999).init, jax.random.key(0), *inputs)
    assert count(params) == 295_904_454


@pytest.mark.slow
def test_imagenet128_shapes():
    config = importlib.import_module("configs.imagenet128").get_config()
    net, inputs, params = abstract(config)
    eps = jax.eval_shape(net.apply, params, *inputs)
    assert (eps.shape, eps.dtype) == ((2, 128, 128, 3), jnp.float32)
    sides = {32: 512, 16: 768, 8: 1024}
    attended = [m for m in params["params"] if m.endswith("attention")]
    assert len(attended) == 1 + 5 * len(sides)  # middle, two on the way down and three up at each side
    assert params["params"]["middle_1_attention"]["qkv"]["kernel"].shape == (1024, 3 * 1024)


@pytest.fixture(scope="module")
def small():
    """Two levels with attention, filled with numbers, and an input."""
    net = unet.UNet(32, (1, 2), 1, (4,), num_classes=10, out_channels=1, head_width=16, dropout=0.5)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((3, 8, 8, 1)).astype("f4"), np.float32([-3, 0, 7]), np.int32([0, 4, 10])
    return net, fill(jax.eval_shape(net.init, jax.random.key(0), *inputs)), inputs


@pytest.mark.slow
def test_remat_and_bfloat16_compute_the_same_function(small):
    net, params, inputs = small
    eps = jax.jit(net.apply)(params, *inputs)
    np.testing.assert_allclose(jax.jit(net.clone(remat=True).apply)(params, *inputs), eps, rtol=1e-4, atol=1e-5)
    half = jax.jit(net.clone(dtype=jnp.bfloat16).apply)(params, *inputs)
    assert half.dtype == jnp.float32
    relative = np.linalg.norm(half - eps) / np.linalg.norm(eps)
    assert 1e-5 < relative < 0.05  # the body is not float32, and not broken


@pytest.mark.slow
def test_time_class_and_dropout_reach_the_output(small):
    net, params, (z, logsnr, c) = small
    apply = jax.jit(net.apply, static_argnames="train")
    eps = apply(params, z, logsnr, c)
    for changed in (apply(params, z, logsnr + 1, c), apply(params, z, logsnr, (c + 1) % 11)):
        assert np.all(np.abs(changed - eps).max((1, 2, 3)) > 1e-5)
    first, again, other = (
        apply(params, z, logsnr, c, train=True, rngs={"dropout": jax.random.key(k)}) for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-5


def test_a_new_network_predicts_zero(small):
    """The output convolution starts at zero, and so do each block's and each attention's last layers."""
    net, _, inputs = small
    params = jax.jit(net.init)(jax.random.key(0), *inputs)["params"]
    for module in (params["out_conv"], params["input_1_block"]["out_conv"], params["middle_1_attention"]["out"]):
        assert not np.any(module["kernel"])
    assert np.any(params["input_0_conv"]["kernel"])


def test_noise_level_is_adms_time_scale():
    """0 is clean and 1000 noise; logsnr 0, where alpha = sigma, is the middle."""
    np.testing.assert_allclose(noise_level.continuous(jnp.float32([20, 0, -20])), [0.0289, 500, 999.971], atol=1e-3)
    embedding = unet.timestep_embedding(jnp.float32([0.0, 500.0]), 8)
    np.testing.assert_allclose(embedding[0], [1, 1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(embedding[1, 1::4], [np.cos(50), np.sin(50)], rtol=1e-4)
