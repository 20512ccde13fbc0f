"""What a compiled program's text says, here and by the compilers of devices that are not here."""

import importlib.util
import json
import re
import subprocess
import sys
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import pytest

from cfg_jax import meshes
from cfg_jax.perf import cost, estimate, hlo, programs, targets, timing
from cfg_jax.training import state as states
from tests.running import ROOT

SCALARS = 1000  # bytes of loss, norms and metrics that are reduced beside the gradient

PROGRAM = """HloModule jit_f, replica_count=1, num_partitions=8
%fused (p: f32[128,2]) -> f32[128,2] {
  %dot.9 = f32[128,2]{1,0} dot(%p, %p), lhs_contracting_dims={1}
  ROOT %tanh.1 = f32[128,2]{1,0} tanh(%dot.9)
}

%body (t: (s32[], f32[128,2])) -> (s32[], f32[128,2]) {
  %all-reduce.1 = f32[128,2]{1,0} all-reduce(%dot.1), channel_id=1, replica_groups={{0,1},{2,3},{4,5},{6,7}}
  ROOT %out = (s32[], f32[128,2]) tuple(%i, %all-reduce.1)
}

%condition (t: (s32[], f32[128,2])) -> pred[] {
  %limit = s32[] constant(3)
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

%small (a: f32[2]) -> f32[2] {
  ROOT %a.1 = f32[2]{0} negate(%a)
}

%large (a: f32[2]) -> f32[2] {
  %a.2 = f32[2]{0} negate(%a)
  ROOT %a.3 = f32[2]{0} exponential(%a.2)
}

ENTRY %main (x: f32[128,2]) -> f32[128,2] {
  %loop = (s32[], f32[128,2]{1,0}) while(%start), condition=%condition, body=%body
  %choice = f32[2]{0} conditional(%ok, %a, %a), branch_computations={%small, %large}
  %all-reduce.2 = (bf16[3]{0}, pred[], /*index=2*/f8e4m3fn[5]{0:T(8)}) all-reduce(%a, %b, %c), replica_groups=[2,4]<=[8]
  %ars = f32[] all-reduce-start(%x), replica_groups={}, to_apply=%add
  %ard = f32[] all-reduce-done(%ars)
  %art = ((f32[6]{0}), f32[6]{0}) all-reduce-start(%x), replica_groups={}, to_apply=%add
  %all-gather.1 = f32[8,4]{0,1} all-gather(%y), replica_groups=[4,2]<=[2,2,2]T(2,0,1), dimensions={0}
  %ags = ((f32[2]{0}, s32[1]{0}), (f32[8]{0}, s32[4]{0})) all-gather-start(%y, %z), replica_groups=[2,4]<=[4,2]T(1,0)
  %rs = f32[16]{0} reduce-scatter(%g), replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'a'}
  %rss = (f32[8]{0}, f32[4]{0}) reduce-scatter-start(%g), replica_groups=mesh['a'=4,'b'=2] {'a':(2)2}, to_apply=%a
  %a2a = (c64[6]{0}, c64[6]{0}) all-to-all(%p, %q), replica_groups=mesh['a'=4,'b'=2] {'a','b'}
  %cps = (u32[7]{0}, u32[7]{0}, u32[], u32[]) collective-permute-start(%s), source_target_pairs={{0,1},{1,2},{2,0}}
  %fusion.1 = f32[128,2]{1,0} fusion(%x), kind=kLoop, calls=%fused, metadata={op_name="jit(f)/UNet/x/tanh"}, \
backend_config={"window_config":{"estimated_cycles":"1500"}}
  %q = bf16[2,3,256,64]{3,2,1,0} parameter(1)
  ROOT %splash_mha_fwd.1 = bf16[2,3,256,64]{3,2,1,0} custom-call(%q, %q, %q), custom_call_target="tpu_custom_call"
}
""".replace("\\\n", "")


