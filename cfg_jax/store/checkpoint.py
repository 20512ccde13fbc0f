"""Checkpoints by orbax: `params`, `ema` and `opt_state` are items of their own under checkpoints/STEP.

Saving is asynchronous and atomic: a step is there whole or not at all. It holds the sha256 of each of its files.
"""

import logging
import re
import shutil
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import flax.struct
import jax
import optax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from cfg_jax.errors import InputError, first_line
from cfg_jax.files import sha256_of, write_json
from cfg_jax.inputs import check_pointer, read_json
from cfg_jax.store import averages

ITEMS = ("params", "ema", "opt_state", "averages")  # the last where config.train.averages asks for some
MANIFEST = "sha256.json"
log = logging.getLogger(__name__)


@flax.struct.dataclass
class TrainState:
    """What a step of training takes and returns, and what a checkpoint holds."""

    step: jax.Array  # int32 [], steps that were taken
    params: dict
    ema: dict  # the parameters' average
    opt_state: optax.OptState
    averages: dict = flax.struct.field(default_factory=dict)  # {length: power-function average}, of averages.py


class Checkpoints:
    """The checkpoints of one run that is being trained."""

    def __init__(self, workdir: str | Path, keep: int = 2, keep_every: int | None = None) -> None:
        """Set damaged checkpoints aside, the newest first, until one is whole.

        The last `keep` are kept, and those whose step is a multiple of `keep_every`.
        """
        directory = Path(workdir).absolute() / "checkpoints"
        if jax.process_index() == 0:
            set_aside_damaged(directory)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self.manager = manager_of(directory, max_to_keep=keep, keep_period=keep_every or None)

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint, None where there is none."""
        return self.manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Start writing the state. Raises InputError where the save before it failed; close() says so of the last."""
        with self._writing():
            start_saving(self.manager, int(state.step), items_of(state))

    def restore(self, template: TrainState) -> TrainState:
        """Return the newest state, in the shapes, types and shardings of `template`.

        Raises InputError where its files cannot be read.
        """
        args = {name: ocp.args.StandardRestore(tree) for name, tree in items_of(template).items()}
        try:
            restored = self.manager.restore(self.latest, args=ocp.args.Composite(**args))
        except Exception as error:  # as below
            if jax.process_count() > 1 and _of_jax(error):
                raise
            raise _damaged(Path(self.manager.directory), self.latest, reason(error)) from error
        step = jax.device_put(jax.numpy.int32(self.latest), template.step.sharding)
        return TrainState(step=step, **restored)

    def close(self) -> None:
        """Wait for the last save. Raises InputError where it could not be written."""
        try:
            with self._writing():
                self.manager.wait_until_finished()
        finally:
            self.manager.close()

    @contextmanager
    def _writing(self):
        try:
            yield
        except Exception as error:  # as many types as for reading
            if jax.process_count() > 1 and _of_jax(error):
                raise
            kept = "none is kept yet" if self.latest is None else f"step {self.latest} is kept"
            raise InputError(
                f"no checkpoint could be written to {self.manager.directory} ({reason(error)}); {kept}: "
                "make room or mend that, and run the same command"
            ) from error


def manager_of(directory: Path, **options) -> ocp.CheckpointManager:
    """Return orbax's manager for a directory. It puts digests into each checkpoint that it writes."""
    seal = ocp.AsyncOptions(post_finalization_callback=partial(write_digests, directory))
    return ocp.CheckpointManager(directory, options=ocp.CheckpointManagerOptions(async_options=seal, **options))


def start_saving(manager: ocp.CheckpointManager, step: int, items: dict[str, Any]) -> None:
    """Start writing {item: arrays}, with the step and a seal: a sealed checkpoint without digests is damaged."""
    args = ocp.args.Composite(**{name: ocp.args.StandardSave(tree) for name, tree in items.items()})
    manager.save(step, args=args, custom_metadata={"sealed": True, "step": step})


def items_of(state: TrainState) -> dict[str, Any]:
    """Return {item: arrays} for those of ITEMS that a state has."""
    return {name: getattr(state, name) for name in ITEMS if jax.tree.leaves(getattr(state, name))}


def save_weights(workdir: str | Path, params: Any) -> None:
    """Write weights alone as a run directory's checkpoint 0, as params and as ema.

    Sampling and config.init_from read it. Training cannot go on from it, since it has no optimizer.
    """
    with manager_of(Path(workdir).absolute() / "checkpoints") as manager:
        start_saving(manager, 0, {"params": params, "ema": params})


def restore_params(run_dir: str | Path, step: int | None = None, item: str = "ema") -> tuple[int, Any]:
    """Return (step, params) of a run on one local device, whatever devices trained it.

    `item` is params or ema, and nothing else is read. The step is the newest unless one is given. Raises InputError
    where there is no such checkpoint and where it is damaged.
    """
    directory, steps = Path(run_dir).absolute() / "checkpoints", steps_of(run_dir)
    step = steps[-1] if step is None else step
    if step not in steps:
        raise InputError(f"{run_dir} has no checkpoint of step {step}: choose one of {steps}")
    if wrong := damage(directory / str(step), f"{item}/"):
        raise _damaged(directory, step, wrong)
    path, device = directory / str(step) / item, jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    try:
        metadata = ocp.StandardCheckpointHandler().metadata(epath.Path(path)).tree
        template = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), metadata)
        with ocp.StandardCheckpointer() as checkpointer:
            return step, checkpointer.restore(path, template)
    except Exception as error:  # orbax and tensorstore raise many types for a file that is cut short
        raise _damaged(directory, step, reason(error)) from error


