"""Accelerators that need not be there: their own compilers take a program and say what it will need.

A TPU's compiler is libtpu (extra [tpu]); a GPU's is XLA's CUDA plugin with NVIDIA's assembler (extra [compile], or
[cuda13]). Nothing is executed. jax has to run on the CPU meanwhile, see `prepare`.
"""

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import jax
from jax.experimental import topologies

from cfg_jax.errors import InputError, choice, first_line, require


@dataclass(frozen=True)
class Tpu:
    """A TPU chip, which is one jax device. The peaks are in meshes.py."""

    clock: float  # GHz; the peak divided by the FLOP of a cycle of its matrix units
    memory: float  # bytes of HBM
    megacore: bool = False  # two cores that compute as one device
    solid: bool = False  # its topologies have three axes

    platform = "tpu"


@dataclass(frozen=True)
class Gpu:
    """A GPU, by what XLA's target configuration has to know of it (openxla/xla, target_config/specs)."""

    name: str
    capability: tuple[int, int]
    cores: int  # streaming multiprocessors
    clock: float  # GHz
    matrix_clock: float  # GHz of the tensor cores under load
    matrix_ops: int  # products of 16 bits and cycle of one of a multiprocessor's four tensor cores
    fpus: int  # float32 lanes of a multiprocessor
    shared: int  # bytes of shared memory of a multiprocessor
    cache: int  # bytes of L2
    memory: float  # bytes
    bandwidth: float  # bytes/s

    platform = "cuda"


CHIPS: dict[str, Tpu | Gpu] = {
    "v4": Tpu(1.05, 32 * 2**30, megacore=True, solid=True),
    "v5e": Tpu(1.5, 16 * 2**30),
    "v5p": Tpu(1.75, 95 * 2**30, megacore=True, solid=True),
    "v6e": Tpu(1.75, 32 * 2**30),
    "a100": Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 1.41, 1.41, 256, 64, 167936, 41943040, 85100068864, 2.03904e12),
    "h100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 1.98, 1.83, 512, 128, 233472, 52428800, 84942979072, 3.35232e12),
    "h200": Gpu("NVIDIA H200", (9, 0), 132, 1.98, 1.83, 512, 128, 233472, 52428800, 151397597184, 4.8e12),
    "b200": Gpu("NVIDIA B200", (10, 0), 148, 1.965, 1.835, 1024, 128, 233472, 132644864, 191514411008, 7.67232e12),
}
EXAMPLES = "v5e:4x4, v5p:2x2x4, v6e:4x4*2 for two slices, h100:8"
HOST = 8  # GPUs of one machine


@dataclass(frozen=True)
class Target:
    """Devices of one kind that a program can be compiled for."""

    name: str
    chip: Tpu | Gpu
    devices: list[Any]

    @property
    def options(self) -> dict[str, Any]:
        """The compiler's options: a GPU's kernels cannot be tried out, and their cost is asked for."""
        if isinstance(self.chip, Tpu):
            return {}
        tiles = "xla_gpu_experimental_cost_model_gemm_tiling_default"
        options: dict[str, Any] = {"xla_gpu_autotune_level": "0", "xla_gpu_collect_cost_model_stats": True}
        return options | ({tiles: True} if jax.__version_info__ >= (0, 12) else {})

    @contextmanager
    def told(self) -> Iterator[None]:
        """Answer for the GPU where jax asks the machine's own one whether it has cuDNN's attention."""
        if isinstance(self.chip, Tpu):
            yield
            return
        from jax._src.cudnn import fused_attention_stablehlo as asking

        capability = self.chip.capability
        answers = {
            "check_cudnn_version": lambda: 92300,
            "check_compute_capability": lambda wanted: capability >= tuple(map(int, wanted.split("."))),
            "is_cuda_compute_capability_equal": lambda wanted: capability == tuple(map(int, wanted.split("."))),
        }
        with mock.patch.multiple(asking, **answers):
            yield


def prepare() -> None:
    """Let jax run on the CPU, and its compilers do without their devices. Call it before jax starts."""
    jax.config.update("jax_platforms", "cpu")
    # libtpu asks the cloud which TPU this is, and logs that there is none
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_STDERR_LOG_LEVEL": "3", "TPU_MIN_LOG_LEVEL": "3"}
    os.environ |= {"TPU_ACCELERATOR_TYPE": "v5litepod-8", "TPU_WORKER_HOSTNAMES": "localhost"}
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # no TPU is held
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # XLA prints each product that Triton has no tiles for
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"


def target(name: str) -> Target:
    """Return the devices of a --target such as v5e:4x4 or h100:8.

    Raises InputError for a chip or a topology that is not known, and where its compiler is not installed.
    """
    kind, _, layout = name.partition(":")
    choice(kind, CHIPS, "--target")
    chip = CHIPS[kind]
    devices = of_tpu(name, kind, chip, layout) if isinstance(chip, Tpu) else of_gpu(name, chip, layout or "1")
    return Target(name, chip, devices)


