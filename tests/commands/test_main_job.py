"""The main job at its smallest, and every command that reads what it leaves."""

import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from cfg_jax.files import shared
from tests.running import ROOT, TINY, line, run

HELPERS = (ROOT / "experiments" / "helpers", ROOT / "experiments" / "launch")
LAWS = ("fields", "plane", "token_laws")  # the mathematics of one study each
COMMANDS = sorted(
    ".".join(path.relative_to(ROOT / "experiments").with_suffix("").parts)
    for path in (ROOT / "experiments").rglob("*.py")
    if path.parent not in HELPERS and path.stem not in ("__init__", "experiments", *LAWS)
)
TABLE_1 = ("--table=1", "--scale=digits")


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name, command):
    done = command(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"experiments/{name.replace('.', '/')}.py:" in done.stdout and "--" in done.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["train", "--config=configs/digits.py"], "--workdir is required"),
        (["train", "--config=configs/digit.py", "--workdir=x"], "choose one of configs/base.py, configs/digits.py"),
        (["train", "--config=configs/digits.py", "--workdir=x", "--config.p_uncnd=0"], "did you mean p_uncond"),
        (["train", "--config=configs/digits.py", "--workdir=x", "--config.train.lr=1"], "train.learning_rate"),
        (["train", "--config=configs/digits.py", "--workdir=x", "--config.p_uncond=half"], "could not convert"),
        (
            ["train", "--config=configs/digits.py", "--workdir=x", "--config.data.name=cifar"],
            "make it with experiments.prepare_data",
        ),
        (["paper", "--scale=digits", "--config.foo=1"], "--config.foo is no field of configs/digits.py"),
        (["train", "--config=configs/digits.py", "--workdir=Makefile/run"], "Not a directory"),
        (["sample", "--run=tests"], "tests is no run directory"),
        (["report", "--sweep=tests"], "tests has no finished cells"),
        (["sample", "stray", "--run=x"], "unexpected argument 'stray'"),
        (["paper", "--scale=digits"], "give either --table or --figure"),
        (["paper", "--table=1", "--scale=mnist"], "digits|fashion_mnist"),
        (
            ["paper", "--table", "2", "--scale", "tiny_imagenet", "--config.data.root=nowhere"],
            "nowhere/tiny_imagenet is no prepared data set",
        ),
        (["paper", "--table=1", "--config.data.root=nowhere"], "make it with experiments.prepare_data"),
        (
            ["sweep", "--config=configs/digits.py", "--runs=x", "--workdir=x", "--vary=eval.splits=1"],
            "choose from sampler",
        ),
        (
            ["sweep", "--config=configs/digits.py", "--runs=x", "--workdir=x", "--vary=eval.seed=a"],
            "--vary=eval.seed=a",
        ),
        (["score", "--samples=tests/recorded/torch_fidelity_scores.npz", "--reference=x"], "give uint8 images 0..255"),
        (["score", "--samples=nowhere.npz", "--reference=x"], "nowhere.npz cannot be read"),
        (["reference_stats", "--dataset=digits", "--out=x.npz", "--inception=y.npz"], "fetch_inception --out=y.npz"),
    ],
)
def test_bad_input_ends_in_one_line(args, said, command):
    done = command(*args)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr
    assert not (ROOT / "x").exists()


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory):
    """The main job, tiny, killed without warning once and then run to its end."""
    runs = tmp_path_factory.mktemp("digits")
    job = line("paper", *TABLE_1, f"--runs={runs}", *TINY)
    process = subprocess.Popen(job, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (runs / "digits-p0.2" / "config.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (runs / "digits-p0.1" / "checkpoints" / "6").exists()
    assert len(list((runs / "digits-sweep" / "cells").glob("digits-p0.1_*.json"))) == 7  # its curve, before p0.2's
    done = subprocess.run(job, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return runs, done


def test_the_main_job_from_training_to_report(digits_dir):
    runs, done = digits_dir
    sweep = runs / "digits-sweep"
    assert "digits-p0.1 is done: step 6 of 6" in done.stderr
    for name in ("results.csv", "table.md", "curves.png", "curves.svg", "samples.png", "report.html"):
        assert (sweep / name).stat().st_size > 0
    assert len(list((sweep / "cells").glob("*.json"))) == 21
    assert "| w | s = 1 + w | fid_digits@40, p=0.1 |" in done.stdout and "The paper's claims" in done.stdout
    row = json.loads((sweep / "cells" / "digits-p0.5_T3_v0.3_static_paper_seed0_w0.3.json").read_text())
    assert (row["p_uncond"], row["w"], row["s"], row["N"], row["T"]) == (0.5, 0.3, 1.3, 40, 3)
    assert row["classifier_accuracy"] >= 0.98
    assert len(row["resampled"]["is_digits@40"]) == 5


def test_again_it_finds_everything_done(digits_dir):
    runs, _ = digits_dir
    files = sorted((runs / "digits-sweep" / "cells").iterdir())
    before = [f.stat().st_mtime_ns for f in files]
    done = run("paper", *TABLE_1, f"--runs={runs}", *TINY)
    assert done.returncode == 0 and "21 of 21 cells are done" in done.stderr
    assert [f.stat().st_mtime_ns for f in files] == before


@pytest.mark.slow
def test_a_cell_of_other_settings_is_made_again(digits_dir):
    runs, _ = digits_dir
    path = runs / "digits-sweep" / "cells" / "digits-p0.1_T3_v0.3_static_paper_seed0_w4.json"
    row = json.loads(path.read_text())
    path.write_text(json.dumps(row | {"parameters": "of an older checkpoint"}))
    done = run("paper", *TABLE_1, f"--runs={runs}", *TINY)
    assert "6 of 7 cells are done" in done.stderr
    again = json.loads(path.read_text())
    assert again["parameters"] == row["parameters"] and again["scores"] == row["scores"]  # the same to the bit


def test_sample_writes_a_grid_and_an_npz(digits_dir, tmp_path):

    runs, _ = digits_dir
    args = (f"--run={runs / 'digits-p0.1'}", "--labels=3,3,7", f"--out={tmp_path / 'g.png'}")
    done = run("sample", *args, "--w=1.0", f"--npz={tmp_path / 'x.npz'}")
    assert done.returncode == 0 and "s = [2.0]" in done.stdout
    with np.load(tmp_path / "x.npz", allow_pickle=False) as f:
        assert f["arr_0"].shape == (3, 8, 8, 1) and f["arr_0"].dtype == np.uint8
        assert f["arr_1"].tolist() == [3, 3, 7]
        assert not np.array_equal(f["arr_0"][0], f["arr_0"][1])
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")
    wrong = run("sample", *args, "--w=nan")
    assert wrong.returncode == 1 and "no finite number" in wrong.stderr


@pytest.mark.slow
def test_gaussians_write_what_they_promise(tmp_path):
    done = run("studies.gaussians", f"--out={tmp_path}", "--w=0,2", "--num_samples=500", "--num_steps=64")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "gaussians.json").read_text())["rows"]
    at = {row["w"]: row for row in rows if row["class"] == 0}
    assert at[0.0]["density_mean"] == pytest.approx(1, abs=1e-3)
    assert at[0.0]["sampled_mean"] == pytest.approx(1, abs=0.1)
    assert at[2.0]["sampled_mean"] > at[2.0]["density_mean"] + 0.1  # Algorithm 2 is not that density


@pytest.mark.slow
def test_the_benchmark_writes_what_it_promises(tmp_path):
    small = [flag for flag in TINY if "train" in flag or "model" in flag or "sampler" in flag]
    out = tmp_path / "b.json"
    done = run(
        "bench.speed",
        "--config=configs/digits.py",
        f"--out={out}",
        "--repeats=2",
        "--peak_tflops=1",
        *small,
        "--features_batch=2",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    for part in ("training", "sampling", "features"):
        seconds = result[part]["seconds"]
        assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
        peak = None if part == "features" else pytest.approx(result[part]["tflops"] / result["peak_tflops"])
        assert result[part]["mfu"] == peak  # features are in float32, the peak is bfloat16's


@pytest.mark.slow
def test_the_paper_s_table_2_and_figures(digits_dir, tmp_path):
    """Further T of the first model, then samples over w; the sweep of Table 1 stays as it is."""
    runs, _ = digits_dir
    ws = "--config.eval.w=(0.0,4.0)"
    plan = run("paper", "--table=2", "--scale=digits", f"--runs={runs}", "--plan", *TINY, ws)
    assert plan.returncode == 0 and "T = [1, 3, 12], w = [0.0, 4.0]" in plan.stdout and "0 of 6 steps to" in plan.stdout
    assert not (runs / "digits-sweep" / "curves_T.png").exists()
    done = run("paper", "--table=2", "--scale=digits", f"--runs={runs}", *TINY, ws)
    assert done.returncode == 0, done.stderr
    assert "2 of 6 cells are done" in done.stderr
    assert "fid_digits@40, T=12 (T1024)" in done.stdout and "no difference is taken" in done.stdout
    assert (runs / "digits-sweep" / "curves_T.png").exists()
    assert "N=40 images a cell, T=12" in (runs / "digits-sweep" / "table.md").read_text()
    done = run("paper", "--figure=6", "--scale=digits", f"--runs={runs}", "--label=3", *TINY)
    assert done.returncode == 0 and "the single class is 3, 3" in done.stdout, done.stderr
    with Image.open(runs / "digits-figure6.png") as image:
        panel = 4 * 66 - 2
        assert image.size == (3 * panel + 2 * 12, 2 * panel + 12)


@pytest.mark.slow
def test_jobs_share_a_sweep(digits_dir, tmp_path):
    """Three at once on one directory, one of them killed: every cell is made, and none twice."""
    runs, _ = digits_dir
    args = ("--config=configs/digits.py", f"--runs={runs / 'digits-p0.1'}", f"--workdir={tmp_path}", "--w=0,0.5,1,2",
            "--vary=eval.seed=0,1,2", "--vary=sampler.threshold=static,none", *TINY)  # fmt: skip
    jobs = [subprocess.Popen(line("sweep", *args), cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    killed = subprocess.Popen(line("sweep", *args), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("cells/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    logs = [job.communicate()[1] for job in (*jobs, killed)]
    assert [job.returncode for job in jobs] == [0, 0], logs
    names = [path.stem for path in tmp_path.glob("cells/*.json")]
    assert len(names) == 4 * 3 * 2 and not list(tmp_path.glob("cells/*.lock"))
    made = [name for log in logs for name in names if f"{name}: fid" in log]
    assert len(made) >= len(names) - 1 and len(set(made)) == len(made)  # what the killed one made may be unsaid
    table = (tmp_path / "table.md").read_text()
    assert "seeds 0, 1, 2" in table and "threshold none" in table


@pytest.mark.slow
def test_jobs_of_other_settings_do_not_share_a_sweep(digits_dir, tmp_path):
    """The second is refused while the first runs; afterwards it may have the directory."""
    runs, _ = digits_dir
    args = ("--config=configs/digits.py", f"--runs={runs / 'digits-p0.1'}", f"--workdir={tmp_path}", "--w=0,1", *TINY)
    with shared(tmp_path, "N=40, labels=balanced"):
        done = run("sweep", *args)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert "is in use by a job of N=40, labels=balanced; this one has N=40, labels=balanced, splits=" in done.stderr
    with shared(tmp_path, "N=40, labels=balanced"), shared(tmp_path, "N=40, labels=balanced"):
        pass
    assert run("sweep", *args).returncode == 0 and len(list(tmp_path.glob("cells/*.json"))) == 2


@pytest.mark.slow
def test_a_table_and_how_it_was_made_to_be_committed(digits_dir, tmp_path):
    runs, _ = digits_dir
    args = ("--config=configs/digits.py", f"--sweep={runs / 'digits-sweep'}", f"--out={tmp_path / 'digits'}")
    done = run("results", *args, f"--runs={runs}")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "digits" / "README.md").read_text()
    assert "'--config.model.multipliers=(1,)'" in page and "--config.train.num_steps=6" in page and "claims" in page
    assert "Data: digits (scikit-learn" in page and "1,797 training pictures of 8x8x1, resize none, card " in page
    count = len(list((runs / "digits-sweep" / "cells").glob("*.json")))  # 21, and Table 2's where its test came first
    assert f"\n{count} cells with {40 * count:,} images" in page and count >= 21 and "--config.p_uncond" not in page
    made = json.loads((tmp_path / "digits" / "runs.json").read_text())["digits-p0.2"]
    assert (made["steps"], made["batch_size"], made["skipped_steps"], made["processes"]) == (6, 8, 0, 1)
    assert 0 < made["hours"] < 0.1 and made["images_per_s"] > 0 and "x cpu" in made["device"]
    assert {"samples.png", "curves.svg", "config.json"} <= {path.name for path in (tmp_path / "digits").iterdir()}
    wrong = run("results", *args, f"--runs={tmp_path}")
    assert wrong.returncode == 1 and "has no metrics.jsonl" in wrong.stderr


@pytest.mark.slow
def test_the_curl_of_a_run(digits_dir, tmp_path):
    runs, _ = digits_dir
    few = "--num_images=4", "--probes=1", "--logsnrs=-4,-2", f"--out={tmp_path}"
    done = run("studies.curl", f"--run={runs / 'digits-p0.1'}", *few)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| -[42] \|((?: 0\.\d{3} ± 0\.\d{3} \|){5})$", done.stdout, re.MULTILINE)
    assert len(rows) == 2
    for row in rows:  # the network's and, exact, a mixture's and its classifier's
        network, *_, mixture, classifier = (float(cell.split(" ± ")[0]) for cell in row.strip(" |").split(" | "))
        assert network > 0.01 > mixture + classifier
    wrong = run("studies.curl", f"--run={runs / 'digits-p0.1'}", "--w=nan")
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: flag --w=nan")


@pytest.mark.slow
def test_other_guidance_has_cells_of_its_own(digits_dir, tmp_path):
    runs, _ = digits_dir
    args = ("--config=configs/digits.py", f"--runs={runs / 'digits-p0.1'}", f"--workdir={tmp_path}", "--w=0.5", *TINY)
    done = run("sweep", *args, f"--uncond_run={runs / 'digits-p0.5'}", "--save_npz")
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob("cells/*.json")
    row = json.loads(path.read_text())
    assert row["guidance"].startswith("uncond digits-p0.5 ") and row["guidance"] in done.stdout
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
        assert file["arr_0"].shape == (40, 8, 8, 1) and file["arr_1"].shape == (40,)
    path.with_suffix(".npz").unlink()
    assert "1 of 1 cells are done" in run("sweep", *args, f"--uncond_run={runs / 'digits-p0.5'}").stderr
    both = run("sweep", *args, f"--uncond_run={runs / 'digits-p0.5'}", "--classifier_run=x")
    assert both.returncode == 1 and "two kinds of guidance: choose one" in both.stderr
