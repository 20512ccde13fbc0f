"""Values as jit takes them: a class is a part of the program, a number is not."""

import dataclasses

import jax
import pytest

from cfg_jax.diffusion import struct


def of_class(answer):
    @struct.dataclass
    class Value:
        a: float = 1.0
        times: int = struct.static(default=1)

        def __call__(self):
            return self.a * self.times + answer

    return Value


def test_every_class_has_its_own_program():
    """flax.struct.dataclass fails it: of 300 classes some 30 answer as another does."""
    traced = []

    @jax.jit
    def call(value):
        traced.append(type(value))
        return value()

    classes = [of_class(answer) for answer in range(20)]
    assert [float(call(made(2.0))) for made in classes] == [answer + 2 for answer in range(20)]
    structures = {jax.tree.structure(made()) for made in classes}
    assert len(structures) == len(classes) == len(traced)

    assert float(call(classes[0](5.0))) == 5 and len(traced) == len(classes)  # a number is data
    assert float(call(classes[0](5.0, times=2))) == 10 and len(traced) == len(classes) + 1


def test_a_value_is_frozen_and_names_its_leaves():
    value = of_class(0)(3.0, times=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.a = 4.0
    assert jax.tree.map(lambda a: a + 1, value) == value.replace(a=4.0)
    ((path, leaf),), _ = jax.tree.flatten_with_path(value)
    assert jax.tree_util.keystr(path) == ".a" and leaf == 3
