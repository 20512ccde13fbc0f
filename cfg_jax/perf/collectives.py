"""What a compiled training step sends between devices, read from the program's text."""

import math
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cfg_jax.training import mesh as meshes
from cfg_jax.training import state as states
from cfg_jax.training import step as steps

INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?[\w.-]+ = (.*?) "
    r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\((.*)$",
    re.MULTILINE,
)
ARRAY = re.compile(r"\b(pred|[a-z]+\d\w*)\[([\d,]*)\]")


def of_program(text: str) -> list[tuple[str, int, int]]:
    """Return (kind, devices in a group, bytes of the whole array) for each collective in the text of an HLO program.

    The whole array is what an all-gather makes and what a reduce-scatter is given. A collective in a loop counts once.
    Raises ValueError for groups in a notation that is not known.
    """
    devices = math.prod(map(int, re.findall(r"(?:replica_count|num_partitions)=(\d+)", text.partition("\n")[0])))
    found = []
    for shape, kind, start, rest in INSTRUCTION.findall(text):
        arrays = ARRAY.findall(shape)
        if start and kind != "all-reduce":  # (operands, results, counters of the runtime)
            arrays = [array for array in arrays if array != ("u32", "")]
            arrays = arrays[len(arrays) // 2 :]
        size = group_size(rest, devices)
        found.append((kind, size, sum(map(num_bytes, arrays)) * (size if kind == "reduce-scatter" else 1)))
    return found


def num_bytes(array: tuple[str, str]) -> int:
    """Return the bytes of an array ("f32", "8,3")."""
    dtype, shape = array
    bits = 8 if dtype == "pred" else int(re.findall(r"\d+", dtype)[0])
    return bits * math.prod(int(length) for length in shape.split(",") if length) // 8


def group_size(attributes: str, devices: int) -> int:
    """Return the number of devices in a group of a collective, by its attributes in HLO.

    Groups are listed, or given as [groups, size], or as axes of a mesh or parts of them; {} is all `devices`. Raises
    ValueError for any other notation.
    """
    if found := re.search(r"source_target_pairs=\{(.*?)\}\}", attributes):
        return found[1].count("{")
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return found[1].count(",") + 1
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]<=", attributes):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[(.*?)\][^{]*\{(.*?)\}", attributes):
        lengths = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", found[2])
        return math.prod(int(part or lengths[axis]) for axis, part in axes)
    if "replica_groups={}" in attributes:
        return devices
    raise ValueError(f"no groups that are known in {attributes[:200]}")


def sent_bytes(kind: str, group_size: int, payload: int) -> float:
    """Return the bytes that each device sends by the ring algorithm; `payload` is of_program's bytes."""
    if kind == "collective-permute":
        return payload
    rounds = 2 if kind == "all-reduce" else 1  # a reduce-scatter, then an all-gather
    return rounds * payload * (group_size - 1) / group_size


def compile_step(config: ConfigDict, mesh: Mesh) -> Any:
    """Return the training step as a jax.stages.Compiled, from shapes alone, for batches of config.train.batch_size."""
    state = meshes.placed(jax.eval_shape(partial(states.create, config)), mesh)
    data, count = config.data, config.train.batch_size
    image = (count, data.image_size, data.image_size, data.channels)
    batch = {
        "image": jax.ShapeDtypeStruct(image, jnp.uint8, sharding=meshes.split(mesh)),
        "label": jax.ShapeDtypeStruct((count,), jnp.int32, sharding=meshes.split(mesh)),
    }
    compiled, _, _ = steps.compile_step(config, mesh, state, batch, jax.random.key(0), jnp.float32(config.p_uncond))
    return compiled
