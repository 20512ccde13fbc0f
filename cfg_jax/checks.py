"""A config's values are checked before anything compiles.

Every check raises InputError for a value that could only fail later or silently. Its message names the field.
"""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

from ml_collections import ConfigDict

from cfg_jax import config as configs
from cfg_jax.diffusion import loss, rules, samplers
from cfg_jax.errors import InputError, choice, require
from cfg_jax.inputs import check
from cfg_jax.models import build, network
from cfg_jax.models.attention import PERTURBATIONS
from cfg_jax.pinned import check_seed

MAX_T = 100_000
MAX_IMAGES = 10_000_000  # of a cell: their labels and features are in memory


def saved(path, config: ConfigDict) -> None:
    """Check the config of a run or an export at `path`: it is whole, and one that could have been trained."""
    try:
        everything(config)
    except InputError as error:
        raise InputError(f"{path} cannot have been trained: {' '.join(str(error).split())}") from error


def everything(config) -> None:
    """Check all of a config. Raises InputError, which names the field and the remedy."""
    types(config)
    require(0 <= config.p_uncond <= 1, f"config.p_uncond={config.p_uncond} is no probability: set 0 to 1")
    require(
        config.logsnr_min < config.logsnr_max,
        f"config.logsnr_min={config.logsnr_min} must be below config.logsnr_max={config.logsnr_max}",
    )
    require(
        max(abs(config.logsnr_min), abs(config.logsnr_max)) <= 40,
        f"config.logsnr_min={config.logsnr_min} and logsnr_max={config.logsnr_max} must lie in [-40, 40] for float32",
    )
    classifier = build.is_classifier(config)
    require(
        classifier or config.model.get("null_label", True) or config.p_uncond == 0,
        f"config.model.null_label=False leaves no label to drop to: set config.p_uncond=0, not {config.p_uncond}",
    )
    data = config.data
    for field in ("image_size", "channels"):
        require(data[field] >= 1, f"config.data.{field}={data[field]} must be at least 1")
    require(data.num_classes >= 0, f"config.data.num_classes={data.num_classes} must be 0, for no classes, or more")
    require(
        not classifier or data.num_classes > 1,
        f"config.data.num_classes={data.num_classes} gives nothing to tell: take data with two classes or more",
    )
    build.check(config)
    objective(config.objective)
    sampling(config)
    teacher(config)
    train = config.train
    counts = ("num_steps", "batch_size", "log_every", "checkpoint_every", "sample_every", "warmup_steps")
    for field in (*counts, "keep_checkpoints", "accumulate", "fsdp"):
        require(train[field] >= 1, f"config.train.{field}={train[field]} must be at least 1")
    require(train.num_steps < 2**31, f"config.train.num_steps={train.num_steps} must be below 2^31")
    for field in ("keep_every", "max_skipped"):
        require(train[field] >= 0, f"config.train.{field}={train[field]} must be 0 or more")
    for field in ("learning_rate", "grad_clip"):
        require(0 < train[field] < math.inf, f"config.train.{field}={train[field]} must be above 0 and finite")
    require(
        not train.inner_head_alone or (config.init_from and config.model.get("inner_head")),
        "config.train.inner_head_alone trains a head on a network that is there: set config.init_from=RUN and "
        "config.model.inner_head=True",
    )
    check_seed(config.seed, "config.seed")
    require(0 <= train.beta2 < 1, f"config.train.beta2={train.beta2} must lie in [0, 1)")
    require(0 <= train.ema_decay < 1, f"config.train.ema_decay={train.ema_decay} must lie in [0, 1)")
    tracked = train.averages
    require(
        all(0.01 <= length <= 0.25 for length in tracked) and len(set(tracked)) == len(tracked) != 1,
        f"config.train.averages={tracked} must be () or two and more lengths in [0.01, 0.25], such as (0.05, 0.1)",
    )
    evaluation(config.eval)


def types(config: ConfigDict) -> None:
    """Check that every field has its type, and that its numbers are finite. A network checks its own fields."""
    try:
        check(config.to_dict(), configs.SCHEMA, "config")
    except ValueError as error:
        raise InputError(str(error)) from error


