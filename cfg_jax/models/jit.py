"""JiT of Li & He 2025 (arXiv 2511.13720) in flax.linen: a plain transformer on patches of pixels.

The network is shown the straight path's z_t = t x + (1 - t) s eps and t, where s is the noise scale: both follow from z
and its log-SNR, which is 2 log(t / (1 - t) / s). Its output is called x in the paper's recipe.

Norm statistics, softmax, the embeddings and the output stay in float32 whatever `dtype` the body computes in.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from cfg_jax.diffusion import flow, process
from cfg_jax.errors import require
from cfg_jax.models import network
from cfg_jax.models.attention import PERTURBATIONS, attend
from cfg_jax.models.precision import highest
from cfg_jax.models.unet import W_SCALE, timestep_embedding, unpatched

# fields of config.model that the network takes as they are
FIELDS = {
    "patch": int, "width": int, "depth": int, "num_heads": int, "bottleneck": int, "class_tokens": int,
    "class_tokens_from": int, "noise_scale": float, "null_label": bool, "dropout": float, "remat": bool,
    "inner_head": bool,
}  # fmt: skip
SMALL = nn.initializers.normal(0.02)
TIME_CHANNELS = 256  # of the noise level, before its two layers


def check(config: ConfigDict) -> None:
    """Check that patches, heads and class tokens fit. Raises InputError."""
    model, image_size = config.model, config.data.image_size
    for field in ("patch", "width", "depth", "num_heads", "bottleneck"):
        require(model[field] >= 1, f"config.model.{field}={model[field]} must be at least 1")
    require(model.width <= 2**14, f"config.model.width={model.width} is more than 16,384: choose less")
    require(0 <= model.dropout < 1, f"config.model.dropout={model.dropout} must lie in [0, 1)")
    require(
        0 < model.noise_scale < math.inf, f"config.model.noise_scale={model.noise_scale} must be above 0 and finite"
    )
    require(
        image_size % model.patch == 0,
        f"config.model.patch={model.patch} does not divide config.data.image_size={image_size}: choose one that does",
    )
    require(
        model.width % (4 * model.num_heads) == 0,
        f"config.model.num_heads={model.num_heads} must divide config.model.width={model.width} into heads whose "
        "width is a multiple of 4",
    )
    tokens, first = model.class_tokens, model.class_tokens_from
    require(tokens >= 0, f"config.model.class_tokens={tokens} must be 0, for none, or more")
    require(
        tokens == 0 or 0 <= first < model.depth,
        f"config.model.class_tokens_from={first} is no block: config.model.depth={model.depth} has 0 to "
        f"{model.depth - 1}",
    )
    require(
        model.depth > 1 or not model.inner_head,
        f"config.model.inner_head is between two blocks, and config.model.depth={model.depth}: set 2 or more",
    )


class JiT(nn.Module):
    patch: int  # side of a token's square, in pixels
    width: int  # channels of a token
    depth: int  # blocks
    num_heads: int
    bottleneck: int  # channels that a patch is squeezed to before it becomes a token
    num_classes: int  # 0: unconditional, c is not read
    out_channels: int
    class_tokens: int = 0  # tokens of the class that join those of the image,
    class_tokens_from: int = 0  # before this block, counted from 0
    noise_scale: float = 1.0  # s, 1 at 256x256 and 2 at 512x512 as published
    null_label: bool = True  # the null token is embedding row `num_classes`
    takes_w: bool = False  # a student of guidance takes w as an input
    noise_level: Callable = flow.time_of  # log-SNR -> what the time embedding sees
    dropout: float = 0.0  # of the middle half of the blocks
    dtype: jnp.dtype = jnp.float32
    remat: bool = False  # compute all of a block but its products with weights again in the backward pass
    mesh: Mesh | None = None  # over which the batch is split
    perturbation: str | None = None  # how the attention of its middle block is made worse, one of `perturbations`
    inner_head: bool = False  # a second prediction, after half of the blocks

    perturbations: ClassVar = tuple(PERTURBATIONS)

    @classmethod
    def from_config(cls, config: ConfigDict) -> "JiT":
        """Return the transformer of config.model. Raises InputError where a field is missing or unknown."""
        fields = network.fields(config, **FIELDS)
        return cls(out_channels=config.data.channels, takes_w=network.takes_w(config), **fields)

    check = staticmethod(check)

    @property
    def summary(self) -> network.Summary:
        return network.Summary(
            "transformer (JiT)",
            f"patches of {self.patch}x{self.patch}, {self.depth} blocks, {self.width} channels, {self.num_heads} heads",
        )

    def largest_attention(self, side: int) -> tuple[int, int, int]:
        """Return (tokens, heads, channels a head) of the last block's attention, for images of that side."""
        return (side // self.patch) ** 2 + self.class_tokens, self.num_heads, self.width // self.num_heads

    @nn.compact
    @highest
    def __call__(
        self,
        z: Float[Array, "b h w c"],
        logsnr: Float[Array, " b"],
        c: Int[Array, " b"],
        w: Float[Array, " b"] | None = None,
        *,
        train: bool = False,
        both_heads: bool = False,
    ) -> Float[Array, "b h w out_channels"] | tuple[Float[Array, "b h w out_channels"], ...]:
        """x(z, lambda, c) in float32, or what else the network is trained to predict. train: with dropout.

        w is looked at where `takes_w`; None is 0. both_heads: return this and the prediction of the inner head.
        """
        time = timestep_embedding(self.noise_level(logsnr + 2 * math.log(self.noise_scale)), TIME_CHANNELS)
        of_time = partial(nn.Dense, self.width, kernel_init=SMALL)
        emb = of_time(name="time_embed_2")(nn.silu(of_time(name="time_embed_0")(time)))
        label = jnp.zeros_like(emb)
        if self.num_classes:
            rows = self.num_classes + self.null_label
            label = nn.Embed(rows, self.width, embedding_init=SMALL, name="label_emb")(c)
        emb += label
        if self.takes_w:  # of no effect at first, so that a student starts as its teacher's conditional half
            of_w = timestep_embedding(W_SCALE * (jnp.zeros_like(logsnr) if w is None else w), TIME_CHANNELS)
            emb += nn.Dense(self.width, kernel_init=nn.initializers.zeros, name="w_embed")(of_w)
        emb = nn.silu(emb)

        # z_t = z t / alpha, where alpha / t = alpha + sigma / s
        z = z / (process.alpha(logsnr) + process.sigma(logsnr) / self.noise_scale)[:, None, None, None]
        h = dense(self.bottleneck, self.dtype, "patch_embed_0", use_bias=False)(patches(z, self.patch))
        h = dense(self.width, self.dtype, "patch_embed_1")(h)
        grid = z.shape[1] // self.patch, z.shape[2] // self.patch
        h += jnp.asarray(waves(*grid, self.width), self.dtype)

        turns = jnp.float32(angles(*grid, self.width // self.num_heads // 4))
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        block = nn.remat(Block, policy=policy) if self.remat else Block
        inner: Any = None
        for i in range(self.depth):
            if self.class_tokens and i == self.class_tokens_from:
                place = self.param("class_tokens", SMALL, (self.class_tokens, self.width))
                h = jnp.concatenate([(label[:, None] + place).astype(self.dtype), h], axis=1)
                turns = jnp.pad(turns, ((self.class_tokens, 0), (0, 0)))  # they have no place, and are not turned
            drops = train and self.depth // 4 <= i < self.depth // 4 * 3
            dropout = self.dropout if drops else 0.0
            worse = self.perturbation if i == self.depth // 2 else None
            h = block(self.num_heads, dropout, self.dtype, self.mesh, worse, name=f"block_{i}")(h, emb, turns)
            if self.inner_head and i + 1 == self.depth // 2:
                inner = self.head(h, emb, grid, "inner_")
        out = self.head(h, emb, grid, "")
        return (out, inner) if both_heads else out

    def head(
        self, h: Float[Array, "b t d"], emb: Float[Array, "b d"], grid: tuple[int, int], prefix: str
    ) -> Float[Array, "b h w out_channels"]:
        """Predict the pixels of each patch. The class's tokens, which come first, predict none."""
        h = h[:, -grid[0] * grid[1] :]
        shift, scale = modulation(emb, self.width, 2, jnp.float32, f"{prefix}emb")
        h = norm(jnp.float32, f"{prefix}out_norm")(h) * (1 + scale) + shift
        zeros = nn.initializers.zeros
        h = nn.Dense(self.patch**2 * self.out_channels, kernel_init=zeros, name=f"{prefix}out")(h)
        return unpatched(h.reshape(h.shape[0], *grid, -1), self.patch)


class Block(nn.Module):
    """Attention, then SwiGLU, each of a normed input that the embedding scales and shifts, each behind a gate.

    The gates are 0 at first, so that a new block does nothing: adaLN-zero of Peebles & Xie 2023.
    """

    num_heads: int
    dropout: float
    dtype: jnp.dtype
    mesh: Mesh | None = None
    perturbation: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], emb: Float[Array, "b d"], turns: Float[Array, "t half"]
    ) -> Float[Array, "b t d"]:
        drop = nn.Dropout(self.dropout, deterministic=False)
        width = x.shape[-1]
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation(emb, width, 6, self.dtype)
        h = norm(self.dtype, "attention_norm")(x) * (1 + scale) + shift
        attention = Attention(self.num_heads, self.dtype, self.mesh, self.perturbation, name="self_attention")
        x = x + gate * drop(attention(h, turns))
        h = norm(self.dtype, "mlp_norm")(x) * (1 + mlp_scale) + mlp_shift
        # SwiGLU of Shazeer 2020: two thirds of 4 times the width, so that its three matrices count as two of 4 times
        gated, linear = jnp.split(dense(2 * int(4 * width * 2 / 3), self.dtype, "mlp_in")(h), 2, axis=-1)
        h = dense(width, self.dtype, "mlp_out")(drop(nn.silu(gated) * linear))
        return x + mlp_gate * h


class Attention(nn.Module):
    """Self-attention whose queries and keys are normed and then turned by the place of their token."""

    num_heads: int
    dtype: jnp.dtype
    mesh: Mesh | None = None
    perturbation: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], turns: Float[Array, "t half"]) -> Float[Array, "b t d"]:
        b, tokens, width = x.shape
        qkv = dense(3 * width, self.dtype, "qkv")(x).reshape(b, tokens, 3, self.num_heads, -1)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        q, k = turned(norm(jnp.float32, "q_norm")(q), turns), turned(norm(jnp.float32, "k_norm")(k), turns)
        weigh = PERTURBATIONS[self.perturbation] if self.perturbation else partial(attend, mesh=self.mesh)
        h = weigh(q.astype(self.dtype), k.astype(self.dtype), v)
        return dense(width, self.dtype, "out")(h.reshape(x.shape))


