"""Pairs of noise and the image that a run's probability-flow ODE makes of it, and how straight its paths are.

Rectified flow is trained on pairs. Liu et al. 2023. A pair is (x, z_1) with z_1 ~ N(0, I) at the noisy end of the grid,
and the label it was drawn with. The ODE is walked in flow matching's time.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.diffusion import flow, guidance, samplers, schedule
from cfg_jax.errors import require
from cfg_jax.files import digest, digest_json, write_npz
from cfg_jax.inputs import arrays, reading
from cfg_jax.models import network
from cfg_jax.models.denoiser import Denoiser
from cfg_jax.sampling import draw
from cfg_jax.sampling.model import Guides, Model


@dataclass(frozen=True)
class Pairs:
    images: np.ndarray  # float32 [N, H, W, 2 C]: x, then its noise
    labels: np.ndarray  # int32 [N], the null label for a draw without a label

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of x."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels // 2

    @property
    def digest(self) -> str:
        return digest(self.images, self.labels)


def make(model: Model, num: int, w: float, num_steps: int, seed: int = 0, batch_size: int = 256) -> Pairs:
    """Make `num` pairs of a seed by Heun's steps along the ODE of Equation 6 at w. The labels are balanced.

    At w = 0 a share p_uncond of them has no label, so that what learns of them keeps an unconditional half.
    """
    config = model.config
    check(model, w)
    labels = draw.labels_by_rule("balanced", num, config.data.num_classes, seed)
    unlabelled = np.random.default_rng(seed).random(num) < (0 if w else config.p_uncond)
    labels = np.where(unlabelled, config.data.num_classes, labels).astype(np.int32)
    grid = schedule.grid(num_steps, config.logsnr_min, config.logsnr_max, "t")
    # where noise is all, the error of an eps makes any x: such a run is held to its sampler's threshold
    threshold = config.sampler.threshold if config.objective.predicts == "eps" else "none"
    walk = samplers.Walk(samplers.FlowHeun(), grid, samplers.THRESHOLDS[threshold])
    whole = guidance.Guidance(equation_6(model, w))
    x = list(draw.batches(
        model.denoiser, labels, whole, walk, shape=model.image_shape, seed=seed, batch_size=batch_size
    ))  # fmt: skip
    _, z = samplers.start(seed, np.arange(num), model.image_shape)
    return Pairs(np.concatenate([np.concatenate(x), np.asarray(z)], axis=-1), labels)


def equation_6(model: Model, w: float):
    """Return the rule of Equation 6 at w. A student computes it in one pass."""
    if not w:
        return guidance.Unguided()
    return (guidance.InOnePass if network.takes_w(model.config) else guidance.ClassifierFree)(np.float32(w))


def path_of(directory, model: Model, *asked) -> Path:
    """Return the path of a model's pairs, named by its weights and the further arguments of `make`."""
    return Path(directory) / f"pairs-{digest_json([model.digest, *asked])}.npz"


def check(model: Model, w: float) -> None:
    """Raise InputError where a model has no ODE at w."""
    Guides().check(model, [w], field="--w")
    halved = model.config.teacher.how == "halved"
    require(not halved, "the run is a student of a few steps, which has no ODE: name its teacher")


def straightness(model: Model, labels, w: float, num_steps: int = 64, seed: int = 0) -> np.ndarray:
    """Return how far each image's path is from a straight line, [N], by Euler's steps. See flow.straightness.

    Guided by Equation 6, from a log-SNR of -20 to 20.
    """
    check(model, w)
    c = draw.check_labels(labels, model.config.data.num_classes)
    _, z = samplers.start(seed, np.arange(len(c)), model.image_shape)
    times = jnp.linspace(0, 1, num_steps + 1)
    return np.asarray(_straightness(model.denoiser, equation_6(model, w), z, c, times))


@jax.jit
def _straightness(denoiser: Denoiser, rule, z, c, times):
    guided = guidance.Guidance(rule).on(denoiser)

    def velocity(z, logsnr, c):
        out, _ = guided(z, logsnr[0], c, guidance.STATELESS)
        out = out.whole(z, logsnr[0])
        return out.x - out.eps

    return flow.straightness(flow.euler(flow.velocity_fn(velocity, "velocity"), z, c, times), times)


def write(path: str | Path, pairs: Pairs) -> None:
    write_npz(path, {"images": pairs.images, "labels": pairs.labels})


def read(path: str | Path) -> Pairs:
    """Return the pairs in a file. Raises InputError if it has none."""
    with reading(path, "holds no pairs", "make them with experiments.reflow"), arrays(path) as file:
        pairs = Pairs(file["images"], file["labels"])
    images, labels = pairs.images, pairs.labels
    floats = images.dtype == np.float32 and images.ndim == 4
    are_pairs = floats and images.shape[-1] % 2 == 0 and labels.shape == images.shape[:1]
    require(are_pairs, f"{path} holds no pairs: make them with experiments.reflow")
    return pairs
