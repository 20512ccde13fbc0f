"""A run, an export or an imported network as a value: load it, ask it for eps, sample from it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cfg_jax import checks, pinned
from cfg_jax.config import flat, image_shape
from cfg_jax.diffusion import guidance, particles, rules, samplers
from cfg_jax.diffusion.guidance import Guidance, SecondModel
from cfg_jax.errors import InputError, did_you_mean, require
from cfg_jax.fields import effective, own_fields
from cfg_jax.images import to_uint8
from cfg_jax.models import build, network
from cfg_jax.models.denoiser import Denoiser, NoisyClassifier
from cfg_jax.sampling import asked, draw
from cfg_jax.store import hub, weights

# of Model.sample's settings, the paper's letter and the names of the values
ALIASES = {"v": "sampler.variance_interp", "sampler": "sampler.name", "guidance": "guidance.name"}
FAMILIES = {"sampler": samplers.SAMPLERS.values(), "guidance": (*rules.RULES.values(), *rules.WRAPPERS)}


@dataclass(frozen=True)
class Model:
    """A trained network: `eps_fn` for your own sampler, `sample` for images."""

    config: ConfigDict
    denoiser: Denoiser
    step: int = 0

    @property
    def params(self) -> dict:
        return self.denoiser.params

    @cached_property
    def digest(self) -> str:
        return weights.digest_of(self.params)

    @property
    def dtype(self) -> str:
        """What the network's body computes in."""
        return jnp.dtype(self.denoiser.net.dtype).name

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return image_shape(self.config.data)

    def eps_fn(self, z, logsnr, c, w=None):
        """z [B, H, W, C], logsnr [B], c int32 [B], where num_classes is the null label -> eps [B, H, W, C].

        w [B] is of a student, see experiments.distill. Raises InputError where the network takes none.
        """
        if w is not None and not network.takes_w(self.config):
            raise InputError("this model takes no w: ask it for both halves, or distil it with experiments.distill")
        return self.denoiser.eps_fn(z, logsnr, c, w)

    def rule(self, section: ConfigDict, w, classifier: bool = False):
        """Return the rule that a config.guidance names, at w; for a student the rule that passes w to the network."""
        return build.rule(section, w, network.takes_w(self.config), classifier)

    @pinned.pinned()
    def sample(self, labels, w=None, num_steps=None, seed=0, *, batch_size=None, guides=None, **settings) -> np.ndarray:
        """labels [N] ints, w a number or [N] (guidance scale s = 1 + w; not given, 0) -> uint8 [N, H, W, C].

        num_steps is T, seed an int32. settings: fields of config.sampler and config.guidance, such as v=0.3,
        threshold="none", sampler="ddim", guidance="apg"; sampler and guidance may be values of your own too, the latter
        with a w of its own. What is not given is the run's own config's. guides: a Guides, of another model or a
        classifier. Raises InputError for a label, w, seed or setting out of range, and for one that has no effect.
        """
        whole = batch_size is None or (hasattr(batch_size, "__index__") and batch_size >= 1)
        require(whole, f"batch_size={batch_size} must be a whole number of at least 1")
        values = {k: settings.pop(k) for k in ("sampler", "guidance") if not isinstance(settings.get(k), str | None)}
        fixed = {"guided": ("guidance",), "halved": ("guidance", "sampler")}.get(self.config.teacher.how, ())
        if own := values.keys() & fixed:
            raise InputError(f"{' and '.join(own)} of your own: a student takes w itself, a halved one its own steps")
        for name, value in values.items():
            require(hasattr(value, "init"), f"{name}={value!r} is neither a name nor a {name} of your own")
        check_effect(values, settings, w)
        config = changed(self.config, settings | ({} if num_steps is None else {"num_steps": num_steps}))
        labels = draw.check_labels(labels, config.data.num_classes)
        own_rule = values.get("guidance")
        checks.sampling(config, values.get("sampler"), own_rule)
        asked.student_walk(self.config, config.sampler)
        if own_rule is not None:
            config.guidance.name, w = direction_of(own_rule, self.image_shape)
        try:
            w = np.asarray(0.0 if w is None else w, np.float32)
        except (OverflowError, TypeError, ValueError) as error:
            raise InputError(f"w={w!r} is no number, and no list of them") from error
        if w.ndim and w.shape != labels.shape:
            raise InputError(f"w has shape {w.shape}: give one number, or one for each of the {len(labels)} labels")
        guides = guides or Guides()
        guides.check(self, np.unique(w), labels, section=config.guidance)
        before = flat(self.config)
        effective([config], [field for field, value in flat(config).items() if value != before.get(field)])
        rule = own_rule
        if own_rule is None:
            rule = self.rule(config.guidance, np.broadcast_to(w, labels.shape), guides.classifier is not None)
        walk = build.walk(config, value=values.get("sampler"))
        if problem := walk.group and particles.problem(walk.group, labels, np.broadcast_to(w, labels.shape)):
            raise InputError(f"particles={walk.group}: {problem}")
        batches = draw.batches(
            self.denoiser, labels, guides.beside(rule, config.guidance), walk, shape=self.image_shape, seed=seed,
            batch_size=batch_size or min(len(labels), 256),
        )  # fmt: skip
        return np.concatenate([to_uint8(x) for x in batches])


