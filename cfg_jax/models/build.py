"""From a config to values, all of it here: network, objective, sampler on its grid, rule of guidance."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cfg_jax import checks, taught
from cfg_jax.diffusion import guidance, rules, samplers, schedule
from cfg_jax.diffusion.loss import Objective
from cfg_jax.errors import InputError, choice
from cfg_jax.models import adm
from cfg_jax.models.denoiser import Denoiser, NoisyClassifier
from cfg_jax.models.unet import Encoder, UNet

NETWORKS = {"unet": UNet, "noisy_classifier": Encoder}
# what a network does not take from config.model, and what of config.model is not passed on as it is
FROM_DATA = {"num_classes", "out_channels", "noise_level", "takes_w", "mesh", "parent"}
NOT_FIELDS = {"name", "time", "dtype"}


def network(config: ConfigDict) -> nn.Module:
    """The flax module of config.model. Raises InputError unless config.model has exactly the fields of its network."""
    choice(config.model.name, NETWORKS, "config.model.name")
    model = config.model.to_dict()
    cls, data = NETWORKS[model["name"]], config.data
    known = NOT_FIELDS | cls.__annotations__.keys() - FROM_DATA
    if "out_channels" in cls.__annotations__:
        known = known | {"learned_variance"}
        of_data = {"out_channels": data.channels * (2 if model.get("learned_variance") else 1)}
    else:
        of_data = {}
    if "takes_w" in cls.__annotations__:
        of_data["takes_w"] = takes_w(config)
    elif takes_w(config):
        raise InputError(f"config.model.name={model['name']} takes no w as an input: give it a field takes_w")
    if other := sorted(known ^ model.keys()):
        word, names = "lacks" if set(other) <= known else "has an unknown", ", model.".join(other)
        raise InputError(f"the run's config {word} model.{names}: another version of this code wrote it")
    fields = {name: value for name, value in model.items() if name not in NOT_FIELDS | {"learned_variance"}}
    time, dtype = adm.NOISE_LEVELS[model["time"]](), jnp.dtype(model["dtype"])
    return cls(num_classes=data.num_classes, noise_level=time, dtype=dtype, **of_data, **fields)


def takes_w(config: ConfigDict) -> bool:
    """Whether the network is a student of guidance, which takes w itself and has no unconditional half."""
    return config.teacher.how in taught.STUDENTS


def is_classifier(config: ConfigDict) -> bool:
    """Whether the network is a classifier of z rather than a diffusion model."""
    model = config.get("model")  # what was read may not be whole
    return bool(model) and model.get("name") == "noisy_classifier"


def parameters(config: ConfigDict, key: jax.Array) -> Any:
    """New parameters of config.model's network."""
    data = config.data
    z = jnp.zeros((1, data.image_size, data.image_size, data.channels))
    inputs = (z, jnp.zeros(1)) if is_classifier(config) else (z, jnp.zeros(1), jnp.zeros(1, jnp.int32))
    return network(config).init(key, *inputs)["params"]


def shapes(config: ConfigDict) -> Any:
    """The tree of the parameters' shapes and dtypes; nothing is computed."""
    return jax.eval_shape(lambda: parameters(config, jax.random.key(0)))


def denoiser(config: ConfigDict, params: Any, dtype: str | None = None) -> Denoiser:
    """The network with its parameters. dtype is what its body computes in; None is what it was trained in."""
    net = network(config)
    return Denoiser(params, net.clone(dtype=jnp.dtype(dtype)) if dtype else net, config.objective.predicts)


def noisy_classifier(config: ConfigDict, params: Any) -> NoisyClassifier:
    return NoisyClassifier(params, network(config))


def classifier_config(config: ConfigDict) -> ConfigDict:
    """A diffusion model's config -> that of a classifier of its noisy images: its encoder with attention pooling."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        for name in set(config.model) - Encoder.__annotations__.keys() - NOT_FIELDS:
            del config.model[name]
    config.model.name, config.p_uncond, config.init_from = "noisy_classifier", 0.0, None
    return config


def objective(config: ConfigDict) -> Objective:
    return Objective(**config.objective.to_dict(), logsnr_min=config.logsnr_min, logsnr_max=config.logsnr_max)


def sampler(section: ConfigDict):
    """The sampler that a config.sampler names."""
    cls = samplers.SAMPLERS[section.name]
    return cls(**checks.set_fields(section, cls))


def walk(config: ConfigDict, section=None) -> samplers.Walk:
    """A config's sampler on its grid of log-SNR. section: a config.sampler to use instead of the config's own."""
    section = section or config.sampler
    logsnrs = schedule.grid(section.num_steps, config.logsnr_min, config.logsnr_max, section.grid)
    return samplers.Walk(sampler(section), logsnrs, samplers.THRESHOLDS[section.threshold])


def guidance_fields(section: ConfigDict) -> dict[str, Any]:
    """{name: value} of all that a config.guidance sets: for the rule that it names, around it, and whence eps_u."""
    classes = (rules.RULES[section.name], *rules.WRAPPERS)
    found = {name: value for cls in classes for name, value in checks.set_fields(section, cls).items()}
    plain = {"uncond": "null", "classifier": "eps"}
    return found | {name: section[name] for name, value in plain.items() if section[name] != value}


def rule(section: ConfigDict, w: float | np.ndarray, takes_w: bool = False, classifier: bool = False):
    """The rule that a config.guidance names, at w: a number, or one for each image [B]. takes_w: of a student.

    Where every w is 0 and that is the conditional model by itself, one network pass does, and nothing that acts on the
    guidance is around it. classifier: one guides as well, so that an interval is kept.
    """
    cls = guidance.InOnePass if takes_w else rules.RULES[section.name]
    fields = checks.set_fields(section, cls)
    unguided = guidance.is_zero(w) and getattr(cls, "unguided_at_0", True) and "zero_below" not in fields
    found = guidance.Unguided() if unguided else cls(w=w, **fields)
    for wrapper in rules.WRAPPERS:
        idle = getattr(wrapper, "unguided_at_0", True) and not (classifier and getattr(wrapper, "limits_where", False))
        if (own := checks.set_fields(section, wrapper)) and not (unguided and idle):
            found = wrapper(found, **own)
    return found
