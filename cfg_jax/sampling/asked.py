"""Checks of what a trained model can be asked for: a guidance weight, a sampler, a rule.

Every check raises InputError, whose message names the field and the remedy.
"""

import numpy as np
from ml_collections import ConfigDict

from cfg_jax.checks import finite
from cfg_jax.diffusion import rules
from cfg_jax.errors import require
from cfg_jax.models.network import takes_w


def guidance_weight(w: float, config: ConfigDict, field: str = "w", second_model: bool = False) -> None:
    """Check that w is finite, and that a model of this config has the halves that w needs.

    At p_uncond = 0 there is no unconditional half, at 1 no conditional one; without classes both are the same.
    second_model: the unconditional eps comes from another model.
    """
    finite(w, field)
    p_uncond, classes = config.p_uncond, config.data.num_classes
    require(
        classes or w in (0, -1) or second_model,
        f"{field}={w:g} asks for guidance, but the model was trained without classes: use w=0, or train with "
        "config.data.num_classes > 0",
    )
    if not classes:
        return
    require(
        w == 0 or p_uncond > 0 or second_model,
        f"{field}={w:g} asks for guidance, but the model was trained with p_uncond=0 and has no unconditional half: "
        "use w=0 or train with config.p_uncond > 0",
    )
    labelled = p_uncond < 1 or second_model
    require(w == -1 or labelled, f"{field}={w:g} needs labels, but p_uncond=1 trained none: use w=-1")


def student_walk(config: ConfigDict, section: ConfigDict) -> None:
    """Check that a student, whose config this is, can be walked by a config.sampler: a halved one by its own alone."""
    require(
        not takes_w(config) or section.particles is None,
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


def student_guidance(config: ConfigDict, section: ConfigDict, ws, field: str = "w", second_model: bool = False) -> None:
    """Check that a student, whose config this is, can be asked for every w by a config.guidance."""
    low, high = config.teacher.w_low, config.teacher.w_high
    factors, has = section.schedule_w or (), "schedule_w has"
    if section.schedule:
        factors = np.asarray(rules.SCHEDULES[section.schedule](np.linspace(0, 1, 101)))
        factors, has = (factors.min(), factors.max()), f"schedule={section.schedule} has"
    for w in ws:
        require(low <= w <= high, f"{field}={w:g} is outside of what this student was trained for: {low:g} to {high:g}")
        for factor in factors:
            require(
                low <= factor * w <= high,
                f"config.guidance.{has} {factor:g}, which asks this student for w={factor * w:g}: it was trained for "
                f"{low:g} to {high:g}",
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