def check_effect(values: dict, settings: dict, w) -> None:
    """Raise InputError for a setting that a sampler or a rule given by value would leave without effect."""
    if "guidance" in values and w is not None:
        raise InputError(f"w={w} has no effect beside a guidance of your own, which has a w itself: give it that one")
    known = {name: field.partition(".")[::2] for name, field in ALIASES.items()}
    for name, value in settings.items():
        for group in values:
            of, field = known.get(name, (group, name))
            if value is not None and of == group and field in own_fields(FAMILIES[group]):
                raise InputError(f"{name}={value} has no effect beside a {group} of your own: give it to that")


def direction_of(rule, image_shape: tuple[int, int, int]) -> tuple[str, Any]:
    """Return (name, w) of a rule given by value, for the checks: a name of RULES, and w as a number or [N].

    A rule that is none of RULES, and asks for the unconditional half, counts as Equation 6 at its own w, or at 1.
    """
    direction = rules.parts(rule)[-1]
    name = next((name for name, cls in rules.RULES.items() if cls is type(direction)), None)
    w = getattr(direction, "w", None)
    if name or isinstance(direction, guidance.Unguided):
        return name or "classifier-free", 0.0 if w is None else w
    asks = draw.asks_uncond(rule, image_shape)
    return "classifier-free", w if w is not None and asks and np.any(np.asarray(w)) else float(asks)


@dataclass(frozen=True)
class Classifier:
    """A classifier of noisy images, to guide a Model of the same image size."""

    config: ConfigDict
    network: NoisyClassifier

    @property
    def params(self) -> dict:
        return self.network.params

    @cached_property
    def digest(self) -> str:
        return weights.digest_of(self.params)

    def log_prob(self, z, logsnr, c):
        """log p(c | z): z [B, H, W, C], logsnr [B], c int32 [B] -> [B]."""
        return self.network.log_prob(z, logsnr, c)


@dataclass(frozen=True)
class Guides:
    """What guides beside the model itself: another Model for the unconditional eps, a Classifier for its gradient.

    The other model sees no label where it was trained on none (p_uncond = 1, or no classes), else the same ones:
    autoguidance. A classifier always sees the labels.
    """

    uncond: Model | None = None
    classifier: Classifier | None = None
    classifier_scale: float = 1.0
    name: str = ""  # in rows; "" is the null label

    def check(self, model: Model, ws, labels=None, field: str = "w", section: Any = None) -> None:
        """Raise InputError where the model cannot be guided so. section: a config.guidance, else the model's own."""
        section = section or model.config.guidance
        of_itself = section.uncond != "null"  # eps_u is the model's own, and of no null label
        if of_itself and self.uncond:
            raise InputError(
                f"eps_u is given by the other run and by config.guidance.uncond={section.uncond}: choose one"
            )
        require(
            section.uncond != "inner_head" or model.config.model.get("inner_head"),
            "config.guidance.uncond=inner_head asks for a prediction that this model lacks: train it with "
            "config.model.inner_head=True",
        )
        p_uncond, classes = model.config.p_uncond, model.config.data.num_classes
        if network.takes_w(model.config):
            asked.student_guidance(model.config, section, ws, field, bool(self.uncond))
        else:
            for w in ws:
                if section.name == "unconditional":
                    checks.finite(float(w), field)
                else:
                    asked.guidance_weight(float(w), model.config, field, bool(self.uncond) or of_itself)
        always = not getattr(rules.RULES[section.name], "unguided_at_0", True)
        if always and classes and not (p_uncond or self.uncond or of_itself):
            raise InputError(
                f"config.guidance.name={section.name} needs an unconditional half, and the model was trained with "
                "p_uncond=0: train with config.p_uncond > 0"
            )
        if self.classifier and labels is not None:
            draw.check_labels(labels, self.classifier.config.data.num_classes)
        checks.finite(self.classifier_scale, "classifier_scale")
        for name, other in (("unconditional run", self.uncond), ("classifier", self.classifier)):
            if other and (theirs := image_shape(other.config.data)) != model.image_shape:
                shapes = f"{theirs}, and the model's {model.image_shape}"
                raise InputError(f"the images of the {name} have the shape {shapes}: give one of the same shape")
        if self.uncond and self.uncond.config.p_uncond < 1:
            given = self.uncond.config.data.num_classes
            same = f"the unconditional run has {given} classes, the model {classes}: give one of the same"
            require(given in (0, classes), same)
        if self.classifier:
            given = self.classifier.config.data.num_classes
            require(
                classes in (0, given), f"the classifier has {given} classes, the model {classes}: give one of the same"
            )

    def beside(self, rule, section: ConfigDict) -> Guidance:
        """Return the guidance of a rule with these models. section: a config.guidance."""
        second: Any = build.SOURCES[section.uncond]
        if self.uncond:
            second = SecondModel(self.uncond.denoiser, self.uncond.config.p_uncond == 1)
        classifier = self.classifier and self.classifier.network
        return Guidance(rule, second, classifier, self.classifier_scale, as_mean=section.classifier == "mean")


