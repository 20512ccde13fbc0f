"""docs/extending.md as an outsider follows it: a data set, a config field and a score that this code does not have.

A rule, a sampler and a network of one's own are in tests/models/test_values.py.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from cfg_jax import config as configs
from cfg_jax import fields
from cfg_jax.data import cards, prepare, sources
from cfg_jax.diffusion import struct
from cfg_jax.diffusion.guidance import ClassifierFree
from cfg_jax.evaluation import measure
from cfg_jax.evaluation.features import Extracted
from cfg_jax.evaluation.references import Reference
from cfg_jax.models import build


def test_a_data_set_with_a_recipe_is_prepared_and_loaded(tiny, tmp_path, monkeypatch):
    blobs = cards.Recipe("made up", "CC0", "nothing", size=8, resize="area", counts={"train": 6})
    monkeypatch.setitem(cards.RECIPES, "blobs", blobs)
    rng = np.random.default_rng(0)
    for name in ("round", "square"):
        (tmp_path / "files" / "train" / name).mkdir(parents=True)
        for i in range(3):
            picture = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
            picture.save(tmp_path / "files" / "train" / name / f"{i}.png")
    card = prepare.prepare("blobs", tmp_path / "files", tmp_path / "data" / "blobs", workers=1)
    assert (card.licence, card.class_names, card.complete) == ("CC0", ("round", "square"), True)
    tiny.data.update(name="blobs", root=str(tmp_path / "data"), image_size=8, channels=3, num_classes=2)
    source, _ = sources.load(tiny)
    assert source.images.shape == (6, 8, 8, 3) and source.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_field_that_is_new_to_configs_is_read_into_older_runs(tiny, monkeypatch):
    saved, digest = configs.to_json(tiny), configs.digest(tiny)
    monkeypatch.setattr(configs, "VERSION", configs.VERSION + 1)
    monkeypatch.setitem(configs.LATER, "train.sharpness", 1.0)
    monkeypatch.setitem(configs.SCHEMA["train"], "sharpness", float)
    older = configs.from_json(saved)
    assert older.train.sharpness == 1.0 and configs.digest(older) == digest
    newer = older.copy_and_resolve_references()
    newer.train.sharpness = 2.0
    assert configs.differences(older, newer) == ["train.sharpness: 1.0 -> 2.0"]
    assert configs.from_json(configs.to_json(newer)).train.sharpness == 2.0
    damaged = configs.to_json(tiny)
    for damaged["train"]["sharpness"], said in (("strong", "sharpness is 'strong'"), (None, "sharpness is None")):
        with pytest.raises(ValueError, match=said):
            configs.from_json(damaged)
    del damaged["train"]["sharpness"]
    with pytest.raises(ValueError, match="sharpness is missing"):
        configs.from_json(damaged)


def test_a_rule_of_ones_own_brings_its_fields_to_the_config(monkeypatch):
    @struct.dataclass
    class Sharper(ClassifierFree):
        edge: float = 0.5
        below: float | None = struct.optional(float, default=None)

    monkeypatch.setitem(fields.RULES, "sharper", Sharper)
    config = fields.paper()
    assert config.guidance.edge == 0.5 and config.guidance.below is None
    config.guidance.update(name="sharper", edge=2.0)
    assert build.rule(config.guidance, 1.0) == Sharper(1.0, 2.0)
    assert fields.types(config)["guidance"]["below"] == float | None
    fields.effective([config], ["guidance.edge"])


@dataclass
class Brightness:
    """The mean of all values, 0..255."""

    data: str
    num_images: int
    total: np.ndarray | float = 0.0

    def update(self, seen):
        self.total += seen.weights @ seen.uint8.mean((1, 2, 3))

    def compute(self, reference, real_features):
        return {f"brightness_{self.data}": self.total / self.num_images}, {}


def test_a_score_has_a_name_a_value_and_resamples(monkeypatch):
    before = measure.Tally._of
    monkeypatch.setattr(measure.Tally, "_of", lambda tally, seen: [*before(tally, seen), Brightness("blobs", 6)])
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    tally = measure.Tally(6, np.zeros(6, int), "blobs", splits=1, bootstrap=3)
    for part in (images[:4], images[4:]):
        tally.add(part, Extracted())
    values, _ = tally.scores(Reference({}, images[:0], None, ""))
    assert values["brightness_blobs@6"].shape == (4,)
    assert values["brightness_blobs@6"][0] == pytest.approx(2.5)
    resampled = [images[index].mean() for index in tally.index]
    np.testing.assert_allclose(values["brightness_blobs@6"], resampled)