def test_a_program_s_text():
    assert hlo.collectives(PROGRAM) == [
        *[("all-reduce", 2, 1024)] * 3,  # in a loop of three
        ("all-reduce", 4, 6 + 1 + 5),
        ("all-reduce", 8, 4),
        ("all-reduce", 8, 24),
        ("all-gather", 2, 128),
        ("all-gather", 4, 48),
        ("reduce-scatter", 4, 256),
        ("reduce-scatter", 2, 32),
        ("all-to-all", 8, 96),
        ("collective-permute", 3, 28),
    ]
    run = {operation.name: times for operation, times, _ in hlo.executed(PROGRAM)}
    assert run["fusion.1"] == 1 and run["all-reduce.1"] == 3
    assert "a.3" in run and "a.1" not in run and "ard" not in run
    with pytest.raises(ValueError, match="no groups"):
        hlo.group_size("replica_groups=new", 8)


def test_the_time_that_the_compiler_and_the_shapes_say():
    seconds = {
        operation.name: estimate.seconds(operation, others, targets.CHIPS["v5e"], 197e12)
        for operation, _, others in hlo.executed(PROGRAM)
    }
    assert seconds["fusion.1"] == pytest.approx(1e-6)  # at 1.5 GHz
    flops = 2 * 2 * (2 * 3) * 256 * 256 * 64  # two products of each head
    assert seconds["splash_mha_fwd.1"] == pytest.approx(flops / 197e12 / estimate.KERNELS["attention"])
    assert seconds["ars"] == 0


@pytest.mark.parametrize(
    ("target", "shape", "operands"),
    [
        ("convForward", "bf16[8,16,16,64]", ("bf16[8,16,16,32]", "bf16[64,3,3,32]")),
        ("convBackwardInput", "bf16[8,16,16,32]", ("bf16[8,16,16,64]", "bf16[64,3,3,32]")),
        ("convBackwardFilter", "bf16[64,3,3,32]", ("bf16[8,16,16,32]", "bf16[8,16,16,64]")),
    ],
)  # fmt: skip
def test_flops_of_a_gpus_convolutions(target, shape, operands):
    """Each of the three takes two for a number of the kernel at a pixel of the output."""
    rest = f'%a, %b), dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn${target}"'
    others = {name: hlo.Operation(name, shape, "parameter", "") for name, shape in zip("ab", operands, strict=True)}
    found = estimate.convolution_flops(hlo.Operation("conv", f"({shape}, u8[0])", "custom-call", rest), others)
    assert found == 2 * (64 * 3 * 3 * 32) * (8 * 16 * 16)


def test_flops_of_a_gpus_matrix_product():
    """cuBLAS's has two for a number of the output and a place of the axes that are summed over."""
    summed = '"dot_dimension_numbers":{"lhs_contracting_dimensions":["0","2"],"rhs_contracting_dimensions":["0","1"]}'
    rest = f'%a, %b), custom_call_target="__cublas$lt$matmul", backend_config={{{summed}}}'
    others = {name: hlo.Operation(name, shape, "parameter", "") for name, shape in
              {"a": "bf16[4,16,8]", "b": "bf16[4,8,32]"}.items()}  # fmt: skip
    found = estimate.product_flops(hlo.Operation("dot", "(bf16[16,32], s8[64])", "custom-call", rest), others)
    assert found == 2 * (16 * 32) * (4 * 8)