def load(run_dir, step: int | None = None, params: str | float = "ema", dtype: str | None = None) -> Model:
    """The Model of a run directory, an exported file, or a name, on any number of devices.

    A name is one of pretrained(), or of the Hugging Face Hub: hf://OWNER/NAME, hf://OWNER/NAME@REVISION or
    hf://OWNER/NAME/FILE.safetensors.

    `params` is "ema", "params" (not averaged), or the length of an EMA that is made of config.train.averages, such as
    0.075 of the steps. `dtype`, of the network's body, is "float32" or "bfloat16", and None what it was trained in.
    Reads the config and those weights alone, and raises InputError where either is missing or damaged.
    """
    if isinstance(params, str) and params not in ("ema", "params"):
        raise InputError(f"params={params!r} is unknown: choose ema or params")
    if dtype not in (None, *network.DTYPES):
        raise InputError(f"dtype={dtype!r} is unknown: choose {' or '.join(network.DTYPES)}")
    config, step, arrays = weights.read(run_dir, step, params)
    return Model(config, build.denoiser(config, arrays, dtype), step)


def load_classifier(run_dir) -> Classifier:
    """Load the Classifier of a run directory that experiments.train_classifier or import_adm wrote."""
    config, _, arrays = weights.read(run_dir, classifier=True)
    return Classifier(config, build.noisy_classifier(config, arrays))


def load_guides(guide=None, classifier_run=None, dtype: str | None = None) -> Guides:
    """Load the Guides of a sweep, which has at most one kind of them. guide: RUN or RUN@STEP."""
    if guide and classifier_run:
        raise InputError("--guide and --classifier_run are two kinds of guidance: choose one")
    if guide:
        model = load(*run_and_step(guide), dtype=dtype)
        return Guides(uncond=model, name=f"uncond {Path(guide).name} {model.digest}")
    if classifier_run:
        classifier = load_classifier(classifier_run)
        return Guides(classifier=classifier, name=f"classifier {Path(classifier_run).name} {classifier.digest}")
    return Guides()


def run_and_step(text: str) -> tuple[str, int | None]:
    """ "runs/a@300" -> ("runs/a", 300), a checkpoint of a run; without one, None for the newest."""
    run, at, step = str(text).rpartition("@")
    whole = Path(text).exists() or run.startswith(hub.SCHEME)  # there the number is a revision
    return (run, int(step)) if at and step.isdecimal() and not whole else (str(text), None)


def changed(config: ConfigDict, settings: dict) -> ConfigDict:
    """Copy a config and set fields of its sampler and guidance by name. Raises InputError for unknown ones."""
    config = config.copy_and_resolve_references()
    known = {
        name: f"{group}.{name}"
        for group in ("sampler", "guidance")
        for name in getattr(config, group)
        if name != "name"
    }
    known |= ALIASES
    for name, value in settings.items():
        if name not in known:
            meant = did_you_mean(name, known)
            raise InputError(f"{name} is no setting of sampling: {meant}choose from {', '.join(sorted(known))}")
        if value is not None:
            group, _, field = known[name].partition(".")
            value = value.item() if isinstance(value, np.generic) else value
            try:
                getattr(config, group)[field] = value
            except TypeError as error:
                raise InputError(f"{name}={value!r} is of another type: {error}") from error
    return config