def of_tpu(name: str, kind: str, chip: Tpu, layout: str) -> list[Any]:
    found = re.fullmatch(r"(\d+(?:x\d+){1,2})(?:\*(\d+))?", layout)
    if not found:
        raise InputError(f"--target={name}: write the topology of a TPU as in {EXAMPLES}")
    require(importlib.util.find_spec("libtpu"), missing(name, "the TPU's compiler", "tpu"))
    axes = [int(length) for length in found[1].split("x")]
    axes += [1] * (3 - len(axes)) if chip.solid else []
    settings: dict[str, Any] = {"chip_config_name": "megacore" if chip.megacore else "default"}
    if axes.count(1) == len(axes):
        settings["chips_per_host_bounds"] = (1, 1, 1)
    topology = f"{kind}:{'x'.join(map(str, axes))}"
    try:
        devices = topologies.get_topology_desc(topology, "tpu", num_slices=int(found[2] or 1), **settings).devices
    except Exception as error:  # a JaxRuntimeError, of whatever the compiler has against it
        raise InputError(f"--target={name}: the TPU's compiler refuses this topology: {first_line(error)}") from error
    return list(devices)


def of_gpu(name: str, chip: Gpu, layout: str) -> list[Any]:
    require(re.fullmatch(r"[1-9]\d*", layout), f"--target={name}: write the number of GPUs as in {EXAMPLES}")
    count = int(layout)
    require(count <= HOST or count % HOST == 0, f"--target={name}: more than {HOST} GPUs must be a multiple of {HOST}")
    find = importlib.util.find_spec
    plugin = find("jax_plugins") and any(find(f"jax_plugins.xla_cuda{n}") for n in (12, 13))
    require(plugin, missing(name, "XLA's compiler for CUDA", "compile"))
    require(
        has_toolkit(),
        f"--target={name} needs ptxas of a CUDA toolkit: pip install 'cfg_jax[compile]', or set CUDA_HOME to a toolkit",
    )
    topology = f"1x{max(1, count // HOST)}x{min(count, HOST)}"
    try:
        found = topologies.get_topology_desc(chip.name, "cuda", target_config=described(chip), topology=topology)
    except Exception as error:
        raise InputError(f"--target={name}: XLA's compiler for CUDA refuses: {first_line(error)}") from error
    return list(found.devices)


def has_toolkit() -> bool:
    """Whether ptxas is on the path, in CUDA_HOME, or in NVIDIA's wheel."""
    nvidia = importlib.util.find_spec("nvidia")
    places = [Path(place) for place in (nvidia.submodule_search_locations or [] if nvidia else [])]
    wheels = (path for place in places for path in place.glob("*/bin/ptxas"))
    return bool(shutil.which("ptxas") or Path(os.environ.get("CUDA_HOME", ""), "bin/ptxas").is_file() or any(wheels))


def missing(name: str, what: str, extra: str) -> str:
    return f"--target={name} needs {what}: pip install 'cfg_jax[{extra}]'"


def described(chip: Gpu) -> str:
    """Return the chip as XLA's GpuTargetConfigProto, in protobuf's text format."""

    def rate(dtype, clock, units, ops):
        value = f"clock_rate_ghz: {clock} units_per_core: {units} ops_per_clock: {ops}"
        return f"rate_infos {{ key: {dtype} value {{ {value} }} }}"

    half, single, double, bfloat = 10, 11, 12, 16  # of XLA's PrimitiveType
    scalars = [rate(dtype, chip.clock, chip.fpus, 1) for dtype in (half, single, bfloat)]
    scalars.append(rate(double, chip.clock, chip.fpus // 2, 1))
    matrix = [rate(dtype, chip.matrix_clock, 4, chip.matrix_ops) for dtype in (half, bfloat)]
    matrix.append(rate(single, chip.matrix_clock, 4, chip.matrix_ops // 2))  # as TF32
    major, minor = chip.capability
    features = "ACCELERATED_FEATURES" if major >= 9 else "NONE"
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: {chip.shared - 1024}
  shared_memory_per_core: {chip.shared}
  core_count: {chip.cores} fpus_per_core: {chip.fpus} clock_rate_ghz: {chip.clock}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  memory_bandwidth: {chip.bandwidth:.0f} l2_cache_size: {chip.cache} device_memory_size: {chip.memory:.0f}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {features} }}
  scalar_unit_description {{ {" ".join(scalars)} }}
  matrix_unit_description {{ {" ".join(matrix)} }}
  name: "{chip.name}" device_vendor: "NVIDIA Corporation" pcie_bandwidth: 34359738368 device_address_bits: 64
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0" dnn_version: "9.23.2"
  device_interconnect_info {{ active_links: 18 }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 23 patch: 2 }}
runtime_version {{ major: 13 }}
device_description_str: "{chip.name}"
"""
