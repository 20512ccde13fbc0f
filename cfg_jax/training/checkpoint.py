"""Checkpoints by orbax: `params`, `ema` and `opt_state` are items of their own under checkpoints/STEP.

Saving is asynchronous and atomic: a step is there whole or not at all.
"""

import re
from contextlib import contextmanager
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from cfg_jax.errors import InputError
from cfg_jax.training.state import TrainState

ITEMS = ("params", "ema", "opt_state")


class Checkpoints:
    """The checkpoints of one run that is being trained."""

    def __init__(self, workdir, keep=2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self.manager = ocp.CheckpointManager(Path(workdir).absolute() / "checkpoints", options=options)

    @property
    def latest(self):
        return self.manager.latest_step()

    def save(self, state):
        """Start writing; an error of the save before surfaces here or in close()."""
        items = {name: ocp.args.StandardSave(getattr(state, name)) for name in ITEMS}
        with self._writing():
            self.manager.save(int(state.step), args=ocp.args.Composite(**items))

    def restore(self, template):
        """The newest state, in the shapes, types and shardings of `template`."""
        items = {name: getattr(template, name) for name in ITEMS}
        restored = _restore(self.manager, self.latest, items)
        step = jax.device_put(jax.numpy.int32(self.latest), template.step.sharding)
        return TrainState(step=step, **restored)

    def close(self):
        """Wait for the last save, and raise its error if it had one."""
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
            kept = "none is kept yet" if self.latest is None else f"step {self.latest} is kept"
            raise InputError(
                f"no checkpoint could be written to {self.manager.directory} ({reason(error)}); {kept}: "
                "make room or mend that, and run the same command"
            ) from error


def save_weights(workdir, params):
    """A run directory's checkpoint 0 from weights alone: for sampling and config.init_from, not to be resumed."""
    items = {name: ocp.args.StandardSave(params) for name in ("params", "ema")}
    with ocp.CheckpointManager(Path(workdir).absolute() / "checkpoints") as manager:
        manager.save(0, args=ocp.args.Composite(**items))


def restore_params(run_dir, step=None, item="ema"):
    """(step, `params` or `ema`) of a run on one local device, whatever it was trained on; reads nothing else."""
    directory = Path(run_dir).absolute() / "checkpoints"
    if not directory.is_dir():
        raise InputError(
            f"{run_dir} has no checkpoints: train it first, or name a directory that experiments.train wrote"
        )
    options = ocp.CheckpointManagerOptions(read_only=True)
    manager = ocp.CheckpointManager(directory, options=options, item_handlers={item: ocp.StandardCheckpointHandler()})
    steps = sorted(manager.all_steps())
    if not steps:
        raise InputError(f"{run_dir} has no finished checkpoint: train it for longer")
    step = steps[-1] if step is None else step
    if step not in steps:
        raise InputError(f"{run_dir} has no checkpoint of step {step}: choose one of {steps}")
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    try:
        metadata = manager.item_metadata(step)[item]
        template = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), metadata)
    except Exception as error:
        raise _damaged(manager, step, error) from error
    return step, _restore(manager, step, {item: template})[item]


def _restore(manager, step, items):
    try:
        args = ocp.args.Composite(**{name: ocp.args.StandardRestore(item) for name, item in items.items()})
        return manager.restore(step, args=args)
    except Exception as error:  # orbax and tensorstore raise many types for a file that is cut short
        raise _damaged(manager, step, error) from error


def _damaged(manager, step, error):
    older = [s for s in sorted(manager.all_steps()) if s < step]
    remedy = f"step {older[-1]} is taken then" if older else "training starts anew then"
    return InputError(
        f"checkpoint {manager.directory / str(step)} cannot be read ({reason(error)}): remove it, {remedy}"
    )


def reason(error):
    """What the operating system said, or the error's first sentence."""
    said = re.search(r"([A-Z][\w ]+) \[os_error_code", str(error))
    return said[1] if said else (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
