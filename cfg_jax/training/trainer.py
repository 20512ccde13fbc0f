"""Algorithm 1 in a loop that can be stopped anywhere and continued by the same call."""

import logging
import time
from collections import deque
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from cfg_jax import checks, meshes, pinned
from cfg_jax import config as configs
from cfg_jax.data import pipeline, sources
from cfg_jax.errors import InputError, installed
from cfg_jax.files import check_directory, only_one
from cfg_jax.models import build
from cfg_jax.models.denoiser import Denoiser
from cfg_jax.store.checkpoint import Checkpoints
from cfg_jax.training import hosts, records, samples, start, students
from cfg_jax.training import step as steps
from cfg_jax.training.stop import AHEAD, Signals, agreed, stops_after
from cfg_jax.training.writers import Writer

log = logging.getLogger(__name__)


class NonFinite(Exception):
    """The state is not finite, or more than config.train.max_skipped steps were skipped since the last checkpoint."""


@pinned.pinned()
def train(config: ConfigDict, workdir: str | Path, wandb: str | None = None) -> None:
    """Train `config` in `workdir` up to config.train.num_steps, from the newest checkpoint there if there is one.

    A signal that asks to stop, see stop.asking, saves and raises KeyboardInterrupt. Outside the main thread no signal
    is received, and the program's own handlers stay. Everything drawn is a function of (config.seed, step), so a run
    that was stopped ends as one that was not. With several processes, each calls this. `wandb` is a project of Weights
    & Biases to write the records to as well. Raises InputError for what the user can mend, and where steps are not
    finite again after one rollback.
    """
    # Config and data, before anything is written or compiled
    checks.everything(config)
    meshes.check_batch(config, "train")
    if jax.process_index() == 0:
        check_directory(workdir, "run")
    if wandb and jax.process_index() == 0:
        installed("wandb", extra="wandb")
    source, config = sources.load(config)
    hosts.agree({"workdir": workdir} | {f"config.{field}": value for field, value in configs.flat(config).items()})
    teacher, source, config = students.load(config, source)
    mesh = meshes.training_mesh(config.train)
    with only_one(workdir) if jax.process_index() == 0 else nullcontext():
        signals = Signals()
        for rollbacks in (0, 1):
            try:
                return _train(config, Path(workdir), source, teacher, mesh, rollbacks, signals, wandb)
            except NonFinite as error:
                if agreed(signals.received):
                    raise KeyboardInterrupt(f"{error}; stopped, the last checkpoint is kept") from error
                if rollbacks:
                    raise InputError(
                        f"{error}, again after a rollback to the last checkpoint, which is kept: lower "
                        "config.train.learning_rate in a new workdir; config.init_from=THIS_RUN keeps what was learnt"
                    ) from error
                log.warning("%s: back to the last checkpoint, once", error)


