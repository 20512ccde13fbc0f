from contextlib import nullcontext

import jax
import jax.numpy as jnp
import pytest

from cfg_jax.perf import collectives, cost, timing
from cfg_jax.training import mesh as meshes
from cfg_jax.training import state as states

SCALARS = 1000  # bytes of loss, norms and metrics that are reduced beside the gradient

PROGRAM = """HloModule jit_f, replica_count=1, num_partitions=8
  %all-reduce.1 = f32[128,2]{1,0} all-reduce(%dot.1), channel_id=1, replica_groups={{0,1},{2,3},{4,5},{6,7}}
  %all-reduce.2 = (bf16[3]{0}, pred[], /*index=2*/f8e4m3fn[5]{0:T(8)}) all-reduce(%a, %b, %c), replica_groups=[2,4]<=[8]
  ROOT %ars = f32[] all-reduce-start(%x), replica_groups={}, to_apply=%add
  %ard = f32[] all-reduce-done(%ars)
  %all-gather.1 = f32[8,4]{0,1} all-gather(%y), replica_groups=[4,2]<=[2,2,2]T(2,0,1), dimensions={0}
  %ags = ((f32[2]{0}, s32[1]{0}), (f32[8]{0}, s32[4]{0})) all-gather-start(%y, %z), replica_groups=[2,4]<=[4,2]T(1,0)
  %rs = f32[16]{0} reduce-scatter(%g), replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'a'}
  %rss = (f32[8]{0}, f32[4]{0}) reduce-scatter-start(%g), replica_groups=mesh['a'=4,'b'=2] {'a':(2)2}, to_apply=%a
  %a2a = (c64[6]{0}, c64[6]{0}) all-to-all(%p, %q), replica_groups=mesh['a'=4,'b'=2] {'a','b'}
  %cps = (u32[7]{0}, u32[7]{0}, u32[], u32[]) collective-permute-start(%s), source_target_pairs={{0,1},{1,2},{2,0}}
  %fusion.1 = f32[9]{0} fusion(%all-reduce.1), kind=kLoop, calls=%all-gather.3
"""


def test_a_program_s_text():
    assert collectives.of_program(PROGRAM) == [
        ("all-reduce", 2, 1024),
        ("all-reduce", 4, 6 + 1 + 5),
        ("all-reduce", 8, 4),
        ("all-gather", 2, 128),
        ("all-gather", 4, 48),
        ("reduce-scatter", 4, 256),
        ("reduce-scatter", 2, 32),
        ("all-to-all", 8, 96),
        ("collective-permute", 3, 28),
    ]
    with pytest.raises(ValueError, match="no groups"):
        collectives.of_program("HloModule f\n %a = f32[2]{0} all-reduce(%b), replica_groups=new\n")


@pytest.mark.parametrize(
    ("kind", "sent"),
    [("all-reduce", 150), ("all-gather", 75), ("reduce-scatter", 75), ("all-to-all", 75), ("collective-permute", 100)],
)
def test_what_a_ring_sends(kind, sent):
    assert collectives.sent_bytes(kind, 4, 100) == sent


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


def test_nothing_but_gradients_and_split_parameters_is_sent(tiny):
    params = jax.eval_shape(lambda: states.create(tiny)).params
    steps = {fsdp: collectives.compile_step(tiny, meshes.data_mesh(jax.devices(), fsdp)) for fsdp in (1, 2, 4)}
    held = {fsdp: step.memory_analysis().argument_size_in_bytes for fsdp, step in steps.items()}
    for fsdp, step in steps.items():
        split = only_the_gradient(params, fsdp, collectives.of_program(step.as_text()))
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
        only_the_gradient(shapes, fsdp, collectives.of_program(text))


def test_guided_sampling_sends_nothing_between_devices(tiny):
    """Both halves of an image are on its own device."""
    assert len(jax.devices()) == 4
    assert collectives.of_program(timing.sampling(tiny).compiled.as_text()) == []
