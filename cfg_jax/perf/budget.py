"""What a program must do on an accelerator: FLOP and bytes of every kind of operation, counted before it is compiled.

Memory is counted as a compiler would use it that fuses well. Convolutions, matrix products and reductions read their
operands and write their results. What lies between is computed where it is used, and is written only where a
convolution or a product reads it, or where several operations do. What is only read otherwise, as a cast or a
broadcast, is never written.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Var

from cfg_jax.perf import cost

READS_MEMORY = {"conv_general_dilated", "dot_general"}
REDUCES = {"reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "argmax", "reduce_window_sum",
           "cumsum", "sort", "gather", "scatter-add", "scatter", "concatenate", "select_and_scatter_add"}  # fmt: skip
VIEWS = {"convert_element_type", "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "slice", "rev",
         "copy", "iota", "stop_gradient"}  # fmt: skip


@dataclass
class Kind:
    flops: float = 0.0  # of convolutions and products
    bytes: float = 0.0
    random: float = 0.0  # 32-bit random numbers


@dataclass(eq=False)  # each is one of its own: a function that is called twice has its variables twice
class Value:
    aval: Any

    @property
    def size(self) -> int:
        return math.prod(getattr(self.aval, "shape", ()))

    @property
    def bytes(self) -> int:
        return self.size * getattr(getattr(self.aval, "dtype", None), "itemsize", 4)


@dataclass
class Operation:
    equation: Any
    inputs: list[Value]
    outputs: list[Value]
    path: str  # of modules

    @property
    def name(self) -> str:
        return self.equation.primitive.name


def budget(function: Callable, *args: Any, kind_of: Callable[[Operation], str]) -> dict[str, Kind]:
    """Count a function at arguments that may be shapes, {kind_of(operation): Kind}. A loop's body counts once."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    values = {v: Value(v.aval) for v in (*jaxpr.invars, *jaxpr.constvars)}
    operations = list(opened(jaxpr, values, ""))
    results = {values[v] for v in jaxpr.outvars if isinstance(v, Var)}
    producer = {value: operation for operation in operations for value in operation.outputs}
    users = defaultdict(list)
    for operation in operations:
        for value in operation.inputs:
            users[value].append(operation.name)

    def written(value):
        if value not in producer or value in results:
            return True
        name = producer[value].name
        if name in VIEWS:
            return False
        return name in READS_MEMORY | REDUCES or len(users[value]) > 1 or bool(READS_MEMORY & set(users[value]))

    found = {}  # the values in memory that a value is computed from, itself where it is one

    def read(value):
        if value not in found:
            found[value] = {value} if written(value) else set().union(*map(read, producer[value].inputs))
        return found[value]

    total = defaultdict(Kind)
    for operation in operations:
        kind, out = total[kind_of(operation)], [value for value in operation.outputs if written(value)]
        kind.flops += cost.equation_flops(operation.equation)
        if operation.name in ("random_bits", "threefry2x32"):
            kind.random += sum(value.size for value in operation.outputs)
        if out:
            sources = set().union(*map(read, operation.inputs))
            kind.bytes += sum(value.bytes for value in (*sources, *out))
    return dict(total)


def opened(jaxpr: Jaxpr, values: dict, path: str) -> Iterator[Operation]:
    """Yield the operations of a jaxpr, with those of the functions that it calls in place of the calls.

    values: {variable: Value} of its arguments; those of its results are added.
    """
    for equation in jaxpr.eqns:
        here = f"{path}/{equation.source_info.name_stack}"
        inputs = [values.get(v) if isinstance(v, Var) else None for v in equation.invars]
        bodies = [p for p in equation.params.values() if isinstance(p, ClosedJaxpr | Jaxpr)]
        if not bodies:
            values.update({v: Value(v.aval) for v in equation.outvars})
            yield Operation(equation, [v for v in inputs if v], [values[v] for v in equation.outvars], here)
            continue
        body = bodies[0].jaxpr if isinstance(bodies[0], ClosedJaxpr) else bodies[0]
        within = {v: Value(v.aval) for v in (*body.constvars, *body.invars)}
        given = inputs[len(inputs) - len(body.invars) :]
        within |= {v: value for v, value in zip(body.invars, given, strict=True) if value}
        yield from opened(body, within, here)
        for outer, inner in zip(equation.outvars, body.outvars[-len(equation.outvars) :], strict=True):
            values[outer] = within[inner] if isinstance(inner, Var) else Value(outer.aval)
