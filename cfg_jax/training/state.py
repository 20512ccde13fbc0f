"""What a step of training carries: parameters, their average, the optimizer, the step."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from cfg_jax.models import build


@flax.struct.dataclass
class TrainState:
    step: jax.Array
    params: dict
    ema: dict
    opt_state: optax.OptState


def optimizer(train):
    """Adam with linear warm-up; the global norm is clipped on gradients already averaged over the batch."""
    warmup = optax.linear_schedule(0, train.learning_rate, train.warmup_steps)
    return optax.chain(optax.clip_by_global_norm(train.grad_clip), optax.adam(warmup))


def create(config):
    """The state at step 0, a function of config.seed."""
    params = build.parameters(config, jax.random.key(config.seed))
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer(config.train).init(params))


def update_ema(ema, params, step, decay):
    """decay ema + (1 - decay) params, with decay warmed up as min(decay, (1 + step) / (10 + step))."""
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)
