"""EMAs by a power of the step: their profiles, and one made of others against the one that was kept."""

import jax
import numpy as np
import pytest

import cfg_jax
from cfg_jax import checks
from cfg_jax.errors import InputError
from cfg_jax.store import averages
from cfg_jax.sweep import report
from cfg_jax.sweep.run import sweep
from cfg_jax.training import trainer
from tests.evaluation.test_references import Network


def test_the_powers_are_the_published_ones_and_have_the_lengths():
    np.testing.assert_allclose([averages.power(0.05), averages.power(0.1)], [16.97, 6.94], atol=5e-3)
    s = (np.arange(200_000) + 0.5) / 200_000
    for length in (0.05, 0.1, 0.2):
        p = s ** averages.power(length)
        mean = (s * p).sum() / p.sum()
        assert np.sqrt(((s - mean) ** 2 * p).sum() / p.sum()) == pytest.approx(length, rel=1e-3)


def test_overlaps_are_the_integrals_of_the_profiles():
    (t_a, a), (t_b, b) = (300.0, 5.0), (400.0, 12.0)
    s = (np.arange(400_000) + 0.5) / 1000
    profile = lambda t, g: np.where(s < t, (g + 1) * (s / t) ** g / t, 0)  # noqa: E731
    wanted = (profile(t_a, a) * profile(t_b, b)).sum() / 1000
    for one, other in (((t_a, a), (t_b, b)), ((t_b, b), (t_a, a))):
        found = averages.overlap(*(np.array([x]) for x in (*one, *other)))
        assert found[0, 0] == pytest.approx(wanted, rel=1e-4)


@pytest.fixture(scope="module")
def walked():
    """{step: averages of 0.05 and 0.1}, and of other lengths at the end, kept along a wandering parameter."""
    rng, p = np.random.default_rng(0), np.zeros(64, np.float32)
    kept, tracked = {}, averages.start({"p": p}, (0.05, 0.1))
    direct = averages.start({"p": p}, (0.075, 0.12))
    step_of = jax.jit(averages.update)
    for step in range(800):
        p = p + np.float32(rng.standard_normal(64) / (1 + step / 50))
        tracked, direct = (step_of(of, {"p": p}, np.int32(step)) for of in (tracked, direct))
        if (step + 1) % 100 == 0:
            kept[step + 1] = tracked
    return kept, direct, p


@pytest.mark.parametrize("length", [0.075, 0.12])
def test_an_average_made_afterwards_is_the_one_that_was_kept(walked, length):
    kept, direct, last = walked
    wanted = np.asarray(direct[f"{length:g}"]["p"])
    error = np.linalg.norm(averages.combine(kept, 800, length)["p"] - wanted)
    nearest = min(np.linalg.norm(tracked["p"] - wanted) for tracked in kept[800].values())
    assert error < 0.2 * nearest and error < 0.03 * np.linalg.norm(last - wanted)
    shares, missed = averages.weights([(t, of) for t in kept for of in (0.05, 0.1)], 800, length)
    assert missed < 0.05 and shares.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("length", [0.06, 0.075, 0.09, 0.12])
@pytest.mark.parametrize("steps", [(800,), (400, 800), (100, 200, 800)])
def test_an_average_of_equal_parameters_is_these(length, steps):
    """Shares that sum to anything else than 1 would scale every parameter."""
    ones = {"p": np.ones(3, np.float32)}
    kept = {step: {"0.05": ones, "0.1": ones} for step in steps}
    shares, _ = averages.weights([(t, of) for t in kept for of in (0.05, 0.1)], steps[-1], length)
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    if length < 0.1:
        np.testing.assert_allclose(averages.combine(kept, steps[-1], length)["p"], 1, rtol=1e-6)


def test_a_kept_length_is_itself(walked):
    kept, _, _ = walked
    np.testing.assert_allclose(averages.combine(kept, 800, 0.1)["p"], kept[800]["0.1"]["p"], atol=1e-5)


@pytest.mark.parametrize("length", [0.0, 0.012, 0.27, 3.0])
def test_a_length_outside_what_was_tracked_is_refused(walked, length):
    kept, _, _ = walked
    with pytest.raises(InputError, match=f"an EMA of length {length:g} cannot be made of those of length 0.05, 0.1"):
        averages.combine({800: kept[800]}, 800, length)


@pytest.mark.slow
def test_a_run_keeps_them_goes_on_and_gives_any_length(tiny, tmp_path):
    tiny.train.update(averages=(0.05, 0.1), sample_every=100)
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    trainer.train(tiny, whole)
    tiny.train.num_steps = 2
    trainer.train(tiny, parted)
    tiny.train.num_steps = 4
    trainer.train(tiny, parted)
    models = [cfg_jax.load(run, params=0.075) for run in (whole, parted)]
    assert models[0].digest == models[1].digest != cfg_jax.load(whole).digest
    assert cfg_jax.load(whole, params=0.05).digest != models[0].digest
    with pytest.raises(InputError, match="has no checkpoint of step 3: choose one of"):
        cfg_jax.load(whole, 3, 0.075)
    tiny.train.averages = ()
    trainer.train(tiny, tmp_path / "none")
    assert cfg_jax.load(tmp_path / "none").digest == cfg_jax.load(whole).digest  # they change nothing else
    with pytest.raises(InputError, match=r"has no averages .*config\.train\.averages=\(0\.05, 0\.1\)"):
        cfg_jax.load(tmp_path / "none", params=0.075)


@pytest.mark.slow
def test_a_sweep_of_a_length_has_cells_and_a_table_of_its_own(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("cfg_jax.sweep.run.features_of", lambda *_: Network())
    tiny.train.update(averages=(0.05, 0.1), sample_every=100)
    tiny.eval.bootstrap = 0
    trainer.train(tiny, tmp_path / "run")
    for ema in (None, 0.075):
        [row] = sweep(tiny, [tmp_path / "run"], [0.0], tmp_path / "sweep", ema=ema)
    assert row["weights"] == "ema 0.075"
    names = sorted(path.stem for path in (tmp_path / "sweep" / "cells").glob("*.json"))
    assert names == ["run_T3_v0.3_static_paper_seed0_ema0.075_w0", "run_T3_v0.3_static_paper_seed0_w0"]
    report.write(tmp_path / "sweep")
    text = (tmp_path / "sweep" / "table.md").read_text()
    assert "EMA weights" in text and "EMA 0.075 weights" in text


@pytest.mark.parametrize("lengths", [(0.05,), (0.05, 0.05), (0.05, 0.3)])
def test_lengths_that_give_no_others_are_refused(tiny, lengths):
    tiny.train.averages = lengths
    with pytest.raises(InputError, match=r"config\.train\.averages=.* must be"):
        checks.everything(tiny)
