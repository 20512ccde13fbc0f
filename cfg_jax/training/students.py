"""Configs of runs that another run teaches: guidance in one pass, fewer steps, rectified flow."""

import itertools
from collections.abc import Sequence

from ml_collections import ConfigDict

from cfg_jax.errors import require
from cfg_jax.models import build
from cfg_jax.training import targets


def distilled(teacher: ConfigDict, run: str, w_low: float, w_high: float) -> ConfigDict:
    """Of a student that takes w in [w_low, w_high] and starts from its teacher's weights. Meng et al. 2023, stage 1."""
    config = _taught(teacher, run, "guided")
    config.teacher.update(w_low=float(w_low), w_high=float(w_high))
    config.p_uncond = 0.0
    targets.check_teacher(teacher, config)
    return config


def halved(teacher: ConfigDict, run: str, num_steps: int) -> ConfigDict:
    """Of a student of half its teacher's DDIM steps, which are many where the teacher was not halved. Stage 2."""
    config = _taught(teacher, run, "halved")
    config.teacher.num_steps = num_steps
    config.sampler.update(name="ddim", eta=0.0, grid="shifted", num_steps=num_steps)
    own = teacher.teacher.num_steps
    require(own in (None, 2 * num_steps), f"--steps={num_steps} is not half of the teacher's {own}: halve one by one")
    targets.check_teacher(teacher, config)
    return config


def check_halvings(steps: Sequence[int]) -> None:
    """Raise InputError unless each number of steps is half of the one before."""
    halves = all(a == 2 * b for a, b in itertools.pairwise(steps)) and steps[-1] >= 1
    given = ",".join(map(str, steps))
    require(halves, f"--steps={given}: each must be half of the one before, such as 16,8,4")


def rectified(teacher: ConfigDict, run: str, pairs: str, w: float) -> ConfigDict:
    """Of a flow that is trained on a run's pairs at w. It starts from the run's weights where these give a velocity.

    Of w = 0 it keeps an unconditional half, for the pairs without a label. Any other w is folded into it.
    """
    config = _taught(teacher, run, "pairs")
    if teacher.objective.predicts != "velocity" or build.takes_w(teacher):
        config.init_from = None
    config.p_uncond = 0.0 if w else teacher.p_uncond
    config.objective.update(predicts="velocity", error="velocity", density="uniform_t")
    config.sampler.update(name="ddim", eta=0.0, grid="t")
    config.teacher.update(run=str(pairs), w_low=float(w), w_high=float(w))
    return config


def _taught(teacher, run, how):
    require(not build.is_classifier(teacher), f"{run} is a classifier: name a diffusion model")
    config = teacher.copy_and_resolve_references()
    config.objective.omega = 0.0
    config.teacher.update(how=how, run=str(run), digest=None)
    config.init_from = str(run)
    return config
