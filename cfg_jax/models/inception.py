"""The Inception network of FID: TensorFlow's graph of 2015-12-05, batch norm folded into each convolution.

Layers are called as in that graph. It differs from torchvision's: average pools leave out the padding, the last block
takes a max pool, and there are 1,008 outputs. Images enter as bytes and are resized inside as TensorFlow 1 did.
"""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, UInt8

from cfg_jax.files import sha256_of, write_npz
from cfg_jax.inputs import arrays, reading
from cfg_jax.models import torch_file
from cfg_jax.models.precision import highest

SIDE = 299
BATCH_NORM_EPS = 0.001


class Inception(nn.Module):
    """uint8 images [B, H, W, 3] -> {stage: array}: what the scores are made of.

    mixed_6_conv [B, 17, 17, 7] (sFID), mixed_8 [B, 1280] averaged over its pixels, pool_3 [B, 2048] (FID), and
    logits [B, 1008] without the bias. Where `until` is mixed_8 the last two are left out.
    """

    until: str = "logits"

    @nn.compact
    @highest
    def __call__(self, images: UInt8[Array, "b h w 3"]) -> dict[str, Float[Array, "b ..."]]:
        stages = {}
        x = (resize(images.astype(jnp.float32), SIDE) - 128) / 128
        x = conv(x, "conv", 32, 3, stride=2, padding="VALID")
        x = conv(x, "conv_1", 32, 3, padding="VALID")
        x = conv(x, "conv_2", 64, 3)
        x = nn.max_pool(x, (3, 3), (2, 2))
        x = conv(x, "conv_3", 80, 1, padding="VALID")
        x = conv(x, "conv_4", 192, 3, padding="VALID")
        x = nn.max_pool(x, (3, 3), (2, 2))
        for name, pooled in (("mixed", 32), ("mixed_1", 64), ("mixed_2", 64)):  # 35x35
            x = join(
                conv(x, f"{name}_conv", 64, 1),
                tower(x, f"{name}_tower", (48, 1), (64, 5)),
                tower(x, f"{name}_tower_1", (64, 1), (96, 3), (96, 3)),
                tower(average(x), f"{name}_tower_2", (pooled, 1)),
            )
        x = join(
            conv(x, "mixed_3_conv", 384, 3, stride=2, padding="VALID"),
            shrink(tower(x, "mixed_3_tower", (64, 1), (96, 3)), "mixed_3_tower_conv_2", 96),
            nn.max_pool(x, (3, 3), (2, 2)),
        )
        for name, width in (("mixed_4", 128), ("mixed_5", 160), ("mixed_6", 160), ("mixed_7", 192)):  # 17x17
            first = conv(x, f"{name}_conv", 192, 1)
            if name == "mixed_6":
                stages["mixed_6_conv"] = first[..., :7]
            row, column = (1, 7), (7, 1)
            x = join(
                first,
                tower(x, f"{name}_tower", (width, 1), (width, row), (192, column)),
                tower(x, f"{name}_tower_1", (width, 1), *[(width, k) for k in (column, row, column)], (192, row)),
                tower(average(x), f"{name}_tower_2", (192, 1)),
            )
        x = join(
            shrink(tower(x, "mixed_8_tower", (192, 1)), "mixed_8_tower_conv_1", 320),
            shrink(tower(x, "mixed_8_tower_1", (192, 1), (192, (1, 7)), (192, (7, 1))), "mixed_8_tower_1_conv_3", 192),
            nn.max_pool(x, (3, 3), (2, 2)),
        )
        stages["mixed_8"] = x.mean((1, 2))
        if self.until == "mixed_8":
            return stages
        for name, pool in (("mixed_9", average), ("mixed_10", maximum)):  # 8x8
            x = join(
                conv(x, f"{name}_conv", 320, 1),
                fork(tower(x, f"{name}_tower", (384, 1)), f"{name}_tower_mixed"),
                fork(tower(x, f"{name}_tower_1", (448, 1), (384, 3)), f"{name}_tower_1_mixed"),
                tower(pool(x), f"{name}_tower_2", (192, 1)),
            )
        stages["pool_3"] = x.mean((1, 2))
        stages["logits"] = nn.Dense(1008, use_bias=False, name="softmax")(stages["pool_3"])
        return stages


