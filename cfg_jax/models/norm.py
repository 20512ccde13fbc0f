"""Group normalisation as one scale and one shift of every channel of an image.

The statistics, the learned scale and the conditioning meet in arrays of [B, C]. What is as large as x is read once for
its two sums and once to be scaled; the backward pass, which autodiff writes, reads it and its gradient twice as well.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class GroupNorm(nn.Module):
    """Wu & He 2018, with ADM's 32 groups and epsilon; it computes in float32 and returns `dtype`."""

    dtype: jnp.dtype
    groups: int = 32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        scale: Float[Array, "b c"] | float = 0.0,
        shift: Float[Array, "b c"] | float = 0.0,
    ) -> Float[Array, "b h w c"]:
        """normalised(x) (1 + scale) + shift, of which scale and shift condition the image."""
        channels = x.shape[-1]
        scale = 1 + jnp.float32(scale)  # arrives in the dtype of the body
        learned_scale = self.param("scale", nn.initializers.ones, (channels,))[None]
        learned_shift = self.param("bias", nn.initializers.zeros, (channels,))[None]
        x = x.astype(jnp.float32)
        mean, square = (self.of_group(moment.mean((1, 2))) for moment in (x, x * x))
        # a difference of two sums, which rounding can leave below zero
        std = jnp.sqrt(jnp.maximum(square - mean**2, 0) + self.epsilon)
        times = scale * learned_scale / std
        plus = scale * learned_shift + shift - mean * times
        return (x * times[:, None, None] + plus[:, None, None]).astype(self.dtype)

    def of_group(self, of_channel: Float[Array, "b c"]) -> Float[Array, "b c"]:
        """The mean over the channels of a group, at each of its channels."""
        grouped = of_channel.reshape(of_channel.shape[0], self.groups, -1)
        return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(of_channel.shape)