def teacher(config: ConfigDict) -> None:
    """Check config.teacher, and config.objective.omega, which trains guidance in without a teacher."""
    section, omega = config.teacher, config.objective.omega
    halves = 0 < config.p_uncond < 1 and config.data.num_classes > 0
    require(0 <= omega < 1, f"config.objective.omega={omega} must lie in [0, 1): w = omega / (1 - omega)")
    require(
        not omega or (halves and not section.how),
        f"config.objective.omega={omega} needs classes, both halves and no teacher: set config.p_uncond between 0 "
        "and 1, and config.teacher.how to None",
    )
    if not section.how:
        return
    choice(section.how, (*network.STUDENTS, "pairs"), "config.teacher.how")
    alone = section.how == "itself"
    require(section.run or alone, f"config.teacher.how={section.how} needs config.teacher.run: name a run")
    if section.how == "pairs":
        return
    if alone:
        require(halves, "config.teacher.how=itself needs classes and both halves: set config.p_uncond between 0 and 1")
    else:
        require(
            config.p_uncond == 0, f"config.p_uncond={config.p_uncond}: a student of guidance has no null label: set 0"
        )
    low, high = section.w_low, section.w_high
    require(
        -1 <= low <= 0 < high < math.inf and not (alone and low == -1),
        f"config.teacher.w_low={low:g} must lie in {'(' if alone else '['}-1, 0] and config.teacher.w_high={high:g} be "
        "above 0: a step without guidance asks for w = 0",
    )
    if section.how == "halved":
        steps, predicts = section.num_steps, config.objective.predicts
        require(steps and steps >= 1, f"config.teacher.num_steps={steps} of a halved student must be 1 or more")
        require(
            predicts != "eps" and config.objective.error != "eps",
            "config.objective is in eps, from which x cannot be told at the first, noisiest step: distil a run that "
            "predicts v, x or velocity, such as one of configs/digits_flow.py",
        )


def evaluation(section) -> None:
    check_seed(section.seed, "config.eval.seed")
    require(
        section.bootstrap == 0 or section.bootstrap >= 2,
        f"config.eval.bootstrap={section.bootstrap} gives no spread: set 0 for none, or 2 and more",
    )
    require(len(section.w) > 0, "config.eval.w is empty: name at least one w")
    choice(section.features, ("classifier", "inception"), "config.eval.features")
    choice(section.labels, ("random", "balanced"), "config.eval.labels")
    choice(section.quantize, ("round", "truncate"), "config.eval.quantize")
    reference_images(section.reference_images, "config.eval.reference_images")
    require(
        section.features == "inception" or not section.classifier,
        f"config.eval.classifier={section.classifier} needs config.eval.features=inception: set it or drop this",
    )
    neighbours(section.neighbours, "config.eval.neighbours")
    for field in ("batch_size", "splits"):
        require(section[field] >= 1, f"config.eval.{field}={section[field]} must be at least 1")
    require(
        section.num_images >= max(4, 2 * section.splits),
        f"config.eval.num_images={section.num_images} is too few for {section.splits} config.eval.splits",
    )
    require(
        section.num_images <= MAX_IMAGES,
        f"config.eval.num_images={section.num_images} is more than {MAX_IMAGES:,}: the paper takes 50,000",
    )
    for w in section.w:
        finite(w, "config.eval.w")


def reference_images(count: int, name: str) -> None:
    """Check the number of images of a reference. name: the field or flag that gave it."""
    require(count == 0 or count >= 4, f"{name}={count} are too few: set 0 for all, or 4 and more")


def neighbours(count: int, name: str) -> None:
    """Check the number of images for KID, precision and recall. name: the field or flag that gave it."""
    require(count == 0 or count > 3, f"{name}={count} has no third neighbour: set 0 for none, or more")


def objective(section: ConfigDict) -> None:
    for field, choices in (("predicts", loss.PREDICTIONS), ("error", loss.PREDICTIONS), ("density", loss.DENSITIES)):
        choice(section[field], choices, f"config.objective.{field}")
    mean, std = section.logit_mean, section.logit_std
    require(abs(mean) <= 20, f"config.objective.logit_mean={mean} must lie in [-20, 20]")
    require(0 < std <= 20, f"config.objective.logit_std={std} must be above 0 and at most 20")


