"""One step of Algorithm 1: a pure function from a state and a batch to the next state and its metrics."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cfg_jax import meshes
from cfg_jax.diffusion import guidance
from cfg_jax.models import build
from cfg_jax.models.denoiser import Denoiser
from cfg_jax.store import averages
from cfg_jax.store.checkpoint import TrainState
from cfg_jax.training import state as states
from cfg_jax.training import targets
from cfg_jax.training.metrics import ClassifierMetrics, TrainMetrics

INNER_WEIGHT = 0.5  # of the inner head's loss, as published. arXiv 2512.24176


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    key: jax.Array,
    p_uncond: jax.Array,
    teacher: Denoiser | None = None,
    *,
    config: ConfigDict,
    mesh: Mesh | None = None,
) -> tuple[TrainState, TrainMetrics]:
    """Take one gradient step on {"image": uint8 [B, H, W, C], "label": int32 [B]}. Algorithm 1.

    A classifier's step differs in the loss alone, which is the cross-entropy of z's class. A student's differs in what
    its network is held to, which targets.py has. teacher: the network that config.teacher names.

    p_uncond is an argument and not read from the config, so that runs that differ in it share a compiled program.
    A step whose loss or gradient is not finite counts in the metrics and changes nothing but the step.
    """
    objective, tx = build.objective(config), states.optimizer(config.train)
    classifies = build.is_classifier(config)
    drop_key, loss_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
    whole = meshes.whole(state.params, mesh)
    c = batch["label"]
    if config.teacher.how != "pairs":  # those have null labels of their own
        c = guidance.drop_labels(drop_key, c, p_uncond, null=config.data.num_classes)
    examples = targets.drawn(config, batch["image"], c, loss_key)

    def mean_loss(params, dropout_key, *examples):
        of = targets.Examples(*examples)
        if classifies:
            log_probs = build.noisy_classifier(config, params).on(mesh).log_probs(of.z, of.logsnr)
            loss = optax.softmax_cross_entropy_with_integer_labels(log_probs, of.c)
            return loss.mean(), {"loss": loss, "right": (log_probs.argmax(1) == of.c).astype(loss.dtype)}
        if config.train.inner_head_alone:
            params = jax.tree.map_with_path(stopped_but_inner, params)
        model = build.denoiser(config, params).on(mesh)
        predicted = model.heads(of.z, of.logsnr, of.c, of.w, train=True, rngs={"dropout": dropout_key})
        target = jax.lax.stop_gradient(targets.target(config, model, teacher, of))
        loss, *of_inner = (objective.distance(out, of.z, of.logsnr, target) for out in predicted)
        return loss.mean() + INNER_WEIGHT * sum(inner.mean() for inner in of_inner), {"loss": loss}

    gradient, per_image = mean_gradient(mean_loss, whole, dropout_key, examples, config.train.accumulate)
    grad_norm = optax.tree.norm(gradient)
    updates, opt_state = tx.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = states.update_ema(state.ema, params, state.step, config.train.ema_decay)
    # Adam's update of a finite gradient is finite: to look at it as well would be one more pass over the state
    finite = jnp.isfinite(per_image["loss"].mean() + grad_norm)
    new = TrainState(state.step, params, ema, opt_state, averages.update(state.averages, params, state.step))
    new = jax.tree.map(partial(jnp.where, finite), new, state)
    measured = ClassifierMetrics if classifies else TrainMetrics
    metrics = measured.of_step(finite, **per_image, logsnr=examples.logsnr, grad_norm=grad_norm)
    return new.replace(step=state.step + 1), metrics


def stopped_but_inner(path: tuple, param: jax.Array) -> jax.Array:
    """Return a parameter that gets a gradient where it is the inner head's, and none elsewhere."""
    return param if path[0].key.startswith("inner_") else jax.lax.stop_gradient(param)


def mean_gradient(
    mean_loss: Callable, params: Any, dropout_key: jax.Array, of_images: tuple[jax.Array, ...], num_chunks: int
) -> tuple[Any, dict[str, jax.Array]]:
    """Return the gradient of mean_loss over the batch, shaped as params, and what is measured of each image, [B].

    mean_loss(params, key, *chunk) returns the mean over a chunk and what is measured of each of its images. The chunks
    follow one another, so that the activations of one are held at a time. Chunk i has every num_chunks-th image, so
    that each device works on its own. Without dropout the chunks change the order of a sum and nothing else.
    """

    def add(total, given):
        key, chunk = given
        gradient, per_image = jax.grad(mean_loss, has_aux=True)(params, key, *chunk)
        return jax.tree.map(jnp.add, total, gradient), per_image

    if num_chunks == 1:  # XLA's CPU takes 18 times as long for digits' step in a loop of one
        return jax.grad(mean_loss, has_aux=True)(params, dropout_key, *of_images)
    chunks = jax.tree.map(lambda a: a.reshape(-1, num_chunks, *a.shape[1:]).swapaxes(0, 1), of_images)
    zero = jax.tree.map(jnp.zeros_like, params)
    total, per_image = jax.lax.scan(add, zero, (jax.random.split(dropout_key, num_chunks), chunks))
    per_image = jax.tree.map(lambda a: a.swapaxes(0, 1).ravel(), per_image)
    return jax.tree.map(lambda g: g / num_chunks, total), per_image


def compile_step(
    config: ConfigDict, mesh: Mesh, state: TrainState, *args: Any
) -> tuple[Callable[..., tuple[TrainState, TrainMetrics]], float, float]:
    """Compile train_step for a state, batch, key and p_uncond of these shapes and shardings.

    Returns the program, the FLOP of the whole batch and the seconds that compiling took. The program donates its
    state: the one it was given cannot be used again.
    """
    began = time.perf_counter()
    lowered = trace(config, mesh, state, *args).lower()
    compiled = lowered.compile()
    # XLA counts the body of a loop once
    return compiled, meshes.flops(lowered) * config.train.accumulate, time.perf_counter() - began


def trace(config: ConfigDict, mesh: Mesh, state: TrainState, *args: Any) -> jax.stages.Traced:
    """Trace train_step for arguments of these shapes and shardings: arrays, or shapes alone."""
    out = jax.tree.map(lambda a: a.sharding, state), meshes.replicated(mesh)
    return jax.jit(partial(train_step, config=config, mesh=mesh), donate_argnums=0, out_shardings=out).trace(
        state, *args
    )


@jax.jit
def all_finite(state: TrainState) -> jax.Array:
    """Return whether every number of the state is finite, a bool []."""
    return jnp.stack([jnp.isfinite(a).all() for a in jax.tree.leaves(state)]).all()
