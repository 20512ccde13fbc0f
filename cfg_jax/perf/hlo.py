"""Read a compiled program's text: its operations, how often each runs, and what devices send to one another."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

LINE = re.compile(r"^\s*(?:ROOT )?%?(?P<name>\S+) = (?P<shape>\(.*?\)|\S+) (?P<opcode>[a-z][\w-]*)\((?P<rest>.*)$")
ARRAY = re.compile(r"\b(pred|[a-z]+\d\w*)\[([\d,]*)\]")
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
NO_WORK = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional"}


@dataclass(frozen=True)
class Operation:
    name: str
    shape: str
    opcode: str
    rest: str  # operands and attributes

    @property
    def source(self) -> str:
        """The path of modules and the primitive that it comes from; "" where the program does not say."""
        return self.attribute(r'op_name="([^"]*)"')

    @property
    def target(self) -> str:
        """The kernel of a custom call, "" for another operation."""
        return self.attribute(r'custom_call_target="([^"]*)"')

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.-]+)", self.rest.split("),")[0])

    def attribute(self, pattern: str) -> str:
        """What a pattern's group finds, "" where it finds nothing."""
        found = re.search(pattern, self.rest)
        return found[1] if found else ""


@lru_cache(maxsize=1)  # a text of many megabytes is walked for its operations, and for its collectives
def computations(text: str) -> tuple[dict[str, dict[str, Operation]], str]:
    """Return {computation: {operation: Operation}} of a program's text, and the name of the one it begins with."""
    found: dict[str, dict[str, Operation]] = {}
    entry = current = ""
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            current = line.removeprefix("ENTRY ").split()[0].lstrip("%")
            found[current] = {}
            entry = current if line.startswith("ENTRY ") else entry
        elif current and (match := LINE.match(line)):
            found[current][match["name"]] = Operation(**match.groupdict())
    return found, entry


def executed(text: str) -> Iterator[tuple[Operation, int, dict[str, Operation]]]:
    """Yield each operation that runs, how often it does, and the operations of its computation by name.

    A loop's body runs as often as its known trip count says, or else the constant in its condition. Of several branches
    the one with most operations is taken.
    """
    found, entry = computations(text)

    def walk(computation, times):
        operations = found[computation]
        for operation in operations.values():
            if operation.opcode == "while":
                condition, body = (operation.attribute(rf"{of}=%?([\w.-]+)") for of in ("condition", "body"))
                yield from walk(body, times * trips(operation, found[condition]))
            elif operation.opcode == "call":
                yield from walk(operation.attribute(r"to_apply=%?([\w.-]+)"), times)
            elif operation.opcode == "conditional":
                branches = re.findall(r"%?([\w.-]+)", operation.attribute(r"branch_computations=\{(.*?)\}"))
                branches += re.findall(r"(?:true|false)_computation=%?([\w.-]+)", operation.rest)
                yield from walk(max(branches, key=lambda name: len(found[name])), times)
            elif works(operation):
                yield operation, times, operations

    yield from walk(entry, 1)


def works(operation: Operation) -> bool:
    """Return whether an operation takes time. Of asynchronous ones only the start of a collective does."""
    if operation.opcode.endswith(("-start", "-done")):
        return operation.opcode.removesuffix("-start") in COLLECTIVES
    return operation.opcode not in NO_WORK


def trips(loop: Operation, condition: dict[str, Operation]) -> int:
    """Return how often a loop runs: its known count, or the largest constant of its condition."""
    if known := loop.attribute(r'known_trip_count":\{"n":"(\d+)"'):
        return int(known)
    constants = [
        int(op.rest.split(")")[0]) for op in condition.values() if op.opcode == "constant" and "s32" in op.shape
    ]
    return max(constants, default=1)


def collectives(text: str) -> list[tuple[str, int, int]]:
    """Return (kind, devices in a group, bytes of the whole array) for each collective that a program runs.

    The whole array is what an all-gather makes and what a reduce-scatter is given. Raises ValueError for groups in a
    notation that is not known.
    """
    devices = math.prod(map(int, re.findall(r"(?:replica_count|num_partitions)=(\d+)", text.partition("\n")[0])))
    sent = []
    for operation, times, _ in executed(text):
        kind = operation.opcode.removesuffix("-start")
        if kind not in COLLECTIVES:
            continue
        arrays = ARRAY.findall(operation.shape)
        # an asynchronous one has (operands, results, counters of the runtime)
        if operation.opcode != kind and (kind != "all-reduce" or operation.shape.startswith("((")):
            arrays = [array for array in arrays if array != ("u32", "")]
            arrays = arrays[len(arrays) // 2 :]
        size = group_size(operation.rest, devices)
        payload = sum(map(num_bytes, arrays)) * (size if kind == "reduce-scatter" else 1)
        sent += [(kind, size, payload)] * times
    return sent


def num_bytes(array: tuple[str, str]) -> int:
    """Return the bytes of an array ("f32", "8,3")."""
    dtype, shape = array
    bits = 8 if dtype == "pred" else int(re.findall(r"\d+", dtype)[0])
    return bits * math.prod(dims(shape)) // 8


def dims(shape: str) -> list[int]:
    """Return the lengths of "8,3"."""
    return [int(length) for length in shape.split(",") if length]


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
