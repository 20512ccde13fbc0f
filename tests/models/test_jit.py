"""JiT against recorded results of its authors' PyTorch code; then training, resuming, exporting and importing it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.diffusion import process
from cfg_jax.models import build, jit_weights
from configs import digits_jit, imagenet64_jit
from tests.running import RECORDED


def tiny_jit():
    """The smallest of which every part is used: class tokens join before the second of two blocks."""
    config = digits_jit.get_config()
    config.model.update(patch=4, width=16, depth=2, num_heads=2, class_tokens=2, class_tokens_from=1, bottleneck=8)
    config.train.update(num_steps=4, batch_size=8, log_every=2, checkpoint_every=2, sample_every=4, warmup_steps=1)
    config.sampler.num_steps = 3
    config.eval.update(num_images=24, batch_size=8, splits=2, bootstrap=4, w=(0.0, 1.0))
    return config


@pytest.fixture
def config():
    return tiny_jit()


@pytest.fixture(scope="module")
def recorded():
    with np.load(RECORDED / "jit_micro.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return {name: a.transpose(0, 2, 3, 1) if name[0] != "p" and a.ndim == 4 and "grad/" not in name else a
            for name, a in arrays.items()}  # fmt: skip


def part(recorded, name):
    return {key.removeprefix(name): array for key, array in recorded.items() if key.startswith(name)}


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_output_and_gradients_are_the_authors(recorded, scale):
    """The recorded input is on the straight path, with noise of any scale; z and its log-SNR say the same."""
    weights = part(recorded, "param/")
    config = jit_weights.config_of(weights, imagenet64_jit.get_config())
    assert config.model.class_tokens_from == 1 and config.model.num_heads == 2 and config.data.image_size == 6
    config.model.update(dtype="float32", noise_scale=scale)
    net, shapes = build.network(config), build.shapes(config)
    t = np.float64(recorded["in/t"])
    logsnr = jnp.float32(2 * np.log(t / (1 - t) / scale))

    @jax.jit
    @jax.value_and_grad
    def loss(args):
        params, x = args
        z = x * process.per_image(process.alpha(logsnr) + process.sigma(logsnr) / scale, x)
        return jnp.mean(
            net.apply({"params": params}, z, logsnr, recorded["in/y"].astype("i4")) * recorded["in/cotangent"]
        )

    params = jit_weights.convert(weights, shapes)
    value, (of_params, of_x) = loss((params, recorded["in/x"]))
    assert abs(value - (recorded["out"] * recorded["in/cotangent"]).mean()) < 1e-6
    assert relative(of_x, recorded["grad_x"]) < 1e-5
    for ours, theirs in zip(
        jax.tree.leaves(of_params), jax.tree.leaves(jit_weights.convert(part(recorded, "grad/"), shapes)), strict=True
    ):
        assert relative(ours, theirs) < 1e-5
