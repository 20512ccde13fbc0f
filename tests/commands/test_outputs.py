"""An output replaces no file that the command reads or that this code did not write; a directory says what it is."""

import hashlib
import os
import threading

import numpy as np
import pytest
from matplotlib.figure import Figure

from cfg_jax import config as configs
from cfg_jax import files, images, plots
from cfg_jax.errors import InputError
from cfg_jax.models import build
from cfg_jax.store import checkpoint, weights
from cfg_jax.sweep.run import sweep
from cfg_jax.training import trainer
from experiments.helpers import gallery
from tests.conftest import fill
from tests.running import ROOT

DIGITS = "--config=configs/digits.py"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A run, an export of it, a directory of a sweep, and files of a user's under every name."""
    from configs import digits

    root, config = tmp_path_factory.mktemp("good"), digits.get_config()
    config.model.update(multipliers=(1,), num_blocks=1, attention_resolutions=())
    configs.save(root / "run" / "config.json", config)
    params = fill(build.shapes(config))
    checkpoint.save_weights(root / "run", params)
    weights.export(root / "model.safetensors", config, 0, params)
    os.link(root / "model.safetensors", root / "hard.safetensors")
    os.symlink(root / "model.safetensors", root / "soft.safetensors")
    (root / "sweep" / "cells").mkdir(parents=True)
    configs.save(root / "sweep" / "config.json", config)
    (root / "data").mkdir()
    (root / "data" / "card.json").write_text("{}")
    (root / "mine").mkdir()
    for name in ("config.json", "README.md", "laws.png", "queue.txt", "logs", "results.csv"):
        (root / "mine" / name).write_text("mine")
    for name in ("mine.png", "mine.npz", "mine.json", "mine.md", "mine.safetensors", "mine.svg", "notes"):
        (root / name).write_text("mine")
    np.savez(root / "theirs.npz", arr_0=np.zeros((20, 8, 8, 1), np.uint8), arr_1=np.zeros(20, int))
    return root


