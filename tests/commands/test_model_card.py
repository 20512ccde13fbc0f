"""Model cards: what the hub reads of them, what they say, and that the committed ones are what the code writes."""

import csv

import jax
import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

import cfg_jax
from cfg_jax import config as configs
from cfg_jax.data import cards, sources
from cfg_jax.errors import InputError
from cfg_jax.models import build
from cfg_jax.store import checkpoint, weights
from experiments.helpers import model_card
from tests.conftest import fill
from tests.running import ROOT

RESULTS = ROOT / "experiments" / "results"
HEAD = [
    "w",
    "s",
    "T",
    "sampler",
    "seed",
    "N",
    "parameters",
    "fid_a@8",
    "is_a@8",
    "fid_a@8_se",
    "is_a@8_se",
    "fid_a@8_std",
]


def front(text):
    """The YAML of a card, as the hub's client reads it, and as YAML."""
    _, head, _ = text.split("---\n", 2)
    plain = yaml.safe_load(head)
    data = ModelCard(text).data.to_dict()
    assert data.keys() == plain.keys() and data["license"] == plain["license"] and data["tags"] == plain["tags"]
    return plain


@pytest.fixture
def run(tiny, tmp_path):
    """A run directory with the card of its data, and its weights."""
    path, params = tmp_path / "run", fill(build.shapes(tiny))
    _, tiny = sources.load(tiny)
    configs.save(path / "config.json", tiny)
    checkpoint.save_weights(path, params)
    cards.save(path / "data.json", sources.digits().card)
    return path, params


def scored(directory, params, more=()):
    """A results.csv of two w of these weights and one of others."""
    own = weights.digest_of(params)
    rows = [
        [0.0, 1, 4, "ddim", 0, 8, own, 20.125, 3.5, 1, 0.1, 9],
        [1.0, 2, 4, "ddim", 0, 8, own, 10.5, 4.25, 2, 0.2, 9],
        [2.0, 3, 4, "ddim", 0, 8, "other", 1, 9, 1, 1, 9],
    ]
    directory.mkdir(exist_ok=True)
    with open(directory / "results.csv", "w", newline="") as file:
        csv.writer(file).writerows([HEAD, *rows, *more])
    return directory


def test_an_export_has_a_card_that_the_hub_reads(run, command, tmp_path):
    path, params = run
    scores = scored(tmp_path / "sweep", params)
    out = tmp_path / "m.safetensors"
    done = command("export", f"--run={path}", f"--out={out}", f"--scores={scores}", "--datasets=a/b,c/d")
    assert done.returncode == 0, done.stderr
    text = out.with_suffix(".md").read_text()
    head = front(text)
    assert head["license"] == "cc-by-4.0" and head["library_name"] == "cfg_jax" and head["datasets"] == ["a/b", "c/d"]
    assert {"classifier-free-guidance", "diffusion", "jax", "flax"} <= set(head["tags"]) and "pipeline_tag" not in head
    [model] = head["model-index"]
    [result] = model["results"]
    assert model["name"] == "m" and result["dataset"]["type"] == "a/b"
    assert {m["type"]: m["value"] for m in result["metrics"]} == {"fid_a@8": 10.5, "is_a@8": 4.25}
    assert all("w=1, T=4, seed 0" in m["name"] for m in result["metrics"])
    assert {r.metric_value for r in ModelCard(text).data.eval_results} == {10.5, 4.25}
    assert "| 0 | 20.12 ± 1.00 | 3.50 ± 0.10 |\n| 1 | 10.50 ± 2.00 | 4.25 ± 0.20 |\n\nN 8, T 4, sampler ddim, " in text
    assert "1,797 pictures, resize none. Licence: CC BY 4.0." in text and 'cfg_jax.load("m.safetensors")' in text
    assert "Not measured" not in text and "rounded" not in text


def test_without_scores_a_card_claims_none(run, command, tmp_path):
    path, _ = run
    (path / "data.json").unlink()
    assert command("export", f"--run={path}", f"--out={tmp_path}/m.safetensors").returncode == 0
    text = (tmp_path / "m.md").read_text()
    head = front(text)
    assert "model-index" not in head and "datasets" not in head and "Not measured here" in text
    assert (head["license"], head["license_name"]) == ("other", "see-card")
    assert "use is subject to the licence of these data" in text


def test_scores_before_the_rounding_are_said_to_be(run, command, tmp_path):
    path, params = run
    scores = scored(tmp_path / "sweep", params)
    args = f"--out={tmp_path}/m.safetensors", "--dtype=bfloat16"
    assert command("export", f"--run={path}", f"--scores={scores}", *args).returncode == 0
    assert "before the parameters were rounded to bfloat16" in (tmp_path / "m.md").read_text()
    again = f"--out={tmp_path}/again.safetensors", "--dtype=bfloat16"
    scores = scored(tmp_path / "sweep", cfg_jax.load(tmp_path / "m.safetensors").params)
    assert command("export", f"--run={tmp_path}/m.safetensors", f"--scores={scores}", *again).returncode == 0
    assert "rounded" not in (tmp_path / "again.md").read_text()


def test_scores_of_other_weights_are_refused(run, tmp_path):
    _, params = run
    scored(tmp_path / "sweep", params)
    other = jax.tree.map(lambda a: np.asarray(a) + 1, params)
    with pytest.raises(InputError, match=r"has no scores of these weights, \w{12}, but of \w{12}, other: sweep these"):
        model_card.scores(tmp_path / "sweep", other)
    with pytest.raises(InputError, match=r"--scores=\S+ has no results\.csv: name what experiments\.sweep wrote"):
        model_card.scores(tmp_path, params)


def test_the_settings_that_vary_are_columns(run, tmp_path):
    _, params = run
    more = [[0.0, 1, 8, "ddim", 1, 8, weights.digest_of(params), 7, 3, 1, 0.1, 9]]
    text = model_card.table(model_card.scores(scored(tmp_path / "sweep", params, more), params))
    assert text.startswith("| w | T | seed | fid_a@8 | is_a@8 |\n")
    assert "| 0 | 8 | 1 | 7.00 ± 1.00 | 3.00 ± 0.10 |" in text and "\nN 8, sampler ddim. ±" in text


@pytest.mark.parametrize(
    ("name", "facts", "path"),
    [
        ("digits", {"license": "cc-by-4.0"}, weights.PRETRAINED / "digits.md"),
        ("fashion_mnist_16", {"license": "mit", "datasets": ["zalando-datasets/fashion_mnist"], "rounded": True},
         weights.PRETRAINED / "fashion_mnist_16.md"),
        ("fashion_mnist_16", {"license": "mit", "datasets": ["zalando-datasets/fashion_mnist"], "rounded": True},
         RESULTS / "fashion_mnist_16" / "model.md"),
    ],
)  # fmt: skip
def test_the_committed_cards_are_what_the_code_writes(name, facts, path):
    config, step, params = weights.read(name)
    if name == "digits":
        rows = model_card.scores(RESULTS / "digits_pretrained", params)
    else:  # of the weights before they were rounded, whose digest the table has
        with open(RESULTS / "fashion_mnist_16" / "results.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["run"] == "fashion_mnist-p0.1"]
    text = model_card.card(path.with_suffix(".safetensors"), config, step, params, dtype="bfloat16", rows=rows, **facts)
    front(text)
    assert path.read_text() == text
