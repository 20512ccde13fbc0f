import io
import logging
import re
import runpy
import signal
import subprocess
import sys
import threading
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


@pytest.fixture
def here(monkeypatch):
    """here(name, *args) -> status of a command that is run in this process, as a notebook's %run -m does."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", ".pytest_cache/xla")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "4")

    def run(name, *args):
        monkeypatch.setattr(sys, "argv", [f"experiments/{name}.py", *args])
        with pytest.raises(SystemExit) as end:
            runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
        return end.value.code

    return run


def state():
    loggers = [logging.getLogger(name) for name in (None, "absl", "cfg_jax")]
    told = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)]
    return threading.excepthook, sys.unraisablehook, handlers, told, sorted(cli.FLAGS)


def test_a_command_leaves_a_process_that_goes_on_as_it_was(here, tmp_path, capfd):
    train = "train", "--config=configs/digits.py", f"--workdir={tmp_path / 'new'}"
    for name, *args, said in (
        ("report", f"--sweep={tmp_path}", "no finished cells"),
        ("train", "--config=configs/none.py", "no such file"),
        (*train, "--config.p_uncnd=2", "did you mean p_uncond"),
        (*train, "--config.p_uncond=2", "is no probability"),
        (*train, "--config.seed=-1", "config.seed=-1"),
        ("report", "--nosuch=1", "nosuch"),
        ("report", "--sweep is required"),
    ):
        here("report", f"--sweep={tmp_path}")  # absl adds flags to a process once
        capfd.readouterr()
        before = state()
        for _ in range(2):
            assert here(name, *args) == 1
            stderr = capfd.readouterr().err
            assert stderr.count("\n") == 1 and said in stderr, stderr
        assert state() == before


def test_a_value_is_not_handed_down_to_the_next_command(here, tmp_path, capfd):
    assert here("train", "--config=configs/digits.py", f"--workdir={tmp_path / 'a'}", "--config.p_uncond=2") == 1
    assert here("report", f"--sweep={tmp_path}") == 1
    capfd.readouterr()
    assert here("train", "--config=configs/digits.py", "--config.seed=-1", f"--workdir={tmp_path / 'b'}") == 1
    assert "config.seed=-1" in capfd.readouterr().err  # and nothing of p_uncond


@pytest.mark.parametrize(
    ("way", "own"),
    [
        (["-m", "command"], True), (["command.py"], True), (["-i", "command.py"], False),
        (["-m", "cProfile", "-o", "/dev/null", "-m", "command"], False), (["-c", "import command"], False),
        (["-c", "import runpy; runpy.run_module('command', run_name='__main__')"], False),
    ],
)  # fmt: skip
def test_who_owns_the_process(tmp_path, way, own):
    script = "import sys\nfrom experiments import cli\nprint(cli.owns_process(sys._getframe()))\n"
    (tmp_path / "command.py").write_text(script)
    env = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": ""}
    done = subprocess.run(
        [sys.executable, *way], cwd=tmp_path, env=env, input="", capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split()[0] == str(own), done.stderr