def _train(
    config: ConfigDict,
    workdir: Path,
    source: sources.Source,
    teacher: Denoiser | None,
    mesh: Mesh,
    rollbacks: int,
    signals: Signals,
    wandb: str | None,
) -> None:
    """Train once. Raises NonFinite where the run should go back to its last checkpoint."""
    num_steps, batch_size = config.train.num_steps, config.train.batch_size
    first = jax.process_index() == 0  # what all processes know is written by the first

    # State
    checkpoints = Checkpoints(workdir, config.train.keep_checkpoints, config.train.keep_every)
    if first:
        start.claim(workdir, config, checkpoints.latest)
    if (checkpoints.latest or 0) >= num_steps:
        log.info("%s is done: step %d of %d", workdir, checkpoints.latest, num_steps)
        return checkpoints.close()
    state = start.initial_state(config, mesh, checkpoints)
    start.describe(workdir, config, state, source, mesh)
    begin = int(state.step)
    writer = Writer(workdir, begin, config, wandb) if first else None

    # Data
    batches = pipeline.batches(
        source,
        batch_size=batch_size,
        seed=config.seed,
        flip=config.data.flip and config.teacher.how != "pairs",  # a pair belongs to the picture as it was drawn
        process=jax.process_index(),
        num_processes=jax.process_count(),
    )
    upcoming = pipeline.ahead(batches, begin, num_steps)

    # Programs
    def constants_of_run():  # the seed itself drew the parameters
        return jax.random.fold_in(pinned.key(config.seed), 1), jnp.float32(config.p_uncond)

    # on every device once, not sent there at every step
    constants = jax.jit(constants_of_run, out_shardings=meshes.replicated(mesh))()
    constants = *constants, jax.device_put(jax.tree.map(np.asarray, teacher), meshes.replicated(mesh))
    log.info("compiling a step")
    step_fn, flops, seconds = steps.compile_step(config, mesh, state, meshes.put(batches[begin], mesh), *constants)
    log.info("compiled in %.1f s, %.3g GFLOP per image", seconds, flops / batch_size / 1e9)
    peak_flops = meshes.peak_flops()
    draw = jax.jit(partial(samples.sample_grid, config=config, mesh=mesh), out_shardings=meshes.replicated(mesh))

    # Loop
    started = since = time.perf_counter()
    pending = []  # the metrics of the steps since the last record, which began at `since`
    losses = deque(maxlen=10)  # of the last records
    skipped, accepted = 0, 0  # steps since the last checkpoint
    bar = tqdm(  # on a terminal alone, below the lines of the records: it says nothing that they say
        total=num_steps, initial=begin, desc=f"train {workdir.name}", bar_format="{desc} |{bar}| {n_fmt}", leave=False,
        dynamic_ncols=True, disable=None if first else True,
    )  # fmt: skip
    # whatever ends the loop, what was begun is written out, and no signal cuts the last save short
    with signals, closing(checkpoints), closing(writer) if writer else nullcontext(), bar:
        for step in range(begin, num_steps):
            # One step
            state, metrics = step_fn(state, meshes.put(next(upcoming), mesh), *constants)
            pending.append(metrics)
            if len(pending) >= AHEAD:  # a stop waits for these few steps, not for all that the host could queue
                jax.block_until_ready(pending[-AHEAD])
            bar.update()

            # What is due after it
            done = step + 1
            stopping = done < num_steps and stops_after(done, signals)
            save = done % config.train.checkpoint_every == 0 or done == num_steps or stopping
            record = done % config.train.log_every == 0 or save
            sample = done % config.train.sample_every == 0 and not build.is_classifier(config)

            # Record
            if record:
                values = records.summarise(pending) | {"rollbacks": rollbacks}
                seconds = (time.perf_counter() - since) / len(pending)
                values |= records.rates(seconds, batch_size, flops, peak_flops)
                if writer:
                    left = (time.perf_counter() - started) / (done - begin) * (num_steps - done)
                    writer.write(done, values)
                    log.info(records.line(done, num_steps, values, left))
                    records.warn_of_skipped(done, values["skipped"], len(pending))
                    records.warn_of_spike(done, values["loss"], losses)
                skipped += agreed(values["skipped"])
                accepted += len(pending) - values["skipped"]
                if skipped > config.train.max_skipped:
                    raise NonFinite(f"{skipped} steps before step {done} had a loss or gradient that is not finite")
                pending, since = [], time.perf_counter()

            # Check
            if (sample or save) and agreed(not steps.all_finite(state)):  # no step can cause it; faulty memory can
                raise NonFinite(f"the parameters, their average or moments at step {done} are not finite")

            # Sample, and save: first the pictures, which a run killed before the save draws again
            try:
                if sample:
                    began = time.perf_counter()
                    samples.save_grids(workdir, done, state, draw, writer)
                    since += time.perf_counter() - began
            finally:  # a picture that fails costs no step
                if save:
                    checkpoints.save(state)
                    if accepted:  # else nothing came of it since the last one either
                        skipped = accepted = 0
            if stopping:
                break
    if stopping or agreed(signals.received):  # received during the last step, too: nothing is to follow
        raise KeyboardInterrupt(f"stopped at step {done}, saved")
