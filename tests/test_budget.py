"""FLOP and bytes of programs that can be counted by hand, and of a step of training."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from cfg_jax.models import attention
from cfg_jax.perf import cost
from cfg_jax.perf.budget import budget
from cfg_jax.training import state as states
from cfg_jax.training import step as steps

A = jax.ShapeDtypeStruct((8, 8), jnp.float32)  # 256 bytes
SIZE = 256


def counted(function, *args):
    found = budget(function, *args, kind_of=lambda operation: "all")["all"]
    return found.flops, found.bytes / SIZE


@jax.jit
def doubled(a):
    return a * 2.0


def softmax(a):
    return jnp.exp(a - a.max()) / jnp.exp(a - a.max()).sum()


@pytest.mark.parametrize(
    ("function", "flops", "arrays"),
    [
        (lambda a: a * 2 + 1, 0, 2),  # one read, one write
        (lambda a, b: jnp.tanh(a + b) * a, 0, 3),  # a is read once
        (lambda a, b: a @ b, 2 * 8**3, 3),
        (lambda a, b: jnp.tanh(a @ b), 2 * 8**3, 3 + 2),  # a product writes its result
        (lambda a, b: jnp.tanh(a) @ b, 2 * 8**3, 2 + 3),  # what a product reads is written
        (lambda a, b: doubled(doubled(a)) @ b, 2 * 8**3, 2 + 3),  # one function called twice
        (lambda a: (a.astype(jnp.bfloat16).astype(jnp.float32) + 1).T, 0, 2),  # casts and views are not
        (lambda a: jnp.tanh(a).sum(), 0, 1 + 1 / 64),  # a reduction reads what it is computed from
        (lambda a: (jnp.tanh(a) + 1, jnp.tanh(a) * 2), 0, 4),
    ],
)
def test_bytes_and_flops_by_hand(function, flops, arrays):
    found = counted(function, *[A] * function.__code__.co_argcount)
    assert found == (flops, pytest.approx(arrays))


def test_a_value_of_several_users_is_written_once():
    def function(a):
        b = jnp.tanh(a)
        return b + 1, b * 2

    assert counted(function, A) == (0, 2 + 2 + 2)


def of_training(config):
    state = jax.eval_shape(lambda: states.create(config))
    batch = {"image": jax.ShapeDtypeStruct((8, 8, 8, 1), jnp.uint8), "label": jax.ShapeDtypeStruct((8,), jnp.int32)}
    key = jax.eval_shape(lambda: jax.random.key(0))
    return budget(partial(steps.train_step, config=config), state, batch, key, 0.1, kind_of=lambda o: o.name)


def test_remat_computes_no_convolution_again(tiny):
    plain = of_training(tiny)
    tiny.model.remat = True
    again = of_training(tiny)
    assert again["conv_general_dilated"].flops == plain["conv_general_dilated"].flops


def test_a_step_of_training_has_the_flops_that_the_cost_counts(tiny):
    found = of_training(tiny)
    flops = sum(kind.flops for kind in found.values())
    wanted = cost.training_flops(tiny, cost.forward_flops(tiny), 1)
    assert 0.97 * wanted < flops <= wanted  # no gradient is taken of the images
    # parameters, average and two moments are read and written, the gradient is read
    assert sum(kind.bytes for kind in found.values()) > 9 * 4 * cost.num_parameters(tiny)


def test_attention_is_cudnns_where_it_runs_and_xlas_elsewhere(monkeypatch, caplog):
    attention.implementation.cache_clear()  # of networks that other tests have built
    assert attention.implementation(64, jnp.dtype(jnp.bfloat16)) is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert attention.implementation(32, jnp.dtype(jnp.float32)) is None and not caplog.records
    with caplog.at_level("WARNING", "cfg_jax"):  # a GPU that turns out to have none
        assert attention.implementation(32, jnp.dtype(jnp.bfloat16)) is None
    assert "attention is XLA's, cuDNN's does not run here: " in caplog.text
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda q, k, v, implementation: q)
    assert attention.implementation(48, jnp.dtype(jnp.bfloat16)) == "cudnn"
    attention.implementation.cache_clear()


def test_the_table_of_a_config(command, tmp_path):
    out = tmp_path / "budget.md"
    done = command("bench.budget", "--config=configs/digits.py", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert (
        "| convolutions and dense layers |" in done.stdout
        and "A guided evaluation, two passes, 160 images" in done.stdout
    )
    assert out.read_text() in done.stdout
    done = command("bench.budget", "--config=configs/digits.py", "--tflops=0")
    assert done.returncode == 1 and "tflops" in done.stderr and done.stderr.count("\n") == 1
