"""Runs that are killed, stopped, and starved of disk: each ends, bit for bit, as one that was left alone."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from functools import partial

import jax
import numpy as np
import pytest

from cfg_jax.files import sha256_of
from cfg_jax.store.checkpoint import Checkpoints, latest
from cfg_jax.training import state as states
from cfg_jax.training import step as steps
from cfg_jax.training import trainer
from tests.several import TINY, all_well, ends, kill, start, wait_for

pytestmark = pytest.mark.faults
KILLS = int(os.environ.get("KILLS", "20"))  # of the first test
STEPS = max(160, 8 * KILLS)  # past the first samples
WHOLE = 180 + STEPS  # seconds that a run of all of them may take
ARGS = (
    "train", "--config=configs/digits.py", *TINY, f"--config.train.num_steps={STEPS}", "--config.train.log_every=5",
    "--config.train.checkpoint_every=5", "--config.train.sample_every=100", "--config.train.keep_every=50",
)  # fmt: skip


SHORT = (*ARGS, "--config.train.num_steps=30", "--config.train.sample_every=30")
UNSAVED = (*ARGS, "--config.train.num_steps=150", "--config.train.checkpoint_every=1000")


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory):
    def run(*args):
        workdir = tmp_path_factory.mktemp("whole")
        all_well([start(*args, f"--workdir={workdir}")], WHOLE)
        return workdir

    return run


@pytest.fixture(scope="module")
def short(left_alone):
    return left_alone(*SHORT)


def everything(workdir):
    """Step, parameters, EMA, optimizer as arrays; records without their times; the pictures' digests."""
    from configs import digits

    config = digits.get_config()
    config.model.multipliers, config.model.attention_resolutions = (1,), ()
    shapes = jax.eval_shape(partial(states.create, config))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    checkpoints = Checkpoints(workdir)
    state = checkpoints.restore(jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), shapes))
    checkpoints.close()
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    timeless = [{k: v for k, v in row.items() if k not in ("images_per_s", "tflops")} for row in rows]
    return jax.tree.leaves(state), timeless, {p.name: sha256_of(p) for p in (workdir / "samples").iterdir()}


def assert_same(workdir, whole):
    (leaves, rows, pictures), (others, other_rows, other_pictures) = everything(workdir), everything(whole)
    for a, b in zip(leaves, others, strict=True):
        np.testing.assert_array_equal(a, b)
    assert rows == other_rows and pictures == other_pictures
    kept, others = (sorted(p.name for p in (run / "checkpoints").iterdir()) for run in (workdir, whole))
    assert kept == others


def test_killed_at_random_times(left_alone, tmp_path, faults):
    """Some while it starts, some between saves, some inside one: its directory has another name until it is whole."""
    rng, inside = random.Random(0), 0
    saving = partial((tmp_path / "checkpoints").glob, "*.orbax-checkpoint-tmp")
    for i in range(KILLS):
        before = latest(tmp_path)
        process = start(*ARGS, f"--workdir={tmp_path}")
        if i % 4 == 0:
            time.sleep(rng.uniform(0, 4))
        elif i % 4 == 1:
            assert wait_for(lambda before=before: latest(tmp_path) > before, process)
            time.sleep(rng.uniform(0, 0.3))
        else:
            wait_for(lambda: any(saving()), process)
            time.sleep(rng.uniform(0, 0.05))
            inside += any(saving())
        assert kill(process) == -signal.SIGKILL, "it was over before it was killed"
        assert latest(tmp_path) >= before
    assert inside >= KILLS / 4
    assert 0 < latest(tmp_path) < STEPS
    all_well([start(*ARGS, f"--workdir={tmp_path}")], WHOLE)
    assert_same(tmp_path, left_alone(*ARGS))
    kept = {*range(50, STEPS, 50), STEPS - 5, STEPS}
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == sorted(kept)
    faults("SIGKILL of a training run at a random time", KILLS - inside)
    faults("SIGKILL inside a save", inside)


