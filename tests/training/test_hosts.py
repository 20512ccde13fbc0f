"""One run on several devices and several processes, by real processes on the loopback; what is lost and found again."""

import json
import signal
import time

import jax
import numpy as np
import pytest
from PIL import Image

from cfg_jax.store.checkpoint import latest, restore_params
from tests.several import TINY, all_well, ends, free_port, kill, start, start_several, wait_for

pytestmark = pytest.mark.faults
TRAIN = ("train", "--config=configs/digits.py", *TINY)
LONG = (*TRAIN, "--config.train.num_steps=24", "--config.train.checkpoint_every=4", "--config.train.sample_every=24")
LOST_AFTER = 8


def paper(runs, count, devices):
    """Table 2: one model, trained by all together, then three cells, each by one of them."""
    args = ("paper", "--table=2", "--scale=digits", f"--runs={runs}", *TINY)
    return all_well(start_several(count, *args, devices=devices))


def assert_close(run, other, tolerance=1e-5):
    """Relative L2 distance of parameters and EMA; losses and norms of the records of the same steps."""
    for item in ("params", "ema"):
        (step, a), (other_step, b) = (restore_params(r, item=item) for r in (run, other))
        a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
        assert step == other_step and np.linalg.norm(a - b) <= tolerance * np.linalg.norm(a)
    pairs = [(row, same) for row in records(run) for same in records(other) if row["step"] == same["step"]]
    assert len(pairs) >= 2  # a stop has a record of its own, and the one after it is of fewer steps
    for row, same in pairs[:2]:
        np.testing.assert_allclose([row["loss"], row["grad_norm"]], [same["loss"], same["grad_norm"]], rtol=tolerance)


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process, one device."""
    runs = tmp_path_factory.mktemp("alone")
    paper(runs, 1, 1)
    return runs


@pytest.fixture(scope="module")
def alone_long(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("long")
    all_well([start(*LONG, f"--workdir={workdir}")])
    return workdir


@pytest.mark.parametrize(("count", "devices"), [(1, 4), (2, 2), (4, 1)])
def test_any_processes_and_devices_give_what_one_gives(alone, tmp_path, count, devices):
    """Losses, parameters, EMA, samples, Frechet distances; each cell is made by one process, all by several."""
    done = paper(tmp_path, count, devices)
    assert_close(alone / "digits-p0.1", tmp_path / "digits-p0.1")
    assert sorted(p.name for p in (tmp_path / "digits-p0.1").iterdir() if not p.name.startswith("events")) == sorted(
        p.name for p in (alone / "digits-p0.1").iterdir() if not p.name.startswith("events")
    )
    cells = sorted((alone / "digits-sweep" / "cells").glob("*.json"))
    assert len(cells) == 3
    for cell in cells:
        other = tmp_path / "digits-sweep" / "cells" / cell.name
        scores, others = (json.loads(path.read_text())["scores"] for path in (cell, other))
        np.testing.assert_allclose([*scores.values()], [*others.values()], rtol=1e-3)
        with Image.open(cell.with_suffix(".png")) as a, Image.open(other.with_suffix(".png")) as b:
            assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1
    assert ["The paper's claims" in stdout for _, stdout, _ in done] == [True] + [False] * (count - 1)  # one speaks


@pytest.mark.parametrize(
    ("count", "devices", "flags"),
    [
        (1, 4, ("--config.train.fsdp=4",)),
        (2, 2, ("--config.train.fsdp=2", "--config.train.accumulate=2")),
    ],
)
def test_split_parameters_and_batches_give_the_same(alone, tmp_path, count, devices, flags):
    all_well(start_several(count, *TRAIN, f"--workdir={tmp_path}", *flags, devices=devices))
    assert_close(alone / "digits-p0.1", tmp_path)


def test_a_run_goes_on_with_other_devices(alone, tmp_path):
    """Three steps by two processes, each with half of every parameter, three by one with whole ones on four devices."""
    half = (*TRAIN, f"--workdir={tmp_path}", "--config.train.num_steps=3", "--config.train.fsdp=2")
    all_well(start_several(2, *half))
    all_well([start(*TRAIN, f"--workdir={tmp_path}", devices=4)])
    assert_close(alone / "digits-p0.1", tmp_path)


def test_it_may_start_from_weights(alone, tmp_path):
    """Of another run, for a network that is split over two processes: no step is taken at a rate that is nothing."""
    args = (*TRAIN, f"--config.init_from={alone / 'digits-p0.1'}", "--config.train.learning_rate=1e-30")
    all_well(start_several(2, *args, "--config.train.fsdp=2", f"--workdir={tmp_path}"))
    _, want = restore_params(alone / "digits-p0.1")
    for item in ("params", "ema"):
        _, found = restore_params(tmp_path, item=item)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, want)


def started(workdir, **kwargs):
    """Two processes in the middle of a run."""
    processes = start_several(2, *LONG, f"--workdir={workdir}", lost_after=LOST_AFTER, **kwargs)
    assert wait_for(lambda: latest(workdir) >= 4, processes[0])
    return processes


@pytest.mark.parametrize("lost", [1, 0])
def test_a_lost_process_ends_the_rest_and_the_run_goes_on(alone_long, tmp_path, lost, faults):
    processes = started(tmp_path)
    began = time.monotonic()
    kill(processes[lost])
    status, _, stderr = ends([processes[1 - lost]], timeout=60)[0]
    assert time.monotonic() - began < LOST_AFTER + 15 and status != 0
    if lost:
        assert status == 75
        [line] = [line for line in stderr.splitlines() if line.startswith("error: ")]
        assert line.startswith("error: process 1 on ") and "is lost: start the same command on all again" in line
    else:  # its own line is cut short by jax's, which ends a process whose coordinator is gone
        assert "leader" in stderr or "error: process 0 on " in stderr
    if lost:
        all_well(start_several(2, *LONG, f"--workdir={tmp_path}"))
    else:
        all_well([start(*LONG, f"--workdir={tmp_path}")])
    assert_close(alone_long, tmp_path, 1e-4)
    faults("a process of two is killed (SIGKILL)", 1)


def test_one_is_told_to_stop_and_all_save(alone_long, tmp_path, faults):
    processes = started(tmp_path)
    began = time.monotonic()
    processes[1].send_signal(signal.SIGTERM)
    done = ends(processes, timeout=60)
    assert time.monotonic() - began < 30 and [status for status, _, _ in done] == [0, 0], done
    assert f"stopped at step {latest(tmp_path)}, saved" in done[0][2] and latest(tmp_path) < 24
    all_well(start_several(2, *LONG, f"--workdir={tmp_path}"))
    assert_close(alone_long, tmp_path, 1e-4)
    faults("SIGTERM, SIGHUP, SIGUSR1 or Ctrl-C", 1)


def test_slurm_s_own_variables_are_enough(alone, tmp_path):
    job = {"SLURM_JOB_ID": str(free_port()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    tasks = [job | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    done = all_well([start(*TRAIN, f"--workdir={tmp_path}", env=env) for env in tasks])
    assert "2 processes: process 0 on " in done[0][2] and "on 2 x cpu" in done[0][2]
    assert_close(alone / "digits-p0.1", tmp_path)


def test_who_does_not_come_is_said(tmp_path):
    at = (f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2", "--init_timeout=5")
    for i in (0, 1):
        status, _, stderr = ends([start(*TRAIN, f"--workdir={tmp_path / 'x'}", *at, f"--process_id={i}")])[0]
        assert status == 1 and "error: the processes of this run did not all meet within 5 s" in stderr
        assert not (tmp_path / "x").exists()
    status, _, stderr = ends([start(*TRAIN, f"--workdir={tmp_path / 'x'}", *at, "--process_id=2")])[0]
    assert status == 1 and "give all three" in stderr and stderr.count("\n") == 1


def told(flag, *others, name="train"):
    """The lines of two processes, of which the second alone has `flag`; neither has begun anything."""
    at = (f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2", "--init_timeout=60", "--lost_after=8")
    both = [start(name, *others, *at, f"--process_id={i}", *own) for i, own in enumerate([(), (flag,)])]
    done = ends(both, timeout=60)
    assert [status for status, _, _ in done] == [1, 1], done
    return [stderr for _, _, stderr in done]


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--config.train.learning_rate=0.5", "--config.train.learning_rate=0.002 on process 0, 0.5 on process 1"),
        ("--config.train.batch_size=16", "--config.train.batch_size=8 on process 0, 16 on process 1"),
        ("--config.train.num_steps=3", "--config.train.num_steps=6 on process 0, 3 on process 1"),
        ("--config.data.flip=True", "--config.data.flip=False on process 0, True on process 1"),
        ("--workdir=elsewhere", "/run on process 0, elsewhere on process 1"),
    ],
)
def test_processes_with_other_flags_say_so(tmp_path, flag, said):
    for stderr in told(flag, *TRAIN[1:], f"--workdir={tmp_path / 'run'}"):
        line = stderr.splitlines()[-1]  # after the one that says who has met
        assert line.startswith("error: the processes of this run differ: ") and stderr.count("\n") <= 2, stderr
        assert said in line and line.endswith(": start all by the same command")
    assert not [*tmp_path.iterdir()]


def test_one_that_only_plans_is_told(tmp_path):
    args = ("--table=2", "--scale=digits", f"--runs={tmp_path}", *TINY)
    assert all("--plan=False on process 0, True on process 1" in said for said in told("--plan", *args, name="paper"))
