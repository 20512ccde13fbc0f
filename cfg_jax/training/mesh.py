"""Devices as [data, fsdp]: batches are split over both axes, parameters, EMA and moments over fsdp alone."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from cfg_jax.errors import InputError

# dense bf16 TFLOP/s of one device, from the vendors' data sheets; keys are substrings of jax's device_kind
PEAK_TFLOPS = {
    "H200": 989, "H100": 989, "A100": 312, "V100": 125,
    "TPU v4": 275, "TPU v5p": 459, "TPU v5 lite": 197, "TPU v6 lite": 918,
}  # fmt: skip


WORTH_SPLITTING = 4096  # elements; smaller arrays are whole on every device


def data_mesh(devices=None, fsdp=1):
    """This process's devices, or the given ones, as [data, fsdp].

    Those of one process stand side by side: its share of a batch is one stretch of it.
    """
    devices = sorted(devices or jax.local_devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.reshape(devices, (-1, fsdp)), ("data", "fsdp"))


def training_mesh(train: ConfigDict) -> Mesh:
    """Return all devices of all processes as the mesh of a config.train.

    Raises InputError where fsdp does not divide the devices, or the devices and accumulate the batch.
    """
    count, fsdp, batch_size = jax.device_count(), train.fsdp, train.batch_size
    if count % fsdp:
        raise InputError(f"config.train.fsdp={fsdp} does not divide the {count} devices: choose one that does")
    if batch_size % (count * train.accumulate):
        times = f" times {train.accumulate} config.train.accumulate" if train.accumulate > 1 else ""
        raise InputError(f"config.train.batch_size={batch_size} must be a multiple of the {count} devices{times}")
    return data_mesh(jax.devices(), fsdp)


def replicated(mesh):
    return NamedSharding(mesh, PartitionSpec())


def split(mesh):
    """The leading axis over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def shardings(tree, mesh):
    """Of each array of a state: over fsdp along the longest axis that it divides, or whole."""

    def of(array):
        fsdp = mesh.shape["fsdp"]
        axes = [i for i, length in enumerate(array.shape) if length % fsdp == 0]
        if fsdp == 1 or array.size < WORTH_SPLITTING or not axes:
            return replicated(mesh)
        axis = max(axes, key=lambda i: array.shape[i])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))

    return jax.tree.map(of, tree)


def placed(shapes, mesh):
    """Shapes of a state with the shardings that it has on the mesh."""
    return jax.tree.map(
        lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), shapes, shardings(shapes, mesh)
    )


def divided(count, mesh):
    """The next number of images that the mesh's devices can share equally."""
    return -(-count // mesh.size) * mesh.size


def whole(tree, mesh):
    """Inside jit: arrays that fsdp split, gathered on every device; without a mesh, as they are."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, replicated(mesh))


def put(batch, mesh):
    """This process's share of a batch, host arrays -> global arrays split over the mesh."""
    return jax.tree.map(lambda a: jax.make_array_from_process_local_data(split(mesh), a), batch)


def peak_flops():
    """FLOP/s of all devices together at their stated peak, or None where it is not known."""
    kind = jax.devices()[0].device_kind
    known = [peak for name, peak in PEAK_TFLOPS.items() if name in kind]
    return known[0] * 1e12 * jax.device_count() if known else None


def flops(lowered):
    """FLOP of one call of a lowered program, all devices together, by XLA's count."""
    cost = lowered.cost_analysis()
    return cost["flops"] if cost else float("nan")
