"""A model that was trained without classes (config.data.num_classes=0): a command takes it, or says what it lacks."""

import csv

import numpy as np
import pytest
from PIL import Image

import cfg_jax
from cfg_jax.data import sources
from cfg_jax.errors import InputError
from cfg_jax.evaluation import classifiers
from cfg_jax.sampling import pairs
from cfg_jax.sweep import run as sweeps
from cfg_jax.training import students, trainer
from experiments.helpers import model_card


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    """Four steps, with a grid at the last one: (config, workdir)."""
    from tests.conftest import tiny_config

    config, workdir = tiny_config(), tmp_path_factory.mktemp("unlabelled") / "run"
    config.data.num_classes = 0
    trainer.train(config, workdir)
    return config, workdir


@pytest.mark.slow
def test_a_run_is_trained_past_its_grid_and_sampled(unlabelled):
    _, workdir = unlabelled
    with Image.open(workdir / "samples" / "0000004_ema.png") as grid:
        assert grid.width > 7 * grid.height  # one row
    model = cfg_jax.load(workdir)
    drawn = model.sample([0, 0])
    assert np.ptp(drawn) > 0
    np.testing.assert_array_equal(model.sample([0, 5]), drawn)  # labels are not looked at
    with pytest.raises(InputError, match="w=1 asks for guidance, but the model was trained without classes: use w=0"):
        model.sample([0], w=1)


@pytest.mark.slow
def test_it_is_scored_at_w_0_alone_and_its_card_says_so(unlabelled, tmp_path):
    config, workdir = unlabelled
    config = config.copy_and_resolve_references()
    config.eval.bootstrap = 0
    with pytest.raises(InputError, match="--w=2 asks for guidance, but the model was trained without classes"):
        sweeps.sweep(config, [workdir], [0.0, 2.0], tmp_path)
    assert not [*tmp_path.iterdir()]
    (row,) = sweeps.sweep(config, [workdir], [0.0], tmp_path)
    assert row["scores"]["fid_digits@24"] > 0 and not [name for name in row["scores"] if "accuracy" in name]
    with open(tmp_path / "results.csv", "w", newline="") as file:
        names = {"w": 0, "T": 3, "seed": 0, "parameters": row["parameters"], "fid_digits@24": 1.5, "is_digits@24": 2.5}
        csv.writer(file).writerows([names, names.values()])
    params = cfg_jax.load(workdir).params
    scores = model_card.scores(tmp_path, params)
    card = model_card.card(tmp_path / "m.safetensors", config, 4, params, dtype="float32", rows=scores)
    texts = (
        "model.sample([0, 0], w=0.0)",
        "no classes",
        "w must be 0",
        "name: unconditional image",
        "| 0 | 1.50 | 2.50 |",
    )
    assert all(text in card for text in texts), card


@pytest.mark.slow
def test_the_sample_command_draws_eight(unlabelled, tmp_path, command):
    run = f"--run={unlabelled[1]}", f"--out={tmp_path / 'a.png'}"
    done = command("sample", *run, f"--npz={tmp_path / 'a.npz'}")
    assert done.returncode == 0 and "8 rows, without labels" in done.stdout, done.stderr
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert len(file["arr_0"]) == 8
    done = command("sample", *run, "--labels=0,3")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "--labels=0,3: the model was trained without classes: leave --labels out" in done.stderr


@pytest.mark.slow
def test_what_needs_classes_says_so(unlabelled, tmp_path, command):
    config, workdir = unlabelled
    with pytest.raises(InputError, match=r"on 0 classes .* has no two halves to distil: name a run with classes"):
        students.distilled(config, str(workdir), 0, 4)
    for name, args, message in (
        ("paper", ("--figure=1", "--scale=digits", "--config.eval.w=(0.0,)"), "--figure=1 shows classes"),
        ("studies.curl", (f"--run={workdir}", "--w=0"), "has no classes"),
    ):
        own = ("--config.data.num_classes=0",) if name == "paper" else ()
        done = command(name, *args, *own)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and message in done.stderr, done.stderr


@pytest.mark.slow
def test_pairs_without_a_null_label_are_taken(tiny, tmp_path):
    """Of no classes: their labels are 0, of which a network without a null label has none."""
    tiny.data.num_classes, tiny.model.null_label, tiny.p_uncond = 0, False, 0.0
    source, tiny = sources.load(tiny)
    made = pairs.Pairs(np.zeros((4, 8, 8, 2), np.float32), np.zeros(4, np.int32))
    pairs.write(tmp_path / "p.npz", made)
    tiny.teacher.update(how="pairs", run=str(tmp_path / "p.npz"))
    assert len(students.load(tiny, source)[1]) == 4


@pytest.mark.slow
def test_data_of_one_class_make_no_classifier(tmp_path):
    """Its only answer is right always, and its features are those it began with."""
    source = sources.synthetic(8, 1, 0)
    assert source.card.class_names == ("0",)
    with pytest.raises(InputError, match=r"has one class to learn from.*experiments\.fetch_inception"):
        classifiers.DataClassifier(source, tmp_path / "classifier.npz")
