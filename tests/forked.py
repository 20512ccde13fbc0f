"""Commands in children of one process that has imported everything: a bad input costs 30 ms and not three seconds."""

import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


class Commands:
    """run(name, *args) as python -m experiments.NAME, in the root of the repository or in cwd; on one XLA device."""

    def __init__(self):
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.forked"], cwd=ROOT, env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(self, name, *args, timeout=300, cwd=ROOT):
        with tempfile.TemporaryDirectory() as said:
            given = {"name": name, "args": [*map(str, args)], "timeout": timeout, "said": said, "cwd": str(cwd)}
            self.server.stdin.write(json.dumps(given) + "\n")
            self.server.stdin.flush()
            status = int(self.server.stdout.readline())
            return Done(status, *(Path(said, stream).read_text() for stream in ("out", "err")))

    def close(self):
        self.server.communicate()


def serve():
    for slow in ("cfg_jax.data.prepare", "cfg_jax.sweep.report", "cfg_jax.training.trainer", "experiments.helpers.cli"):
        importlib.import_module(slow)
    for line in sys.stdin:
        given = json.loads(line)
        child = os.fork()
        if child == 0:
            run(given)
        print(status_of(child, given["timeout"]), flush=True)


def status_of(child, timeout):
    """Of a child that has ended; -9 of one that had to be ended."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, 9)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(given):
    """As the interpreter would, and never come back."""
    for number, (path, mode) in enumerate(
        ((os.devnull, "r"), *((Path(given["said"], s), "w") for s in ("out", "err")))
    ):
        with open(path, mode) as file:
            os.dup2(file.fileno(), number)
    os.chdir(given["cwd"])
    sys.argv = [f"experiments/{given['name'].replace('.', '/')}.py", *given["args"]]
    status = 0
    try:
        runpy.run_module(f"experiments.{given['name']}", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else end.code is not None
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(status))


if __name__ == "__main__":
    serve()
