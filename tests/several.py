"""Commands as processes of their own: one, several of one run, and some that are ended from outside."""

import os
import signal
import socket
import subprocess
import sys
import time

from tests.running import ROOT, TINY

# the last of two equal flags counts
TINY = [*TINY, "--config.train.sample_every=6", "--config.eval.bootstrap=0", "--config.eval.w=(1.0,)"]


def start(name, *args, devices=1, env=None, within=()):
    command = [*within, sys.executable, "-m", f"experiments.{name}", *map(str, args)]
    env = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)} | (env or {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=env, **pipes)


def start_several(count, name, *args, devices=1, lost_after=8):
    """`count` processes of one run on this machine; a single one is alone."""
    port = free_port()
    at = (
        f"--coordinator=127.0.0.1:{port}",
        f"--num_processes={count}",
        "--init_timeout=60",
        f"--lost_after={lost_after}",
    )
    given = [(*at, f"--process_id={i}") for i in range(count)] if count > 1 else [()]
    return [start(name, *args, *flags, devices=devices) for flags in given]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def ends(processes, timeout=180):
    """[(status, stdout, stderr)] of all; one that is not done in time is killed, and that is an error."""
    try:
        return [(p.returncode, *said) for p in processes for said in [p.communicate(timeout=timeout)]]
    finally:
        for p in processes:
            p.kill()


def all_well(processes, timeout=180):
    done = ends(processes, timeout)
    assert [status for status, _, _ in done] == [0] * len(done), done
    return done


def wait_for(condition, process, timeout=120):
    """Until condition() is true; False where the process ended before."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.002)
    return True


def kill(process, number=signal.SIGKILL):
    process.send_signal(number)
    process.communicate(timeout=60)
    return process.returncode
