"""Algorithm 1, around it a loop that can be stopped anywhere and continued by the same call."""

import logging
import signal
import time
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import parameter_overview

from cfg_jax import config as configs
from cfg_jax import images
from cfg_jax.data import cards, pipeline, sources
from cfg_jax.diffusion import guidance, loss, samplers, schedule
from cfg_jax.errors import InputError
from cfg_jax.files import only_one
from cfg_jax.models import unet
from cfg_jax.progress import progress
from cfg_jax.training import mesh as meshes
from cfg_jax.training import state as states
from cfg_jax.training import weights
from cfg_jax.training.checkpoint import Checkpoints
from cfg_jax.training.metrics import TrainMetrics, Writer

log = logging.getLogger(__name__)
GRID_COLUMNS = 8


def train_step(state, batch, key, p_uncond, *, config):
    """One gradient step on {"image": uint8 [B, H, W, C], "label": int32 [B]} -> (state, TrainMetrics). Algorithm 1.

    p_uncond is an argument and not read from the config, so that runs that differ in it share a compiled program.
    """
    net, tx = states.network(config), states.optimizer(config.train)
    drop_key, loss_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
    x = images.to_float(batch["image"])
    c = guidance.drop_labels(drop_key, batch["label"], p_uncond, null=config.data.num_classes)

    def mean_loss(params):
        eps_fn = unet.eps_of(net, params, train=True, rngs={"dropout": dropout_key})
        per_image, logsnr = loss.eps_loss(
            loss_key, eps_fn, x, c, logsnr_min=config.logsnr_min, logsnr_max=config.logsnr_max
        )
        return per_image.mean(), (per_image, logsnr)

    gradient, (per_image, logsnr) = jax.grad(mean_loss, has_aux=True)(state.params)
    updates, opt_state = tx.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = states.update_ema(state.ema, params, state.step, config.train.ema_decay)
    metrics = TrainMetrics.single_from_model_output(loss=per_image, logsnr=logsnr, grad_norm=optax.tree.norm(gradient))
    return states.TrainState(state.step + 1, params, ema, opt_state), metrics


def train(config, workdir):
    """Train `config` in `workdir` up to config.train.num_steps, from the newest checkpoint there if there is one.

    SIGTERM and Ctrl-C save and raise KeyboardInterrupt. Everything drawn is a function of (config.seed, step),
    so a run that was stopped ends as one that was not.
    """
    # Config and data, before anything is written or compiled
    configs.check(config)
    source, config = sources.load(config)
    mesh, batch_size = meshes.data_mesh(), config.train.batch_size
    if batch_size % mesh.size:
        raise InputError(f"config.train.batch_size={batch_size} must be a multiple of the {mesh.size} devices")
    with only_one(workdir) if jax.process_index() == 0 else nullcontext():
        _train(config, Path(workdir), source, mesh)


