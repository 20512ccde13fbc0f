import json

import jax
import numpy as np
import pytest

import cfg_jax
from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.models import build, network
from cfg_jax.sampling.model import Guides, Model, run_and_step
from cfg_jax.store import checkpoint, weights
from cfg_jax.training import state as states
from cfg_jax.training import trainer
from tests.conftest import fill


def shapes_of(config):
    return jax.eval_shape(lambda: states.create(config)).params


@pytest.fixture
def run(tiny, tmp_path):
    """An imported-like run: a class-conditional model with no null row that never dropped a label."""
    tiny.p_uncond, tiny.model.null_label = 0.0, False
    configs.save(tmp_path / "run" / "config.json", tiny)
    params = fill(shapes_of(tiny))
    checkpoint.save_weights(tmp_path / "run", params)
    return tmp_path / "run", tiny, params


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_an_export_is_the_run_to_the_bit(run, tmp_path):
    path, config, params = run
    model = cfg_jax.load(path)
    weights.export(tmp_path / "m.safetensors", model.config, model.step, model.params)
    again = cfg_jax.load(tmp_path / "m.safetensors")
    assert_equal(again.params, params)
    assert again.step == 0 and configs.digest(again.config) == configs.digest(config)
    np.testing.assert_array_equal(again.sample([1, 2, 3, 4], num_steps=3), model.sample([1, 2, 3, 4], num_steps=3))


def test_an_export_in_bfloat16_is_half_as_long_and_nearly_the_run(run, tmp_path):
    _, config, params = run
    files = {dtype: tmp_path / f"{dtype}.safetensors" for dtype in network.DTYPES}
    for dtype, file in files.items():
        weights.export(file, config, 0, params, dtype)
    assert files["bfloat16"].stat().st_size < 0.6 * files["float32"].stat().st_size
    again = cfg_jax.load(files["bfloat16"]).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8), again, params)
    assert {a.dtype for a in jax.tree.leaves(again)} == {np.dtype("float32")}


def test_what_is_no_export_is_named(run, tmp_path):
    from safetensors.numpy import save_file

    _, config, params = run
    file = tmp_path / "m.safetensors"
    weights.export(file, config, 0, params)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read"):
        cfg_jax.load(file)
    save_file({"a": np.zeros(3)}, file)
    with pytest.raises(InputError, match=r"not written by experiments\.export"):
        cfg_jax.load(file)


def test_a_run_of_an_older_version_is_named(run):
    path, config, _ = run
    older = config.to_dict()
    del older["model"]["time"]
    (path / "config.json").write_text(json.dumps(older))
    with pytest.raises(InputError, match=r"model.time is missing.*by this version of the code"):
        cfg_jax.load(path)


@pytest.mark.slow
def test_fine_tuning_starts_from_the_weights_and_adds_the_null_row(run, tmp_path):
    path, config, params = run
    config = config.copy_and_resolve_references()
    config.p_uncond, config.model.null_label, config.init_from = 0.5, True, str(path)
    config.train.update(num_steps=1, learning_rate=1e-12)
    trainer.train(config, tmp_path / "tuned")
    tuned = cfg_jax.load(tmp_path / "tuned", params="params").params
    rows = np.asarray(tuned["label_emb"]["embedding"])
    np.testing.assert_array_equal(rows[:-1], params["label_emb"]["embedding"])
    assert len(rows) == 11 and np.abs(rows[-1]).max() > 0
    jax.tree.map(np.testing.assert_array_equal, {k: tuned[k] for k in tuned if k != "label_emb"},
                 {k: params[k] for k in params if k != "label_emb"})  # fmt: skip
    assert json.loads((tmp_path / "tuned" / "config.json").read_text())["init_from"] == str(path)


def test_weights_of_another_network_are_refused_line_by_line(run, tiny):
    _, _, params = run
    tiny.model.channels = 64
    with pytest.raises(InputError) as error:
        weights.fit_to(params, shapes_of(tiny))
    lines = str(error.value).splitlines()
    assert "out_conv/kernel: (3, 3, 32, 1) there, (3, 3, 64, 1) by this config" in lines
    assert not any(line.startswith("out_conv/bias") for line in lines)  # has the same shape in both


