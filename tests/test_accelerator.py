"""The queue of experiments.accelerator: sizes by made-up rates, time that is over, kills in every stage."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from cfg_jax.errors import InputError
from cfg_jax.files import only_one
from cfg_jax.perf import cost, fit
from experiments.launch import queue as queues
from tests.several import ROOT, start, wait_for

SLEEP = ("timeit", "-n1", "-r1", "__import__('time').sleep(60)")


def test_steps_that_fit_take_the_seconds_that_were_given(tiny):
    """Three models and their table at made-up rates: the arithmetic by hand."""
    tiny.sampler.num_steps, tiny.eval.num_images, tiny.eval.w, tiny.train.batch_size = 10, 100, (0.0, 1.0, 2.0), 8
    table, rates = fit.Table(tiny, 3, (0, 1)), fit.Rates(training=40.0, passes=500.0, features=50.0)
    assert table.passes == 6 * 100 * 10 * (1 + 2 + 2) and table.images == 6 * 3 * 100
    seconds = table.passes / 500 + table.images / 50
    assert table.steps_within(seconds + 3 * 7 * 8 / 40, rates) == 7
    assert table.steps_within(seconds - 1, rates) < 0
    forward = cost.forward_flops(tiny)
    assert table.least_seconds(7, 1e9) == pytest.approx(forward * (3 * 3 * 7 * 8 + table.passes) / 1e9)
    of = {"training": {"images_per_s": 40.0}, "sampling": {"images_per_s": 5.0, "T": 50}}
    assert fit.Rates.of(of | {"features": {"images_per_s": 50.0}}) == rates


@contextmanager
def opened(directory, minutes=1.0, call_minutes=None):
    with only_one(directory) as lock:
        yield queues.Queue(directory, minutes, call_minutes, lock)


def test_what_is_done_is_not_done_again(tmp_path, capsys):
    with opened(tmp_path) as queue:
        queue.stage("first", 1)
        append = f"with open('{tmp_path}/made', 'a') as file: file.write('x')"
        assert queue.run("well", "timeit", "-n1", "-r1", append)
        assert not queue.run("ill", "json.tool", "nowhere.json") and queue.status("ill") == "failed"
        assert queue.run("known", "json.tool", "nowhere.json", fine=(0, 2))
    with opened(tmp_path) as again:
        again.stage("first", 1)
        assert again.run("well", "timeit", "nonsense") and (tmp_path / "made").read_text() == "x"
        assert again.used > queue.state["used_s"] > 0
    assert "nowhere.json" in (tmp_path / "logs" / "ill.txt").read_text()
    assert "failed: " in capsys.readouterr().out


@pytest.mark.parametrize("limit", ["stage", "minutes", "call_minutes"])
def test_it_ends_before_its_time_is_over(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(queues, "GRACE", 6)
    monkeypatch.setattr(queues, "START", 1)
    minutes = {"minutes": 9 / 60} if limit == "minutes" else {"call_minutes": 9 / 60} if limit == "call_minutes" else {}
    with opened(tmp_path, **minutes) as queue:
        queue.stage("short", 9 / 60 if limit == "stage" else 1)
        began = time.monotonic()
        assert not queue.run("long", *SLEEP) and queue.status("long") == "stopped"
        assert time.monotonic() - began < 8
        monkeypatch.setattr(queues, "START", 5)
        assert not queue.run("next", "timeit", "-n1", "pass") and queue.status("next") == ""


def test_two_queues_do_not_share_a_directory(tmp_path):
    """The second waits for the first for a while, since it may be a command whose queue was killed."""
    began = time.monotonic()
    with opened(tmp_path):
        with pytest.raises(InputError, match="in use by process"), only_one(tmp_path, wait=1):
            pass
        assert time.monotonic() - began >= 1
        assert queues.Queue(tmp_path, 1.0, None, None).status("x") == ""


def made_up(directory, training, passes, features=2000.0, networks=(0, 1, 2)):
    """A directory where the rates of every network of tiny_imagenet are known already."""
    (directory / "speed").mkdir(parents=True)
    rates = {
        "training": {"images_per_s": training},
        "sampling": {"images_per_s": passes / 16, "T": 8},
        "features": {"images_per_s": features},
    }
    for number in networks:
        rates["training"]["images_per_s"] = training * (1, 4, 8)[number]
        rates["sampling"]["images_per_s"] = passes / 16 * (1, 4, 8)[number]
        (directory / "speed" / f"tiny_imagenet-{number}.json").write_text(json.dumps(rates))
    (directory / "speed" / "benchmark.json").write_text(json.dumps({"peak_tflops": None}))


@pytest.mark.parametrize(
    ("training", "passes", "said"),
    [
        (9000, 300_000, "network 0, seeds (0, 1): "),
        (3000, 80_000, "network 1, seeds (0, 1): "),
        (2000, 18_000, "network 2, seeds (0, 1): "),
        (1500, 9_000, "network 2, seeds (0,): "),
        (1, 10, "network 2, seeds (0,): "),
    ],
)
def test_the_largest_network_that_fits_is_chosen(tmp_path, command, training, passes, said):
    """By the rates that were measured; both seeds come before width, and what does not fit is not begun."""
    made_up(tmp_path, training, passes)
    done = command("accelerator", f"--out={tmp_path}", "--minutes=40", "--plan")
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    tried = [line for line in lines if line.startswith("network") and "seeds" in line]
    assert tried[-1].startswith(said), tried
    paper = [line for line in lines if "--scale=tiny_imagenet" in line]
    assert bool(paper) == (training > 1) and not (tmp_path / "queue.json").exists()
    if paper:
        steps = int(tried[-1].split(": ")[1].split()[0].replace(",", ""))
        assert steps >= 4000 and f"--config.train.num_steps={steps // 100 * 100}" in paper[0]
        assert f"--seeds={'0,1' if '(0, 1)' in said else '0'}" in paper[0]


def test_a_network_that_no_device_runs_so_fast_is_not_timed(tmp_path, command):
    made_up(tmp_path, 1, 10)
    (tmp_path / "speed" / "benchmark.json").write_text(json.dumps({"peak_tflops": 1.0}))
    done = command("accelerator", f"--out={tmp_path}", "--minutes=40", "--plan")
    assert done.returncode == 0 and "network 0, seeds (0, 1): no device is so fast" in done.stdout
    assert "tiny_imagenet-speed-0" not in done.stdout


def test_a_plan_writes_nothing(tmp_path, command):
    done = command("accelerator", f"--out={tmp_path / 'none'}", "--plan", "--tiny", "--minutes=5")
    assert done.returncode == 0 and "experiments.bench.exact" in done.stdout, done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.faults
def test_killed_in_every_stage_it_goes_on(tmp_path, faults):
    """The whole queue of toys: one kill in a command of each stage, then all is there and pages are made of it."""
    out = tmp_path / "out"
    args = ("accelerator", f"--out={out}", "--tiny", "--minutes=20")

    def tasks():
        return json.loads((out / "queue.json").read_text())["tasks"] if (out / "queue.json").exists() else {}

    kills = ("exact", "speed", "profile", "fashion_mnist-table", "tiny_imagenet-table", "tiny_imagenet-more-table")
    for name in kills:
        process = start(*args, devices=2)
        assert wait_for(lambda name=name: tasks().get(name, {}).get("status") == "begun", process, 400), (
            process.communicate()
        )
        time.sleep(6 if name.endswith("table") else 2)  # into its work
        assert tasks()[name]["status"] == "begun"
        process.kill()
        process.communicate()
    left = {name: path.stat().st_mtime_ns for name in ("exact", "speed") for path in [out / "logs" / f"{name}.txt"]}
    process = start(*args, devices=2)
    said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert {task["status"] for task in tasks().values()} == {"done"} and set(kills) < set(tasks())
    assert left == {name: (out / "logs" / f"{name}.txt").stat().st_mtime_ns for name in left}  # none ran twice
    assert len(list((out / "runs" / "tiny_imagenet-sweep" / "cells").glob("*.json"))) == 3 * 2 * 2
    done = subprocess.run(
        [sys.executable, "-m", "experiments.results", f"--accelerator={out}", f"--out={tmp_path / 'pages'}"], cwd=ROOT
    )
    assert done.returncode == 0
    page = (tmp_path / "pages" / "README.md").read_text()
    for said in ("pass  batches", "| training | 8 |", "profile.md", "tiny_imagenet-more/curves.png", "exact | done"):
        assert said in page
    made = {name: json.loads((tmp_path / "pages" / name / "runs.json").read_text()) for name in
            ("tiny_imagenet", "tiny_imagenet-more")}  # fmt: skip
    steps = [{run["steps"] for run in of.values()} for of in made.values()]
    assert steps[1] == {2 * step for step in steps[0]}  # the first table's page is of the steps that it was made at
    faults("a queue of commands killed, one of each stage", len(kills))


@pytest.mark.faults
def test_a_stop_is_passed_on(tmp_path, faults):
    """Ctrl-C's and a time limit's signal: the command saves, the queue says how to go on."""
    out = tmp_path / "out"
    process = start("accelerator", f"--out={out}", "--tiny", "--minutes=20", devices=2)
    assert wait_for(lambda: (out / "logs" / "doctor.txt").exists(), process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on from here" in said[1], said
    deadline = time.monotonic() + 20  # one that was just begun ends as soon as it looks who began it
    while running(out):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    faults("a queue stopped by a signal", 1)


def running(out):
    """Processes whose command line names the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path] if str(out) in path.read_text() and path.parent.name != str(os.getpid()) else []
        except OSError:
            continue
    return found
