"""Commands as a user runs them: in a process of their own, or forked from one that has imported everything.

A forked command saves the three seconds of its imports.
"""

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
RECORDED = ROOT / "tests" / "recorded"  # reference outputs and files of earlier versions
TINY = [
    "--config.model.multipliers=(1,)", "--config.model.attention_resolutions=()", "--config.train.num_steps=6",
    "--config.train.batch_size=8", "--config.train.checkpoint_every=3", "--config.train.log_every=3",
    "--config.sampler.num_steps=3", "--config.eval.num_images=40", "--config.eval.batch_size=40",
    "--config.eval.bootstrap=5", "--config.eval.splits=2",
]  # fmt: skip


def line(name, *args):
    """The command line of an experiment."""
    return [sys.executable, "-m", f"experiments.{name}", *map(str, args)]


def run(name, *args):
    """Run an experiment in a process of its own."""
    return subprocess.run(line(name, *args), cwd=ROOT, capture_output=True, text=True)


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


class Commands:
    """run(name, *args) as python -m experiments.NAME, in the root of the repository or in cwd; on one XLA device."""

    def __init__(self):
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.running"], cwd=ROOT, env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"}, text=True,
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
            become(given)
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


def become(given):
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
