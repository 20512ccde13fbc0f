"""What jax's environment may not change: the kind of random key, how its bits are drawn, and the width of floats.

JAX_ENABLE_X64, JAX_DEFAULT_PRNG_IMPL, JAX_THREEFRY_PARTITIONABLE and JAX_RANDOM_SEED_OFFSET would each give other
images for one seed. Everything that trains, draws or scores runs inside `pinned()`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.core import Tracer

from cfg_jax.errors import require

KEYS = "threefry2x32"
RECORD = {"keys": f"{KEYS}, partitionable", "floats": "float32"}  # of every row and machine.json


@contextmanager
def pinned() -> Iterator[None]:
    """Run with these settings, whatever the environment says. Also a decorator."""
    with jax.enable_x64(False), jax.default_prng_impl(KEYS), jax.threefry_partitionable(True):
        yield


def key(seed: Any) -> jax.Array:
    """Return the random key of a seed, an int32 that is not negative or one that jit traces.

    Raises InputError for another seed, and where jax is set to draw other bits from the key.
    """
    if not isinstance(seed, Tracer):
        check_seed(seed)
    config: Any = jax.config
    require(
        config.jax_threefry_partitionable,
        "JAX_THREEFRY_PARTITIONABLE=0 draws other images for the same seed: unset it",
    )
    return jax.random.key(seed - config.jax_random_seed_offset, impl=KEYS)  # jax adds the offset


def check_seed(seed: Any, name: str = "seed") -> None:
    """Check that a seed is an int32 and not negative. name: the field or flag that gave it."""
    whole = hasattr(seed, "__index__") and not isinstance(seed, bool)
    require(whole and 0 <= seed < 2**31, f"{name}={seed} must be a whole number in [0, 2^31)")
