"""Where a step's examples come from: the data and noise, pairs that a run made of them, or another network."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from cfg_jax import images
from cfg_jax.data import pairs
from cfg_jax.data.sources import Source
from cfg_jax.diffusion import distill, process, schedule
from cfg_jax.diffusion.loss import convert
from cfg_jax.errors import InputError, require
from cfg_jax.models import build
from cfg_jax.models.denoiser import Denoiser
from cfg_jax.training import weights


class Examples(NamedTuple):
    z: Array  # [B, H, W, C]
    logsnr: Array  # [B]
    c: Array  # [B]
    w: Array | None  # [B] of a student
    target: Array  # [B, H, W, C], what the objective's error is taken to


def of_batch(
    config: ConfigDict, image: Array, c: Array, key: Array, own: Denoiser, teacher: Denoiser | None
) -> Examples:
    """The examples of a batch's images [B, H, W, C]. Algorithm 1, lines 4 to 6, and what config.teacher changes.

    own: the network as it is now, which model guidance asks.
    """
    objective, how = build.objective(config), config.teacher.how
    if how == "pairs":
        x, eps = jnp.split(image, 2, axis=-1)
        z, logsnr, eps = objective.noised(key, x, eps)
    else:
        x = images.to_float(image)
        z, logsnr, eps = objective.noised(key, x)
    if not teacher:
        target = objective.target(x, eps, logsnr)
        if objective.omega:
            field = partial(_field, own, objective.error)
            target = distill.model_guided(target, field, own.null, objective.omega, z, logsnr, c)
        return Examples(z, logsnr, c, None, target)

    w_key, step_key = jax.random.split(jax.random.fold_in(key, 2))
    w = jax.random.uniform(w_key, c.shape, minval=config.teacher.w_low, maxval=config.teacher.w_high)
    if how == "guided":
        field = partial(_field, teacher, objective.error)
        return Examples(z, logsnr, c, w, distill.guided(field, teacher.null, w, z, logsnr, c))
    step = jax.random.randint(step_key, c.shape, 0, config.teacher.num_steps)
    logsnr, middle, after = (jnp.asarray(a)[step] for a in two_steps(config))
    z = process.diffuse(x, eps, logsnr)
    x = distill.halved(lambda z, logsnr, c: teacher.eps_fn(z, logsnr, c, w), z, logsnr, middle, after, c)
    return Examples(z, logsnr, c, w, objective.target(x, process.predict_eps(z, x, logsnr), logsnr))


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
            0 < teacher.p_uncond < 1 and teacher.model.null_label,
            f"{run} was trained with p_uncond={teacher.p_uncond:g} and has no two halves to distil: name a run with "
            "0 < config.p_uncond < 1",
        )
    else:
        require(build.takes_w(teacher), f"{run} does not take w: distil its guidance first, without --steps")
        require(
            teacher.teacher.w_low <= config.teacher.w_low and config.teacher.w_high <= teacher.teacher.w_high,
            f"config.teacher.w_low={config.teacher.w_low:g} and w_high={config.teacher.w_high:g} are beyond the "
            f"teacher's, {teacher.teacher.w_low:g} to {teacher.teacher.w_high:g}: stay within them",
        )
