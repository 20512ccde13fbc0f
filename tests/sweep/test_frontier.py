"""Check differences and verdicts between rules on invented rows, then the command and its page."""

import json
import re

import numpy as np
import pytest

from cfg_jax.data import sources
from cfg_jax.diffusion.guidance import ClassifierFree
from cfg_jax.models import build
from cfg_jax.store import weights
from cfg_jax.sweep import claims, frontier
from cfg_jax.sweep.score import Scorer
from tests.conftest import fill
from tests.running import TINY, run
from tests.sweep.test_report import cell

WS = (0.0, 0.5, 1.0, 2.0)


def curve(fid, inception=(5.0, 6.0, 7.0, 8.0), runs=("a", "b"), **scores):
    """Return {run: rows} from scores over w. All resamples of a row have one scatter."""
    more = lambda i: {name: values[i] for name, values in scores.items()}  # noqa: E731
    rows = lambda run: [cell(run, 0.1, w, fid[i], inception[i], **more(i)) for i, w in enumerate(WS)]  # noqa: E731
    return {run: rows(run) for run in runs}


FLAT = {"precision": (0.8,) * 4, "recall": (0.5,) * 4, "variety": (0.5,) * 4, "saturated": (0.1,) * 4}
BASE = curve((9.0, 6.0, 7.0, 12.0), **FLAT)
BETTER = {"recall": (0.5, 0.6, 0.6, 0.6), "variety": (0.5, 0.6, 0.6, 0.6), "saturated": (0.1, 0.0, 0.0, 0.0)}
NAMES = {0: "interval", 1: "autoguidance", 2: "APG", 3: "other label", 4: "classifier"}


@pytest.mark.parametrize(
    ("claim", "ours", "verdict"),
    [
        (0, curve((9.0, 6.0, 5.0, 4.0), **FLAT), "supported"),
        (0, curve((9.0, 6.0, 7.0, 12.0), **FLAT), "undecided"),
        (0, curve((9.0, 8.0, 7.0, 12.0), **FLAT), "contradicted"),
        (1, curve((9.0, 6.0, 7.0, 12.0), **FLAT | BETTER), "supported"),
        (1, BASE, "undecided"),
        (1, curve((9.0, 6.0, 7.0, 12.0), **FLAT | {"variety": (0.5, 0.4, 0.4, 0.4)}), "contradicted"),
        # reaches no IS of the baseline's
        (1, curve((9.0, 6.0, 7.0, 12.0), (5.0, 4.0, 3.0, 2.0), **FLAT), "not tested"),
        (2, curve((9.0, 6.0, 7.0, 12.0), **FLAT | BETTER), "supported"),
        (2, curve((9.0, 6.0, 7.0, 12.0), **FLAT | BETTER | {"precision": (0.8, 0.7, 0.7, 0.7)}), "contradicted"),
        (3, BASE, "supported"),
        (3, curve((9.0, 6.0, 7.5, 12.0), **FLAT), "contradicted"),
        (4, BASE, "supported"),
        (4, curve((5.0, 6.0, 7.0, 12.0), **FLAT), "undecided"),  # least where it does not guide
    ],
)
def test_claims_of_rules_are_judged_in_both_directions(claim, ours, verdict):
    judged = frontier.judge({"CFG": BASE, NAMES[claim]: ours}, "CFG")
    assert judged[claim].verdict == verdict, judged[claim].figure
    assert all(other.verdict == "not tested" for i, other in enumerate(judged) if i != claim)


@pytest.mark.parametrize(("claim", "other"), [(5, "smaller guide"), (6, "autoguidance, interval")])
@pytest.mark.parametrize(("fid", "verdict"), [(7.0, "supported"), (6.0, "undecided"), (4.0, "contradicted")])
def test_autoguidance_is_compared_with_its_variants(claim, other, fid, verdict):
    curves = {"CFG": BASE, "autoguidance": BASE, other: curve((9.0, fid, 7.5, 12.0), **FLAT)}
    judged = frontier.judge(curves, "CFG")
    assert judged[claim].verdict == verdict and f"less {other}'s" in judged[claim].figure


def test_scores_that_were_not_measured_decide_nothing_and_have_no_error():
    """With config.eval.neighbours=0 and bootstrap=0."""
    bare = curve((9.0, 6.0, 7.0, 12.0))
    for rows in bare.values():
        for row in rows:
            row["resampled"] = {}
    curves = {"CFG": bare, "APG": bare, "autoguidance": bare}
    judged = frontier.judge(curves, "CFG")
    assert [judged[i].figure for i in (1, 2)] == ["recall was not measured", "precision was not measured"]
    text = frontier.table(curves, "CFG") + frontier.claims_text(judged)
    assert "nan" not in text and "| +0.00, +0.00 |" in text


def test_one_seed_that_disagrees_decides_nothing():
    mixed = curve((9.0, 6.0, 5.0, 4.0), runs=("a",), **FLAT) | curve((9.0, 6.0, 7.0, 12.0), runs=("b",), **FLAT)
    assert frontier.judge({"CFG": BASE, "interval": mixed}, "CFG")[0].verdict == "undecided"


def test_a_score_at_an_is_is_between_its_points():
    rows = BASE["a"]
    value, drawn = frontier.at_level(rows, "fid", 6.25)
    assert value == pytest.approx(6.25)
    wanted = 0.75 * np.array(claims.resamples(rows[1], "fid")) + 0.25 * np.array(claims.resamples(rows[2], "fid"))
    np.testing.assert_allclose(drawn, wanted)