def dense(features: int, dtype: jnp.dtype, name: str, **kwargs) -> nn.Dense:
    return nn.Dense(features, dtype=dtype, kernel_init=nn.initializers.xavier_uniform(), name=name, **kwargs)


def norm(dtype: jnp.dtype, name: str) -> nn.RMSNorm:
    """RMS norm over the last axis, with a learned scale. Its statistics are in float32."""
    return nn.RMSNorm(epsilon=1e-6, dtype=dtype, name=name)


def modulation(emb: Float[Array, "b d"], width: int, count: int, dtype: jnp.dtype, name: str = "emb") -> list[Array]:
    """`count` arrays [B, 1, width] of the embedding, all 0 at first. It is called inside a module's compact call."""
    zeros = nn.initializers.zeros
    return jnp.split(nn.Dense(count * width, dtype=dtype, kernel_init=zeros, name=name)(emb)[:, None], count, axis=-1)


def turned(x: Float[Array, "b t n d"], turns: Float[Array, "t half"]) -> Float[Array, "b t n d"]:
    """Turn pairs of channels by their token's angle: rotary positions of Su et al. 2021.

    A pair is a channel of a head's first half and one of its second. Neighbours, as the authors have, would be taken
    apart and put together again one by one.
    """
    cos, sin = jnp.cos(turns)[:, None], jnp.sin(turns)[:, None]
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def waves(rows: int, columns: int, width: int) -> Float[np.ndarray, "t width"]:
    """Return what is added to each patch: sines and cosines of its column, followed by those of its row."""
    of_row, of_column = np.split(angles(rows, columns, width // 4), 2, axis=-1)
    return np.concatenate([f(angle) for angle in (of_column, of_row) for f in (np.sin, np.cos)], axis=-1)


def angles(rows: int, columns: int, count: int) -> Float[np.ndarray, "t 2*count"]:
    """[row f, column f] of each patch, row by row, at `count` frequencies f from 1 towards 1/10,000."""
    places = np.indices((rows, columns)).reshape(2, -1, 1)
    return np.concatenate(places * 1e4 ** -(np.arange(count) / count), axis=-1)


def patches(x: Float[Array, "b h w c"], patch: int) -> Float[Array, "b t patch*patch*c"]:
    """Cut images into patches, row by row."""
    b, height, width, channels = x.shape
    x = x.reshape(b, height // patch, patch, width // patch, patch, channels)
    return x.swapaxes(2, 3).reshape(b, -1, patch * patch * channels)