@pytest.mark.slow
def test_guidance_of_a_model_without_a_null_row_needs_another_run(run, tiny):
    path, config, _ = run
    model = cfg_jax.load(path)
    with pytest.raises(InputError, match="trained with p_uncond=0"):
        model.sample([1, 2], w=1.0, num_steps=3)
    for name, more in (("unconditional", {}), ("two_labels", {"other_label": 3})):
        with pytest.raises(InputError, match=f"guidance.name={name} needs an unconditional half"):
            model.sample([1, 2], num_steps=3, guidance=name, **more)
    by_others = model.sample([1, 2], w=1.0, num_steps=3, uncond="other_label")  # which it has
    assert np.abs(by_others.astype(int) - model.sample([1, 2], num_steps=3)).max() > 1
    with pytest.raises(InputError, match="eps_u is given by the other run and by config"):
        model.sample([1, 2], w=1.0, num_steps=3, uncond="other_label", guides=Guides(model))
    labels = [1, 2, 3, 4]
    plain, itself = (model.sample(labels, w=w, num_steps=3, guides=Guides(model)) for w in (0.0, 2.0))
    np.testing.assert_allclose(itself, plain, atol=1)  # (1 + w) eps - w eps is eps

    other = config.copy_and_resolve_references()
    other.p_uncond, other.model.null_label = 1.0, True
    none = Model(other, build.denoiser(other, fill(shapes_of(other), seed=1)))
    away, again = (model.sample(labels, w=2.0, num_steps=3, guides=Guides(none)) for _ in range(2))
    np.testing.assert_array_equal(away, again)
    assert np.abs(away.astype(int) - plain).max() > 1
    unconditional = model.sample(labels, w=-1.0, num_steps=3, guides=Guides(none))
    np.testing.assert_allclose(unconditional, none.sample(labels, w=-1.0, num_steps=3), atol=1)
    other.p_uncond, other.data.num_classes = 0.1, 7
    few = Model(other, build.denoiser(other, fill(shapes_of(other))))
    with pytest.raises(InputError, match="the unconditional run has 7 classes, the model 10"):
        model.sample(labels, w=1.0, num_steps=3, guides=Guides(few))


def test_a_guide_is_a_run_and_a_step(tmp_path):
    assert run_and_step("runs/a@300") == ("runs/a", 300) and run_and_step("runs/a") == ("runs/a", None)
    assert run_and_step("a@b/c") == ("a@b/c", None)
    (tmp_path / "a@3").mkdir()
    assert run_and_step(tmp_path / "a@3") == (str(tmp_path / "a@3"), None)


def test_a_step_that_was_not_kept_is_refused_with_the_kept(run):
    path, _, _ = run
    with pytest.raises(InputError, match=r"has no checkpoint of step 3: choose one of \[\d"):
        cfg_jax.load(*run_and_step(f"{path}@3"))


def test_weights_come_with_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cfg_jax.pretrained() == ["digits", "fashion_mnist_16"]
    for name, side in (("digits", 8), ("fashion_mnist_16", 16)):
        file = weights.PRETRAINED / f"{name}.safetensors"
        assert file.stat().st_size < 2e6 and f'cfg_jax.load("{name}")' in file.with_suffix(".md").read_text()
        assert cfg_jax.load(name).image_shape == (side, side, 1)
    for wrong, meant in (
        ("digit", "did you mean digits? "),
        ("fashion_mnist", "did you mean fashion_mnist_16? "),
        ("x", ""),
    ):
        with pytest.raises(InputError) as error:
            cfg_jax.load(wrong)
        said = str(error.value)
        assert said.startswith(f"{wrong} is no run directory (it has no config.json): {meant}name one that ")
        assert said.endswith("what comes with the package: digits, fashion_mnist_16") and "\n" not in said
    (tmp_path / "digits").mkdir()
    assert cfg_jax.load("digits").image_shape == (8, 8, 1)  # a folder that is no run hides nothing