def sampling(config: ConfigDict, walker: Any = None, rule_value: Any = None) -> None:
    """Check config.sampler and config.guidance, each by itself and together.

    walker and rule_value are a sampler and a rule in place of those that the config names.
    """
    types(config)
    sampler(config.sampler)
    guidance(config)
    rule = config.guidance
    around = [cls for cls in rules.WRAPPERS if configs.set_fields(rule, cls)]
    parts = [rules.RULES[rule.name], *around] if rule_value is None else rules.parts(rule_value)
    size = config.sampler.particles if walker is None else getattr(walker, "particles", 0) or None
    walker = samplers.SAMPLERS[config.sampler.name] if walker is None else walker
    walks(walker, parts, rule.classifier == "mean")
    require(
        rule.uncond != "other_label" or config.data.num_classes > 1,
        f"config.guidance.uncond={rule.uncond} needs two classes: set it to null, or take data with classes",
    )
    if size is None:
        return
    field = f"config.sampler.particles={size}"
    require(size >= 2, f"{field} is no group: give 2 or more, or None for images that stand alone")
    require(hasattr(walker, "particles"), f"{field} is of config.sampler.name=ancestral: choose that, or None")
    require(
        rule.uncond == "null" and all(getattr(part, "weighs", False) for part in parts),
        f"{field} has the weights of config.guidance.name=classifier-free with nothing around it: choose that",
    )


def walks(sampler: Any, parts: Iterable[Any], as_mean: bool = False) -> None:
    """Check that a sampler can walk by a rule of these parts. Each is a value or its class, of this code or a user's.

    as_mean: a classifier moves the mean of the step.
    """
    name = next((name for name, cls in samplers.SAMPLERS.items() if cls in (sampler, type(sampler))), None)
    name = name or getattr(sampler, "__name__", type(sampler).__name__)
    asked = [part.sampler_has for part in parts if hasattr(part, "sampler_has")]
    if as_mean:
        step = "config.guidance.classifier=mean moves the mean of Algorithm 2's step, which sampler {} has not"
        asked.append(("takes_push", f"{step}: set config.sampler.name=ancestral, or this to eps"))
    for ability, remedy in asked:
        told = f"{remedy.format(name)}; a sampler of your own says {ability} = True where it can"
        require(getattr(sampler, ability, False), told)


def groups(config: ConfigDict) -> None:
    """Check that the images of a sweep's cell are whole groups of particles."""
    for name in ("num_images", "batch_size"):
        size, count = config.sampler.particles, config.eval[name]
        require(
            not size or count % size == 0,
            f"config.sampler.particles={size} does not divide config.eval.{name}={count}: choose one that does",
        )


def sampler(section: ConfigDict) -> None:
    steps = section.num_steps
    require(1 <= steps <= MAX_T, f"config.sampler.num_steps={steps} (T) must be at least 1, at most {MAX_T:,}")
    choice(section.threshold, samplers.THRESHOLDS, "config.sampler.threshold")
    choice(section.grid, ("paper", "shifted", "t", "logsnr"), "config.sampler.grid")
    choice(section.name, samplers.SAMPLERS, "config.sampler.name")
    limits(section, samplers.SAMPLERS[section.name], "config.sampler")


def guidance(config: ConfigDict) -> None:
    section = config.guidance
    choice(section.name, rules.RULES, "config.guidance.name")
    choice(section.uncond, build.SOURCES, "config.guidance.uncond")
    choice(section.classifier, ("eps", "mean"), "config.guidance.classifier")
    for cls in (rules.RULES[section.name], *rules.WRAPPERS):
        limits(section, cls, "config.guidance")
        if problem := getattr(cls, "problem", lambda config: None)(config):
            raise InputError(f"config.guidance.{problem}")
    perturbations(config)


def perturbations(config: ConfigDict) -> None:
    """Check that the network has the worse attention that a config.guidance asks for."""
    section, known = config.guidance, getattr(build.network_class(config), "perturbations", ())
    fields = ["uncond"] if section.uncond in PERTURBATIONS else []
    fields += ["perturbation"] if section.name == "beside_perturbed" else []
    for field in fields:
        require(
            section[field] in known,
            f"config.guidance.{field}={section[field]} is no perturbation that the network {config.model.name} has: "
            f"{'choose ' + ', '.join(known) if known else 'it has none, so set uncond=null'}",
        )


def limits(section: ConfigDict, cls: Any, path: str) -> None:
    """Check the fields that a class names in `limits`. path: the section's name. A field that is None is not set."""
    for field, (low, high) in getattr(cls, "limits", {}).items():
        given = section[field]
        require(given is None or low <= given <= high, f"{path}.{field}={given} must lie in [{low:g}, {high:g}]")


def finite(w: Any, field: str) -> None:
    """Check that w is a number, finite, and below a million in size."""
    fine = isinstance(w, Real) and abs(w) < 1e6  # nor NaN
    require(fine, f"{field}={w} is no finite number below a million: w = 0 is no guidance, the paper goes to 4")
