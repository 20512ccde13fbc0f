"""Values: rules, samplers and models, whose numbers are data to a compiled program and whose class is a part of it.

flax.struct.dataclass would do, but for a fault of jaxlib (seen in 0.10.2 and 0.12.0.1): it takes two such classes with
equally many fields for the same class where their hashes meet, in about one of a hundred pairs. One sampler's images
would then be drawn by the program of another. Nodes that are registered one by one are told apart.
"""

import dataclasses
from typing import Any, dataclass_transform

import jax
from jax.tree_util import GetAttrKey


def static(**kwargs) -> Any:
    """Return a dataclasses.field that is a part of the program: another value of it is another program."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


def optional(kind: type, *, default: Any, static: bool = False) -> Any:
    """Return a dataclasses.field that is None in a config where it is not set, and of this type where it is."""
    return dataclasses.field(default=default, metadata={"optional": kind, "static": static})


@dataclass_transform(frozen_default=True, field_specifiers=(static, optional, dataclasses.field))
def dataclass(cls):
    """Make a class a frozen dataclass and a pytree, whose leaves are its fields but for the static ones."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    cls.replace = dataclasses.replace
    fields = dataclasses.fields(cls)
    leaves = [field.name for field in fields if not field.metadata.get("static")]
    rest = [field.name for field in fields if field.metadata.get("static")]

    def flatten_with_keys(self):
        return [(GetAttrKey(name), getattr(self, name)) for name in leaves], tuple(getattr(self, name) for name in rest)

    def unflatten(of_rest, of_leaves):
        return cls(**dict(zip(leaves + rest, (*of_leaves, *of_rest), strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
    return cls