def _train(config, workdir, source, mesh):
    num_steps, batch_size = config.train.num_steps, config.train.batch_size

    # State
    checkpoints = Checkpoints(workdir, config.train.keep_checkpoints)
    claim(workdir, config, checkpoints.latest)
    if (checkpoints.latest or 0) >= num_steps:
        log.info("%s is done: step %d of %d", workdir, checkpoints.latest, num_steps)
        return checkpoints.close()
    create = jax.jit(partial(states.create, config), out_shardings=meshes.replicated(mesh))
    if checkpoints.latest is None:
        state = create()
        if config.init_from:
            _, _, params = weights.read(config.init_from)
            params = jax.device_put(weights.adopt(params, state.params), meshes.replicated(mesh))
            state = state.replace(params=params, ema=jax.tree.map(jnp.copy, params))
    else:
        shapes = jax.eval_shape(create)
        place = partial(jax.ShapeDtypeStruct, sharding=meshes.replicated(mesh))
        state = checkpoints.restore(jax.tree.map(lambda a: place(a.shape, a.dtype), shapes))
    start = int(state.step)
    log.info("%s from step %d on %d x %s", workdir, start, mesh.size, jax.devices()[0].device_kind)
    log.info("parameters:\n%s", parameter_overview.get_parameter_overview(state.params, include_stats=False))

    # Batches
    cards.save(workdir / "data.json", source.card)
    log.info("%s: %d images, resize %s, card %s", config.data.name, len(source), source.card.resize, source.card.digest)
    log.info("classes: %s", source.card.class_table())
    if not source.card.complete:
        log.warning("%s is a part of the whole set: no score of this run compares with others'", config.data.name)
    batches = pipeline.batches(
        source,
        batch_size=batch_size,
        seed=config.seed,
        flip=config.data.flip,
        process=jax.process_index(),
        num_processes=jax.process_count(),
    )
    upcoming = pipeline.ahead(batches, start, num_steps)

    # Step
    key = jax.random.fold_in(jax.random.key(config.seed), 1)  # the seed itself drew the parameters
    constants = key, jnp.float32(config.p_uncond)
    step_fn, flops, seconds = compile_step(config, state, meshes.put(batches[start], mesh), *constants)
    log.info("compiled in %.1f s, %.3g GFLOP per image", seconds, flops / batch_size / 1e9)
    peak = meshes.peak_flops()
    draw = jax.jit(partial(sample_grid, config=config))

    # Loop
    writer = Writer(workdir, start)
    pending, since = [], time.perf_counter()
    bar = progress(total=num_steps, initial=start, desc=f"train {workdir.name}", unit="step")
    with writing(writer, checkpoints, bar), stop_signals() as stopped:
        for step in range(start, num_steps):
            state, metrics = step_fn(state, meshes.put(next(upcoming), mesh), *constants)
            pending.append(metrics)
            bar.update()
            done = step + 1
            stop = bool(stopped)  # read once: what is saved and what is raised must agree
            last = done == num_steps or stop
            if done % config.train.log_every == 0 or done % config.train.checkpoint_every == 0 or last:
                values = summarise(pending)
                seconds = (time.perf_counter() - since) / len(pending)
                values |= {"images_per_s": batch_size / seconds, "tflops": flops / seconds / 1e12}
                if peak:
                    values["mfu"] = flops / seconds / peak
                writer.write(done, values)
                bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
                pending, since = [], time.perf_counter()
            if done % config.train.sample_every == 0:
                began = time.perf_counter()
                for which in ("params", "ema"):
                    image = images.grid(images.to_uint8(draw(getattr(state, which))), columns=GRID_COLUMNS)
                    images.save_png(workdir / "samples" / f"{done:07d}_{which}.png", image)
                    writer.image(done, which, np.asarray(image))
                since += time.perf_counter() - began
            if done % config.train.checkpoint_every == 0 or last:
                checkpoints.save(state)
            if stop:
                raise KeyboardInterrupt(f"stopped at step {done}, saved")


def compile_step(config, *args):
    """train_step compiled for these arguments -> (callable, FLOP of the whole batch, seconds it took)."""
    began = time.perf_counter()
    lowered = jax.jit(partial(train_step, config=config), donate_argnums=0).lower(*args)
    compiled = lowered.compile()
    return compiled, meshes.flops(lowered), time.perf_counter() - began


def claim(workdir, config, latest):
    """Make workdir this config's, or refuse one that holds another's checkpoints."""
    path = workdir / "config.json"
    if latest is not None and path.exists():
        fields = configs.differences(configs.load(path), config)
        if fields:
            raise InputError(
                f"{workdir} holds a run of another config ({'; '.join(fields)}): choose another workdir or those values"
            )
    configs.save(path, config)


def summarise(pending):
    """The mean of the steps since the last record; a loss that is not finite ends the run before it is saved."""
    merged = pending[0]
    for metrics in jax.device_get(pending[1:]):
        merged = merged.merge(metrics)
    loss, grad_norm = float(merged.loss.compute()), float(merged.grad_norm.compute())
    if not np.isfinite(loss):
        raise InputError(
            "the loss is no longer finite: lower config.train.learning_rate in a new workdir; "
            "config.init_from=THIS_RUN keeps what was learnt up to its last checkpoint"
        )
    return {"loss": loss, "grad_norm": grad_norm, "loss_by_logsnr": merged.loss_by_logsnr.compute()}


def sample_grid(params, *, config):
    """Fixed noise at fixed labels, unguided, so that steps compare: a row for each of the first ten classes."""
    data, sampler = config.data, config.sampler
    c = jnp.repeat(jnp.arange(min(data.num_classes, 10)), GRID_COLUMNS)
    keys, z = samplers.start(config.seed, jnp.arange(len(c)), (data.image_size, data.image_size, data.channels))
    logsnrs = schedule.grid(sampler.num_steps, config.logsnr_min, config.logsnr_max, sampler.grid)
    eps_fn = unet.eps_of(states.network(config), params)
    threshold = configs.THRESHOLDS[sampler.threshold]
    return samplers.ancestral(keys, eps_fn, z, c, logsnrs, v=sampler.variance_interp, threshold=threshold)


@contextmanager
def stop_signals():
    """SIGTERM and the first Ctrl-C fill the list instead of interrupting a step; a second Ctrl-C interrupts."""
    received = []

    def handle(number, _):
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def writing(writer, checkpoints, bar):
    """Whatever ends the loop, what was begun is written out."""
    try:
        yield
    finally:
        bar.close()
        writer.close()
        checkpoints.close()
