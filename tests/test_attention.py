"""Attention by the kernels of accelerators: a TPU's in interpret mode, a GPU's by what is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.models import attention
from cfg_jax.training import mesh as meshes


def relative(a, b):
    a, b = (np.asarray(x, np.float32) for x in (a, b))
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize(("dtype", "far"), [("float32", 1e-6), ("bfloat16", 0.006)])
def test_a_tpus_kernel_is_attention_forward_and_backward(dtype, far):
    q, k, v, g = (jax.random.normal(key, (2, 256, 2, 64), dtype) for key in jax.random.split(jax.random.key(0), 4))
    kernel = lambda q, k, v: attention.splash(q, k, v, interpret=True)  # noqa: E731
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
def test_the_mesh_says_whose_kernel_it_is(monkeypatch, platform, tokens, dtype, how):
    used = []
    monkeypatch.setattr(attention, "splash", lambda q, k, v: (used.append("splash"), q)[1])
    monkeypatch.setattr(
        jax.nn, "dot_product_attention", lambda q, k, v, implementation=None: (used.append(implementation), q)[1]
    )
    real = meshes.data_mesh()
    monkeypatch.setattr(attention, "platform", lambda mesh: platform)
    monkeypatch.setattr(attention, "here", lambda mesh: platform == "cpu")
    q = jnp.zeros((8, tokens, 1, 32), dtype)
    jax.eval_shape(lambda q: attention.attend(q, q, q, real), q)
    assert set(used) == {how}


def test_attention_is_cudnns_where_it_runs_and_xlas_elsewhere(monkeypatch, caplog):
    attention.implementation.cache_clear()  # of networks that other tests have built
    assert attention.implementation(64, jnp.dtype(jnp.bfloat16)) is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with caplog.at_level("WARNING", "cfg_jax"):  # a GPU that turns out to have none
        assert attention.implementation(32, jnp.dtype(jnp.bfloat16)) is None
    assert "attention is XLA's, cuDNN's does not run here: " in caplog.text
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda q, k, v, implementation: q)
    assert attention.implementation(48, jnp.dtype(jnp.bfloat16)) == "cudnn"
    attention.implementation.cache_clear()
