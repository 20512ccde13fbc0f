"""The Inception network of FID against torch-fidelity's, on the same weights made from names and shapes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from cfg_jax.data import sources
from cfg_jax.errors import InputError
from cfg_jax.evaluation import classifiers, features, references
from cfg_jax.evaluation.moments import Moments
from cfg_jax.models import inception
from cfg_jax.sweep import report
from cfg_jax.sweep.run import sweep
from cfg_jax.training import trainer
from experiments.helpers.inception_state import make
from tests.running import RECORDED, ROOT

REFERENCE = RECORDED / "inception.npz"
REAL = Path(os.environ.get("CFG_JAX_ASSETS") or "absent") / "inception_2015_to_mixed_8.npz"
# relative L2 in float32
TOLERANCE = {"mixed_6_conv": 1e-5, "mixed_8": 1e-5, "pool_3": 1e-5, "logits": 1e-5}


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def state(reference):
    return make(json.loads(str(reference["shapes"])))


@pytest.fixture(scope="module")
def run(state):
    params, _ = inception.from_torch(state)
    apply = jax.jit(inception.Inception().apply)
    return lambda images: apply({"params": params}, images)


def relative(a, b):
    return np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)


@pytest.mark.slow
def test_every_stage_is_torch_fidelitys(reference, state, run):
    stages = run(reference["images"])
    errors = {name: relative(stages[name], reference[name]) for name in TOLERANCE}
    print(errors)
    assert all(errors[name] < TOLERANCE[name] for name in TOLERANCE), errors
    _, bias = inception.from_torch(state)
    assert relative(stages["logits"] + bias, reference["logits_biased"]) < 1e-5


def test_the_resize_inside_is_tensorflow_1s(reference):
    resized = (inception.resize(reference["images"].astype(np.float32), 299) - 128) / 128
    np.testing.assert_allclose(resized[:, ::23, ::23], reference["resized"], atol=1e-5)


@pytest.mark.slow
def test_features_do_not_depend_on_the_batch(reference, run):
    """Up to the order of sums, which another batch shape changes."""
    images = reference["images"]
    together, alone = run(images[[0, 1, 0]]), run(images[:1])
    assert relative(together["pool_3"][2:], alone["pool_3"]) < 1e-6


@pytest.mark.slow
def test_up_to_mixed_8_the_network_is_the_same(reference, state):
    params, _ = inception.from_torch(state)
    known = inception.shapes("mixed_8")
    stages = jax.jit(inception.Inception("mixed_8").apply)(
        {"params": {k: params[k] for k in known}}, reference["images"]
    )
    assert set(stages) == {"mixed_6_conv", "mixed_8"}
    assert relative(stages["mixed_8"], reference["mixed_8"]) < 1e-5


def test_another_networks_weights_are_refused(state):
    strange = {**state, "Mixed_8a.conv.weight": np.zeros((1, 1, 1, 1), np.float32)}
    with pytest.raises(ValueError, match=r"Mixed_8a is no layer of the Inception network of FID"):
        inception.from_torch(strange)


def test_layers_go_in_and_come_out(tmp_path, state):
    """The .npz of layers in O, H, W, I order gives the parameters that it was written from."""
    params, _ = inception.from_torch(state)
    known = inception.shapes("mixed_8")
    layers = {f"{k}/weights": params[k]["kernel"].transpose(3, 0, 1, 2).ravel() for k in known}
    layers |= {f"{k}/bias": params[k]["bias"] for k in known}
    np.savez(tmp_path / "layers.npz", **layers)
    assert inception.convert(tmp_path / "layers.npz", tmp_path / "out.npz") == "mixed_8"
    loaded, _, _, until = inception.load(tmp_path / "out.npz")
    assert until == "mixed_8"
    jax.tree.map(np.testing.assert_array_equal, loaded, {k: params[k] for k in known})
    layers.pop("mixed_5_conv/bias")
    np.savez(tmp_path / "layers.npz", **layers)
    with pytest.raises(InputError, match="mixed_5_conv/bias of the Inception network is absent"):
        inception.convert(tmp_path / "layers.npz", tmp_path / "no.npz")
    assert not (tmp_path / "no.npz").exists()
    with pytest.raises(InputError, match=r"no\.npz has no Inception weights.*fetch_inception"):
        inception.load(tmp_path / "no.npz")


def test_a_file_of_another_sum_is_refused(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"something else")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.fetch_inception", f"--from_file={tmp_path}/x.pth", f"--out={tmp_path}/y.npz"],  # noqa: E501
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1 and "its sha256 does not begin with 6726825d" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "y.npz").exists()


@pytest.mark.slow
def test_a_classifier_near_chance_is_refused(tmp_path):
    """Of noise with labels in turn there is nothing to learn."""
    with pytest.raises(
        InputError,
        match=r"the classifier synthetic gets .* of 51 held-out pictures right, chance is 25\.0%.*features=inception",
    ):
        classifiers.DataClassifier(sources.synthetic(8, 1, 4), tmp_path / "classifier.npz")
    assert not (tmp_path / "classifier.npz").exists()


class Pixels:
    """Stands for the Inception network up to mixed_8: 1,280 features that are the pixels, and nothing else."""

    digest, distances = "pixels", ["fd_mixed8"]

    def __call__(self, images, so_far=None):
        flat = images.reshape(len(images), -1).astype(np.float32)
        return features.Extracted({"fd_mixed8": np.pad(flat, [(0, 0), (0, 1280 - flat.shape[1])])})


def of_classes(source, classes):
    own = np.isin(source.labels, classes)
    images, labels = source.images[own], np.searchsorted(classes, source.labels[own])
    return sources.in_memory("some digits", images, labels, map(str, classes), source="", licence="")


@pytest.mark.parametrize("classes", [range(10), (3, 8)])
@pytest.mark.slow
def test_a_probe_learns_classes_from_features(tmp_path, classes):
    """Its logits are those of the features as they come, of two classes too, and are kept."""
    source = of_classes(sources.digits(), classes)
    probe = classifiers.Probe(Pixels(), source, 0, tmp_path / "c.npz")
    assert probe.name == "some digits_mixed8" and 0.9 < probe.accuracy < 1
    order = np.random.default_rng(0).permutation(np.random.default_rng(0).permutation(len(source)))
    held_out, rest = np.split(order, [len(source) // 5])
    x = Pixels()(source.images).distances["fd_mixed8"]
    found = probe(source.images[held_out], features.Extracted({"fd_mixed8": x[held_out]}))
    logits = found.class_logits[probe.name]
    assert found.logits["is_some digits_mixed8"] is logits and not found.distances
    assert logits.shape == (len(held_out), len(classes))
    assert (logits.argmax(1) == source.labels[held_out]).mean() == probe.accuracy
    mean, scale = x[rest].mean(0), x[rest].std(0) + 1e-3
    plain = LogisticRegression(C=0.01, max_iter=500).fit((x[rest] - mean) / scale, source.labels[rest])
    wanted = plain.predict_proba((x[held_out] - mean) / scale)
    np.testing.assert_allclose(softmax(logits, axis=1), wanted, atol=1e-3)
    assert not list(tmp_path.glob("*.parts"))
    assert classifiers.Probe(Pixels(), source, 0, tmp_path / "c.npz").digest == probe.digest
    with pytest.raises(InputError, match="trained on other data or features"):
        classifiers.Probe(Pixels(), source, 100, tmp_path / "c.npz")


def test_weights_up_to_mixed_8_get_a_probe_beside_a_given_classifier(tmp_path, tiny, monkeypatch):
    """Otherwise nothing would give an IS."""
    given = SimpleNamespace(config=tiny, params={}, digest="given", network=SimpleNamespace(net=None))
    monkeypatch.setattr(classifiers, "InceptionFeatures", lambda path: Pixels())
    monkeypatch.setattr(classifiers, "load_classifier", lambda path: given)
    monkeypatch.setattr(classifiers, "Probe", lambda *args: SimpleNamespace(digest="probe", distances=(), accuracy=0.9))
    tiny.eval.update(features="inception", classifier="runs/judge")
    found = classifiers.features_of(tiny, sources.digits(), tmp_path)
    assert [extractor.digest for extractor in found.extractors] == ["pixels", "given", "probe"]
    assert found.accuracy == 0.9


def test_a_probe_that_was_killed_makes_no_features_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(classifiers, "PROBE_PART", 300)
    made = []

    class Killed(Pixels):
        def __call__(self, images, so_far=None):
            if len(made) == 3:
                raise KeyboardInterrupt
            made.append(len(images))
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        classifiers.Probe(Killed(), sources.digits(), 0, tmp_path / "c.npz")
    again = []
    monkeypatch.setattr(
        Pixels, "__call__", lambda self, images, _=None, call=Pixels.__call__: again.append(1) or call(self, images)
    )
    classifiers.Probe(Pixels(), sources.digits(), 0, tmp_path / "c.npz")
    assert made == [300] * 3 and len(again) == 4  # 1,438 in five parts, 359 in two


def test_a_probe_of_too_few_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no picture of \d of its 10 classes.*reference_images.*features=classifier"):
        classifiers.Probe(Pixels(), sources.digits(), 10, tmp_path / "c.npz")
    with pytest.raises(InputError, match=r"held-out pictures right, chance is 25\.0%.*config\.eval\.reference_images"):
        classifiers.Probe(Pixels(), sources.synthetic(8, 1, 4), 0, tmp_path / "c.npz")
    with pytest.raises(InputError, match="has one class to learn from"):
        classifiers.Probe(Pixels(), of_classes(sources.digits(), [3]), 0, tmp_path / "c.npz")
    assert not (tmp_path / "c.npz").exists()


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="inception_2015_to_mixed_8.npz is not in CFG_JAX_ASSETS")
def test_the_real_weights_tell_pictures_apart(tmp_path):
    """Features of the real network: two crops of one texture are nearer than of another, by far."""
    assert inception.convert(REAL, tmp_path / "real.npz") == "mixed_8"
    params, *_ = inception.load(tmp_path / "real.npz")
    y, x = np.mgrid[:64, :64]
    stripes, discs = 127 + 100 * np.sin(x / 3), 255 * ((x % 32 - 16) ** 2 + (y % 32 - 16) ** 2 < 120)
    pictures = np.stack([stripes, np.roll(stripes, 5, 1), discs, np.roll(discs, 7, 0)]).astype(np.uint8)
    stages = jax.jit(inception.Inception("mixed_8").apply)({"params": params}, np.repeat(pictures[..., None], 3, -1))
    f = np.asarray(stages["mixed_8"])
    between = min(np.linalg.norm(f[i] - f[j]) for i in (0, 1) for j in (2, 3))
    assert 2 * max(np.linalg.norm(f[0] - f[1]), np.linalg.norm(f[2] - f[3])) < between
    assert f.min() >= 0 and 0.05 < f.mean() < 1


@pytest.mark.skipif(not REAL.exists(), reason="inception_2015_to_mixed_8.npz is not in CFG_JAX_ASSETS")
@pytest.mark.slow
def test_a_sweep_on_the_networks_features(tmp_path, tiny):
    """Names say what they are of; the reference is kept, and is that of the images themselves."""
    inception.convert(REAL, tmp_path / "inception.npz")
    tiny.eval.update(
        features="inception", inception=str(tmp_path / "inception.npz"), reference_images=64, bootstrap=2, w=(0.0,)
    )
    trainer.train(tiny, tmp_path / "run")
    [row] = sweep(tiny, [tmp_path / "run"], [0.0], tmp_path / "sweep")
    names = [
        "fd_mixed8@24",
        "sfid_inception@24",
        "kid_mixed8@24",
        "precision_mixed8@24",
        "recall_mixed8@24",
        "is_digits_mixed8@24",
    ]
    assert list(row["scores"])[:6] == names
    assert row["reference_N"] == 64 and row["classifier_accuracy"] > 0.3 and len(row["resampled"]["fd_mixed8@24"]) == 2
    assert "fd_mixed8@24, p=0.1" in report.write(tmp_path / "sweep")

    source, config = sources.load(tiny)
    network = classifiers.features_of(config, source, tmp_path / "sweep")
    [path] = (tmp_path / "sweep").glob("reference-*.npz")
    kept = references.read(path)
    assert kept.digest == row["reference"] and kept.about["resize"] == "none" and len(kept.images) == 64
    index = np.sort(np.random.default_rng(0).permutation(len(source))[:64])
    direct = Moments.of(network(source.images[index], classify=False).distances["fd_mixed8"])
    np.testing.assert_allclose(direct.mean, kept.moments["fd_mixed8"][0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(direct.cov, kept.moments["fd_mixed8"][1], rtol=1e-2, atol=1e-5)


@pytest.mark.slow
def test_anyones_samples_by_the_commands(tmp_path, state):
    """ADM's layout out and in, on random weights: the same pictures are at no distance, others at some."""
    params, bias = inception.from_torch(state)
    flat = {f"{layer}/{leaf}": a for layer, leaves in params.items() for leaf, a in leaves.items()}
    weights = tmp_path / "inception.npz"
    np.savez(weights, **flat, bias_of_logits=bias, sha256=np.array("f" * 64), until=np.array("logits"))

    def command(name, *args):
        line = [sys.executable, "-m", f"experiments.{name}", f"--inception={weights}", *map(str, args)]
        return subprocess.run(line, capture_output=True, text=True, cwd=ROOT)

    reference = tmp_path / "reference.npz"
    made = command("reference_stats", "--dataset=digits", "--num_images=24", "--neighbours=24", f"--out={reference}")
    assert made.returncode == 0, made.stderr
    assert "24 train pictures of digits, resize none" in made.stdout
    assert "fid_inception: 24 reference images give a covariance of rank 23 of 2048" in made.stderr
    with np.load(reference, allow_pickle=False) as file:
        assert {k: file[k].shape for k in ("mu", "sigma", "mu_s", "sigma_s", "arr_0")} == {
            "mu": (2048,), "sigma": (2048, 2048), "mu_s": (2023,), "sigma_s": (2023, 2023), "arr_0": (24, 8, 8, 1),
        }  # fmt: skip
        pictures = file["arr_0"]
    again = command("reference_stats", "--dataset=digits", "--num_images=30", f"--out={reference}")
    assert again.returncode == 1 and "another number" in again.stderr.splitlines()[-1]
    assert "is of 24 of the 1,797 train pictures" in again.stderr

    np.savez(tmp_path / "same.npz", arr_0=pictures, arr_1=np.arange(24) % 10)
    out = tmp_path / "score.json"
    same = command(
        "score", f"--samples={tmp_path / 'same.npz'}", f"--reference={reference}", "--splits=2", f"--out={out}"
    )
    assert same.returncode == 0, same.stderr
    scores = json.loads(out.read_text())["scores"]
    names = ["fid_inception", "sfid_inception", "kid_inception", "precision_inception", "recall_inception",
             "is_inception", "isc_inception", "isc_biased_inception", "saturated_same", "variety_same"]  # fmt: skip
    assert list(scores) == [f"{name}@24" for name in names]
    assert scores["fid_inception@24"] == pytest.approx(0, abs=1e-5) and scores["precision_inception@24"] == 1
    np.savez(tmp_path / "other.npz", arr_0=255 - pictures)
    pair = f"--samples={tmp_path / 'other.npz'}", f"--reference={tmp_path / 'same.npz'}"
    other = command("score", *pair, "--splits=2", "--bootstrap=3")
    printed = dict(line.split()[:2] for line in other.stdout.splitlines())
    assert float(printed["fid_inception@24"]) > 1e-3 and "variety_other@24" not in printed and " ± " in other.stdout

    np.savez(tmp_path / "large.npz", arr_0=np.zeros((24, 16, 16, 1), np.uint8))
    bad = command("score", f"--samples={tmp_path / 'large.npz'}", f"--reference={reference}")
    assert (
        "of pictures of (8, 8, 1), not of (16, 16, 1): name a reference of the same resize"
        in bad.stderr.splitlines()[-1]
    )
    assert bad.returncode == 1