def only_the_gradient(params, fsdp, found):
    """Split parameters are gathered once, gradients reduced once, or whole over fsdp and then in parts; no more."""
    places = meshes.shardings(params, meshes.data_mesh(jax.devices(), fsdp))
    sizes = [(4 * a.size, any(p.spec)) for a, p in zip(*map(jax.tree.leaves, (params, places)), strict=True)]
    whole, split = sum(size for size, _ in sizes), sum(size for size, is_split in sizes if is_split)
    assert {kind for kind, *_ in found} <= {"all-reduce", "reduce-scatter", "all-gather"}
    assert sum(payload for kind, _, payload in found if kind == "all-gather") == split
    reduced = sum(payload for kind, _, payload in found if kind != "all-gather")
    expected = whole + (split // fsdp if 1 < fsdp < jax.device_count() else 0)
    assert expected <= reduced <= expected + SCALARS
    return split


@pytest.mark.slow
def test_nothing_but_gradients_and_split_parameters_is_sent(tiny):
    params = jax.eval_shape(lambda: states.create(tiny)).params
    steps = {
        fsdp: programs.training(tiny, meshes.data_mesh(jax.devices(), fsdp)).traced.lower().compile()
        for fsdp in (1, 2, 4)
    }
    held = {fsdp: step.memory_analysis().argument_size_in_bytes for fsdp, step in steps.items()}
    for fsdp, step in steps.items():
        split = only_the_gradient(params, fsdp, hlo.collectives(step.as_text()))
        assert held[1] - held[fsdp] == 4 * split * (fsdp - 1) // fsdp  # parameters, EMA, two moments
        assert (split > 2 * cost.num_parameters(tiny)) == (fsdp > 1)  # more than half of them, or none


@pytest.mark.parametrize(("fsdp", "replicate"), [(1, False), (4, False), (1, True), (4, True)])
def test_activations_on_every_device_are_found(fsdp, replicate):
    """Two layers, and the same with one constraint too many."""
    mesh = meshes.data_mesh(jax.devices(), fsdp)

    def gradient(params, x):
        def mean_loss(params):
            hidden = jnp.tanh(x @ params["in"])
            hidden = meshes.whole(hidden, mesh) if replicate else hidden
            return jnp.square(hidden @ params["out"]).mean()

        return jax.grad(mean_loss)(meshes.whole(params, mesh))

    shapes = {"in": jax.ShapeDtypeStruct((64, 128), jnp.float32), "out": jax.ShapeDtypeStruct((128, 64), jnp.float32)}
    places = meshes.shardings(shapes, mesh)
    step = jax.jit(gradient, in_shardings=(places, meshes.split(mesh)), out_shardings=places)
    text = step.lower(shapes, jax.ShapeDtypeStruct((32, 64), jnp.float32)).compile().as_text()
    with pytest.raises(AssertionError) if replicate else nullcontext():
        only_the_gradient(shapes, fsdp, hlo.collectives(text))


def test_guided_sampling_sends_nothing_between_devices(tiny):
    """Both halves of an image are on its own device."""
    assert len(jax.devices()) == 4
    assert hlo.collectives(timing.compile(programs.sampling(tiny, meshes.data_mesh()))[0].as_text()) == []


def test_a_step_of_training_has_the_flops_that_the_cost_counts(tiny):
    counted = cost.matmul_flops(programs.training(tiny, meshes.data_mesh(jax.devices())).traced.jaxpr.jaxpr)
    wanted = cost.training_flops(tiny, cost.forward_flops(tiny), 1)
    assert 0.97 * wanted < counted <= wanted  # no gradient is taken of the images


def test_remat_computes_no_convolution_again(tiny):
    def convolutions():
        jaxpr = programs.training(tiny, meshes.data_mesh(jax.devices())).traced.jaxpr
        return str(jaxpr).count("conv_general_dilated[")

    plain = convolutions()
    tiny.model.remat = True
    assert convolutions() == plain > 0


# bad input, before anything is compiled


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--target=v9:2x2"], "--target='v9' is unknown: choose v4, v5e, v5p, v6e, a100, h100, h200, b200"),
        (["--target=v5e"], "--target=v5e: write the topology of a TPU as in v5e:4x4"),
        (["--target=h100:x"], "--target=h100:x: write the number of GPUs as in"),
        (["--target=h100:12"], "--target=h100:12: more than 8 GPUs must be a multiple of 8"),
        ([], "--target"),
    ],
)  # fmt: skip
def test_a_target_that_is_none(command, tmp_path, args, said):
    done = command("bench.compile", "--config=configs/digits.py", f"--out={tmp_path}/x.md", *args)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "x.md").exists()


@pytest.mark.parametrize(("target", "extra"), [("v5e:2x2", "tpu"), ("h100", "compile")])
def test_a_compiler_that_is_not_installed_is_named(command, tmp_path, target, extra):
    if importlib.util.find_spec("libtpu") or importlib.util.find_spec("jax_plugins"):
        pytest.skip("a compiler is installed")
    done = command("bench.compile", "--config=configs/digits.py", f"--target={target}", f"--out={tmp_path}/x.md")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert f"pip install 'cfg_jax[{extra}]'" in done.stderr


