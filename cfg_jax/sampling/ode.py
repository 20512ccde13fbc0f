"""What a run's probability-flow ODE makes of noise, in flow matching's time: pairs to train on, and straightness."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.data.pairs import Pairs
from cfg_jax.diffusion import flow, guidance, samplers, schedule
from cfg_jax.errors import require
from cfg_jax.models import build
from cfg_jax.models.denoiser import Denoiser
from cfg_jax.sampling import draw
from cfg_jax.sampling.model import Guides, Model


def pairs(model: Model, num: int, w: float, num_steps: int, seed: int = 0, batch_size: int = 256) -> Pairs:
    """(x, its noise) of `num` images of a seed, by Heun's steps at w, two passes each; the labels are balanced.

    At w = 0 a share p_uncond of them has no label, so that what learns of them keeps an unconditional half.
    """
    config = model.config
    Guides().check(model, [w], field="--w")
    require(config.teacher.how != "halved", "the run is a student of a few steps, which has no ODE: name its teacher")
    labels = draw.labels_by_rule("balanced", num, config.data.num_classes, seed)
    unlabelled = np.random.default_rng(seed).random(num) < (0 if w else config.p_uncond)
    labels = np.where(unlabelled, config.data.num_classes, labels).astype(np.int32)
    rule = model.rule(config.guidance, np.full(num, w, np.float32))
    grid = schedule.grid(num_steps, config.logsnr_min, config.logsnr_max, "t")
    # where noise is all, the error of an eps makes any x: such a run is held to its sampler's threshold
    threshold = config.sampler.threshold if config.objective.predicts == "eps" else "none"
    walk = samplers.Walk(samplers.FlowHeun(), grid, samplers.THRESHOLDS[threshold])
    whole = Guides().beside(rule, config.guidance)
    x = list(draw.batches(
        model.denoiser, labels, whole, walk, shape=model.image_shape, seed=seed, batch_size=batch_size
    ))  # fmt: skip
    _, z = samplers.start(seed, np.arange(num), model.image_shape)
    made = {"parameters": model.digest, "num": num, "w": w, "num_steps": num_steps, "seed": seed}
    return Pairs(np.concatenate([np.concatenate(x), np.asarray(z)], axis=-1), labels, made)


def straightness(model: Model, labels, w: float, num_steps: int = 64, seed: int = 0) -> np.ndarray:
    """[N]: how far each image's path is from a straight line, see flow.straightness, by Euler's steps."""
    Guides().check(model, [w])
    c = draw.check_labels(labels, model.config.data.num_classes)
    _, z = samplers.start(seed, np.arange(len(c)), model.image_shape)
    takes_w = build.takes_w(model.config)
    return np.asarray(_straightness(model.denoiser, jnp.float32(w), z, c, jnp.linspace(0, 1, num_steps + 1), takes_w))


@partial(jax.jit, static_argnames="takes_w")
def _straightness(denoiser: Denoiser, w, z, c, times, takes_w):
    eps_fn = guidance.guided(denoiser.eps_fn, w, denoiser.null)
    if takes_w:
        eps_fn = lambda z, logsnr, c: denoiser.eps_fn(z, logsnr, c, jnp.broadcast_to(w, c.shape))  # noqa: E731
    return flow.straightness(flow.euler(flow.velocity_fn(eps_fn), z, c, times), times)
