"""Runs that another run teaches, for guidance in one pass, fewer steps or rectified flow: config and teacher."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from ml_collections import ConfigDict

from cfg_jax.config import image_shape
from cfg_jax.data.sources import Source
from cfg_jax.errors import InputError, require
from cfg_jax.models import build, network
from cfg_jax.models.denoiser import Denoiser
from cfg_jax.sampling import pairs
from cfg_jax.store import weights


def distilled(teacher: ConfigDict, run: str, w_low: float, w_high: float) -> ConfigDict:
    """Return the config of a student that takes w in [w_low, w_high] and starts from its teacher's weights.

    Meng et al. 2023, stage 1.
    """
    config = _taught(teacher, run, "guided")
    config.teacher.update(w_low=float(w_low), w_high=float(w_high))
    config.p_uncond = 0.0
    check_teacher(teacher, config)
    return config


def halved(teacher: ConfigDict, run: str, num_steps: int) -> ConfigDict:
    """Return the config of a student that takes num_steps DDIM steps, half as many as its teacher.

    A teacher that was not halved itself counts as one of arbitrarily many steps. Meng et al. 2023, stage 2.
    """
    config = _taught(teacher, run, "halved")
    config.teacher.num_steps, config.p_uncond = num_steps, 0.0
    config.sampler.update(name="ddim", eta=0.0, grid="shifted", num_steps=num_steps)
    own = teacher.teacher.num_steps
    require(own in (None, 2 * num_steps), f"--steps={num_steps} is not half of the teacher's {own}: halve one by one")
    check_teacher(teacher, config)
    return config


def check_halvings(steps: Sequence[int]) -> None:
    """Raise InputError unless each number of steps is half of the one before."""
    halves = all(a == 2 * b for a, b in itertools.pairwise(steps)) and steps[-1] >= 1
    given = ",".join(map(str, steps))
    require(halves, f"--steps={given}: each must be half of the one before, such as 16,8,4")


def rectified(teacher: ConfigDict, run: str, pairs: str, w: float) -> ConfigDict:
    """Return the config of a flow that is trained on a run's pairs at w, the file `pairs`.

    It starts from the run's weights where these predict a velocity. At w = 0 it keeps an unconditional half, trained on
    the pairs without a label. Any other w is folded into it.
    """
    config = _taught(teacher, run, "pairs")
    if teacher.objective.predicts != "velocity" or network.takes_w(teacher):
        config.init_from = None
    config.p_uncond = 0.0 if w else teacher.p_uncond
    config.objective.update(predicts="velocity", error="velocity", density="uniform_t")
    config.sampler.update(name="ddim", eta=0.0, grid="t")
    config.teacher.update(run=str(pairs), w_low=float(w), w_high=float(w))
    return config


def load(config: ConfigDict, source: Source) -> tuple[Denoiser | None, Source, ConfigDict]:
    """Return the network that config.teacher names, the source with its pairs, and the config with their digest.

    Raises InputError where it cannot teach this config, or is another than the run was begun with.
    """
    section = config.teacher
    if section.how in (None, "itself"):
        return None, source, config
    if section.how == "pairs":
        made = pairs.read(section.run)
        shape = image_shape(config.data)
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
        require(not network.takes_w(teacher), f"{run} takes w itself: it has been distilled, go on by --steps")
        require(
            0 < teacher.p_uncond < 1 and teacher.model.null_label and teacher.data.num_classes,
            f"{run} was trained on {teacher.data.num_classes} classes with p_uncond={teacher.p_uncond:g} and has no "
            "two halves to distil: name a run with classes and 0 < config.p_uncond < 1",
        )
    else:
        require(network.takes_w(teacher), f"{run} does not take w: distil its guidance first, without --steps")
        require(
            teacher.teacher.w_low <= config.teacher.w_low and config.teacher.w_high <= teacher.teacher.w_high,
            f"config.teacher.w_low={config.teacher.w_low:g} and w_high={config.teacher.w_high:g} are beyond the "
            f"teacher's, {teacher.teacher.w_low:g} to {teacher.teacher.w_high:g}: stay within them",
        )


def _taught(teacher, run, how):
    require(not build.is_classifier(teacher), f"{run} is a classifier: name a diffusion model")
    config = teacher.copy_and_resolve_references()
    config.objective.omega = 0.0
    config.teacher.update(how=how, run=str(run), digest=None)
    config.init_from = str(run)
    return config
