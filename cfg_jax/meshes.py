"""Devices as [data, fsdp]: batches are split over both axes, parameters, EMA and moments over fsdp alone."""

import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from cfg_jax.errors import InputError, require

# dense bf16 TFLOP/s of one device, from the vendors' data sheets; keys are substrings of jax's device_kind
PEAK_TFLOPS = {
    "H200": 989, "H100": 989, "A100": 312, "V100": 125,
    "B200": 2250, "TPU v4": 275, "TPU v5 lite": 197, "TPU v5": 459, "TPU v6 lite": 918,
}  # fmt: skip


WORTH_SPLITTING = 4096  # elements; smaller arrays are whole on every device


def data_mesh(devices: Sequence[Any] | None = None, fsdp: int = 1) -> Mesh:
    """Return the given devices, or this process's, as a mesh [data, fsdp].

    The devices of a process are neighbours, so that its share of a batch is contiguous.
    """
    devices = sorted(devices or jax.local_devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.reshape(devices, (-1, fsdp)), ("data", "fsdp"))


def training_mesh(train: ConfigDict, devices: Sequence[Any] | None = None) -> Mesh:
    """Return the devices, or all of all processes, as the mesh of a config.train.

    Raises InputError if fsdp does not divide the devices, or devices times accumulate does not divide the batch.
    """
    devices = devices or jax.devices()
    count, fsdp, batch_size = len(devices), train.fsdp, train.batch_size
    if count % fsdp:
        raise InputError(f"config.train.fsdp={fsdp} does not divide the {count} devices: choose one that does")
    if batch_size % (count * train.accumulate):
        times = f" times {train.accumulate} config.train.accumulate" if train.accumulate > 1 else ""
        raise InputError(f"config.train.batch_size={batch_size} must be a multiple of the {count} devices{times}")
    return data_mesh(devices, fsdp)


def memory(devices: Sequence[Any]) -> float:
    """Return the devices' memory together, in bytes: for CPUs the machine's, infinity if it is not known."""
    if devices[0].platform == "cpu":
        names = getattr(os, "sysconf_names", {})
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if "SC_PHYS_PAGES" in names else math.inf
    return len(devices) * float((jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", math.inf))


def check_batch(config: ConfigDict, group: str) -> None:
    """Raise InputError, before anything is compiled, for a batch of which one layer alone exceeds all memory.

    group: "train" or "eval", the section of the config whose batch_size it is. The layer is the network's first, of
    config.model.channels numbers of 2 bytes for each pixel, or the images where a network has no such field. Of a batch
    in parts (train.accumulate) it is of one part.
    """
    section, data, have = config[group], config.data, memory(jax.devices())
    count = -(-section.batch_size // section.get("accumulate", 1))
    if group == "eval":
        count = min(count, section.num_images)
    need = 2 * count * data.image_size**2 * max(data.channels, config.model.get("channels", 0))
    require(
        need <= have,
        f"config.{group}.batch_size={section.batch_size} needs {need / 1e9:,.0f} GB for one layer of the network, and "
        f"there are {have / 1e9:,.0f} GB: take a smaller one",
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The leading axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def shardings(tree: Any, mesh: Mesh) -> Any:
    """Return the sharding of each array of a state.

    An array is split over fsdp along the longest axis that fsdp divides. Small arrays, and those without such an axis,
    are whole on every device.
    """

    def of(array):
        fsdp = mesh.shape["fsdp"]
        axes = [i for i, length in enumerate(array.shape) if length % fsdp == 0]
        if fsdp == 1 or array.size < WORTH_SPLITTING or not axes:
            return replicated(mesh)
        axis = max(axes, key=lambda i: array.shape[i])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))

    return jax.tree.map(of, tree)


def placed(shapes: Any, mesh: Mesh) -> Any:
    """Return the shapes of a state with the shardings that it has on the mesh."""
    return jax.tree.map(
        lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), shapes, shardings(shapes, mesh)
    )


def divided(count: int, mesh: Mesh) -> int:
    """Round a number of images up to one that the mesh's devices can share equally."""
    return -(-count // mesh.size) * mesh.size


def whole(tree: Any, mesh: Mesh | None) -> Any:
    """Inside jit, gather the arrays that fsdp split on every device. Without a mesh they stay as they are."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, replicated(mesh))


def put(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Turn this process's share of a batch into global arrays that are split over the mesh."""
    return jax.tree.map(lambda a: jax.make_array_from_process_local_data(split(mesh), a), batch)


def peak_flops(devices: Sequence[Any] | None = None) -> float | None:
    """Return the stated peak of devices of one kind, or of all, together in FLOP/s, None where it is not known."""
    devices = devices or jax.devices()
    known = [peak for name, peak in PEAK_TFLOPS.items() if name in devices[0].device_kind]
    return known[0] * 1e12 * len(devices) if known else None


def flops(lowered: jax.stages.Lowered) -> float:
    """Return the FLOP of one call of a program on all devices together, by XLA's count; NaN where it gives none."""
    cost = lowered.cost_analysis()
    return cost["flops"] if cost else float("nan")
