import os
import pty
import signal
import subprocess
import sys

import pytest

from cfg_jax.store.checkpoint import latest
from cfg_jax.training import stop
from tests.running import ROOT
from tests.several import TINY, wait_for

ASKING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
TRAIN = ("-m", "experiments.train", "--config=configs/digits.py", *TINY, "--config.train.sample_every=100000",
         "--config.train.num_steps=100000", "--config.train.checkpoint_every=100000")  # fmt: skip


@pytest.mark.parametrize("name", ASKING)
def test_each_signal_that_asks_to_stop_is_heard_once(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with stop.Signals() as signals:
        assert not signals.received
        os.kill(os.getpid(), number)
        assert signals.received
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a second Ctrl-C interrupts
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM"])
def test_what_is_ignored_stays_ignored(name):
    """As SIGHUP by nohup."""
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop.Signals() as signals:
            os.kill(os.getpid(), number)
            assert not signals.received and signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_windows_has_fewer(monkeypatch):
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"):
        monkeypatch.delattr(signal, name)
    assert {*stop.asking()} == {signal.SIGINT, signal.SIGTERM}


@pytest.mark.slow
def test_a_run_whose_terminal_is_closed_saves(tmp_path):
    """A dropped ssh: SIGHUP, and whatever is written to the terminal from then on is an error."""
    own, its = pty.openpty()
    process = subprocess.Popen([sys.executable, *TRAIN, f"--workdir={tmp_path}"], cwd=ROOT, stdout=its, stderr=its)
    os.close(its)
    assert wait_for((tmp_path / "metrics.jsonl").exists, process)
    os.close(own)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0
    assert latest(tmp_path) > 0


@pytest.mark.slow
def test_a_run_whose_log_has_no_reader_goes_on(tmp_path):
    """train 2>&1 | tee log: the same hang-up ends tee first."""
    few = *TRAIN, "--config.train.num_steps=6", f"--workdir={tmp_path}"
    process = subprocess.Popen([sys.executable, *few], cwd=ROOT, stderr=subprocess.PIPE)
    process.stderr.close()
    assert process.wait(100) == 0
    assert latest(tmp_path) == 6