def test_table_and_plot_have_every_rule_once():
    curves = {"CFG": BASE, "lower": curve((9.0, 6.0, 5.0, 4.0), **FLAT), "higher": curve((9.0, 8.0, 8.0, 9.0), **FLAT)}
    lines = frontier.table(curves, "CFG").splitlines()
    assert lines[2].startswith("| CFG | 0.5 | 6.00 ± 0.0") and lines[2].endswith("|  |")
    assert "| **lower**: -2.00 ± 0." in lines[3] and "| **higher**: +2.00 ± 0." in lines[4]
    drawn = frontier.plot(curves, "digits")
    names = [text.get_text() for text in drawn.axes[0].get_yticklabels()]
    assert names == ["lower, w = 2", "CFG, w = 0.5", "higher, w = 0.5"]
    assert len(drawn.axes[0].collections) == 4  # two training runs of each other rule
    assert [ax.get_title("left") for ax in frontier.panels(curves, "digits").axes[:2]] == ["lower", "higher"]


@pytest.fixture
def model(tiny, tmp_path):
    tiny.data.card = sources.digits().card.digest
    path = tmp_path / "untrained.safetensors"
    weights.export(path, tiny, 7, fill(build.shapes(tiny)))
    return path


@pytest.mark.slow
def test_a_rule_of_ones_own_is_scored_as_a_sweep_scores(model, tmp_path):
    evaluation = {"num_images": 40, "batch_size": 40, "splits": 2, "bootstrap": 5, "neighbours": 100}
    row = Scorer(model, tmp_path / "features", 2, **evaluation)(ClassifierFree(np.float32(1.0)))
    assert row["passes"] == 4
    assert {name.split("_")[0] for name in row["resampled"]} >= {"fid", "is", "recall", "variety"}


@pytest.mark.slow
def test_the_command_and_its_page(model, tmp_path, browser):
    names = "CFG,interval,autoguidance,CFG++,again,<b>mine"
    args = [
        "--config=configs/digits.py", f"--runs={model}", f"--out={tmp_path / 'f'}", "--w=0,1,2", "--seeds=0,1",
        f"--guides={model}", f"--rules={names}", f"--curve=again: guide={model}", *TINY, "--config.eval.num_images=40",
        "--curve=<b>mine: guidance.rescale=0.5 guidance.schedule_logsnr=0 guidance.schedule_w=1",
    ]  # fmt: skip
    done = run("frontier", *args)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "f" / "frontier.json").read_text())
    assert list(found) == names.split(",")
    assert found["again"] == found["autoguidance"]  # its cells
    assert all(len(runs) == 2 for runs in found.values())
    assert [row["w"] for row in found["interval"]["untrained.safetensors, seed 1"]] == [0.0, 1.0, 2.0]
    assert len(list((tmp_path / "f" / "cells").glob("*.json"))) == 2 * (3 + 2 + 2 + 5 + 2)
    again = run("frontier", *args)
    assert again.returncode == 0 and "seconds" not in again.stdout and "6 of 6 cells are done" in again.stderr
    assert "</text>" in (tmp_path / "f" / "frontier.svg").read_text()
    text = (tmp_path / "f" / "frontier.html").read_text()
    assert "<b>mine" not in text.replace("\\u003cb\\u003emine", "") and not re.search(r'(src|href)="(https?:)?//', text)
    page = browser.new_page(viewport={"width": 390, "height": 800})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"file://{tmp_path}/f/frontier.html")
    page.focus("#level")
    before = page.inner_text("#now")
    page.keyboard.press("End")
    assert page.inner_text("#now") != before and "passes" in page.inner_text("#c3")
    assert page.get_attribute("#level", "aria-valuetext") == page.inner_text("#now")
    assert page.get_attribute("#p3", "alt").startswith("Samples by CFG++, a row is a class: w = ")
    box, name = page.query_selector(".scroll:has(.plot)"), page.query_selector(".cells tr:nth-child(3) td")
    assert box.evaluate("e => { e.scrollLeft = 1e6; return e.scrollLeft; }") > 100  # curves are not shrunk to a phone
    assert page.evaluate("document.querySelector('.plot').naturalWidth") > 0
    before = name.bounding_box()["x"]
    assert page.query_selector(".scroll:has(.cells)").evaluate("e => { e.scrollLeft = 1e6; return e.scrollLeft; }") > 50
    assert name.bounding_box()["x"] == before
    assert page.inner_text("#c5").startswith("<b>mine")
    assert page.evaluate("document.getElementById('p5').naturalWidth") > 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") and errors == []
    page.close()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--rules=CFG"], "--rules=CFG leaves nothing to compare with CFG: name another rule"),
        (["--rules=autoguidance"], "--rules=autoguidance leaves nothing to compare with CFG"),
        (["--rules=interva"], "--rules='interva' is unknown: did you mean interval"),
        (["--guides=a,b"], "the curve autoguidance has 2 of guide for 1 --runs: give one"),
        (["--classifiers=a,b"], "the curve classifier has 2 of classifier for 1 --runs: give one"),
        (["--w=1,2,3"], "--w=1,2,3 makes no curve: give three strengths or more, and 0 among them"),
        (["--curve=mine"], "--curve=mine: give "),
        (["--curve=mine: guidance.rescal=1"], "did you mean guidance.rescale"),
    ],
)
def test_bad_input_is_one_line(model, args, message):
    done = run("frontier", "--config=configs/digits.py", f"--runs={model}", *args)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("error:") == 1
