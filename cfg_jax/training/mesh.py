"""Devices: one mesh axis, `data`; batches are split over it, parameters are replicated."""

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

# dense bf16 TFLOP/s of one device, from the vendors' data sheets; keys are substrings of jax's device_kind
PEAK_TFLOPS = {
    "H200": 989, "H100": 989, "A100": 312, "V100": 125,
    "TPU v4": 275, "TPU v5p": 459, "TPU v5 lite": 197, "TPU v6 lite": 918,
}  # fmt: skip


def data_mesh(devices=None):
    """All devices, or the given ones, on one axis."""
    devices = devices or jax.devices()
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh):
    return NamedSharding(mesh, PartitionSpec())


def split(mesh):
    """The leading axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


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
