"""The state of training at step 0, its optimizer, and the average of its parameters."""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from cfg_jax import pinned
from cfg_jax.models import build
from cfg_jax.store import averages
from cfg_jax.store.checkpoint import TrainState


def optimizer(train: ConfigDict) -> optax.GradientTransformation:
    """Return Adam with linear warm-up by a config.train.

    It clips the gradient's global norm, and is given gradients that are averages over the whole batch.
    """
    warmup = optax.linear_schedule(0, train.learning_rate, train.warmup_steps)
    return optax.chain(optax.clip_by_global_norm(train.grad_clip), optax.adam(warmup, b2=train.beta2))


def create(config: ConfigDict) -> TrainState:
    """Return the state at step 0, a function of config.seed."""
    params = build.parameters(config, pinned.key(config.seed))
    ema = jax.tree.map(jnp.copy, params)
    opt_state = optimizer(config.train).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema, opt_state, averages.start(params, config.train.averages))


def update_ema(ema: dict, params: dict, step: jax.Array, decay: float | jax.Array) -> dict:
    """Return d ema + (1 - d) params, where d = min(decay, (1 + step) / (10 + step)) warms the decay up."""
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)