def conv(x, name: str, features: int, kernel: int | tuple[int, int], stride: int = 1, padding: str = "SAME") -> Array:
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    return nn.relu(nn.Conv(features, kernel, stride, padding, name=name)(x))


def tower(x: Float[Array, "b h w c"], name: str, *layers: tuple) -> Float[Array, "b h w c2"]:
    """Convolutions of (features, kernel) one after the other, called NAME_conv, NAME_conv_1, ..."""
    for i, (features, kernel) in enumerate(layers):
        x = conv(x, f"{name}_conv_{i}" if i else f"{name}_conv", features, kernel)
    return x


def shrink(x: Float[Array, "b h w c"], name: str, features: int) -> Float[Array, "b h2 w2 features"]:
    return conv(x, name, features, 3, stride=2, padding="VALID")


def fork(x: Float[Array, "b h w c"], name: str) -> Float[Array, "b h w 768"]:
    return join(conv(x, f"{name}_conv", 384, (1, 3)), conv(x, f"{name}_conv_1", 384, (3, 1)))


def join(*branches: Float[Array, "b h w _"]) -> Float[Array, "b h w c"]:
    return jnp.concatenate(branches, axis=-1)


def average(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def maximum(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    return nn.max_pool(x, (3, 3), padding="SAME")


def resize(x: Float[Array, "b h w c"], side: int) -> Float[Array, "b side side c"]:
    """TensorFlow 1's bilinear resize: output pixel j samples j * n / side, no half-pixel centres, no antialias."""
    for axis in (2, 1):
        n = x.shape[axis]
        at = np.arange(side, dtype=np.float32) * np.float32(n / side)
        low = at.astype(int)
        shape = [1, 1, 1, 1]
        shape[axis] = side
        before, after = (jnp.take(x, i, axis=axis) for i in (low, np.minimum(low + 1, n - 1)))
        x = before + (after - before) * (at - low).astype(np.float32).reshape(shape)
    return x


# the PyTorch conversions' modules -> this graph's layers
STEM = {
    "Conv2d_1a_3x3": "conv", "Conv2d_2a_3x3": "conv_1", "Conv2d_2b_3x3": "conv_2", "Conv2d_3b_1x1": "conv_3",
    "Conv2d_4a_3x3": "conv_4",
}  # fmt: skip
BLOCKS = {
    "Mixed_5b": "mixed", "Mixed_5c": "mixed_1", "Mixed_5d": "mixed_2", "Mixed_6a": "mixed_3", "Mixed_6b": "mixed_4",
    "Mixed_6c": "mixed_5", "Mixed_6d": "mixed_6", "Mixed_6e": "mixed_7", "Mixed_7a": "mixed_8", "Mixed_7b": "mixed_9",
    "Mixed_7c": "mixed_10",
}  # fmt: skip
TOWERS = {
    "5": {"branch1x1": "conv", "branch5x5_": "tower", "branch3x3dbl_": "tower_1", "branch_pool": "tower_2_conv"},
    "6a": {"branch3x3": "conv", "branch3x3dbl_": "tower"},
    "6": {"branch1x1": "conv", "branch7x7_": "tower", "branch7x7dbl_": "tower_1", "branch_pool": "tower_2_conv"},
    "7a": {"branch3x3_": "tower", "branch7x7x3_": "tower_1"},
    "7": {"branch1x1": "conv", "branch3x3_": "tower", "branch3x3dbl_": "tower_1", "branch_pool": "tower_2_conv"},
}


def rename(module: str) -> str | None:
    """ "Mixed_7b.branch3x3dbl_3a" -> "mixed_9_tower_1_mixed_conv". None where the conversions have no such name."""
    if module in STEM:
        return STEM[module]
    block, _, branch = module.partition(".")
    if block not in BLOCKS:
        return None
    towers = TOWERS.get(block[6:]) or TOWERS[block[6]]
    if branch in towers:
        return f"{BLOCKS[block]}_{towers[branch]}"
    stem, number = branch.rstrip("ab0123456789"), branch[len(branch.rstrip("ab0123456789")) :]
    if stem not in towers or not number:
        return None
    tower = f"{BLOCKS[block]}_{towers[stem]}"
    if number[-1] in "ab":
        return f"{tower}_mixed_conv" + ("_1" if number[-1] == "b" else "")
    return f"{tower}_conv" + (f"_{int(number) - 1}" if number != "1" else "")


def from_torch(state: dict[str, np.ndarray]) -> tuple[dict, np.ndarray]:
    """{name: array} of a PyTorch conversion -> parameters, bias of the logits [1008].

    Raises ValueError or KeyError for other layers.
    """
    state = {name: np.asarray(a, np.float64) for name, a in state.items() if not name.endswith("num_batches_tracked")}
    params = {"softmax": {"kernel": state.pop("fc.weight").T.astype(np.float32)}}
    bias = state.pop("fc.bias").astype(np.float32)
    for module in sorted({name.rsplit(".", 2)[0] for name in state}):
        layer = rename(module)
        if layer is None:
            raise ValueError(f"{module} is no layer of the Inception network of FID")
        norm = {leaf: state[f"{module}.bn.{leaf}"] for leaf in ("weight", "bias", "running_mean", "running_var")}
        scale = norm["weight"] / np.sqrt(norm["running_var"] + BATCH_NORM_EPS)
        kernel = state[f"{module}.conv.weight"] * scale[:, None, None, None]
        params[layer] = {
            "kernel": kernel.transpose(2, 3, 1, 0).astype(np.float32),
            "bias": (norm["bias"] - norm["running_mean"] * scale).astype(np.float32),
        }
    return params, bias


def from_layers(layers: dict[str, np.ndarray], template: dict) -> dict:
    """{LAYER/weights: flat in order O, H, W, I; LAYER/bias} -> parameters. ValueError where one is not template's."""
    params: dict = flatten_dict(template, sep="/")
    for name, wanted in params.items():
        array = layers.get(name.replace("/kernel", "/weights"))
        if array is None or array.size != np.prod(wanted.shape):
            found = "absent" if array is None else array.shape
            raise ValueError(f"{name} of the Inception network is {found}, not {wanted.shape}")
        if name.endswith("/kernel"):
            *sides, inputs, outputs = wanted.shape
            array = array.reshape(outputs, *sides, inputs).transpose(1, 2, 3, 0)
        params[name] = array
    return unflatten_dict(params, sep="/")


def shapes(until: str) -> dict:
    """The tree of shapes and dtypes of the parameters of the network up to a stage."""
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.uint8)
    return jax.eval_shape(Inception(until).init, jax.random.key(0), image)["params"]


def convert(source: str | Path, out: str | Path) -> str:
    """Write a .pth of the PyTorch conversions, or an .npz of layers up to mixed_8, as our .npz -> its last stage.

    Raises InputError for a file of other layers.
    """
    source = Path(source)
    with reading(source, "cannot be read as the Inception network of FID", "give its .pth, or an .npz of its layers"):
        if source.suffix == ".npz":
            with arrays(source) as file:
                layers = dict(file)
            params, bias, until = from_layers(layers, shapes("mixed_8")), np.zeros(0, np.float32), "mixed_8"
        else:
            (params, bias), until = from_torch(torch_file.read(source)), "logits"
            if jax.tree.map(np.shape, params) != jax.tree.map(lambda a: a.shape, shapes(until)):
                raise ValueError("its layers are of other shapes")
    flat: dict = flatten_dict(params, sep="/")
    write_npz(out, {**flat, "bias_of_logits": bias, "sha256": np.array(sha256_of(source)), "until": np.array(until)})
    return until


def load(path: str | Path) -> tuple[dict, np.ndarray, str, str]:
    """(params, bias of the logits, sha256 of the published file, last stage) of a file that convert wrote."""
    with reading(path, "has no Inception weights", f"python -m experiments.fetch_inception --out={path}"):
        with arrays(path) as file:
            flat = dict(file)
        bias, sha256, until = (flat.pop(name) for name in ("bias_of_logits", "sha256", "until"))
        params = unflatten_dict(flat, sep="/")
        wanted = {"logits": (1008,), "mixed_8": (0,)}[str(until)], jax.tree.map(lambda a: a.shape, shapes(str(until)))
        if (bias.shape, jax.tree.map(np.shape, params)) != wanted:
            raise ValueError("its arrays are of other shapes")
    return params, bias, str(sha256), str(until)
