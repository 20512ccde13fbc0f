"""Where a step's examples come from: the data and noise, pairs that a run made of them, or another network."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from cfg_jax import images
from cfg_jax.diffusion import distill, guidance, process, schedule
from cfg_jax.diffusion.loss import convert
from cfg_jax.models import build, network
from cfg_jax.models.denoiser import Denoiser


class Examples(NamedTuple):
    """The examples of a batch. A field that this kind of run does not use is None."""

    x: Array  # [B, H, W, C]
    eps: Array  # [B, H, W, C]
    z: Array  # [B, H, W, C]
    logsnr: Array  # [B]
    c: Array  # [B]
    w: Array | None = None  # [B] of a student
    middle: Array | None = None  # [B] of a halved one, the log-SNR of its teacher's second step
    after: Array | None = None  # [B], where both end


def drawn(config: ConfigDict, image: Array, c: Array, key: Array) -> Examples:
    """Return the examples of a batch's images [B, H, W, C]. Algorithm 1, lines 4 to 6; config.teacher changes some."""
    objective, section = build.objective(config), config.teacher
    x, eps = jnp.split(image, 2, axis=-1) if section.how == "pairs" else (images.to_float(image), None)
    z, logsnr, eps = objective.noised(key, x, eps)
    if not network.takes_w(config):
        return Examples(x, eps, z, logsnr, c)
    w_key, step_key = jax.random.split(jax.random.fold_in(key, 2))
    w = jax.random.uniform(w_key, c.shape, minval=section.w_low, maxval=section.w_high)
    if section.how != "halved":
        return Examples(x, eps, z, logsnr, c, w)
    step = jax.random.randint(step_key, c.shape, 0, section.num_steps)
    logsnr, middle, after = (jnp.asarray(a)[step] for a in two_steps(config))
    return Examples(x, eps, process.diffuse(x, eps, logsnr), logsnr, c, w, middle, after)


def target(config: ConfigDict, own: Denoiser, teacher: Any, of: Examples) -> Array:
    """Return what the network's output is compared with, [B, H, W, C].

    own: the network itself, which model guidance asks, at each image's w if it takes one. teacher: the Denoiser of
    config.teacher, or None.
    """
    objective, how = build.objective(config), config.teacher.how
    if how == "guided":
        field = partial(_field, teacher, objective.error)
        return guidance.guided(field, of.w, teacher.null)(of.z, of.logsnr, of.c)
    if how == "halved":
        field = lambda z, logsnr, c: teacher.predict(z, logsnr, c, of.w)  # noqa: E731
        x = distill.halved(field, of.z, of.logsnr, of.middle, of.after, of.c, teacher.predicts)
        return convert(x, of.z, of.logsnr, "x", objective.error)
    known = objective.target(of.x, of.eps, of.logsnr)
    if of.w is None and not objective.omega:
        return known
    omega, w = (objective.omega, None) if of.w is None else (distill.omega_of(of.w), jnp.repeat(of.w, 2))
    field = partial(_field, own, objective.error, w=w)  # of both halves, which stand side by side
    return distill.model_guided(known, field, own.null, omega, of.z, of.logsnr, of.c)


def two_steps(config: ConfigDict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log-SNR [N] three times: where each of a halved student's N steps begins, its middle, and its end.

    The teacher takes two steps for it, one to the middle and one to the end.
    """
    fine = schedule.grid(2 * config.teacher.num_steps, config.logsnr_min, config.logsnr_max, "shifted")
    return fine[::2], fine[1::2], np.append(fine[2::2], np.float32(np.inf))


def _field(denoiser, as_what, z, logsnr, c, w=None):
    return convert(denoiser.predict(z, logsnr, c, w), z, logsnr, denoiser.predicts, as_what)
