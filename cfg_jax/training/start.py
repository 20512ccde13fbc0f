"""What comes before the first step: a directory that is the run's own, files that say what is trained, a state."""

import logging
import platform
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cfg_jax import __version__, meshes, pinned
from cfg_jax import config as configs
from cfg_jax.data import cards
from cfg_jax.data.sources import Source
from cfg_jax.diffusion.distill import fixed_point
from cfg_jax.errors import InputError
from cfg_jax.files import write_json
from cfg_jax.models import build
from cfg_jax.store import averages, weights
from cfg_jax.store.checkpoint import Checkpoints, TrainState
from cfg_jax.training import records
from cfg_jax.training import state as states

log = logging.getLogger(__name__)


def claim(workdir: Path, config: ConfigDict, latest: int | None) -> None:
    """Save the config in workdir, where the newest checkpoint is of step `latest`, None for no checkpoint.

    Raises InputError for checkpoints of another config and for damaged records.
    """
    path = workdir / "config.json"
    if latest is not None and path.exists():
        fields = configs.differences(configs.load(path), config)
        if config.teacher.how:  # which may have moved; its digest says that it is the same
            fields = [field for field in fields if not field.startswith("init_from")]
        if fields:
            raise InputError(
                f"{workdir} holds a run of another config ({'; '.join(fields)}): choose another workdir or those values"
            )
    records.read(workdir / "metrics.jsonl")  # before anything compiles
    configs.save(path, config)


def initial_state(config: ConfigDict, mesh: Mesh, checkpoints: Checkpoints) -> TrainState:
    """Return the state of the newest checkpoint, or that of step 0, on the mesh.

    Raises InputError for a checkpoint that cannot be read and for weights of another network in config.init_from.
    """
    create = partial(states.create, config)
    shapes = jax.eval_shape(create)
    if checkpoints.latest is not None:
        return checkpoints.restore(meshes.placed(shapes, mesh))
    places = meshes.shardings(shapes, mesh)
    state = jax.jit(create, out_shardings=places)()
    if config.init_from:
        _, _, params = weights.read(config.init_from, classifier=build.is_classifier(config))
        fresh = jax.jit(lambda params: params, out_shardings=meshes.replicated(mesh))(state.params)
        params = weights.fit_to(*(jax.tree.map(np.asarray, p) for p in (params, fresh)))
        params = jax.device_put(params, places.params)
        ema, started = jax.tree.map(jnp.copy, params), averages.start(params, config.train.averages)
        state = state.replace(params=params, ema=ema, averages=started)
    return state


def describe(workdir: Path, config: ConfigDict, state: TrainState, source: Source, mesh: Mesh) -> None:
    """Log what is trained, on what data and devices; the first process writes it to files in workdir.

    These are data.json and machine.json.
    """
    device = f"{mesh.size} x {jax.devices()[0].device_kind}"
    log.info("%s from step %d on %s", workdir, int(state.step), device)
    log.info("%s parameters", f"{parameter_overview.count_parameters(state.params):,}")
    if omega := config.objective.omega:
        log.info("model guidance, omega = %g: w = 0 of it ends at the guidance of w = %g", omega, fixed_point(omega))
    if config.teacher.how == "itself":
        log.info("model guidance: the network takes w from %g to %g", config.teacher.w_low, config.teacher.w_high)
    if jax.process_index() == 0:
        cards.save(workdir / "data.json", source.card)
        machine = {"device": device, "processes": jax.process_count()}
        machine |= {"jax": jax.__version__, "python": platform.python_version(), "code": __version__}
        machine |= pinned.RECORD
        write_json(workdir / "machine.json", machine)
    if config.teacher.how == "pairs":
        log.info("taught by %d pairs of %s", len(source), config.teacher.run)
    log.info("%s: %d images, resize %s, card %s", config.data.name, len(source), source.card.resize, source.card.digest)
    log.info("classes: %s", source.card.class_table())
    if not source.card.complete:
        log.warning("%s is a part of the whole set: no score of this run compares with others'", config.data.name)
