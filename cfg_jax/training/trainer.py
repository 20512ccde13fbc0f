"""Algorithm 1, around it a loop that can be stopped anywhere and continued by the same call."""

import logging
import platform
import time
from collections import deque
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview

from cfg_jax import __version__, images
from cfg_jax import config as configs
from cfg_jax.data import cards, pipeline, sources
from cfg_jax.diffusion import samplers, schedule
from cfg_jax.errors import InputError
from cfg_jax.files import only_one, write_atomic, write_json
from cfg_jax.models import unet
from cfg_jax.progress import progress
from cfg_jax.training import mesh as meshes
from cfg_jax.training import records, weights
from cfg_jax.training import state as states
from cfg_jax.training import step as steps
from cfg_jax.training.checkpoint import Checkpoints
from cfg_jax.training.stop import AHEAD, Signals, agreed, stops_after

log = logging.getLogger(__name__)
GRID_COLUMNS = 8


class NonFinite(Exception):
    """The state, or more steps since the last checkpoint than config.train.max_skipped allows."""


def train(config, workdir):
    """Train `config` in `workdir` up to config.train.num_steps, from the newest checkpoint there if there is one.

    SIGTERM, SIGUSR1 and Ctrl-C save and raise KeyboardInterrupt. Everything drawn is a function of (config.seed,
    step), so a run that was stopped ends as one that was not. With several processes, each calls this.
    """
    # Config and data, before anything is written or compiled
    configs.check(config)
    source, config = sources.load(config)
    mesh = mesh_of(config.train)
    with only_one(workdir) if jax.process_index() == 0 else nullcontext():
        signals = Signals()
        for rollbacks in (0, 1):
            try:
                return _train(config, Path(workdir), source, mesh, rollbacks, signals)
            except NonFinite as error:
                if agreed(signals.received):
                    raise KeyboardInterrupt(f"{error}; stopped, the last checkpoint is kept") from error
                if rollbacks:
                    raise InputError(
                        f"{error}, again after a rollback to the last checkpoint, which is kept: lower "
                        "config.train.learning_rate in a new workdir; config.init_from=THIS_RUN keeps what was learnt"
                    ) from error
                log.warning("%s: back to the last checkpoint, once", error)


def mesh_of(train):
    """All devices, checked against the batch and its parts."""
    count, fsdp, batch_size = jax.device_count(), train.fsdp, train.batch_size
    if count % fsdp:
        raise InputError(f"config.train.fsdp={fsdp} does not divide the {count} devices: choose one that does")
    if batch_size % (count * train.accumulate):
        parts = f" times {train.accumulate} config.train.accumulate" if train.accumulate > 1 else ""
        raise InputError(f"config.train.batch_size={batch_size} must be a multiple of the {count} devices{parts}")
    return meshes.data_mesh(jax.devices(), fsdp)


