"""What a step of training carries: parameters, their average, the optimizer, the step."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from cfg_jax.errors import InputError
from cfg_jax.models import adm
from cfg_jax.models.unet import Encoder, UNet

# what the network takes from elsewhere than config.model
FROM_DATA = {"num_classes", "out_channels", "noise_level", "parent", "name"}


@flax.struct.dataclass
class TrainState:
    step: jax.Array
    params: dict
    ema: dict
    opt_state: optax.OptState


def network(config):
    """The U-Net of a config: eps has as many channels as the images."""
    model = config.model.to_dict()
    known = {"time", "dtype", "learned_variance", *UNet.__annotations__} - FROM_DATA
    if other := sorted(known ^ model.keys()):
        word, names = "lacks" if set(other) <= known else "has an unknown", ", model.".join(other)
        raise InputError(f"the run's config {word} model.{names}: another version of this code wrote it")
    return UNet(
        num_classes=config.data.num_classes,
        out_channels=config.data.channels * (2 if model.pop("learned_variance") else 1),
        dtype=jnp.dtype(model.pop("dtype")),
        noise_level=adm.NOISE_LEVELS[model.pop("time")](),
        **model,
    )


def classifier(config):
    """The classifier of a config that has model.pool."""
    model = config.model.to_dict()
    del model["pool"]
    return Encoder(
        num_classes=config.data.num_classes,
        dtype=jnp.dtype(model.pop("dtype")),
        noise_level=adm.NOISE_LEVELS[model.pop("time")](),
        **model,
    )


def optimizer(train):
    """Adam with linear warm-up; the global norm is clipped on gradients already averaged over the batch."""
    warmup = optax.linear_schedule(0, train.learning_rate, train.warmup_steps)
    return optax.chain(optax.clip_by_global_norm(train.grad_clip), optax.adam(warmup))


def create(config):
    """The state at step 0, a function of config.seed."""
    data = config.data
    z = jnp.zeros((1, data.image_size, data.image_size, data.channels))
    params = network(config).init(jax.random.key(config.seed), z, jnp.zeros(1), jnp.zeros(1, jnp.int32))["params"]
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer(config.train).init(params))


def create_classifier(config):
    """New parameters of a classifier, a function of config.seed."""
    data = config.data
    z = jnp.zeros((1, data.image_size, data.image_size, data.channels))
    return classifier(config).init(jax.random.key(config.seed), z, jnp.zeros(1))["params"]


def parameters(config):
    """Shapes of a config's parameters, of a U-Net's or a classifier's."""
    if hasattr(config.model, "pool"):
        return jax.eval_shape(lambda: create_classifier(config))
    return jax.eval_shape(lambda: create(config)).params


def update_ema(ema, params, step, decay):
    """decay ema + (1 - decay) params, with decay warmed up as min(decay, (1 + step) / (10 + step))."""
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)
