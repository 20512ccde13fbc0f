"""When a run stops before its last step: a signal to one process, and one step that all processes stop after."""

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from cfg_jax.training import hosts

AHEAD = 3  # steps that the host may be before the devices


def asking() -> list[int]:
    """The signals that ask this process to stop and that it can hear.

    They are Ctrl-C, SIGTERM, SIGHUP (the terminal is gone), and the warnings of batch systems: SIGUSR1 (SLURM, SGE),
    SIGUSR2 (LSF, SGE) and SIGXCPU (no processor time is left). Windows has the first two. What the process was started
    to ignore stays ignored, such as SIGHUP by nohup. Python hears signals in its main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]


def hear(handler: Callable) -> dict[int, Any]:
    """Give all of them to `handler` -> {signal: its handler before}, for put_back."""
    return {number: signal.signal(number, handler) for number in asking()}


def put_back(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Signals:
    """Whether this process was asked to stop.

    Inside `with signals:` each signal of `asking` sets `received`, which stays set. A second Ctrl-C acts as it did
    before, and so do all signals after the block. Outside the main thread no signal is received.
    """

    def __init__(self) -> None:
        self.received = False
        self._handlers = {}

    def __enter__(self) -> "Signals":
        self._handlers = hear(self._receive)
        return self

    def __exit__(self, *_) -> None:
        put_back(self._handlers)

    def _receive(self, *_) -> None:
        self.received = True
        put_back({number: before for number, before in self._handlers.items() if number == signal.SIGINT})


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
    client = hosts.coordinator_client()
    if signals.received:
        with suppress(jax.errors.JaxRuntimeError):  # another process was first
            client.key_value_set("cfg_jax/stop/step", str(step + 2 * AHEAD))
    return any(step >= int(last) for _, last in client.key_value_dir_get("cfg_jax/stop"))
