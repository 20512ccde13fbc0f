import io
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import cli

ROOT = Path(__file__).parents[1]
THREAD = "import threading, types\nfrom experiments import cli\ncli.start_logging()\n"
# signs of life that no process of this run has given
WATCHDOG = """
from cfg_jax.training import hosts
client = types.SimpleNamespace(
    key_value_set=lambda *_, **__: None,
    blocking_key_value_get=lambda *_: "here",
    key_value_dir_get=lambda _: [("cfg_jax/beat/7", "0")],
)
hosts.distributed = types.SimpleNamespace(global_state=types.SimpleNamespace(client=client))
hosts.watch(60)
for thread in threading.enumerate():
    if thread.name.endswith("(beat)"):
        thread.join(30)
"""
ORBAX = """
def save():
    raise OSError("the disk is full")
threading.Thread(target=types.FunctionType(save.__code__, {"__name__": "orbax.checkpoint.saving"})).start()
"""


@pytest.mark.parametrize(("script", "said"), [(WATCHDOG, "KeyError: '7'"), (ORBAX, None)], ids=["ours", "orbax's"])
def test_the_failure_of_a_thread_is_printed_where_nothing_else_raises_it(script, said):
    done = subprocess.run([sys.executable, "-c", THREAD + script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" if said is None else "in beat" in done.stderr and done.stderr.endswith(f"{said}\n")


@pytest.mark.parametrize(
    ("terminal", "no_color", "mark"),
    [(False, "", "warning: "), (True, "1", "warning: "), (True, "", "\033[1;33mwarning: \033[0m")],
)
def test_a_warning_stands_out(monkeypatch, terminal, no_color, mark):
    stderr = io.StringIO()
    stderr.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("NO_COLOR", no_color)
    for level, message in (logging.INFO, "5% done"), (logging.WARNING, "loss spike"):
        cli.Lines().handle(logging.makeLogRecord({"levelno": level, "msg": message}))
    time = r"\d\d:\d\d:\d\d "
    assert re.fullmatch(f"{time}5% done\n{time}{re.escape(mark)}loss spike\n", stderr.getvalue())
