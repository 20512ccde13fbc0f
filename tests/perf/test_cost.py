import importlib
import json
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from cfg_jax.perf import cost, estimate
from cfg_jax.training import state as states
from cfg_jax.training import step as steps
from tests.running import run


@pytest.mark.slow
def test_imagenet64_is_counted_from_its_program():
    config = importlib.import_module("configs.imagenet64").get_config()
    assert cost.num_parameters(config) == 295_900_035
    assert cost.forward_flops(config) == pytest.approx(219.3e9, rel=5e-4)
    assert cost.state_bytes(config, devices=4) == 5 * 295_900_035
    config.train.averages = (0.05, 0.1)
    assert cost.state_bytes(config, devices=4) == 7 * 295_900_035
    assert cost.forward_flops(config) == cost.forward_flops(remat(config))  # what is recomputed is not model FLOP


def remat(config):
    config = config.copy_and_resolve_references()
    config.model.remat = True
    return config


def test_flops_of_a_loop_and_of_a_batched_product():
    a, b = jnp.ones((3, 4, 5)), jnp.ones((3, 5, 6))
    product = lambda a, b: jnp.einsum("bij,bjk->bik", a, b)  # noqa: E731
    assert cost.matmul_flops(jax.make_jaxpr(product)(a, b).jaxpr) == 2 * 3 * 4 * 5 * 6
    loop = lambda a: jax.lax.scan(lambda c, _: (c @ c, None), a, length=7)[0]  # noqa: E731
    assert cost.matmul_flops(jax.make_jaxpr(jax.jit(loop))(jnp.ones((4, 4))).jaxpr) == 7 * 2 * 4**3


@pytest.mark.slow
def test_activations_are_what_the_compiled_step_holds(tiny):
    """The compiler's own count of temporary memory, on one device, batch large enough to outweigh the gradients."""
    batch = 256
    state = jax.eval_shape(partial(states.create, tiny))
    images = {
        "image": jax.ShapeDtypeStruct((batch, 8, 8, 1), "uint8"),
        "label": jax.ShapeDtypeStruct((batch,), "int32"),
    }
    step = jax.jit(partial(steps.train_step, config=tiny), donate_argnums=0)
    compiled = step.lower(state, images, jax.random.key(0), jnp.float32(0.1)).compile()
    estimate = cost.activation_bytes(tiny, batch)
    assert estimate == pytest.approx(compiled.memory_analysis().temp_size_in_bytes, rel=0.15)
    assert cost.activation_bytes(remat(tiny), batch) < estimate / 2
    assert batch * cost.activation_bytes(tiny, 1) == pytest.approx(estimate, rel=0.02)


@pytest.mark.slow
def test_the_command_at_imagenet_64():
    done = run("bench.cost", "--config=configs/imagenet64.py")
    assert done.returncode == 0, done.stderr
    assert "295,900,035" in done.stdout and "219.3 GFLOP" in done.stdout and "5.39e+20" in done.stdout


def test_the_command_lists_the_parameters():
    digits = run("bench.cost", "--config=configs/digits.py", "--parameters").stdout
    rows = re.findall(r"^\| (\w+(?:/\w+)*) +\| \(([\d, ]+)\) +\| float32 \| ([\d,]+) +\|$", digits, re.MULTILINE)
    sizes = {name: math.prod(map(int, shape.strip(",").split(","))) for name, shape, _ in rows}
    assert sizes["out_conv/kernel"] == 3 * 3 * 32 * 1 and f"Total: {sum(sizes.values()):,} --" in digits
    assert all(f"{sizes[name]:,}" == size for name, _, size in rows)


@pytest.mark.slow
def test_device_hours_by_the_compilers_estimates(tmp_path):
    """Of the fastest program that fits."""
    rows = [
        {"target": "v5e:1x1", "program": program, "share": share, "flops_per_s": 197e12 * share, "fits": fits,
         "device": "TPU v5 lite", "images": 16, "seconds": 0.1}
        for program, share, fits in (
            ("training", 0.2, True), ("training", 0.25, True), ("training", 0.3, False), ("sampling", 0.5, True)
        )
    ]  # fmt: skip
    (tmp_path / "x.json").write_text(json.dumps({"rows": rows}))
    done = run("bench.cost", "--config=configs/imagenet64.py", f"--compiled={tmp_path}/x.json")
    cells = done.stdout.splitlines()[-2].split(" | ")
    assert cells[1] == "25%, 50%", done.stderr
    assert float(cells[2].replace(",", "")) == pytest.approx(5.39e20 / (0.25 * 197e12) / 3600, rel=1e-2)
    assert estimate.estimated(estimate.rows_of(tmp_path / "x.json"), "training", "TPU v5 lite", 16) == 160
    assert estimate.estimated(estimate.rows_of(tmp_path / "x.json"), "training", "TPU v5 lite", 8) is None
    (tmp_path / "x.json").write_text(json.dumps({"rows": rows[:2]}))
    for path, said in (
        ("x.json", "has no training or no sampling for v5e:1x1"),
        ("y.json", "is no JSON of experiments"),
    ):
        done = run("bench.cost", "--config=configs/imagenet64.py", f"--compiled={tmp_path}/{path}")
        assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1
