"""From a config to values, all of it here: network, objective, sampler on its grid, rule of guidance."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cfg_jax import config as configs
from cfg_jax.diffusion import guidance, particles, rules, samplers, schedule
from cfg_jax.diffusion.loss import Objective
from cfg_jax.errors import choice
from cfg_jax.models.attention import PERTURBATIONS
from cfg_jax.models.denoiser import Denoiser, NoisyClassifier
from cfg_jax.models.jit import JiT
from cfg_jax.models.unet import Encoder, UNet

# config.guidance.uncond -> where eps_u comes from, as Guidance.second takes it; None is the null label
SOURCES = {
    "null": None, "other_label": guidance.OtherLabel(), "inner_head": guidance.InnerHead(),
    **{kind: guidance.Perturbed(kind) for kind in PERTURBATIONS},
}  # fmt: skip
NETWORKS = {"unet": UNet, "jit": JiT, "noisy_classifier": Encoder}


def network(config: ConfigDict) -> nn.Module:
    """Return the flax module of config.model. Raises InputError unless config.model has the fields of its network."""
    return network_class(config).from_config(config)


def network_class(config: ConfigDict) -> Any:
    choice(config.model.name, NETWORKS, "config.model.name")
    return NETWORKS[config.model.name]


def check(config: ConfigDict) -> None:
    """Raise InputError for a config.model that its network cannot have: its fields, then what its `check` says."""
    cls = network_class(config)
    cls.from_config(config)
    getattr(cls, "check", lambda config: None)(config)


def is_classifier(config: ConfigDict) -> bool:
    """Whether the network is a classifier of z rather than a diffusion model."""
    return config.model.name == "noisy_classifier"


def parameters(config: ConfigDict, key: jax.Array) -> Any:
    """New parameters of config.model's network."""
    z = jnp.zeros((1, *configs.image_shape(config.data)))
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


def objective(config: ConfigDict) -> Objective:
    return Objective(**config.objective.to_dict(), logsnr_min=config.logsnr_min, logsnr_max=config.logsnr_max)


def sampler(section: ConfigDict):
    """The sampler that a config.sampler names."""
    cls = samplers.SAMPLERS[section.name]
    return cls(**configs.set_fields(section, cls))


def walk(config: ConfigDict, section=None, value: Any = None) -> samplers.Walk:
    """Return a config's sampler on its grid of log-SNR.

    section: a config.sampler to use instead of the config's own. value: a sampler to use instead of the named one.
    """
    section = section or config.sampler
    logsnrs = schedule.grid(section.num_steps, config.logsnr_min, config.logsnr_max, section.grid)
    value = sampler(section) if value is None else value
    return particles.walk(value, logsnrs, samplers.THRESHOLDS[section.threshold])


def guidance_fields(section: ConfigDict) -> dict[str, Any]:
    """Return {field: value} of what a config.guidance sets for its rule, its wrappers and its source of eps_u."""
    classes = (rules.RULES[section.name], *rules.WRAPPERS)
    found = {name: value for cls in classes for name, value in configs.set_fields(section, cls).items()}
    plain = {"uncond": "null", "classifier": "eps"}
    return found | {name: section[name] for name, value in plain.items() if section[name] != value}


def rule(section: ConfigDict, w: float | np.ndarray, student: bool = False, classifier: bool = False):
    """The rule that a config.guidance names, at w: a number, or one for each image [B].

    If every w is 0 and the rule is the conditional model then, return the rule of one pass, without the wrappers that
    change only guidance. classifier: whether a classifier guides too, so that an interval is kept.
    """
    cls = guidance.InOnePass if student else rules.RULES[section.name]
    fields = configs.set_fields(section, cls)
    unguided = guidance.is_zero(w) and getattr(cls, "unguided_at_0", True) and "zero_below" not in fields
    found = guidance.Unguided() if unguided else cls(w=w, **fields)
    for wrapper in rules.WRAPPERS:
        idle = getattr(wrapper, "unguided_at_0", True) and not (classifier and getattr(wrapper, "limits_where", False))
        if (own := configs.set_fields(section, wrapper)) and not (unguided and idle):
            found = wrapper(found, **own)
    return found
