"""Commands one after another within so many minutes, in a directory: what is done there is not done again.

DIR/queue.json says of every command what became of it, DIR/logs/NAME.txt what it printed.
"""

import ctypes
import os
import runpy
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from cfg_jax.files import read_json, write_json

GRACE = 20  # seconds that a command has to save what it did
START = 15  # seconds left under which none is begun
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PARENT = "CFG_JAX_QUEUE"  # the queue's process, to its commands


class Queue:
    def __init__(self, directory: str | Path, minutes: float, call_minutes: float | None, lock: IO[str] | None) -> None:
        """`minutes` are of all calls in `directory` together, `call_minutes` of this one.

        lock: the file of files.only_one, which a command that runs here holds too, so that one whose queue was killed
        is waited for; None only prints what would be run.
        """
        self.directory, self.seconds, self.lock = Path(directory), 60 * minutes, lock
        self.began, self.call_seconds = time.monotonic(), 60 * (call_minutes or minutes)
        self.path = self.directory / "queue.json"
        self.state = read_json(self.path) if self.path.exists() else {"used_s": 0.0, "tasks": {}}
        self.used_before = self.state["used_s"]
        self.begins, self.ends = 0.0, 0.0  # of the stage, by the seconds used; a plan takes both as they are

    @property
    def used(self) -> float:
        """Seconds of all calls."""
        return self.used_before + time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds that a command of this stage may still take, with the time to save taken off."""
        used = self.used if self.lock else max(self.used, self.begins)
        return min(self.ends, self.seconds) - used - GRACE

    def stage(self, title: str, ends: float) -> None:
        """Begin a stage that has until `ends`, in minutes of all calls."""
        self.begins, self.ends = self.ends, 60 * ends
        print(f"\n{title}, until minute {ends:g}; {self.used / 60:.1f} are used", flush=True)

    def status(self, name: str) -> str:
        return self.state["tasks"].get(name, {}).get("status", "")

    def run(self, name: str, module: str, *args: str, fine: tuple[int, ...] = (0,), stopped: int = 130) -> bool:
        """Run python -m MODULE ARGS unless it is done -> whether it is done now.

        `fine` are the statuses that it may end with, `stopped` is how it ends after a SIGTERM. A command that stopped
        or failed is begun again by the next call.
        """
        if self.status(name) == "done":
            print(f"  {name:24} done", flush=True)
            return True
        command = ["python", "-m", module, *map(str, args)]
        if not self.lock:
            print(f"  {name:24} {self.status(name) or 'to do'}: {shlex.join(command)}")
            return True
        if self._now_left() < START:
            print(f"  {name:24} no time left for it", flush=True)
            return False
        print(f"  {name:24} {shlex.join(command)}", flush=True)
        began, earlier = time.monotonic(), self.state["tasks"].get(name, {}).get("seconds", 0.0)
        record = {"status": "begun", "command": shlex.join(command), "seconds": earlier}
        self.state["tasks"][name] = record
        log = self.directory / "logs" / f"{name}.txt"
        log.parent.mkdir(exist_ok=True)
        with open(log, "w") as said:
            child = subprocess.Popen(
                [sys.executable, "-m", __name__, *command[2:]], stdout=said, stderr=subprocess.STDOUT,
                pass_fds=[self.lock.fileno()],
                env={"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"} | os.environ | {PARENT: str(os.getpid())},
            )  # fmt: skip
            ended = self._wait(child, record, began, earlier)
        status = child.returncode
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        if not ended or status == stopped:
            record["status"] = "stopped"
        else:
            record["status"] = "done" if status in fine else "failed"
            record["said"] = lines[-1] if lines else f"status {status}"
        self._save(record, began, earlier)
        if record["status"] != "done":
            print(f"  {name:24} {record['status']}: {lines[-1] if lines else ''}", flush=True)
        return record["status"] == "done"

    def _now_left(self):
        """Seconds that a command may take in this stage and in this call."""
        return min(self.left, self.call_seconds - (time.monotonic() - self.began) - GRACE)

    def _wait(self, child, record, began, earlier):
        """Until it ends by itself: True. Else it is told to stop when its time is over: False."""
        try:
            while self._now_left() > 0:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=1)
                    return True
                self._save(record, began, earlier)  # a kill loses a second
            return False
        finally:
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(timeout=GRACE - 5)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    def _save(self, record, began, earlier):
        record["seconds"] = round(earlier + time.monotonic() - began, 1)
        self.state["used_s"] = round(self.used, 1)
        write_json(self.path, self.state)


if __name__ == "__main__":
    # a command, which is asked to stop when the queue is killed rather than to hold the accelerator
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if str(os.getppid()) != os.environ[PARENT]:  # it was killed before that
        sys.exit(130)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
