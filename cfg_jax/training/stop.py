"""When a run stops before its last step: a signal to one process, and one step that all processes stop after."""

import signal

import jax
import numpy as np
from jax.experimental import multihost_utils

from cfg_jax.training import hosts

AHEAD = 3  # steps that the host may be before the devices


class Signals:
    """Whether this process was asked to stop.

    Inside `with signals:` SIGTERM, SIGUSR1 (SLURM's warning) and the first Ctrl-C set `received`, which stays set; a
    second Ctrl-C ends the process. Outside of it they do what they did before.
    """

    def __init__(self) -> None:
        self.received = False
        self._handlers = {}

    def __enter__(self) -> "Signals":
        numbers = signal.SIGINT, signal.SIGUSR1, signal.SIGTERM
        self._handlers = {number: signal.signal(number, self._receive) for number in numbers}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _receive(self, *_) -> None:
        self.received = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def agreed(number: int | bool | jax.Array) -> int:
    """Return the greatest of all processes' numbers, the same in each of them; each must call this.

    They may differ in what should be the same on all of them, since memory may go bad on one.
    """
    return int(number) if jax.process_count() == 1 else int(multihost_utils.process_allgather(np.int32(number)).max())


def stops_after(step: int, signals: Signals) -> bool:
    """Return whether all processes save and stop after this step, since one of them has received a signal.

    All wait for the devices, so none is more than AHEAD steps before another. A process that receives a signal names
    the step 2 AHEAD later, which no other has passed yet.
    """
    if jax.process_count() == 1:
        return signals.received
    last = hosts.stop_step(step + 2 * AHEAD if signals.received else None)
    return last is not None and step >= last
