"""Several processes of one run: they find each other, and when one is lost the rest end and name it."""

import logging
import os
import socket
import sys
import threading
import time
from contextlib import suppress

import jax
from jax._src import distributed  # its client has no public door; orbax comes in here too

from cfg_jax.errors import InputError

log = logging.getLogger(__name__)
BEAT = 2.0  # seconds between signs of life
TRY_AGAIN = 75  # EX_TEMPFAIL
A_DAY = 86_400
_watching = threading.Event()


def join(coordinator=None, num_processes=None, process_id=None, *, timeout=300, lost_after=60):
    """Make this process one of several: those of SLURM, Open MPI, Kubernetes (with jax[k8s]) and TPU pods by itself.

    Elsewhere by the address "host:port" of process 0, which the others connect to within `timeout` seconds; without
    any of these the process is alone. One that gives no sign of life for `lost_after` seconds ends the others.
    """
    given = (coordinator, num_processes, process_id)
    if given != (None, None, None):
        host, _, port = (coordinator or "").rpartition(":")
        if not (host and port.isdigit()) or num_processes is None or process_id is None or process_id >= num_processes:
            raise InputError(
                f"--coordinator={coordinator}, --num_processes={num_processes}, --process_id={process_id}: give all "
                "three, host:port of process 0, their number, and this one's from 0"
            )
    elif os.environ.get("SLURM_NTASKS") == "1":  # jax would take the first of its GPUs only
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


def end(message, status):
    """From any thread, whatever the others wait for."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(status)


def watch(lost_after):
    """Give and look for signs of life from now on -> the processes' names; ends this process when one is lost."""
    client, own, count = distributed.global_state.client, jax.process_index(), jax.process_count()
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
                return leave(names[0])
            for i, value in beats.items():
                if value != seen[i][0]:
                    seen[i] = value, time.monotonic()
            for i, (_, when) in seen.items():
                if time.monotonic() - when > lost_after:
                    return leave(names[int(i)])
            time.sleep(min(BEAT, lost_after / 4))

    def leave(name):
        if _watching.is_set():
            end(f"{name} is lost: start the same command on all again, it goes on from the last checkpoint", TRY_AGAIN)

    _watching.set()
    threading.Thread(target=beat, daemon=True).start()
    return names


def stop_step(wanted=None):
    """The step that the first process told to stop has named, or None. `wanted` names it, where none is."""
    client = distributed.global_state.client
    if wanted is not None:
        with suppress(jax.errors.JaxRuntimeError):  # another was told first
            client.key_value_set("cfg_jax/stop/step", str(wanted))
    return next((int(step) for _, step in client.key_value_dir_get("cfg_jax/stop")), None)


def watching():
    return _watching.is_set()


def part():
    """Leave when all are done, which one may be long before another; who is lost meanwhile is still said."""
    if watching():
        distributed.global_state.client.wait_at_barrier("cfg_jax/part", 1000 * A_DAY)
        _watching.clear()
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()