def of_all(root):
    """What every file below `root` holds."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


REFUSED = [
    (["sweep", DIGITS, "--runs={t}/run", "--workdir={t}/run"], "run holds a run (checkpoints)"),
    (["frontier", DIGITS, "--runs={t}/run", "--out={t}/run"], "run holds a run (checkpoints)"),
    (["sweep", DIGITS, "--runs={t}/run", "--workdir={t}/data"], "data holds a data set (card.json)"),
    (["sweep", DIGITS, "--runs={t}/run", "--workdir={t}/mine"], "mine is no sweep and has a config.json"),
    (["train", DIGITS, "--workdir={t}/sweep"], "sweep holds a sweep (cells)"),
    (["train", DIGITS, "--workdir={t}/data"], "data holds a data set (card.json)"),
    (["train", DIGITS, "--workdir={t}/mine"], "mine is no run and has a config.json"),
    (["train_classifier", DIGITS, "--workdir={t}/sweep"], "sweep holds a sweep (cells)"),
    (["distill", "--run=digits", "--workdir={t}/sweep"], "sweep holds a sweep (cells)"),
    (["reflow", "--run=digits", "--workdir={t}/sweep"], "sweep holds a sweep (cells)"),
    (["sample", "--run={t}/run", "--out={t}/run/config.json"], "did not write it: remove it, or choose another --out"),
    (["sample", "--run={t}/model.safetensors", "--out={t}/model.safetensors"], "did not write it"),
    (["sample", "--run={t}/model.safetensors", "--npz={t}/model.safetensors", "--out={t}/x.png"], "another --npz"),
    (["sample", "--run=digits", "--npz={t}/theirs.npz", "--out={t}/x.png"], "theirs.npz is there"),
    (["sample", "--run=digits", "--npz={t}/x.png", "--out={t}/x.png"], "x.png must end in .npz"),
    (["sample", "--run=digits", "--out={t}/mine.png"], "mine.png is there"),
    (["sample", "--run=digits", "--out={t}/run"], "run is a directory: name a file"),
    (["score", "--samples={t}/theirs.npz", "--reference={t}/theirs.npz", "--out={t}/theirs.npz"], "did not write it"),
    (["score", "--samples={t}/theirs.npz", "--reference={t}/theirs.npz", "--out={t}/mine.json"], "did not write it"),
    (["export", "--run={t}/run", "--out={t}/mine.safetensors"], "mine.safetensors is there"),
    (["export", "--run={t}/run", "--out={t}/mine/README.safetensors"], "README.md is there"),
    (["export", "--run={t}/model.safetensors", "--out={t}/model.safetensors"], "also takes"),
    (["export", "--run={t}/model.safetensors", "--out={t}/hard.safetensors"], "also takes"),
    (["export", "--run={t}/model.safetensors", "--out={t}/soft.safetensors"], "also takes"),
    (["results", DIGITS, "--sweep={t}/sweep", "--out={t}/mine"], "README.md is there"),
    (["results", DIGITS, "--sweep={t}/sweep", "--out={t}/sweep"], "sweep holds a sweep (cells)"),
    (["results", DIGITS, "--sweep={t}/sweep", "--out={t}/run"], "run holds a run (checkpoints)"),
    (["fetch_inception", "--from_file={t}/notes", "--out={t}/mine.npz"], "mine.npz is there"),
    (["fetch_inception", "--from_file={t}/theirs.npz", "--out={t}/theirs.npz"], "is --from_file"),
    (["studies.laws", "--out={t}/mine"], "laws.png is there"),
    (["studies.bias", DIGITS, "--out={t}/mine.png"], "mine.png is there"),
    (["studies.gaussians", "--out={t}/gaussians"], "gaussians.json is there"),
    (["studies.passes", "--out={t}/mine.md"], "mine.md is there"),
    (["studies.precision", "--run=digits", "--out={t}/mine.md"], "mine.md is there"),
    (["paper", "--figure=6", "--scale=digits", "--runs={t}/figures"], "digits-figure6.png is there"),
    (["bench.speed", DIGITS, "--out={t}/mine.json"], "mine.json is there"),
    (["bench.peers", DIGITS, "--out={t}/x.json"], "x.md is there"),
    (["bench.exact", DIGITS, "--out={t}/run/config.json"], "config.json is there"),
    (["bench.compile", DIGITS, "--target=v5e:2x2", "--out={t}/mine.md"], "mine.md is there"),
    (["bench.parity", "--out={t}/mine.md"], "mine.md is there"),
]


@pytest.mark.parametrize(("args", "message"), REFUSED, ids=lambda value: value[0] if isinstance(value, list) else "")
def test_what_is_another_s_is_not_replaced(good, command, args, message):
    for directory, name in (("gaussians", "gaussians.json"), ("figures", "digits-figure6.png"), (".", "x.md")):
        (good / directory).mkdir(exist_ok=True)
        (good / directory / name).write_text("mine")
    before = of_all(good)
    name, *flags = (arg.format(t=good) for arg in args)
    done = command(name, *flags)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr
    assert of_all(good) == before


def test_what_this_code_wrote_is_replaced(tmp_path, good):
    """By the same kind alone. Each is written as its command writes it."""
    plots.save(tmp_path / "plot", Figure())
    images.save_png(tmp_path / "grid.png", images.grid(np.zeros((4, 8, 8, 1), np.uint8), 2))
    files.write_npz(tmp_path / "x.npz", {"arr_0": np.zeros(3)}, mark=True)
    files.write_json(tmp_path / "x.json", files.MARKED | {"scores": {}})
    made = [tmp_path / name for name in ("plot.png", "plot.svg", "grid.png", "x.npz", "x.json")]
    made += [good / "model.safetensors", ROOT / "experiments/results/fashion_mnist_16/model.md"]
    for path in made:
        for kind in files.OURS:
            assert files.is_ours(path, kind) == (path.suffix == kind), (path, kind)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        assert file["arr_0"].shape == (3,)
    files.write_npz(tmp_path / "reference.npz", {"mu": np.zeros(3)})
    assert not files.is_ours(tmp_path / "reference.npz", ".npz")  # no user named it


def test_committed_pages_and_their_pictures_may_be_made_again():
    results = ROOT / "experiments" / "results"
    made = [page for page in results.rglob("*.md") if page.parent.name not in ("benchmark_cpu", "digits_pretrained")]
    for page in [*made, *(ROOT / "docs" / name for name in ("passes.md", "parity.md", "precision.md"))]:
        files.check_output(page, ".md")
    for study in {path.stem.partition("_")[0] for path in (results / "studies").glob("*.md")}:
        assert gallery.check_names(results / "studies", study)
    for path in [*(ROOT / "docs").glob("bias.*"), *(results / "benchmark_cpu").glob("*.json")]:
        files.check_output(path, path.suffix)
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "tutorial.md"):
        assert not files.is_ours(path, ".md")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("run", ".lock"), ("run", "damaged"), ("run", "metrics.jsonl"), ("run", "checkpoints"), ("sweep", "cells"),
     ("sweep", "report.html")],
)  # fmt: skip
def test_nothing_is_written_through_a_link(tmp_path, kind, name, tiny):
    (tmp_path / "elsewhere").write_text("mine")
    workdir = tmp_path / "workdir"
    for mark in files.KINDS[kind][0]:
        (workdir / mark).mkdir(parents=True)
    if (workdir / name).exists():
        (workdir / name).rmdir()
    (workdir / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{name} is a link"):
        trainer.train(tiny, workdir) if kind == "run" else files.check_directory(workdir, kind)
    (tmp_path / "as a link").symlink_to(workdir)
    (workdir / name).unlink()
    files.check_directory(tmp_path / "as a link", kind)


@pytest.mark.parametrize("hold", [files.only_one, lambda path: files.shared(path, "x"), files.claimed])
def test_a_lock_is_no_link(tmp_path, hold):
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "run").mkdir()
    for lock in (tmp_path / "run" / ".lock", tmp_path / "run.lock"):
        lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="lock is a link"), hold(tmp_path / "run"):
        pass
    assert (tmp_path / "elsewhere").read_text() == "mine"


def test_a_sweep_does_not_wait_for_a_run_that_trains(tmp_path, tiny, good, monkeypatch):
    """Whose directory has nothing but its lock as yet."""
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    with files.only_one(tmp_path / "run"):
        holder = (tmp_path / "run" / ".lock").read_text()
        with pytest.raises(InputError, match=f"in use by process {os.getpid()} on .*: wait for it"):
            sweep(tiny, [good / "run"], [0.0], tmp_path / "run", other_reference=True)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
        assert (tmp_path / "run" / ".lock").read_text() == holder


def test_sweeps_that_begin_at_once_share(tmp_path):
    """One has the lock alone while it writes its purpose, and the others wait that long."""
    inside, refused = threading.Barrier(8, timeout=20), []

    def job():
        try:
            with files.shared(tmp_path, "the same"):
                inside.wait()
        except InputError as error:
            refused.append(error)
            inside.abort()

    jobs = [threading.Thread(target=job) for _ in range(8)]
    for each in jobs:
        each.start()
    for each in jobs:
        each.join()
    assert not refused
