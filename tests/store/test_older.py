"""A run, an export and a sweep that version 0.1.0 wrote load, sample, and go on unchanged."""

import importlib
import json
import shutil
import tarfile

import jax
import numpy as np
import pytest

import cfg_jax
from cfg_jax import config as configs
from cfg_jax.files import sha256_of
from cfg_jax.store.checkpoint import latest
from cfg_jax.sweep import report
from cfg_jax.sweep.run import sweep
from cfg_jax.training import trainer
from tests.running import RECORDED, ROOT

ARCHIVE = RECORDED / "made_by_0.1.0.tar.xz"


@pytest.fixture
def old(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def config():
    """What the run was made with, by today's config file."""
    config = importlib.import_module("configs.digits").get_config()
    config.model.update(multipliers=(1,), attention_resolutions=())
    config.train.update(num_steps=20, batch_size=8, checkpoint_every=20, log_every=10, sample_every=20, warmup_steps=1)
    config.train.keep_checkpoints = 1
    config.sampler.num_steps = 4
    config.eval.update(num_images=20, batch_size=20, bootstrap=0, splits=2, neighbours=0)
    return config


@pytest.mark.slow
def test_its_images(old):
    with np.load(old / "samples.npz", allow_pickle=False) as file:
        wanted, labels = file["arr_0"].astype(int), file["arr_1"]
    of_run, of_export = (cfg_jax.load(old / name) for name in ("run", "model.safetensors"))
    for model in (of_run, of_export):  # the weights were rounded to bfloat16 before
        assert (model.step, model.config.objective.predicts, model.config.sampler.name) == (20, "eps", "ancestral")
        assert np.abs(model.sample(labels, 1.5, 4, seed=3) - wanted).max() <= 1


@pytest.mark.slow
def test_its_run_goes_on(old, config):
    config.train.update(num_steps=24, log_every=2)
    trainer.train(config, old / "run")
    assert latest(old / "run") == 24
    made, wanted = (
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (old / "run" / "metrics.jsonl", old / "later.jsonl")
    )
    assert [row["step"] for row in made] == [10, 20, 22, 24]
    np.testing.assert_allclose([row["loss"] for row in made], [row["loss"] for row in wanted], rtol=1e-4)
    assert json.loads((old / "run" / "config.json").read_text())["version"] == configs.VERSION


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="its features were made on a CPU")
@pytest.mark.slow
def test_its_sweep_is_done_and_grows(old, config):
    cells = {path: sha256_of(path) for path in (old / "sweep" / "cells").iterdir()}
    text = (old / "sweep" / "table.md").read_text().splitlines()[:4]
    assert report.write(old / "sweep").splitlines()[:4] == text
    rows = sweep(config, [old / "run"], [0.0, 1.0, 2.0], old / "sweep")
    assert {path: sha256_of(path) for path in cells} == cells  # none was made again
    assert len(list((old / "sweep" / "cells").glob("*.json"))) == 3
    assert rows[2].keys() - rows[0].keys() == {"passes", "keys", "floats"}  # which rows have since then
    table = report.write(old / "sweep").splitlines()
    bare = lambda lines: [line.replace("**", "") for line in lines]  # noqa: E731
    assert bare(table[2:4]) == bare(text[2:4]) and table[4].startswith("| 2 | 3 |")


@pytest.mark.slow
def test_its_cells_are_still_what_is_made(old, config):
    """The numbers of a cell that is taken away and made again, on whatever CPU this is."""
    [path] = (old / "sweep" / "cells").glob("*_w1.json")
    wanted = json.loads(path.read_text())
    for suffix in (".json", ".png"):
        path.with_suffix(suffix).unlink()
    shutil.rmtree(old / "sweep" / "report.html", ignore_errors=True)
    [row] = sweep(config, [old / "run"], [1.0], old / "sweep")
    np.testing.assert_allclose([*row["scores"].values()], [*wanted["scores"].values()], rtol=2e-3)


@pytest.mark.slow
def test_the_attached_weights_of_version_1_load():
    path = ROOT / "experiments" / "results" / "fashion_mnist_16" / "model.safetensors"
    model = cfg_jax.load(path)
    assert model.config.eval.quantize == "round" and model.config.guidance.name == "classifier-free"
    assert model.sample([0], num_steps=1).shape == (1, 16, 16, 1)
