"""On a TPU or a GPU a float32 product keeps its digits only if it is asked to: read off the programs themselves."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from cfg_jax.images import to_float
from cfg_jax.models import adm, build, classifier, inception
from cfg_jax.training import state as states
from cfg_jax.training import step as steps
from configs import digits, imagenet64

PRODUCTS = ("conv_general_dilated", "dot_general")
FULL = (jax.lax.Precision.HIGHEST,) * 2


@pytest.fixture(autouse=True)
def as_users_have_it():
    with jax.default_matmul_precision("default"):
        yield


def precisions(program, *args):
    """{(the shorter dtype of the two factors, asked precision)} of all products in a program and in what it calls."""
    return {
        (min(str(v.aval.dtype) for v in e.invars), e.params["precision"])
        for e in equations(jax.make_jaxpr(program)(*args).jaxpr)
        if e.primitive.name in PRODUCTS
    }


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = value.jaxpr if isinstance(value, ClosedJaxpr) else value
            if isinstance(inner, Jaxpr):
                yield from equations(inner)


def in_float32(found):
    return {precision for dtype, precision in found if dtype == "float32"}


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.slow
def test_a_training_step_multiplies_float32_in_full(dtype, remat):
    config = digits.get_config()
    config.model.update(dtype=dtype, remat=remat)
    state = jax.eval_shape(lambda: states.create(config))
    batch = {"image": jax.ShapeDtypeStruct((8, 8, 8, 1), "uint8"), "label": jax.ShapeDtypeStruct((8,), "int32")}
    found = precisions(partial(steps.train_step, config=config), state, batch, jax.random.key(0), jnp.float32(0.1))
    assert in_float32(found) == {FULL}
    assert {kind for kind, _ in found} == {"float32", dtype}


@pytest.mark.slow
def test_networks_that_score_multiply_in_full():
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), "uint8")
    net = inception.Inception()
    params = jax.eval_shape(net.init, jax.random.key(0), images)
    assert precisions(net.apply, params, images) == {("float32", FULL)}
    small = classifier.Classifier(10)
    x = jax.eval_shape(to_float, images)
    assert precisions(small.apply, jax.eval_shape(small.init, jax.random.key(0), x), x) == {("float32", FULL)}


@pytest.mark.slow
def test_a_classifier_that_guides_multiplies_in_full():
    """Its gradient too."""
    config = adm.config_of("64x64_classifier", imagenet64.get_config(), {"model.channels": 32, "data.image_size": 16,
        "model.attention_resolutions": (8,), "model.multipliers": (1, 1), "model.head_width": 32}.items())  # fmt: skip
    net, z, logsnr = build.network(config), jnp.zeros((1, 16, 16, 3)), jnp.zeros(1)
    params = build.shapes(config)
    gradient = jax.grad(lambda z, params: net.apply({"params": params}, z, logsnr).sum())
    assert precisions(gradient, z, params) == {("float32", FULL)}