# by the compilers themselves: make test-compile

TINY = [
    "--config=configs/digits.py", "--config.model.channels=32", "--config.model.multipliers=(1,)",
    "--config.model.num_blocks=1", "--config.model.attention_resolutions=(16,)", "--config.model.dtype=bfloat16",
    "--config.data.image_size=16", "--config.sampler.num_steps=3", "--config.train.batch_size=16",
    "--config.eval.batch_size=16",
]  # fmt: skip
compilers = pytest.mark.compilers


def compiled(out, *args):
    """The rows of a call in a process of its own: jax starts for no other device."""
    command = [sys.executable, "-m", "experiments.bench.compile", *TINY, f"--out={out}", *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1200)
    rows = json.loads(out.with_suffix(".json").read_text())["rows"] if done.returncode == 0 else []
    return rows, done


@compilers
@pytest.mark.parametrize(("target", "kernel"), [("v5e:2x2", "splash_mha_fwd"), ("h100:4", "__cudnn$fmhaSoftmax")])
def test_a_tiny_network_for_devices_that_are_not_here(tmp_path, target, kernel):
    rows, done = compiled(tmp_path / "x.md", f"--target={target}", f"--text={tmp_path}/text", "--config.train.fsdp=2")
    assert done.returncode == 0, done.stderr
    training, sampling = rows
    assert training["fits"] and training["images"] == 4 and training["seconds"] > 0 and training["kernels"] > 100
    kinds = {sent["kind"] for sent in training["sent"]}
    assert "all-gather" in kinds and kinds <= {"all-gather", "all-reduce", "reduce-scatter", "all-to-all"}
    assert sampling["sent"] == [] and sampling["seconds"] > 0
    texts = {path.name.split("-")[0]: path.read_text() for path in (tmp_path / "text").iterdir()}
    assert all(kernel in text for text in texts.values())  # attention's logits stay on chip
    assert not re.search(r"f32\[\d+,1,256,256\]", texts["training"])  # and are nowhere else
    page = (tmp_path / "x.md").read_text()
    assert page in done.stdout and f"| training, {target} | 4 |" in page and "Nothing was run." in page


@compilers
def test_fit_finds_the_limit_and_too_large_a_program_is_one_line(tmp_path):
    """A batch that one chip cannot hold becomes smaller until it does, and no larger one fits."""
    large = ["--target=v5e:1x1", "--program=sampling", "--config.eval.batch_size=65536"]
    rows, done = compiled(tmp_path / "x.md", *large)
    assert done.returncode == 0 and not rows[0]["fits"], done.stderr
    assert "Set a smaller config.eval.batch_size, or let --fit find it." in (tmp_path / "x.md").read_text()
    rows, done = compiled(tmp_path / "x.md", *large, "--fit", f"--text={tmp_path}/text")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "text").iterdir())) == sum(row["fits"] for row in rows)
    images = [[row["images"] for row in rows if row["fits"] == fits] for fits in (True, False)]
    assert max(images[0]) < min(images[1])
    full = max(row["peak"] / row["memory"] for row in rows if row["fits"])
    assert full > 0.9 or min(images[1]) < 1.3 * max(images[0])
    assert f"was found to fit v5e:1x1: {max(images[0])} images a device" in (tmp_path / "x.md").read_text()


@compilers
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--target=v5e:3x3"], "--target=v5e:3x3: the TPU's compiler refuses this topology: "),
        (["--target=v5e:4x4", "--config.train.batch_size=24"], "config.train.batch_size=24 must be a multiple"),
        (["--target=h100:8", "--config.train.fsdp=3"], "config.train.fsdp=3 does not divide the 8 devices"),
    ],
)  # fmt: skip
def test_what_a_compiler_or_its_devices_refuse(tmp_path, args, said):
    _, done = compiled(tmp_path / "x.md", *args)
    assert done.returncode == 1 and f"error: {said}" in done.stderr and "Traceback" not in done.stderr