def steps_of(run_dir: str | Path) -> list[int]:
    """Return the steps of a run's finished checkpoints. Raises InputError where there is none."""
    directory = Path(run_dir) / "checkpoints"
    if not directory.is_dir():
        raise InputError(
            f"{run_dir} has no checkpoints: train it first, or name a directory that experiments.train wrote"
        )
    if not (steps := _steps(directory)):
        raise InputError(f"{run_dir} has no finished checkpoint: train it for longer")
    return steps


def average(run_dir: str | Path, length: float, step: int | None = None) -> tuple[int, Any]:
    """Return (step, an EMA of `length`) of a run, made from all checkpoints up to the step. See averages.py."""
    steps = steps_of(run_dir)
    step = steps[-1] if step is None else step
    if not (Path(run_dir) / "checkpoints" / str(steps[-1]) / "averages").is_dir():
        raise InputError(f"{run_dir} has no averages to make one of: train it with config.train.averages=(0.05, 0.1)")
    kept = {t: restore_params(run_dir, t, "averages")[1] for t in (step, *(t for t in steps if t < step))}
    return step, averages.combine(kept, step, length)


def write_digests(directory: Path) -> None:
    """Write the sha256 of each file into a checkpoint that is complete and has yet to get its final name."""
    for temporary in directory.glob("*.orbax-checkpoint-tmp"):
        if not (temporary / MANIFEST).exists():
            write_json(temporary / MANIFEST, {name: sha256_of(temporary / name) for name in item_files(temporary)})


def damage(path: Path, item: str = "") -> str | None:
    """Say what is wrong with a checkpoint's files, or with those of one item ("ema/"); None where nothing is.

    Each file must be in the list of digests and have its digest. Checkpoints of older versions may have no list: only
    whether there is anything in them is checked. Raises InputError for pointers of Git LFS: nothing is damaged there.
    """
    if int(path.name) >= 2**31:
        return "no run takes so many steps"
    there = {name for name in item_files(path) if name.startswith(item)}
    if not there:
        return "there is nothing in it"
    for name in there | ({MANIFEST} if (path / MANIFEST).is_file() else set()):
        with open(path / name, "rb") as file:
            check_pointer(path / name, file.read(32))
    seal = _seal(path)
    if (step := seal.get("step", int(path.name))) != int(path.name):
        return f"it was saved as step {step}"
    if not (path / MANIFEST).exists():
        return f"{MANIFEST} is missing" if seal else None
    try:
        listed = read_json(path / MANIFEST, {str: str}, "cannot be read", "it is damaged")
    except InputError:
        return f"{MANIFEST} cannot be read"
    digests = {name: digest for name, digest in listed.items() if name.startswith(item)}
    if missing := sorted(digests.keys() - there):
        return f"{missing[0]} is missing"
    if unlisted := sorted(there - digests.keys()):
        return f"{unlisted[0]} has no digest in {MANIFEST}"
    changed = next((name for name in sorted(there) if sha256_of(path / name) != digests[name]), None)
    return changed and f"{changed} has changed"


def _seal(path):
    """Return the step and the seal of a checkpoint, {} where an older version wrote it, perhaps without digests."""
    try:
        found = read_json(path / "_CHECKPOINT_METADATA", {}, "is damaged", "remove it").get("custom_metadata") or {}
    except InputError:
        found = None
    return found if isinstance(found, dict) else {"sealed": True}


def set_aside_damaged(directory: Path) -> None:
    """Move damaged checkpoints to damaged/, from the newest on back to the first that is whole."""
    while directory.is_dir() and (steps := _steps(directory)) and (wrong := damage(directory / str(steps[-1]))):
        aside = directory.parent / "damaged" / str(steps[-1])
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        (directory / str(steps[-1])).rename(aside)
        then = f"step {steps[-2]} is taken" if len(steps) > 1 else "training starts anew"
        log.warning("checkpoint %d is damaged (%s) and set aside in %s: %s", steps[-1], wrong, aside, then)


def item_files(path: Path) -> list[str]:
    """Return the names of the files of a checkpoint's items. Orbax goes on writing its other files."""
    return sorted(str(file.relative_to(path)) for file in path.glob("*/**/*") if file.is_file())


def latest(run_dir: str | Path) -> int:
    """Return the step of the newest checkpoint of a run, 0 where there is none."""
    directory = Path(run_dir) / "checkpoints"
    return max(_steps(directory), default=0) if directory.is_dir() else 0


def _steps(directory):
    """Return the steps of finished checkpoints. One that is being written has another name."""
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isascii() and path.name.isdecimal())


def _of_jax(error):
    """Return whether jax raised this because another process was lost. Orbax wraps some of these errors."""
    return any(isinstance(e, jax.errors.JaxRuntimeError) for e in (error, error.__cause__, error.__context__))


def _damaged(directory, step, why):
    older = [s for s in _steps(directory) if s < step]
    remedy = f"step {older[-1]} is taken then" if older else "training starts anew then"
    return InputError(f"checkpoint {directory / str(step)} cannot be read ({why}): remove it, {remedy}")


def reason(error: Exception) -> str:
    """Return what the operating system said, or else the error's first sentence."""
    said = re.search(r"([A-Z][\w ]+) \[os_error_code", str(error))
    return said[1] if said else first_line(error).split(". ")[0]
