"""Attention by the kernels of accelerators: a TPU's in interpret mode, a GPU's by what is asked for."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax import meshes
from cfg_jax.models import attention, unet


def relative(a, b):
    a, b = (np.asarray(x, np.float32) for x in (a, b))
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize(("dtype", "far"), [("float32", 1e-6), ("bfloat16", 0.006)])
@pytest.mark.slow
def test_a_tpus_kernel_is_attention_forward_and_backward(dtype, far):
    q, k, v, g = (jax.random.normal(key, (2, 256, 2, 64), dtype) for key in jax.random.split(jax.random.key(0), 4))

    def kernel(*qkv):
        return attention.splash_on_one(*(a.swapaxes(1, 2) for a in qkv), interpret=True).swapaxes(1, 2)

    (ours, back), (theirs, back_of_theirs) = (jax.vjp(f, q, k, v) for f in (kernel, jax.nn.dot_product_attention))
    assert relative(ours, theirs) < far
    for mine, wanted in zip(back(g), back_of_theirs(g), strict=True):
        assert relative(mine, wanted) < far


@pytest.mark.parametrize(
    ("platform", "tokens", "dtype", "how"),
    [
        ("tpu", 256, "bfloat16", "splash"),
        ("tpu", 64, "bfloat16", None),  # fewer than a tile has
        ("tpu", 256, "float32", None),
        ("gpu", 64, "bfloat16", "cudnn"),
        ("gpu", 64, "float32", None),
        ("cpu", 256, "bfloat16", None),
    ],
)
def test_the_mesh_says_whose_kernel_it_is(platform, tokens, dtype, how):
    device = jax.devices()[0] if platform == "cpu" else SimpleNamespace(platform=platform)
    assert attention.kernel(SimpleNamespace(devices=np.array([device])), tokens, 32, dtype) == how


@pytest.mark.parametrize("how", ["splash", "cudnn"])
@pytest.mark.slow
def test_attention_in_a_kernels_layout_is_the_networks(monkeypatch, how):
    """The same parameters in the same places, forward and backward; the kernels are XLA's here."""
    net = unet.Attention(head_width=16, num_heads=None, dtype=jnp.float32, mesh=meshes.data_mesh())
    x, *keys = jax.random.normal(jax.random.key(0), (4, 8, 8, 64)), *jax.random.split(jax.random.key(1), 9)
    params = net.init(keys[0], x)
    params = jax.tree.map(lambda a: a + 0.1 * jax.random.normal(keys[1], a.shape), params)  # its output begins as 0
    wanted, back = jax.vjp(net.apply, params, x)
    plain = jax.nn.dot_product_attention
    monkeypatch.setattr(attention, "kernel", lambda *_: how)
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda q, k, v, implementation=None: plain(q, k, v))
    first = lambda a: jnp.swapaxes(a, 1, 2)  # noqa: E731
    monkeypatch.setattr(attention, "splash", lambda q, k, v, mesh: first(plain(first(q), first(k), first(v))))
    assert jax.tree.map(jnp.shape, net.init(keys[0], x)) == jax.tree.map(jnp.shape, params)
    found, back_of_it = jax.vjp(net.apply, params, x)
    for a, b in zip(*map(jax.tree.leaves, ((found, back_of_it(x)), (wanted, back(x)))), strict=True):
        assert relative(a, b) < 1e-6


def test_what_a_network_attends_by_does_not_show(monkeypatch):
    """The tokens come back where they were from a kernel that wants the heads first; XLA stands in for the kernel."""
    q, k, v = (jax.random.normal(jax.random.key(i), (2, 6, 3, 4)) for i in range(3))
    wanted = attention.attend(q, k, v)
    first = lambda a: jnp.swapaxes(a, 1, 2)  # noqa: E731
    plain = jax.nn.dot_product_attention
    monkeypatch.setattr(attention, "kernel", lambda *_: "splash")
    monkeypatch.setattr(attention, "splash", lambda q, k, v, mesh: first(plain(first(q), first(k), first(v))))
    assert relative(attention.attend(q, k, v, meshes.data_mesh()), wanted) < 1e-6


def test_attention_is_cudnns_where_it_runs_and_xlas_elsewhere(monkeypatch, caplog):
    attention.cudnn.cache_clear()  # of networks that other tests have built
    assert attention.cudnn(64, jnp.dtype(jnp.bfloat16)) is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with caplog.at_level("WARNING", "cfg_jax"):  # a GPU that turns out to have none
        assert attention.cudnn(32, jnp.dtype(jnp.bfloat16)) is None
    assert "attention is XLA's, cuDNN's does not run here: " in caplog.text
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda q, k, v, implementation: q)
    assert attention.cudnn(48, jnp.dtype(jnp.bfloat16)) == "cudnn"
    attention.cudnn.cache_clear()
