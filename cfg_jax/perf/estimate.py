"""Ask a compiler what a program needs: memory, work, what devices send to one another, and an estimate of the time.

A TPU's compiler writes the cycles that it expects beside each operation. XLA's for GPUs writes microseconds beside what
it fuses, nothing beside cuDNN's kernels, and the peak's beside cuBLAS's. These kernels count by their FLOP at an
assumed share of the peak, KERNELS. What is sent between devices is not in the estimate, nor is the launch of a kernel.
"""

import math
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from cfg_jax import meshes
from cfg_jax.errors import InputError, first_line
from cfg_jax.inputs import check, read_json, reading
from cfg_jax.models import build
from cfg_jax.perf import hlo
from cfg_jax.perf.programs import Program
from cfg_jax.perf.targets import Gpu, Target, Tpu

KERNELS = {"attention": 0.35, "convolution": 0.6, "product": 0.6}  # assumed shares of the peak
NETWORK = re.compile("|".join([*(cls.__name__ for cls in build.NETWORKS.values()), "Inception"]))
PRODUCTS = {  # matrix products of [T, d] with [d, T] in a kernel of attention
    "splash_mha_fwd": 2, "splash_mha_dkv": 4, "splash_mha_dq": 3, "fmhaSoftmaxBackward": 5, "fmhaSoftmax": 2,
}  # fmt: skip


class TooLarge(InputError):
    """The program needs more memory than the device has, by its compiler."""


def compile_for(target: Target, lowered: Any) -> Any:
    """Compile a lowered program. A GPU tries Triton's tiles out, and takes cuBLAS's kernels where none fits."""
    try:
        return lowered.compile(target.options)
    except Exception as error:
        if "No supported config found" not in str(error):
            raise
    return lowered.compile(target.options | {"xla_gpu_enable_triton_gemm": False})


def estimate(program: Program, target: Target) -> tuple[dict[str, Any], str]:
    """Compile a program, and return what one call needs of one device, and the compiled text. Raises TooLarge.

    Memory is in bytes, the time is estimated, and FLOP/s and their share of the peak are of the network's convolutions
    and products alone.
    """
    began = time.perf_counter()
    try:
        with target.told():
            compiled = compile_for(target, program.traced.lower(lowering_platforms=(target.chip.platform,)))
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise TooLarge(first_line(error).split(": ", 1)[-1]) from error
        raise
    compile_s = time.perf_counter() - began
    text, memory, cost = compiled.as_text() or "", compiled.memory_analysis(), compiled.cost_analysis() or {}
    peak = meshes.peak_flops(target.devices)
    assert memory is not None and peak is not None
    kinds, kernels, sizes = defaultdict(float), 0, defaultdict(list)
    for operation, times, others in hlo.executed(text):
        kinds[kind(operation)] += times * seconds(operation, others, target.chip, peak / len(target.devices))
        kernels += times
    for of, group, payload in hlo.collectives(text):
        sizes[of, group].append(payload)
    total = sum(kinds.values())
    made = memory.output_size_in_bytes - memory.alias_size_in_bytes  # results that replace no argument
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes + made
    return {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "peak": needed,
        "memory": target.chip.memory,
        "flops": cost.get("flops"),  # all operations, by the compiler; a GPU's does not say
        "bytes": cost.get("bytes accessed"),  # read and written
        "kernels": kernels,
        "sent": [{"kind": of, "group": n, "times": len(each), "bytes": sum(each)} for (of, n), each in sizes.items()],
        "seconds": total,
        "flops_per_s": program.flops / len(target.devices) / total,
        "share": program.flops / total / peak,
        "compile_s": compile_s,
        "kinds": dict(sorted(kinds.items(), key=lambda item: -item[1])),  # seconds of each kind of operation
        "fits": needed <= target.chip.memory,
    }, text


ROW = {  # of a program that fits, what `fastest` and `estimated` read
    "target": str, "device": str, "program": str, "images": float, "seconds": float, "flops_per_s": float,
    "share": float,
}  # fmt: skip


def rows_of(path: str | Path) -> list[dict[str, Any]]:
    """Return the programs that fit, of bench.compile's JSON. Raises InputError for another file."""
    otherwise = "is no JSON of experiments.bench.compile", "give --compiled what it wrote"
    rows = [row for row in read_json(path, {"rows": [{"fits": bool}]}, *otherwise)["rows"] if row["fits"]]
    with reading(path, *otherwise):
        check(rows, [ROW])
    return rows