def _train(config, workdir, source, mesh, rollbacks, signals):
    num_steps, batch_size = config.train.num_steps, config.train.batch_size
    first = jax.process_index() == 0  # what all processes know is written by the first

    # State
    checkpoints = Checkpoints(workdir, config.train.keep_checkpoints, config.train.keep_every)
    if first:
        claim(workdir, config, checkpoints.latest)
    if (checkpoints.latest or 0) >= num_steps:
        log.info("%s is done: step %d of %d", workdir, checkpoints.latest, num_steps)
        return checkpoints.close()
    state = initial(config, mesh, checkpoints)
    start = int(state.step)
    log.info("%s from step %d on %d x %s", workdir, start, mesh.size, jax.devices()[0].device_kind)
    log.info("%s parameters, one by one in parameters.txt", f"{parameter_overview.count_parameters(state.params):,}")

    # Records of what is trained, on what
    if first:
        overview = parameter_overview.get_parameter_overview(state.params, include_stats=False)
        write_atomic(workdir / "parameters.txt", overview + "\n")
        cards.save(workdir / "data.json", source.card)
        machine = {"device": f"{mesh.size} x {jax.devices()[0].device_kind}", "processes": jax.process_count()}
        machine |= {"jax": jax.__version__, "python": platform.python_version(), "code": __version__}
        write_json(workdir / "machine.json", machine)
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
    step_fn, flops, seconds = steps.compile_step(config, mesh, state, meshes.put(batches[start], mesh), *constants)
    log.info("compiled in %.1f s, %.3g GFLOP per image", seconds, flops / batch_size / 1e9)
    peak = meshes.peak_flops()
    draw = jax.jit(partial(sample_grid, config=config, mesh=mesh), out_shardings=meshes.replicated(mesh))

    # Loop
    writer = records.Writer(workdir, start) if first else None
    pending, recent, skipped, taken, since = [], deque(maxlen=10), 0, 0, time.perf_counter()
    bar = progress(total=num_steps, initial=start, desc=f"train {workdir.name}", unit="step", disable=not first)
    with writing(writer, checkpoints, bar), signals:
        for step in range(start, num_steps):
            state, metrics = step_fn(state, meshes.put(next(upcoming), mesh), *constants)
            pending.append(metrics)
            if len(pending) >= AHEAD:  # a stop waits for these few steps, not for all that the host could queue
                jax.block_until_ready(pending[-AHEAD])
            bar.update()
            done = step + 1
            stop = done < num_steps and stops_after(done, signals)
            last = done == num_steps or stop
            if done % config.train.log_every == 0 or done % config.train.checkpoint_every == 0 or last:
                values = records.summarise(pending) | {"rollbacks": rollbacks}
                seconds = (time.perf_counter() - since) / len(pending)
                values |= records.rates(seconds, batch_size, flops, peak)
                if writer:
                    writer.write(done, values)
                skipped += agreed(values["skipped"])
                taken += len(pending) - values["skipped"]
                if skipped > config.train.max_skipped:
                    raise NonFinite(
                        f"{skipped} steps before step {done} had a loss, gradient or update that is not finite"
                    )
                records.warn_of_spike(done, values["loss"], recent)
                bar.set_postfix(loss=values["loss"], refresh=False)
                pending, since = [], time.perf_counter()
            sample = done % config.train.sample_every == 0
            save = done % config.train.checkpoint_every == 0 or last
            if (sample or save) and agreed(not steps.all_finite(state)):  # as memory may go bad; no step does this
                raise NonFinite(f"the parameters, their average or moments at step {done} are not finite")
            if sample:
                began = time.perf_counter()
                for which in ("params", "ema"):
                    image = images.grid(images.to_uint8(draw(getattr(state, which))), columns=GRID_COLUMNS)
                    if writer:
                        images.save_png(workdir / "samples" / f"{done:07d}_{which}.png", image)
                        writer.image(done, which, np.asarray(image))
                since += time.perf_counter() - began
            if save:
                checkpoints.save(state)
                if taken:  # else nothing came of it since the last one either
                    skipped = taken = 0
            if stop:
                break
    if stop or agreed(signals.received):  # received during the last step, too: nothing is to follow
        raise KeyboardInterrupt(f"stopped at step {done}, saved")


def initial(config, mesh, checkpoints):
    """The newest checkpoint's state, or that of step 0, on the mesh."""
    create = partial(states.create, config)
    shapes = jax.eval_shape(create)
    if checkpoints.latest is not None:
        return checkpoints.restore(meshes.placed(shapes, mesh))
    places = meshes.shardings(shapes, mesh)
    state = jax.jit(create, out_shardings=places)()
    if config.init_from:
        _, _, params = weights.read(config.init_from)
        fresh = jax.jit(lambda params: params, out_shardings=meshes.replicated(mesh))(state.params)
        params = weights.adopt(*(jax.tree.map(np.asarray, p) for p in (params, fresh)))
        params = jax.device_put(params, places.params)
        state = state.replace(params=params, ema=jax.tree.map(jnp.copy, params))
    return state


def claim(workdir, config, latest):
    """Make workdir this config's, or refuse one that holds another's checkpoints."""
    path = workdir / "config.json"
    if latest is not None and path.exists():
        fields = configs.differences(configs.load(path), config)
        if fields:
            raise InputError(
                f"{workdir} holds a run of another config ({'; '.join(fields)}): choose another workdir or those values"
            )
    records.read(workdir / "metrics.jsonl")  # damaged ones are said to be so before anything compiles
    configs.save(path, config)


def sample_grid(params, *, config, mesh=None):
    """Fixed noise at fixed labels, unguided, so that steps compare: a row for each of the first ten classes."""
    data, sampler = config.data, config.sampler
    c = jnp.repeat(jnp.arange(min(data.num_classes, 10)), GRID_COLUMNS)
    keys, z = samplers.start(config.seed, jnp.arange(len(c)), (data.image_size, data.image_size, data.channels))
    logsnrs = schedule.grid(sampler.num_steps, config.logsnr_min, config.logsnr_max, sampler.grid)
    eps_fn = unet.eps_of(states.network(config), meshes.whole(params, mesh))
    threshold = configs.THRESHOLDS[sampler.threshold]
    return samplers.ancestral(keys, eps_fn, z, c, logsnrs, v=sampler.variance_interp, threshold=threshold)


@contextmanager
def writing(writer, checkpoints, bar):
    """Whatever ends the loop, what was begun is written out."""
    try:
        yield
    finally:
        bar.close()
        if writer:
            writer.close()
        checkpoints.close()
