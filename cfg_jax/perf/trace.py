"""Where a program's time goes, by the profiler's trace of the devices: seconds of each operation of the program."""

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

OF_SOURCE = re.compile(r'^\s*(?:ROOT )?%?(\S+) = .*metadata=\{[^}]*?op_name="([^"]*)"', re.MULTILINE)
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?(\S+) = (?:\(.*?\)|\S+) ([\w-]+)\(")
COSTLY = ("convolution", "dot", "sort", "scatter", "gather", "reduce-window", "reduce", "transpose", "concatenate")


@dataclass(frozen=True)
class Operation:
    name: str  # of the compiled program, or the device's kernel where the trace does not say that
    kind: str  # its opcode, or the costliest one that it fuses
    source: str  # the path of modules that it comes from; "" where the program does not say
    calls: int
    seconds: float


def operations(run: Callable[[], None], program: str, calls: int = 3) -> tuple[list[Operation], float]:
    """Run a compiled program `calls` times after once to warm up.

    program: its text, compiled.as_text(). Returns its operations by the seconds that one call spends in them, the
    longest first, and the seconds of one call by the clock. The list is empty where the profiler sees no device.
    """
    sources, kinds = dict(OF_SOURCE.findall(program)), kinds_of(program)
    run()
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            began = time.perf_counter()
            for _ in range(calls):
                run()
            clock = (time.perf_counter() - began) / calls
        paths = Path(directory).rglob("*.xplane.pb")
        events = [event for path in paths for event in on_devices(jax.profiler.ProfileData.from_file(str(path)))]
    total = {}
    for name, seconds in events:
        count, before = total.get(name, (0, 0.0))
        total[name] = count + 1, before + seconds
    found = [
        Operation(name, kinds.get(name, "not in the program"), sources.get(name, ""), n // calls, s / calls)
        for name, (n, s) in total.items()
    ]
    return sorted(found, key=lambda operation: -operation.seconds), clock


def kinds_of(program: str) -> dict[str, str]:
    """{operation: kind} of a compiled program's text. A fusion is of the first of COSTLY that is in it."""
    opcodes, called, inside, computation = {}, {}, {}, ""
    for line in program.splitlines():
        if found := INSTRUCTION.match(line):
            name, opcode = found.groups()
            target = re.search(r'custom_call_target="([^"]*)"', line)
            opcodes[name] = target[1] if target else opcode
            inside.setdefault(computation, set()).add(opcode)
            if calls := re.search(r"calls=%?([^\s,]+)", line):
                called[name] = calls[1]
        elif line.endswith("{"):
            computation = line.removeprefix("ENTRY ").split()[0].lstrip("%")
    fused = {
        name: next((kind for kind in COSTLY if kind in inside.get(of, ())), "elementwise")
        for name, of in called.items()
    }
    return opcodes | fused


def on_devices(data: Any) -> Iterator[tuple[str, float]]:
    """Yield (operation, seconds) of a jax.profiler.ProfileData: kernels of a GPU, operations of a TPU or a CPU."""
    planes = [plane for plane in data.planes if plane.name.startswith("/device:")]
    if not planes:
        planes = [plane for plane in data.planes if plane.name == "/host:CPU"]
    for plane in planes:
        lines = {line.name: line for line in plane.lines}
        kernels = [name for name in lines if name.startswith("Stream")] or [name for name in lines if name == "XLA Ops"]
        for name in kernels or lines:
            for event in lines[name].events:
                operation = dict(event.stats).get("hlo_op")
                # the host's plane has Python and thread pools too, and an end beside each operation
                if kernels or (operation and event.name == operation):
                    yield str(operation or event.name), event.duration_ns / 1e9
