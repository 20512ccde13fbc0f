"""The two networks of Dhariwal & Nichol 2021 (ADM) in flax.linen.

The U-Net gives eps of z, logsnr and a class. The classifier of z at a logsnr is its encoder half.

Modules carry ADM's indices (input_3_block is its input_blocks.3.0). Norm statistics, softmax and the
output head stay in float32 whatever `dtype` the body computes in.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from cfg_jax.errors import InputError, require
from cfg_jax.models import attention, network, noise_level
from cfg_jax.models.norm import GroupNorm
from cfg_jax.models.precision import highest

# fields of config.model that both networks here take as they are
FIELDS = {
    "channels": int, "multipliers": [int], "num_blocks": int, "attention_resolutions": [int], "head_width": int | None,
    "num_heads": int | None, "resample_blocks": bool, "remat": bool,
}  # fmt: skip
OWN = {"null_label": bool, "dropout": float, "learned_variance": bool, "inner_head": bool}  # of the U-Net
W_SCALE = 250  # w from 0 to 4 has the range of the noise level, 0 to 1000


def check(config: ConfigDict) -> None:
    """Check that levels, channels, groups and heads of a U-Net or an encoder divide. Raises InputError."""
    model, image_size = config.model, config.data.image_size
    for field in ("channels", "num_blocks", "head_width", "num_heads"):
        require(model[field] is None or model[field] >= 1, f"config.model.{field}={model[field]} must be at least 1")
    require(
        model.multipliers and all(m >= 1 for m in model.multipliers),
        f"config.model.multipliers={model.multipliers} must name at least one level, each 1 or more",
    )
    require(model.channels <= 2**14, f"config.model.channels={model.channels} are more than 16,384: choose fewer")
    require(0 <= model.get("dropout", 0) < 1, f"config.model.dropout={model.get('dropout')} must lie in [0, 1)")
    factor = 2 ** (len(model.multipliers) - 1)
    require(
        image_size % factor == 0,
        f"config.data.image_size={image_size} is not divisible by {factor}, the down-sampling of "
        f"{len(model.multipliers)} config.model.multipliers: drop a multiplier or change the size",
    )
    require(
        len(model.multipliers) > 1 or not model.get("inner_head"),
        "config.model.inner_head is between two levels, and this network has one: add to config.model.multipliers",
    )
    sides = [image_size >> level for level in range(len(model.multipliers))]
    unused = sorted(set(model.attention_resolutions) - set(sides))
    require(
        not unused,
        f"config.model.attention_resolutions has {unused}, the levels' sides are {sides}: drop what is not one",
    )
    require(
        (model.head_width is None) != (model.num_heads is None),
        "one of config.model.head_width and config.model.num_heads must be None: set that in the config file",
    )
    for multiplier, side in zip(model.multipliers, sides, strict=True):
        width = multiplier * model.channels
        require(
            width % 32 == 0,
            f"config.model.channels={model.channels} times multiplier {multiplier} is {width}: "
            "it must be a multiple of the 32 groups of GroupNorm",
        )
        field = "head_width" if model.num_heads is None else "num_heads"
        if side in model.attention_resolutions or side == sides[-1]:
            require(
                width % model[field] == 0,
                f"config.model.{field}={model[field]} does not divide the {width} channels at {side}x{side}",
            )


def check_name(config: ConfigDict) -> None:
    """Check that a config's network is the U-Net. Raises InputError."""
    require(config.model.name == "unet", f"config.model.name={config.model.name} is no unet: take a config that has it")


class WayDown(nn.Module):
    """What the U-Net and the classifier share: the fields of the way down to the middle."""

    channels: int
    multipliers: tuple[int, ...]  # one level each, halving the side
    num_blocks: int  # residual blocks per level on the way down, one more on the way up
    attention_resolutions: tuple[int, ...]  # sides, in pixels, where attention follows each block
    num_classes: int  # 0: unconditional, c is not read
    head_width: int | None = None  # channels per head, or
    num_heads: int | None = None  # heads at every resolution
    resample_blocks: bool = True  # resample inside residual blocks, or by a convolution of its own
    noise_level: Callable = noise_level.continuous  # logsnr -> what the time embedding sees
    dtype: jnp.dtype = jnp.float32
    remat: bool = False  # compute all but the convolutions again in the backward pass: a tenth of the memory
    mesh: Mesh | None = None  # over which the batch is split
    perturbation: str | None = None  # how the middle attention is made worse, one of the U-Net's `perturbations`

    check = staticmethod(check)


