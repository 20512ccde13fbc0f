"""The time of each operation of a program, and what kind of operation it is."""

import jax
import jax.numpy as jnp
import pytest

from cfg_jax.perf import trace

PROGRAM = """HloModule jit_f

%fused_computation.1 (param_0: f32[8,8], param_1: f32[8,8]) -> f32[8,8] {
  %param_0 = f32[8,8]{1,0} parameter(0)
  %dot.2 = f32[8,8]{1,0} dot(%param_0, %param_0), lhs_contracting_dims={1}
  ROOT %reduce.3 = (f32[8]{0}, f32[8]{0}) reduce(%dot.2, %c), to_apply=%add
}

%fused_computation.2 (param_0.1: f32[8,8]) -> f32[8,8] {
  ROOT %tanh.1 = f32[8,8]{1,0} tanh(%param_0.1)
}

ENTRY %main.9 (x.1: f32[8,8]) -> f32[8,8] {
  %fusion.4 = f32[8,8]{1,0} fusion(%x.1), kind=kOutput, calls=%fused_computation.1, metadata={op_name="jit(f)/a/dot"}
  %loop_fusion = f32[8,8]{1,0} fusion(%fusion.4), kind=kLoop, calls=%fused_computation.2
  %cudnn-conv.5 = (f32[8]{0}, u8[0]{0}) custom-call(%loop_fusion), custom_call_target="__cudnn$convForward"
  ROOT %copy.6 = f32[8,8]{1,0} copy(%loop_fusion)
}
"""


def test_kinds_of_a_program_s_text():
    kinds = trace.kinds_of(PROGRAM)
    wanted = {"fusion.4": "dot", "loop_fusion": "elementwise", "cudnn-conv.5": "__cudnn$convForward", "copy.6": "copy"}
    assert {name: kinds[name] for name in wanted} == wanted


def test_a_program_s_operations_and_their_time():
    """All of its operations, the product among them; together they take no longer than the devices were there."""
    x = jnp.ones((512, 512))
    compiled = jax.jit(lambda x: jnp.tanh(x @ x).sum()).lower(x).compile()
    found, clock = trace.operations(lambda: jax.block_until_ready(compiled(x)), compiled.as_text(), calls=4)
    kinds = {operation.kind: operation for operation in found}
    assert kinds["dot"].calls == 1 and kinds["dot"].source.startswith("jit(")
    assert found == sorted(found, key=lambda operation: -operation.seconds)
    assert 0 < sum(operation.seconds for operation in found) <= clock * len(jax.devices())


@pytest.mark.parametrize("name", ["training", "sampling"])
def test_the_table_of_a_config(command, tmp_path, name):
    out = tmp_path / "profile.md"
    small = [
        "--config.model.multipliers=(1,)", "--config.model.attention_resolutions=()", "--config.train.batch_size=2",
        "--config.eval.batch_size=2", "--config.sampler.num_steps=2", "--calls=1", "--count=3",
    ]  # fmt: skip
    done = command("bench.profile", "--config=configs/digits.py", f"--out={out}", *small)
    assert done.returncode == 0, done.stderr
    section = out.read_text().split(f"## {name}, 2 images")[1].split("\n## ")[0]
    # what XLA fuses depends on the processor, so that no name of an operation is asked for
    assert "| operation | from | calls | ms | share |" in section and "others |" in section
    assert sum(line.startswith("| ") for line in section.splitlines()) >= 5