def test_a_warning_saves_and_ends_well(left_alone, tmp_path, faults):
    """SIGTERM (Kubernetes, TPU maintenance), SIGHUP, SIGUSR1 (sbatch --signal), Ctrl-C: status 0 within 5 seconds."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT):
        before = latest(tmp_path)
        process = start(*UNSAVED, f"--workdir={tmp_path}")
        wait_for(lambda before=before: rows_after(tmp_path, before) >= 1, process)
        began = time.monotonic()
        process.send_signal(number)
        status, _, stderr = ends([process], timeout=60)[0]
        assert status == 0 and time.monotonic() - began < 5, stderr
        assert f"stopped at step {latest(tmp_path)}, saved; the same command goes on" in stderr
        assert latest(tmp_path) > before
    all_well([start(*UNSAVED, f"--workdir={tmp_path}")])
    (leaves, *_), (others, *_) = everything(tmp_path), everything(left_alone(*UNSAVED))
    for a, b in zip(leaves, others, strict=True):
        np.testing.assert_array_equal(a, b)
    faults("SIGTERM, SIGHUP, SIGUSR1 or Ctrl-C", 4)


def rows_after(workdir, step):
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return sum(line.endswith("\n") and json.loads(line)["step"] > step for line in lines)


@pytest.mark.parametrize("how", ["no file above 300 kB", "a disk of 6 MB"])
def test_a_disk_that_is_full_is_said_and_costs_nothing(short, tmp_path, how, faults):
    """One line and status 1; the checkpoint before is whole; with room the same command ends as if nothing was."""
    workdir = tmp_path / "disk"
    workdir.mkdir()
    all_well([start(*SHORT, "--config.train.num_steps=5", f"--workdir={workdir}")])
    if how == "a disk of 6 MB":
        shutil.copytree(workdir, tmp_path / "aside")
        mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(workdir)]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("no file system may be mounted here")
        shutil.copytree(tmp_path / "aside", workdir, dirs_exist_ok=True)
        process = start(*SHORT, f"--workdir={workdir}")
    else:
        process = start(*SHORT, f"--workdir={workdir}", within=["bash", "-c", 'ulimit -f 300 && exec "$@"', "-"])
    try:
        status, _, stderr = ends([process])[0]
        last = stderr.splitlines()[-1]
        assert status == 1 and last.startswith("error: ") and "Traceback" not in stderr, stderr[-2000:]
        if how == "a disk of 6 MB":  # the records may be what has no room first
            assert "No space left on device" in last
        else:
            assert "no checkpoint could be written" in last and f"step {latest(workdir)} is kept" in last
        assert latest(workdir) >= 5
        if how == "a disk of 6 MB":
            shutil.rmtree(tmp_path / "aside")
            shutil.copytree(workdir, tmp_path / "aside")
    finally:
        if how == "a disk of 6 MB":
            subprocess.run(["umount", str(workdir)], check=True)
            workdir = tmp_path / "aside"
    all_well([start(*SHORT, f"--workdir={workdir}")])
    assert_same(workdir, short)
    faults("a save that the disk has no room for", 1)


def test_two_on_one_directory(tmp_path, faults):
    first = start(*ARGS, f"--workdir={tmp_path}")
    wait_for((tmp_path / "config.json").exists, first)
    status, _, stderr = ends([start(*ARGS, f"--workdir={tmp_path}")])[0]
    assert status == 1 and f"in use by process {first.pid} on" in stderr and stderr.count("\n") == 1
    kill(first)
    faults("a second process on one run", 1)


@pytest.mark.parametrize("every", [2, 4])
@pytest.mark.parametrize("lasting", [False, True])
def test_broken_numbers_roll_back_once(tiny, tmp_path, monkeypatch, lasting, every, caplog, faults):
    """Memory that goes bad in step 5: from the checkpoint of step 4 the run ends as one that never failed.

    It is seen by a save before the steps that are skipped are too many, or by these.
    """
    tiny.train.checkpoint_every = every
    tiny.train.update(num_steps=8, log_every=1, max_skipped=3)
    trainer.train(tiny, tmp_path / "whole")
    compile_step, lives = steps.compile_step, []

    def broken(*args):
        step_fn, *rest = compile_step(*args)
        lives.append(1)

        def run(state, *given):
            if int(state.step) == 4 and (lasting or len(lives) == 1):
                state = state.replace(params=jax.tree.map(lambda a: a * np.nan, state.params))
            return step_fn(state, *given)

        return run, *rest

    monkeypatch.setattr(steps, "compile_step", broken)
    if lasting:
        with pytest.raises(
            trainer.InputError, match=r"(4 steps before step 8|moments at step 6) .* again after a rollback"
        ):
            trainer.train(tiny, tmp_path / "run")
        assert latest(tmp_path / "run") == 4
        return
    trainer.train(tiny, tmp_path / "run")
    assert len(lives) == 2 and "back to the last checkpoint, once" in caplog.text
    (leaves, rows, _), (others, other_rows, _) = everything(tmp_path / "run"), everything(tmp_path / "whole")
    for a, b in zip(leaves, others, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [row["loss"] for row in rows] == [row["loss"] for row in other_rows]
    assert [row["rollbacks"] for row in rows] == [0, 0, 0, 0, 1, 1, 1, 1]
    faults("parameters that turn to NaN in memory", 1)