class UNet(WayDown, kw_only=True):
    out_channels: int  # twice the image's where the variance is learned: eps is the first half
    null_label: bool = True  # the null token is embedding row `num_classes`
    takes_w: bool = False  # a student of guidance takes w as an input
    dropout: float = 0.0
    inner_head: bool = False  # a second prediction, from the middle of the way up

    perturbations: ClassVar = tuple(attention.PERTURBATIONS)

    @classmethod
    def from_config(cls, config: ConfigDict) -> "UNet":
        """Return the U-Net of config.model. Raises InputError where a field is missing or unknown."""
        fields = network.fields(config, **FIELDS, **OWN)
        out_channels = config.data.channels * (2 if fields.pop("learned_variance") else 1)
        return cls(out_channels=out_channels, takes_w=network.takes_w(config), **fields)

    @property
    def summary(self) -> network.Summary:
        levels = ", ".join(map(str, self.multipliers))
        return network.Summary("U-Net", f"{self.channels} channels times ({levels}), blocks a level: {self.num_blocks}")

    def levels(self, side: int) -> list[tuple[int, int]]:
        """Return (side, channels) of each level for images of that side, the largest first."""
        return [(side >> i, multiplier * self.channels) for i, multiplier in enumerate(self.multipliers)]

    def largest_convolution(self, side: int) -> tuple[int, int]:
        """Return (side, channels) of the level with most channels, for images of that side."""
        return max(self.levels(side), key=lambda level: level[1])

    def largest_attention(self, side: int) -> tuple[int, int, int]:
        """Return (tokens, heads, channels a head) of the largest attention, for images of that side.

        The middle of the network, at the smallest level, always has it.
        """
        levels = self.levels(side)
        side, channels = next((level for level in levels if level[0] in self.attention_resolutions), levels[-1])
        heads = self.num_heads or channels // self.head_width
        return side**2, heads, channels // heads

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
        """eps(z, lambda, c) in float32, or what else the network is trained to predict. train: with dropout.

        w is looked at where `takes_w`; None is 0. both_heads: return this and the prediction of the inner head.
        """
        block, attend = layers(self, self.dropout if train else 0.0)
        emb = embed_time(self, logsnr)
        if self.num_classes:
            emb += nn.Embed(self.num_classes + self.null_label, 4 * self.channels, name="label_emb")(c)
        if self.takes_w:  # of no effect at first, so that a student starts as its teacher's conditional half
            w = jnp.zeros_like(logsnr) if w is None else w
            of_w = timestep_embedding(W_SCALE * w, self.channels)
            emb += nn.Dense(4 * self.channels, kernel_init=nn.initializers.zeros, name="w_embed")(of_w)
        emb = nn.silu(emb).astype(self.dtype)
        h, skips = encode(self, z, emb, block, attend)

        inner: Any = None
        index = 0
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for i in range(self.num_blocks + 1):
                name = f"output_{index}"
                h = block(multiplier * self.channels, name=f"{name}_block")(
                    jnp.concatenate([h, skips.pop()], axis=-1), emb
                )
                if h.shape[1] in self.attention_resolutions:
                    h = attend(name=f"{name}_attention")(h)
                if level > 0 and i == self.num_blocks:
                    if self.resample_blocks:
                        h = block(h.shape[-1], resample=up, name=f"{name}_up")(h, emb)
                    else:
                        h = conv3x3(h.shape[-1], self.dtype, f"{name}_up")(up(h))
                index += 1
            if self.inner_head and level == len(self.multipliers) // 2:
                inner = self.head(h, z.shape[1] // h.shape[1], "inner")
        out = self.head(h, 1, "out")
        return (out, inner) if both_heads else out

    def head(self, h: Float[Array, "b h2 w2 d"], finer: int, name: str) -> Float[Array, "b h w out_channels"]:
        """Predict `finer` by `finer` pixels at each place of h."""
        h = nn.silu(GroupNorm(jnp.float32, name=f"{name}_norm")(h))
        return unpatched(conv3x3(self.out_channels * finer**2, jnp.float32, f"{name}_conv", zero=True)(h), finer)


class Encoder(WayDown):
    """ADM's classifier: the U-Net's way down and middle, then attention pooling."""

    @classmethod
    def from_config(cls, config: ConfigDict) -> "Encoder":
        """Return the classifier of config.model. Raises InputError where a field is missing or unknown."""
        if network.takes_w(config):
            raise InputError(f"config.teacher.how={config.teacher.how} teaches a diffusion model, not a classifier")
        return cls(**network.fields(config, **FIELDS))

    @staticmethod
    def config_of(config: ConfigDict) -> ConfigDict:
        """Return the config of a classifier of a diffusion model's noisy images: its encoder with attention pooling.

        Raises InputError for a model that is no U-Net, and so has no encoder.
        """
        check_name(config)
        config = config.copy_and_resolve_references()
        with config.unlocked():
            for name in OWN:
                del config.model[name]
        config.model.name, config.p_uncond, config.init_from = "noisy_classifier", 0.0, None
        return config

    @nn.compact
    @highest
    def __call__(self, z: Float[Array, "b h w c"], logsnr: Float[Array, " b"]) -> Float[Array, "b num_classes"]:
        """The logits of the classes, in float32."""
        block, attend = layers(self, 0.0)
        emb = nn.silu(embed_time(self, logsnr)).astype(self.dtype)
        h, _ = encode(self, z, emb, block, attend)
        h = nn.silu(GroupNorm(jnp.float32, name="out_norm")(h))
        return AttentionPool(self.head_width, self.num_heads, self.num_classes, name="out_pool")(h)


def layers(net: WayDown, dropout: float) -> tuple[partial, partial]:
    """Constructors of a network's residual block and attention, with its settings filled in."""
    block_type = nn.remat(Block, policy=convolutions) if net.remat else Block
    block = partial(block_type, dropout=dropout, dtype=net.dtype)
    attention_type = nn.remat(Attention) if net.remat else Attention
    return block, partial(attention_type, net.head_width, net.num_heads, dtype=net.dtype, mesh=net.mesh)


def convolutions(primitive: Any, *_, **__) -> bool:
    """What remat keeps of a block. Norms, activations and dropout cost little to compute again."""
    return primitive.name == "conv_general_dilated"


def embed_time(net: WayDown, logsnr: Float[Array, " b"]) -> Float[Array, "b 4*channels"]:
    """The embedding of a noise level. It is called inside a network's compact call."""
    embed = partial(nn.Dense, 4 * net.channels)
    emb = embed(name="time_embed_0")(timestep_embedding(net.noise_level(logsnr), net.channels))
    return embed(name="time_embed_2")(nn.silu(emb))


def encode(
    net: WayDown, z: Float[Array, "b h w c"], emb: Float[Array, "b d"], block: Callable, attend: Callable
) -> tuple[Float[Array, "b side side width"], list[Array]]:
    """Run the way down and the middle -> the middle's output, and the list of skips that the way up pops.

    It is called inside a network's compact call. block and attend are those of `layers`.
    """
    h = conv3x3(int(net.multipliers[0] * net.channels), net.dtype, "input_0_conv")(z.astype(net.dtype))
    skips = [h]
    for level, multiplier in enumerate(net.multipliers):
        for _ in range(net.num_blocks):
            name = f"input_{len(skips)}"
            h = block(multiplier * net.channels, name=f"{name}_block")(h, emb)
            if h.shape[1] in net.attention_resolutions:
                h = attend(name=f"{name}_attention")(h)
            skips.append(h)
        if level < len(net.multipliers) - 1:
            name = f"input_{len(skips)}"
            if net.resample_blocks:
                h = block(h.shape[-1], resample=down, name=f"{name}_block")(h, emb)
            else:
                h = conv3x3(h.shape[-1], net.dtype, f"{name}_down", strides=2)(h)
            skips.append(h)

    h = block(h.shape[-1], name="middle_0_block")(h, emb)
    h = attend(perturbation=net.perturbation, name="middle_1_attention")(h)
    return block(h.shape[-1], name="middle_2_block")(h, emb), skips


class Block(nn.Module):
    """A residual block with scale-shift conditioning. `resample` acts on both of its paths."""

    features: int
    dropout: float
    dtype: jnp.dtype
    resample: Callable | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], emb: Float[Array, "b d"]) -> Float[Array, "b h2 w2 features"]:
        resample = self.resample or (lambda h: h)
        h = resample(nn.silu(GroupNorm(self.dtype, name="in_norm")(x)))
        h = conv3x3(self.features, self.dtype, "in_conv")(h)
        scale, shift = jnp.split(nn.Dense(2 * self.features, dtype=self.dtype, name="emb")(emb), 2, -1)
        h = nn.silu(GroupNorm(self.dtype, name="out_norm")(h, scale, shift))
        h = nn.Dropout(self.dropout, deterministic=False)(h)
        h = conv3x3(self.features, self.dtype, "out_conv", zero=True)(h)
        x = resample(x)
        if x.shape[-1] != self.features:
            x = nn.Dense(self.features, dtype=self.dtype, name="skip")(x)
        return x + h


