import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from cfg_jax.errors import InputError
from cfg_jax.training import records, trainer, writers


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package: its `calls` are what was asked of it."""
    module = ModuleType("wandb")
    module.calls, module.Error, module.Image = [], type("Error", (Exception,), {}), lambda array: ("image", array.shape)

    class Run:
        def log(self, data, step):
            module.calls.append(("log", step, data))

        def finish(self):
            module.calls.append(("finish",))

    def init(*, project, name, dir, config, id, resume):
        module.calls.append(("init", project, name, dir, config["p_uncond"], id, resume))
        return Run()

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.mark.slow
def test_a_run_goes_on_in_its_run_of_weights_and_biases(tiny, tmp_path, wandb):
    half, workdir = tiny.copy_and_resolve_references(), tmp_path / "run"
    half.train.num_steps = 2
    trainer.train(half, workdir, wandb="guidance")
    trainer.train(tiny, workdir, wandb="guidance")
    name = (workdir / "wandb_id").read_text()
    begun = ("init", "guidance", "run", str(workdir), 0.1, name, "allow")
    rows = [row for _, row in records.read(workdir / "metrics.jsonl")]
    first, second = (("log", row.pop("step"), writers.scalars(row)) for row in rows)
    assert first[1:2] + second[1:2] == (2, 4) and first[2]["loss"] > 0 and len(name) == 32
    with Image.open(workdir / "samples" / "0000004_ema.png") as image:
        shape = image.height, image.width
    pictures = [("log", 4, {which: ("image", shape)}) for which in ("params", "ema")]
    assert wandb.calls == [begun, first, ("finish",), begun, second, *pictures, ("finish",)]


def test_nothing_is_asked_of_it_where_nobody_asks(tiny, tmp_path, wandb):
    writer = writers.Writer(tmp_path, 0, tiny)
    writer.write(1, {"loss": 1.0})
    writer.image(1, "ema", np.zeros((8, 8), np.uint8))
    writer.close()
    assert not wandb.calls and not (tmp_path / "wandb_id").exists()


def test_without_the_package_nothing_is_written(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"wandb is not installed: python -m pip install 'cfg_jax\[wandb\]'"):
        trainer.train(tiny, tmp_path / "run", wandb="guidance")
    assert not (tmp_path / "run").exists()


def test_a_login_that_is_missing_is_said_with_its_remedy(tiny, tmp_path, wandb):
    def init(**_):
        raise wandb.Error("No API key configured.\nMore.")

    wandb.init = init
    with pytest.raises(InputError, match=r"no run \(No API key configured\.\): log in with wandb login, or"):
        writers.weights_and_biases(tmp_path, tiny, "guidance")


def test_a_record_s_scalars():
    values = {"loss": None, "mfu": 0.4, "loss_by_logsnr": {"0..5": 1.0, "5..10": None}}
    assert writers.scalars(values) == {"mfu": 0.4, "loss_by_logsnr/0..5": 1.0}
