"""Checks of what learns from another run: config.teacher, and what a student of it can be asked for.

Every check raises InputError, whose message names the field and the remedy.
"""

import math

from ml_collections import ConfigDict

from cfg_jax.errors import choice, require

STUDENTS = ("guided", "halved")  # of config.teacher.how: they take w as an input


def teacher(config: ConfigDict) -> None:
    """Check config.teacher, and config.objective.omega, which is a way to train guidance in without one."""
    section, omega = config.teacher, config.objective.omega
    require(0 <= omega < 1, f"config.objective.omega={omega} must lie in [0, 1): w = omega / (1 - omega)")
    require(
        not omega or (0 < config.p_uncond < 1 and config.data.num_classes > 0 and not section.how),
        f"config.objective.omega={omega} needs classes, both halves and no teacher: set config.p_uncond between 0 "
        "and 1, and config.teacher.how to None",
    )
    if not section.how:
        return
    choice(section.how, (*STUDENTS, "pairs"), "config.teacher.how")
    require(section.run, f"config.teacher.how={section.how} needs config.teacher.run: name a run")
    if section.how == "pairs":
        return
    require(config.p_uncond == 0, f"config.p_uncond={config.p_uncond}: a student of guidance has no null label: set 0")
    low, high = section.w_low, section.w_high
    require(
        -1 <= low <= 0 < high < math.inf,
        f"config.teacher.w_low={low:g} must lie in [-1, 0] and config.teacher.w_high={high:g} be above 0: w = 0 is "
        "asked for where nothing guides",
    )
    if section.how == "halved":
        steps, predicts = section.num_steps, config.objective.predicts
        require(steps and steps >= 1, f"config.teacher.num_steps={steps} of a halved student must be 1 or more")
        require(
            predicts != "eps" and config.objective.error != "eps",
            "config.objective is in eps, from which x cannot be told at the first, noisiest step: distil a run that "
            "predicts v, x or velocity, such as one of configs/digits_flow.py",
        )


def walk(config: ConfigDict, section: ConfigDict) -> None:
    """Check that a student, whose config this is, can be walked by a config.sampler: a halved one by its own alone."""
    require(
        config.teacher.how not in STUDENTS or section.particles is None,
        f"config.sampler.particles={section.particles} weighs two halves, and a student has one: set it to None",
    )
    if config.teacher.how != "halved":
        return
    steps = config.teacher.num_steps
    own = section.name == "ddim" and not section.eta and section.grid == "shifted" and section.num_steps == steps
    require(
        own,
        f"this student was halved to {steps} steps: set config.sampler.name=ddim, eta=0, grid=shifted and "
        f"num_steps={steps}, not {section.name}, {section.eta:g}, {section.grid} and {section.num_steps}",
    )


def guidance(config: ConfigDict, section: ConfigDict, ws, field: str = "w", second_model: bool = False) -> None:
    """Check that a student, whose config this is, can be asked for every w by a config.guidance."""
    low, high = config.teacher.w_low, config.teacher.w_high
    for w in ws:
        require(low <= w <= high, f"{field}={w:g} is outside of what this student was trained for: {low:g} to {high:g}")
        for factor in section.schedule_w or ():
            require(
                low <= factor * w <= high,
                f"config.guidance.schedule_w has {factor:g}, which asks this student for w={factor * w:g}: it was "
                f"trained for {low:g} to {high:g}",
            )
    require(
        config.teacher.how != "halved" or section.rounds is None,
        f"config.guidance.rounds={section.rounds} goes back where a halved student was never trained: set it to None",
    )
    plain = section.name == "classifier-free" and section.uncond == "null" and section.rescale is None
    require(
        plain and not second_model,
        "a student takes w itself and has no second half: leave config.guidance.name=classifier-free, uncond=null and "
        "rescale=None, and give it no --guide",
    )
