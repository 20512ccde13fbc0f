"""Check that rows say how they were measured, and which of them may share a table."""

import json

import jax
import pytest

import cfg_jax
from cfg_jax.data import sources
from cfg_jax.errors import InputError
from cfg_jax.store import weights
from cfg_jax.sweep import report
from cfg_jax.sweep.run import sweep
from cfg_jax.training import state as states
from tests.conftest import fill
from tests.evaluation.test_references import Network


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    """sweep(...) of an untrained bfloat16 model, scored on an image's mean and first pixel."""
    tiny.model.dtype, tiny.data.card = "bfloat16", sources.digits().card.digest
    tiny.eval.update(w=(0.0,), bootstrap=0)
    file = tmp_path / "model.safetensors"
    weights.export(file, tiny, 7, fill(jax.eval_shape(lambda: states.create(tiny)).params))
    monkeypatch.setattr("cfg_jax.sweep.run.features_of", lambda *_: Network())

    def run(ws=(0.0,), **more):
        return sweep(tiny, [file], ws, tmp_path / "sweep", **more)

    return run


def test_a_row_says_what_it_was_measured_with(run, tiny, caplog):
    [row] = run()
    wanted = {
        "split": "train", "complete": True, "split_N": 1797, "reference_N": 1797, "data": "digits", "resize": "none",
        "platform": "cpu", "precision": "highest", "reference_platform": "cpu", "reference_precision": "highest",
        "dtype": "bfloat16", "trained_dtype": "bfloat16", "quantize": "round", "weights": "ema", "step": 7,
    }  # fmt: skip
    assert {field: row[field] for field in wanted} == wanted
    assert row["source"].startswith("scikit-learn") and "of the 1,797" not in caplog.text
    tiny.eval.update(quantize="truncate", reference_images=100)
    [other] = run()
    assert (other["quantize"], other["reference_N"], other["split_N"]) == ("truncate", 100, 1797)
    assert other["scores"] != row["scores"]
    assert "is of 100 of the 1,797 train pictures: a distance to it compares with others to the same" in caplog.text


@pytest.mark.slow
def test_a_bfloat16_run_is_scored_in_float32_beside_itself(run, tmp_path):
    [own] = run()
    [row] = run(dtype="float32")
    assert (row["dtype"], row["trained_dtype"], row["config"]) == ("float32", "bfloat16", own["config"])
    assert row["scores"] != own["scores"] and len(list((tmp_path / "sweep" / "cells").glob("*.json"))) == 2
    report.write(tmp_path / "sweep")
    tables = (tmp_path / "sweep" / "table.md").read_text()
    assert "EMA weights. No" in tables and "EMA weights, float32 (trained in bfloat16)." in tables
    model = cfg_jax.load(tmp_path / "model.safetensors")
    full = cfg_jax.load(tmp_path / "model.safetensors", dtype="float32")
    assert (model.dtype, full.dtype, full.config.model.dtype) == ("bfloat16", "float32", "bfloat16")
    with pytest.raises(InputError, match="dtype='float16' is unknown: choose float32 or bfloat16"):
        cfg_jax.load(tmp_path / "model.safetensors", dtype="float16")


@pytest.mark.slow
def test_cells_of_two_kinds_of_device_are_mixed_only_where_it_is_asked_for(run, tmp_path, monkeypatch):
    workdir = tmp_path / "sweep"
    [here] = run()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(InputError, match=r"w0\.json was made on another kind of device than this \(gpu\).*--other_dev"):
        run(ws=(0.0, 1.0))
    kept, made = run(ws=(0.0, 1.0), other_device=True)
    assert kept == here and (made["platform"], made["reference_platform"], made["other_device"]) == ("gpu", "gpu", True)
    assert made["features"] != here["features"] and made["network"] == here["network"]
    assert "Features of some cells were made on cpu, of others on gpu." in report.write(workdir)
    path = next(workdir.glob("cells/*_w1.json"))
    path.write_text(json.dumps(made | {"other_device": False}))
    with pytest.raises(InputError, match="made with other features than the rest"):
        report.write(workdir)
