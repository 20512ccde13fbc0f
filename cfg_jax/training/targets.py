"""Where a step's examples come from: the data and noise, pairs that a run made of them, or another network."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from cfg_jax import images
from cfg_jax.data import pairs
from cfg_jax.data.sources import Source
from cfg_jax.diffusion import distill, guidance, process, schedule
from cfg_jax.diffusion.loss import convert
from cfg_jax.errors import InputError, require
from cfg_jax.models import build
from cfg_jax.models.denoiser import Denoiser
from cfg_jax.store import weights


class Examples(NamedTuple):
    """Of a batch. What a run does not have is None."""

    x: Array  # [B, H, W, C]
    eps: Array  # [B, H, W, C]
    z: Array  # [B, H, W, C]
    logsnr: Array  # [B]
    c: Array  # [B]
    w: Array | None = None  # [B] of a student
    middle: Array | None = None  # [B] of a halved one, the log-SNR of its teacher's second step
    after: Array | None = None  # [B], where both end


def drawn(config: ConfigDict, image: Array, c: Array, key: Array) -> Examples:
    """The examples of a batch's images [B, H, W, C]. Algorithm 1, lines 4 to 6, and what config.teacher changes."""
    objective, section = build.objective(config), config.teacher
    if section.how == "pairs":
        x, eps = jnp.split(image, 2, axis=-1)
        z, logsnr, eps = objective.noised(key, x, eps)
    else:
        x = images.to_float(image)
        z, logsnr, eps = objective.noised(key, x)
    if not build.takes_w(config):
        return Examples(x, eps, z, logsnr, c)
    w_key, step_key = jax.random.split(jax.random.fold_in(key, 2))
    w = jax.random.uniform(w_key, c.shape, minval=section.w_low, maxval=section.w_high)
    if section.how == "guided":
        return Examples(x, eps, z, logsnr, c, w)
    step = jax.random.randint(step_key, c.shape, 0, section.num_steps)
    logsnr, middle, after = (jnp.asarray(a)[step] for a in two_steps(config))
    return Examples(x, eps, process.diffuse(x, eps, logsnr), logsnr, c, w, middle, after)


def target(config: ConfigDict, own: Denoiser, teacher: Any, of: Examples) -> Array:
    """Return what the network's output is compared with, [B, H, W, C].

    own: the network itself, which model guidance asks. teacher: the Denoiser of config.teacher, or None.
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
    if not objective.omega:
        return known
    field = partial(_field, own, objective.error)
    return distill.model_guided(known, field, own.null, objective.omega, of.z, of.logsnr, of.c)


def two_steps(config: ConfigDict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a halved student's N steps begin, the middle and the end of its teacher's two from there: log-SNR [N]."""
    fine = schedule.grid(2 * config.teacher.num_steps, config.logsnr_min, config.logsnr_max, "shifted")
    return fine[::2], fine[1::2], np.append(fine[2::2], np.float32(np.inf))


def _field(denoiser, as_what, z, logsnr, c):
    return convert(denoiser.predict(z, logsnr, c), z, logsnr, denoiser.predicts, as_what)


def load(config: ConfigDict, source: Source) -> tuple[Denoiser | None, Source, ConfigDict]:
    """The network that config.teacher names, the source with its pairs, and the config with the digest of either.

    Raises InputError where it cannot teach this config, or is another than the run was begun with.
    """
    section = config.teacher
    if not section.how:
        return None, source, config
    if section.how == "pairs":
        made = pairs.read(section.run)
        shape = (config.data.image_size, config.data.image_size, config.data.channels)
        require(
            made.shape == shape,
            f"config.teacher.run={section.run} has pairs of {made.shape}, config.data says {shape}: name pairs of the "
            "same shape",
        )
        last = max(0, config.data.num_classes - (not config.model.null_label))
        require(
            made.labels.min() >= 0 and made.labels.max() <= last,
            f"config.teacher.run={section.run} has labels that are not 0 to {last}: name pairs of these classes",
        )
        teacher, found, source = None, made.digest, replace(source, images=made.images, labels=made.labels)
    else:
        of, _, params = weights.read(section.run)
        check_teacher(of, config)
        teacher = build.denoiser(of, params)
        found = weights.digest_of(params)
    if section.digest not in (None, found):
        raise InputError(
            f"config.teacher.run={section.run} has changed since this run was begun ({section.digest}, now {found}): "
            "put back what was there, or start a new workdir"
        )
    config = config.copy_and_resolve_references()
    config.teacher.digest = found
    return teacher, source, config


def check_teacher(teacher: ConfigDict, config: ConfigDict) -> None:
    """Raise InputError where a run of this config cannot be the teacher of that one."""
    run, how = f"config.teacher.run={config.teacher.run}", config.teacher.how
    for field in ("image_size", "channels", "num_classes"):
        own, given = config.data[field], teacher.data[field]
        require(given == own, f"{run} has config.data.{field}={given}, the student {own}: name a run of the same")
    if how == "guided":
        require(not build.takes_w(teacher), f"{run} takes w itself: it has been distilled, go on by --steps")
        require(
            0 < teacher.p_uncond < 1 and teacher.model.null_label and teacher.data.num_classes,
            f"{run} was trained on {teacher.data.num_classes} classes with p_uncond={teacher.p_uncond:g} and has no "
            "two halves to distil: name a run with classes and 0 < config.p_uncond < 1",
        )
    else:
        require(build.takes_w(teacher), f"{run} does not take w: distil its guidance first, without --steps")
        require(
            teacher.teacher.w_low <= config.teacher.w_low and config.teacher.w_high <= teacher.teacher.w_high,
            f"config.teacher.w_low={config.teacher.w_low:g} and w_high={config.teacher.w_high:g} are beyond the "
            f"teacher's, {teacher.teacher.w_low:g} to {teacher.teacher.w_high:g}: stay within them",
        )