class Attention(nn.Module):
    """Self-attention over pixels with a residual connection. num_heads sets the heads, or else head_width does."""

    head_width: int | None
    num_heads: int | None
    dtype: jnp.dtype
    mesh: Mesh | None = None
    perturbation: str | None = None  # of attention.PERTURBATIONS

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, height, width, channels = x.shape
        heads = self.num_heads or channels // self.head_width
        normalised = GroupNorm(self.dtype, name="norm")(x)
        how = attention.kernel(self.mesh, height * width, channels // heads, self.dtype)
        if how and not self.perturbation:
            of_qkv = Weights(3 * channels, self.dtype, name="qkv")(x)
            of_out = Weights(channels, self.dtype, zero=True, name="out")(x)
            tokens = normalised.reshape(b, height * width, channels)
            return x + projected(tokens, of_qkv, of_out, heads, how, self.mesh).reshape(x.shape)
        qkv = nn.Dense(3 * channels, dtype=self.dtype, name="qkv")(normalised)
        q, k, v = jnp.split(qkv.reshape(b, height * width, 3 * heads, channels // heads), 3, axis=2)
        attend = attention.PERTURBATIONS[self.perturbation] if self.perturbation else jax.nn.dot_product_attention
        h = attend(q, k, v).reshape(x.shape)
        return x + nn.Dense(channels, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out")(h)


class Weights(nn.Module):
    """The kernel and the bias of a Dense, for what multiplies by them itself."""

    features: int
    dtype: jnp.dtype
    zero: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> tuple[Float[Array, "c features"], Float[Array, " features"]]:
        init = nn.initializers.zeros if self.zero else nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        return kernel.astype(self.dtype), self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)


def projected(
    x: Float[Array, "b t c"],
    of_qkv: tuple,
    of_out: tuple,
    heads: int,
    how: Literal["splash", "cudnn"],
    mesh: Mesh | None,
) -> Float[Array, "b t c"]:
    """Attention and the projections around it in the layout of an accelerator's kernel.

    q, k and v are three products with parts of the kernel: splitting one result would copy large arrays.
    """
    channels = x.shape[-1]
    kernels, biases = of_qkv[0].reshape(channels, 3, heads, -1), of_qkv[1].reshape(3, heads, -1)
    layout = "btnd"
    if how == "splash":
        layout, biases = "bntd", biases[:, :, None]
    with jax.named_scope("qkv"):
        q, k, v = (jnp.einsum(f"btc,cnd->{layout}", x, kernels[:, i]) + biases[i] for i in range(3))
    if how == "splash":
        h = attention.splash(q, k, v, mesh)
    else:
        h = jax.nn.dot_product_attention(q, k, v, implementation=how)
    with jax.named_scope("out"):
        return jnp.einsum(f"{layout},ndc->btc", h, of_out[0].reshape(heads, -1, channels)) + of_out[1]


class AttentionPool(nn.Module):
    """CLIP's pooling. The mean over pixels is a token before them; it attends to all and becomes the output."""

    head_width: int | None
    num_heads: int | None
    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b features"]:
        b, _, _, channels = x.shape
        heads = self.num_heads or channels // self.head_width
        x = x.reshape(b, -1, channels)
        x = jnp.concatenate([x.mean(1, keepdims=True), x], axis=1)
        init = nn.initializers.normal(channels**-0.5)
        x += self.param("positional_embedding", init, x.shape[1:])
        qkv = nn.Dense(3 * channels, name="qkv_proj")(x)
        q, k, v = jnp.split(qkv.reshape(b, -1, 3 * heads, channels // heads), 3, axis=2)
        h = jax.nn.dot_product_attention(q[:, :1], k, v).reshape(b, channels)
        return nn.Dense(self.features, name="c_proj")(h)


def unpatched(h: Float[Array, "b h2 w2 d"], patch: int) -> Float[Array, "b h w c"]:
    """Return images of which each place of h holds `patch` by `patch` pixels, with d = patch^2 c."""
    b, rows, columns, _ = h.shape
    x = h.reshape(b, rows, columns, patch, patch, -1).swapaxes(2, 3)
    return x.reshape(b, rows * patch, columns * patch, -1)


def timestep_embedding(t: Float[Array, " b"], dim: int) -> Float[Array, "b dim"]:
    """[cos(t f_i), sin(t f_i)] with f_i = 10000^(-i / (dim/2)), for an even dim."""
    angles = t[:, None] * jnp.exp(-jnp.log(1e4) * jnp.arange(dim // 2, dtype=jnp.float32) / (dim // 2))[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def down(h: Float[Array, "b h w c"]) -> Float[Array, "b h//2 w//2 c"]:
    """Halve the side: each pixel is the mean of 2x2."""
    return nn.avg_pool(h, window_shape=(2, 2), strides=(2, 2))


def up(h: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Double the side: each pixel becomes 2x2."""
    return jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)


def conv3x3(features: int, dtype: jnp.dtype, name: str, zero: bool = False, strides: int = 1) -> nn.Conv:
    """A 3x3 convolution padded by one on every side, as in PyTorch. zero: its kernel starts at 0.

    "SAME" would pad a strided convolution on one side only.
    """
    init = nn.initializers.zeros if zero else nn.initializers.lecun_normal()
    return nn.Conv(features, (3, 3), strides, padding=((1, 1), (1, 1)), dtype=dtype, kernel_init=init, name=name)
