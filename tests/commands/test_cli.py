import io
import json
import logging
import re
import subprocess
import sys

import pytest

from experiments.helpers import cli
from tests.running import ROOT

THREAD = "import threading, types\nfrom experiments.helpers import cli\ncli.start_logging()\n"
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


# runs commands as a notebook's %run -m does, each twice, and says their statuses and what is another than before
TWICE = """
import io, json, logging, runpy, signal, sys, threading
from contextlib import redirect_stderr

def state():
    loggers = [logging.getLogger(name) for name in (None, "absl", "cfg_jax")]
    told = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    handlers = [signal.getsignal(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")]
    return threading.excepthook, sys.unraisablehook, handlers, told

import cfg_jax.sweep.report, cfg_jax.training.trainer, experiments.helpers.cli
from tests.running import ROOT
before = state()
for name, *args in 2 * json.load(sys.stdin):
    sys.argv, status = [f"experiments/{name}.py", *args], None
    with redirect_stderr(io.StringIO()) as stderr:
        try:
            runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            status = end.code
    left = {"config", "config.seed", "workdir", "sweep"} & {*experiments.helpers.cli.FLAGS}
    print(json.dumps([status, stderr.getvalue(), state() == before and not left]))
"""


def test_a_command_leaves_a_process_that_goes_on_as_it_was(tmp_path):
    train = "train", "--config=configs/digits.py", f"--workdir={tmp_path / 'new'}"
    cases = (
        (("report", f"--sweep={tmp_path}"), "no finished cells"),
        (("train", "--config=configs/none.py"), "no such file"),
        ((*train, "--config.p_uncnd=2"), "did you mean p_uncond"),
        ((*train, "--config.p_uncond=2"), "config.p_uncond=2"),
        ((*train, "--config.seed=-1"), "config.seed=-1"),  # and p_uncond is the file's again
        (("report", "--nosuch=1"), "nosuch"),
        (("report",), "--sweep is required"),
    )
    given = json.dumps([args for args, _ in cases])
    done = subprocess.run([sys.executable, "-c", TWICE], cwd=ROOT, input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for (_, said), (status, stderr, same) in zip(2 * cases, found, strict=True):
        assert status == 1 and same and stderr.count("\n") == 1 and said in stderr, stderr


@pytest.mark.parametrize(
    ("way", "own"),
    [
        (["-m", "command"], True), (["command.py"], True), (["-i", "command.py"], False),
        (["-m", "cProfile", "-o", "/dev/null", "-m", "command"], False), (["-c", "import command"], False),
        (["-c", "import runpy; runpy.run_module('command', run_name='__main__')"], False),
    ],
)  # fmt: skip
def test_who_owns_the_process(tmp_path, way, own):
    script = "import sys\nfrom experiments.helpers import cli\nprint(cli.owns_process(sys._getframe()))\n"
    (tmp_path / "command.py").write_text(script)
    env = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": ""}
    done = subprocess.run(
        [sys.executable, *way], cwd=tmp_path, env=env, input="", capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split()[0] == str(own), done.stderr
