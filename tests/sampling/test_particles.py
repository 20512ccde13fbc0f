"""Weighted particles through the sweep and Model.sample, and what is refused."""

import jax
import numpy as np
import pytest

from cfg_jax import checks
from cfg_jax.errors import InputError
from cfg_jax.evaluation.features import Extracted
from cfg_jax.evaluation.measure import Tally
from cfg_jax.evaluation.references import Reference
from cfg_jax.models import build
from cfg_jax.sampling import draw
from cfg_jax.sampling.model import Model
from cfg_jax.sweep import spec
from cfg_jax.sweep.run import sweep
from tests.evaluation.test_references import Network


@pytest.mark.slow
def test_a_cell_of_particles(tiny_run, tmp_path, monkeypatch):
    config, workdir = tiny_run
    monkeypatch.setattr("cfg_jax.sweep.run.features_of", lambda *_: Network())
    config = spec.changed(config, {"eval.bootstrap": 0, "eval.num_images": 24, "eval.batch_size": 8})
    rows = sweep(config, [workdir], [0.0, 0.5], tmp_path / "s", vary={"sampler.particles": [4, 8]})
    assert [row["sampler.particles"] for row in rows] == [4, 4, 8, 8]
    assert all(0 < row["effective_size"]["min"] <= row["effective_size"]["mean"] <= 1 for row in rows)
    assert rows[0]["effective_size"] == {"mean": 1.0, "min": 1.0}  # unguided
    files = sorted(path.name for path in (tmp_path / "s" / "cells").glob("*.json"))
    assert len(files) == 4 and "v0.3-particles4_" in files[0]
    (alone,) = sweep(config, [workdir], [0.5], tmp_path / "s")
    assert "effective_size" not in alone and "sampler.particles" not in alone


def test_the_parts_of_is_have_some_of_every_group():
    """Labels in groups: without an order each part would be of one class, and IS 1."""
    labels = np.repeat(np.arange(4), 8)
    logits, uint8 = 20.0 * np.eye(4)[labels], np.zeros((32, 2, 2, 1), np.uint8)
    found = []
    for order in (None, np.arange(32).reshape(8, 4).T.ravel()):
        tally = Tally(32, labels, "x", splits=4, order=order)
        tally.add(uint8, Extracted({}, {"is_x": logits}, {}))
        found.append(tally.scores(Reference({}, uint8, None, ""))[0]["is_x@32"][0])
    np.testing.assert_allclose(found, [1, 4], rtol=1e-3)


@pytest.mark.slow
def test_images_of_a_group_share_a_label_and_a_w(tiny_run):
    config, _ = tiny_run
    assert list(draw.labels_by_rule("balanced", 12, 3, 0, group=4)) == [0] * 4 + [1] * 4 + [2] * 4
    params = build.parameters(config, jax.random.key(0))
    model = Model(config, build.denoiser(config, params))
    labels = np.repeat([3, 5], 4)
    images = model.sample(labels, 1.0, particles=4)
    np.testing.assert_array_equal(images[:4], model.sample(labels[:4], 1.0, particles=4))
    for labels, w, said in (
        ([0, 0, 1], 1.0, "no whole number of groups"),
        ([0, 1, 0, 1], 1.0, "must have one label and one w"),
        ([0, 0, 0, 0], [0.0, 1.0, 0.0, 1.0], "must have one label and one w"),
    ):
        with pytest.raises(InputError, match=f"particles=[24]: .*{said}"):
            model.sample(labels, w, particles=2 if len(labels) < 4 else 4)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sampler.particles": 1}, "config.sampler.particles=1 is no group"),
        ({"sampler.particles": -3}, "config.sampler.particles=-3"),
        ({"sampler.particles": 8, "sampler.name": "ddim"}, "is of config.sampler.name=ancestral"),
        ({"sampler.particles": 8, "guidance.name": "apg"}, "config.guidance.name=classifier-free"),
        ({"sampler.particles": 8, "guidance.logsnr_high": 3.0}, "with nothing around it"),
        ({"sampler.name": "langevin", "sampler.size": -1.0}, "config.sampler.size=-1.0 must lie in"),
    ],
)
def test_what_particles_cannot_be_combined_with(tiny, fields, said):
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        checks.everything(spec.changed(tiny, fields))


@pytest.mark.slow
def test_a_cell_is_whole_groups(tiny_run, tmp_path):
    config, workdir = tiny_run
    with pytest.raises(InputError, match="particles=5 does not divide config"):
        sweep(config, [workdir], [0.5], tmp_path / "s", vary={"sampler.particles": [5]})


@pytest.mark.slow
def test_particles_are_varied_by_the_command(tiny_run, command, tmp_path):
    """Whole numbers, of a field that is None in the config."""
    _, workdir = tiny_run
    model = "model.multipliers=(1,)", "model.num_blocks=1", "model.attention_resolutions=()", "sampler.num_steps=3"
    few = "num_images=40", "batch_size=20", "splits=2", "bootstrap=0", "neighbours=0"
    small = [*model, *(f"eval.{field}" for field in few)]
    done = command(
        "sweep", "--config=configs/digits.py", f"--runs={workdir}", "--w=0.5", "--vary=sampler.particles=4,10",
        f"--workdir={tmp_path / 's'}", *(f"--config.{field}" for field in small),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len([*(tmp_path / "s" / "cells").glob("*particles*.json")]) == 2
    wrong = command("sweep", "--config=configs/digits.py", f"--runs={workdir}", "--vary=sampler.particles=7",
                    f"--workdir={tmp_path / 't'}")  # fmt: skip
    assert wrong.returncode == 1 and "does not divide config.eval.num_images=800" in wrong.stderr
