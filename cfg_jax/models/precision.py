"""float32 that is float32 on every device: jax's default takes bfloat16 on a TPU and TF32 on a recent GPU."""

import jax

PRECISION = "highest"  # jax's name for it; a product of bfloat16 arrays stays one
# of a network's call: products of float32 arrays, by convolutions and matrices, and their gradients lose no digits
highest = jax.default_matmul_precision(PRECISION)