def fastest(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return {target: {program: its row}}, of each program the row with the largest share of the peak."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["share"]):
        found.setdefault(row["target"], {})[row["program"]] = row
    return found


def estimated(rows: list[dict[str, Any]], program: str, device: str, images: float) -> float | None:
    """Return the images/s of one device at a batch of so many images on it, None where no row has that program."""
    found = [row for row in rows if (row["program"], row["device"], row["images"]) == (program, device, images)]
    return found[0]["images"] / found[0]["seconds"] if found else None


def seconds(operation: hlo.Operation, others: dict[str, hlo.Operation], chip: Tpu | Gpu, peak: float) -> float:
    """Return the estimated seconds of an operation on a device of this peak; 0 where the compiler says nothing."""
    counts = {"attention": attention_flops, "convolution": convolution_flops, "product": product_flops}
    for name, flops_of in counts.items():
        if flops := flops_of(operation, others):
            return flops / peak / KERNELS[name]
    if isinstance(chip, Tpu):
        return float(operation.attribute(r'estimated_cycles":"(\d+)"') or 0) / chip.clock / 1e9
    named = {name: float(us) for us, name in re.findall(COST, operation.rest)}
    return next((named[name] for name in COST_MODELS if name in named), 0.0) / 1e6


COST = r'"exec_time_us":([\d.]+),[^{}]*?"name":"(.*?)"'
COST_MODELS = ("indexing-cost-model", "experimental-gemm-cost-model", "sol", "")  # the first that has looked at it


def shape_of(name: str, others: dict[str, hlo.Operation]) -> list[int]:
    """Return the lengths of an operand's first array, [] where there is none."""
    arrays = hlo.ARRAY.findall(others[name].shape) if name in others else []
    return hlo.dims(arrays[0][1]) if arrays else []


def attention_flops(operation: hlo.Operation, others: dict[str, hlo.Operation]) -> float:
    """Return the FLOP of a kernel of attention, 0 for another operation."""
    name = operation.target if operation.target.startswith("__cudnn") else operation.name
    products = next((n for start, n in PRODUCTS.items() if start in name), 0)
    if operation.opcode != "custom-call" or not products:
        return 0.0
    [b, *rest] = next(shape for each in operation.operands if len(shape := shape_of(each, others)) == 4)
    tokens, heads = (rest[0], rest[1]) if "fmha" in name else (rest[1], rest[0])  # cuDNN has [B, T, heads, d]
    return 2 * products * b * heads * tokens**2 * rest[2]


def convolution_flops(operation: hlo.Operation, others: dict[str, hlo.Operation]) -> float:
    """Return the FLOP of cuDNN's convolution, 0 for another operation.

    Each of the three, forward and the two gradients, has two for each number of the kernel and pixel of the output.
    """
    if not operation.target.startswith("__cudnn$conv"):
        return 0.0
    result = hlo.dims(hlo.ARRAY.findall(operation.shape)[0][1])
    first, second = (shape_of(each, others) for each in operation.operands[:2])
    labels = re.split(r"[_>]|->", operation.attribute(r"dim_labels=(\S+?)[,\s]"))
    if "convBackwardFilter" in operation.target:
        out, kernel, of_out = second, result, labels[-1]
    elif "convBackwardInput" in operation.target:
        out, kernel, of_out = first, second, labels[0]
    else:
        out, kernel, of_out = result, second, labels[-1]
    pixels = math.prod(length for length, label in zip(out, of_out, strict=False) if label != "f")
    return 2.0 * math.prod(kernel) * pixels


def product_flops(operation: hlo.Operation, others: dict[str, hlo.Operation]) -> float:
    """Return the FLOP of cuBLAS's matrix product, 0 for another operation."""
    if not operation.target.startswith("__cublas"):
        return 0.0
    summed = operation.attribute(r'lhs_contracting_dimensions":\[([\d",]*)\]')
    left, result = shape_of(operation.operands[0], others), hlo.dims(hlo.ARRAY.findall(operation.shape)[0][1])
    return 2.0 * math.prod(result) * math.prod(left[int(axis)] for axis in re.findall(r"\d+", summed))


def kind(operation: hlo.Operation) -> str:
    """Return what an operation is for, by the modules and the primitive that it comes from."""
    path, opcode = operation.source, operation.opcode.removesuffix("-start")
    primitive = path.rsplit("/", 1)[-1]
    if opcode in hlo.COLLECTIVES:
        return "sent between devices"
    if opcode == "custom-call" and ("splash" in operation.name or "fmha" in operation.target):
        return "attention's kernel"
    if operation.target.startswith("__cudnn$conv") or "conv_general_dilated" in primitive:
        return "convolutions"
    if "dot_general" in primitive:
        return "attention's products" if re.search(r"_attention/(?!qkv|out/)", path) else "dense layers"
    if re.search(r"[_/]norm/", path):
        return "group norm"
    if "_attention/" in path:
        return "rest of attention"
    if opcode in ("copy", "transpose"):
        return "copies"
    return "elementwise, in the network" if NETWORK.search(path) else "outside the network"
