"""A classifier of noisy images: trained as a run is, and guiding."""

import json

import jax
import numpy as np
import pytest

from cfg_jax import checks
from cfg_jax.data import sources
from cfg_jax.errors import InputError
from cfg_jax.models import build
from cfg_jax.models.unet import Encoder
from cfg_jax.sampling.model import Guides, Model, load_classifier
from cfg_jax.training import trainer
from tests.conftest import fill
from tests.running import run


@pytest.fixture
def judge(tiny):
    """The config of a small classifier."""
    tiny.train.update(num_steps=150, batch_size=64, log_every=50, checkpoint_every=75, learning_rate=3e-3)
    return Encoder.config_of(tiny)


@pytest.mark.slow
def test_it_learns_what_can_be_seen_goes_on_and_guides(judge, tiny, tmp_path):
    """Accuracy by log-SNR in its records: high where clean, chance in noise. Stopped and continued it is the same."""
    trainer.train(judge, tmp_path / "whole")
    last = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[-1])
    by_logsnr = last["accuracy_by_logsnr"]
    assert by_logsnr["5..10"] > 0.7 and by_logsnr["min..-15"] < 0.5
    judge.train.num_steps = 75
    trainer.train(judge, tmp_path / "parted")
    judge.train.num_steps = 150
    trainer.train(judge, tmp_path / "parted")
    loaded = load_classifier(tmp_path / "whole")
    assert loaded.digest == load_classifier(tmp_path / "parted").digest

    source, _ = sources.load(judge)
    x = np.float32(source.images[:200]) / 127.5 - 1
    log_p = loaded.log_prob(x, np.full(200, 20.0, np.float32), source.labels[:200])
    assert np.exp(log_p).mean() > 0.6
    model = Model(tiny, build.denoiser(tiny, fill(build.shapes(tiny))))
    plain = model.sample([1, 1, 7, 7], num_steps=4)
    for settings in ({}, {"classifier": "mean"}):
        guided = model.sample([1, 1, 7, 7], num_steps=4, guides=Guides(None, loaded, 4.0), **settings)
        assert np.abs(guided.astype(int) - plain).max() > 1


@pytest.mark.slow
def test_the_command_makes_one_of_a_models_config(tmp_path):
    model = ["--config.model.multipliers=(1,)", "--config.model.attention_resolutions=()"]
    train = ["--config.train.num_steps=2", "--config.train.batch_size=8", "--config.train.log_every=1"]
    args = ["--config=configs/digits.py", f"--workdir={tmp_path / 'c'}", *model, *train]
    done = run("train_classifier", *args)
    assert done.returncode == 0, done.stderr
    assert "is done: step 2 of 2" in run("train_classifier", *args).stderr
    assert build.is_classifier(load_classifier(tmp_path / "c").config)
    wrong = run(
        "train_classifier", "--config=configs/digits.py", "--config.data.num_classes=1", f"--workdir={tmp_path}/d"
    )
    assert wrong.returncode == 1 and "config.data.num_classes=1 gives nothing to tell" in wrong.stderr


def test_its_config_has_the_encoders_fields_alone(tiny):
    config = Encoder.config_of(tiny)
    checks.everything(config)
    assert "null_label" in tiny.model and not {"null_label", "learned_variance", "dropout"} & set(config.model)
    assert set(jax.tree.leaves(jax.tree.map(len, build.shapes(config)["out_pool"]["c_proj"]))) == {32, 10}
    config.model.channels = 33
    with pytest.raises(InputError, match="must be a multiple of the 32 groups"):
        checks.everything(config)
