"""Several processes of one run: they find each other, and when one is lost the others end and name it."""

import itertools
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
from jax._src import distributed, xla_bridge  # its client has no public door; orbax comes in here too

from cfg_jax import __version__
from cfg_jax.errors import InputError

log = logging.getLogger(__name__)
BEAT = 2.0  # seconds between signs of life
TRY_AGAIN = 75  # the exit status EX_TEMPFAIL
A_DAY = 86_400  # seconds
_watching = threading.Event()
_exchanges = itertools.count()  # each has keys of its own at the coordinator


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: int = 300,
    lost_after: int = 60,
) -> None:
    """Make this process one of the processes of a run, or leave it alone where nothing says that there are more.

    SLURM, Open MPI, Kubernetes (with jax[k8s]) and TPU pods say it themselves. Elsewhere give all three arguments:
    process 0 listens on `coordinator`, "host:port", and the others connect to it. This process ends with status 1
    where they have not all met within `timeout` seconds, and later with status TRY_AGAIN when another gives no sign
    of life for `lost_after` seconds. Raises InputError for arguments that are incomplete or wrong.
    """
    given = (coordinator, num_processes, process_id)
    if given != (None, None, None):
        host, _, port = (coordinator or "").rpartition(":")
        there = host and port.isdecimal() and 0 < int(port) < 65536
        if not there or num_processes is None or process_id is None or process_id >= num_processes:
            raise InputError(
                f"--coordinator={coordinator}, --num_processes={num_processes}, --process_id={process_id}: give all "
                "three, host:port of process 0, their number, and this one's from 0"
            )
        if process_id == 0:  # jax would end the process, at times by a signal
            check_port_is_free(int(port), coordinator)
    # alone, jax would take the first of its GPUs only; and where it has begun, as in a notebook, it is too late
    elif os.environ.get("SLURM_NTASKS") == "1" or xla_bridge.backends_are_initialized():
        return
    remedy = "start all, where they reach process 0 at the same --coordinator, or give a longer --init_timeout"
    late = threading.Timer(
        timeout, end, (f"the processes of this run did not all meet within {timeout} s: {remedy}", 1)
    )
    late.daemon = True
    late.start()
    try:
        # jax would end the process too, in its own way: that comes second; SIGTERM is the trainer's
        jax.config.update("jax_enable_preemption_service", False)
        patience = {"initialization_timeout": timeout + 30, "heartbeat_timeout_seconds": lost_after + 30}
        jax.distributed.initialize(*given, **patience)
    except ValueError as error:
        if coordinator is not None:
            raise InputError(f"--coordinator={coordinator}: {error}") from error
        return  # no cluster
    finally:
        late.cancel()
    if jax.process_count() > 1:
        names = watch(lost_after)
        if jax.process_index() == 0:
            log.info("%d processes: %s", len(names), ", ".join(names))


def check_port_is_free(port: int, coordinator: str | None) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            taken = f"port {port} cannot be taken ({error.strerror})"
            raise InputError(f"--coordinator={coordinator}: {taken}: give another") from error


def coordinator_client() -> Any:
    """Return jax's connection to the coordinator, None where this process is alone."""
    return distributed.global_state.client


def end(message: str, status: int) -> NoReturn:
    """End the process from any thread, whatever its other threads wait for."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(status)


def watch(lost_after: float) -> list[str]:
    """Start a thread that gives and looks for signs of life; return the names of all processes, in order.

    The thread ends this process when another has given none for `lost_after` seconds.
    """
    client, own, count = coordinator_client(), jax.process_index(), jax.process_count()
    client.key_value_set(f"cfg_jax/host/{own}", socket.gethostname())
    timeout_ms = 1000 * lost_after
    names = [f"process {i} on {client.blocking_key_value_get(f'cfg_jax/host/{i}', timeout_ms)}" for i in range(count)]

    def beat():
        seen = {str(i): (None, time.monotonic()) for i in range(count)}
        while _watching.is_set():
            try:
                client.key_value_set(f"cfg_jax/beat/{own}", str(time.time()), allow_overwrite=True)
                beats = {key.rsplit("/", 1)[-1]: value for key, value in client.key_value_dir_get("cfg_jax/beat")}
            except jax.errors.JaxRuntimeError:
                return end_without(names[0])
            for i, value in beats.items():
                if value != seen[i][0]:
                    seen[i] = value, time.monotonic()
            for i, (_, when) in seen.items():
                if time.monotonic() - when > lost_after:
                    return end_without(names[int(i)])
            time.sleep(min(BEAT, lost_after / 4))

    def end_without(name):
        if _watching.is_set():
            end(f"{name} is lost: start the same command on all again, it goes on from the last checkpoint", TRY_AGAIN)

    _watching.set()
    threading.Thread(target=beat, daemon=True).start()
    return names


def agree(settings: Mapping[str, Any]) -> None:
    """Check that all processes have the same settings, {field: value}, and the same versions of the code and of jax.

    All call it in the same order, before anything else that they do together. Raises InputError on every process where
    a field differs, which the message names with its value on each.
    """
    client = coordinator_client()
    if client is None:  # this process is alone
        return
    own, number = jax.process_index(), next(_exchanges)
    said = {"code": __version__, "jax": jax.__version__} | {field: str(value) for field, value in settings.items()}
    client.key_value_set(f"cfg_jax/settings/{number}/{own}", json.dumps(said))
    keys = [f"cfg_jax/settings/{number}/{i}" for i in range(jax.process_count())]
    theirs = [json.loads(client.blocking_key_value_get(key, 1000 * A_DAY)) for key in keys]
    client.wait_at_barrier(f"cfg_jax/settings/{number}", 1000 * A_DAY)  # when process 0 ends, jax ends the others
    differences = []
    for field in dict.fromkeys(field for settings in theirs for field in settings):
        values = [settings.get(field, "absent") for settings in theirs]
        others = [f"{value} on process {i}" for i, value in enumerate(values) if value != values[0]]
        differences += [", ".join([f"{field}={values[0]} on process 0", *others])] if others else []
    if differences:
        raise InputError(f"the processes of this run differ: {'; '.join(differences)}: start all by the same command")


def watching() -> bool:
    """Return whether this process is one of several that look for signs of life from each other."""
    return _watching.is_set()


def leave() -> None:
    """Wait until all processes are done, for a day at most, then disconnect from them.

    One may be done long before another; a process that is lost meanwhile still ends the others.
    """
    if watching():
        coordinator_client().wait_at_barrier("cfg_jax/leave", 1000 * A_DAY)
        _watching.clear()
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()
