import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.models.norm import GroupNorm


def inputs(rng, mean):
    x = (mean + rng.standard_normal((3, 4, 5, 64))).astype("f4")
    scale, shift = rng.standard_normal((2, 3, 64)).astype("f4")
    params = {"scale": rng.standard_normal(64).astype("f4"), "bias": rng.standard_normal(64).astype("f4")}
    return params, x, scale, shift


def flax(params, x, scale, shift):
    normalised = nn.GroupNorm(32, epsilon=1e-5).apply({"params": params}, x)
    return normalised * (1 + scale[:, None, None]) + shift[:, None, None]


def ours(params, x, scale, shift, dtype=jnp.float32):
    return GroupNorm(dtype).apply({"params": params}, x, scale, shift)


def test_values_and_gradients_are_flaxs(rng):
    args, g = inputs(rng, mean=2.0), rng.standard_normal((3, 4, 5, 64)).astype("f4")
    for compare in (lambda f: f(*args), lambda f: jax.vjp(f, *args)[1](jnp.asarray(g))):
        mine, theirs = (jax.tree.leaves(jax.jit(compare, static_argnums=0)(f)) for f in (ours, flax))
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_without_conditioning_it_only_normalises(rng):
    params, x, _, _ = inputs(rng, mean=0.0)
    alone = GroupNorm(jnp.float32).apply({"params": params}, x)
    np.testing.assert_array_equal(alone, ours(params, x, np.zeros((3, 64), "f4"), np.zeros((3, 64), "f4")))


def test_a_constant_image_and_half_precision_stay_finite(rng):
    params, x, scale, shift = inputs(rng, mean=0.0)
    constant = np.full_like(x, 100.1)  # the difference of its sums may round below zero
    for image in (constant, 1e4 * x):
        y, gradient = jax.value_and_grad(lambda x: ours(params, x, scale, shift).sum())(image)
        assert np.isfinite(y) and np.isfinite(gradient).all()
    half = ours(params, x.astype(jnp.bfloat16), scale, shift, jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype("f4"), ours(params, x, scale, shift), rtol=0.02, atol=0.1)


def test_the_image_alone_is_kept_for_the_backward_pass(rng):
    """In bytes of x, which is of 16 bits; flax's norm keeps three times as much."""
    params, _, scale, shift = inputs(rng, mean=0.0)
    x = jax.ShapeDtypeStruct((3, 64, 64, 64), jnp.bfloat16)

    def kept(f):
        arrays = jax.tree.leaves(jax.eval_shape(lambda x: jax.vjp(f, params, x, scale, shift)[1], x))
        return sum(a.size * a.dtype.itemsize for a in arrays if a.size >= x.size) / (x.size * 2)

    half = lambda *args: ours(*args, jnp.bfloat16)  # noqa: E731
    assert kept(half) == 2 and kept(flax) == 6  # x in float32, and three such arrays
