"""float32 that is float32 on every device: jax's default takes bfloat16 on a TPU and TF32 on a recent GPU."""

import functools

import jax

PRECISION = "highest"  # jax's name for it; a product of bfloat16 arrays stays one


def highest(call):
    """Wrap a network's call so that products of float32 arrays, and their gradients, lose no digits.

    Products are those of convolutions and of matrices.
    """

    @functools.wraps(call)
    def in_full(*args, **kwargs):
        with jax.default_matmul_precision(PRECISION):
            return call(*args, **kwargs)

    return in_full
