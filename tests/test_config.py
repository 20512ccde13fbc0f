import dataclasses
import importlib
import json

import pytest

from cfg_jax import checks, fields
from cfg_jax import config as configs
from cfg_jax.errors import InputError, choice
from cfg_jax.sampling import asked
from cfg_jax.sweep import spec

NAMES = ("digits", "fashion_mnist_16", "fashion_mnist", "tiny_imagenet", "imagenet64", "imagenet128")


@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_valid_and_survives_its_file(name, tmp_path):
    config = importlib.import_module(f"configs.{name}").get_config()
    checks.everything(config)
    configs.save(tmp_path / "config.json", config)
    again = configs.load(tmp_path / "config.json")
    assert again.to_dict() == config.to_dict() and configs.digest(again) == configs.digest(config)
    assert configs.differences(again, config) == []


def test_fields_have_the_types_of_their_values():
    assert configs.SCHEMA["train"]["fsdp"] is int and configs.SCHEMA["eval"]["w"] == [float]
    assert configs.SCHEMA["guidance"]["momentum"] is float and configs.SCHEMA["guidance"]["zero_below"] == float | None
    assert configs.SCHEMA["guidance"]["schedule_w"] == [float, None]


def test_a_setting_of_another_rule_or_sampler_is_refused(tiny):
    said = "guidance.momentum has no effect on config.guidance.name=classifier-free: .* set config.guidance.name=apg"
    with pytest.raises(InputError, match=said):
        fields.effective([tiny], ["train.fsdp", "guidance.rescale", "guidance.momentum"])
    other = tiny.copy_and_resolve_references()
    other.guidance.name = "apg"
    fields.effective([tiny, other], ["guidance.momentum"])
    with pytest.raises(InputError, match=r"sampler.eta has no effect on config.sampler.name=ancestral: .*=ddim"):
        spec.variants(tiny, {"sampler.eta": [0.0, 0.5]})
    assert len(spec.variants(tiny, {"sampler.name": ["ancestral", "ddim"], "sampler.eta": [0.0, 0.5]})) == 4
    other.guidance.name = "apgg"
    fields.effective([other], ["guidance.momentum"])  # checks.sampling says what the name might be


def test_every_field_of_a_rule_or_sampler_has_a_default_which_all_share():
    for family in (fields.SAMPLERS.values(), (*fields.RULES.values(), *fields.WRAPPERS)):
        known = {}
        for name, value in ((name, value) for cls in family for name, value in fields.own_fields([cls]).items()):
            assert value is not dataclasses.MISSING and known.setdefault(name, value) == value, name


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("p_uncond", 1.2, "config.p_uncond=1.2"),
        ("p_uncond", -0.1, "config.p_uncond=-0.1"),
        ("logsnr_min", 30.0, "config.logsnr_min=30"),
        ("data.image_size", 9, "not divisible by 2"),
        ("model.num_heads", 3, "config.model.num_heads=3 does not divide the 32 channels"),
        ("model.head_width", 16, "config.model.head_width"),
        ("model.channels", 48, "multiple of the 32 groups"),
        ("model.attention_resolutions", (3,), "[3]"),
        ("sampler.num_steps", 0, "config.sampler.num_steps=0"),
        ("sampler.variance_interp", 1.5, "config.sampler.variance_interp=1.5"),
        ("sampler.threshold", "soft", "none, static, dynamic"),
        ("sampler.grid", "cosine", "paper, shifted"),
        ("train.batch_size", 0, "config.train.batch_size=0"),
        ("train.keep_checkpoints", 0, "config.train.keep_checkpoints=0"),
        ("train.learning_rate", -1.0, "config.train.learning_rate=-1"),
        ("model.dtype", "float17", "float32, bfloat16"),
        ("model.dropout", 2.0, "config.model.dropout=2"),
        ("model.num_heads", 0, "config.model.num_heads=0"),
        ("model.null_label", False, "set config.p_uncond=0"),
        ("model.time", "cosine", "adm_cosine"),
        ("logsnr_min", -3000.0, "[-40, 40]"),
        ("eval.seed", -1, "config.eval.seed=-1"),
        ("eval.bootstrap", 1, "config.eval.bootstrap=1"),
        ("eval.features", "resnet", "choose classifier, inception"),
        ("eval.w", (), "config.eval.w is empty"),
        ("eval.w", (1e38,), "config.eval.w[0] is 1e+38, not a finite number"),
        ("train.ema_decay", 1.0, "config.train.ema_decay=1.0"),
        ("train.beta2", 1.0, "config.train.beta2=1.0"),
        ("objective.logit_std", 0.0, "config.objective.logit_std=0.0"),
        ("objective.logit_mean", float("nan"), "config.objective.logit_mean is nan"),
        ("train.averages", (0.05, True), "config.train.averages[1] is True"),
        ("guidance.schedule_w", (1.0, float("nan")), "config.guidance.schedule_w[1] is nan, not a finite number"),
        ("eval.labels", "sorted", "random, balanced"),
        ("eval.quantize", "floor", "round, truncate"),
        ("eval.num_images", 3, "too few for 2 config.eval.splits"),
        ("eval.w", (0.0, float("nan")), "config.eval.w[1] is nan, not a finite number"),
        ("eval.w", (float("inf"),), "config.eval.w[0] is inf"),
    ],
)
def test_bad_values_are_named_with_their_remedy(tiny, field, value, said):
    tiny.update_from_flattened_dict({"model.multipliers": (1, 1), field: value})
    with pytest.raises(InputError) as error:
        checks.everything(tiny)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_model_without_a_null_label_may_be_trained_but_not_guided(tiny):
    tiny.p_uncond = 0.0
    checks.everything(tiny)
    asked.guidance_weight(0.0, tiny)
    for w, tiny.p_uncond, said in ((0.5, 0.0, "trained with p_uncond=0"), (0.0, 1.0, "use w=-1")):
        with pytest.raises(InputError, match=said):
            asked.guidance_weight(w, tiny)


@pytest.mark.parametrize("p_uncond", [0.0, 0.1, 1.0])
def test_a_model_without_classes_is_sampled_but_not_guided(tiny, p_uncond):
    tiny.data.num_classes, tiny.p_uncond = 0, p_uncond
    checks.everything(tiny)
    for w in (0.0, -1.0):  # one and the same
        asked.guidance_weight(w, tiny)
    with pytest.raises(InputError, match="--w=1 asks for guidance, but the model was trained without classes: use w=0"):
        asked.guidance_weight(1.0, tiny, "--w")
    asked.guidance_weight(1.0, tiny, second_model=True)


@pytest.mark.parametrize("text", ['{"seed": ', "[1]", "3", '{"version": 99}', '{"version": "x"}', '{"eval": 3}'])
def test_a_damaged_config_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match="is no config"):
        configs.load(tmp_path / "config.json")


def test_a_config_of_an_earlier_version_gets_what_it_then_had(tiny, tmp_path):
    older = tiny.to_dict()
    del older["eval"]["quantize"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    again = configs.load(tmp_path / "config.json")
    assert again.to_dict() == tiny.to_dict()
    checks.everything(again)
    configs.save(tmp_path / "config.json", tiny)
    assert json.loads((tmp_path / "config.json").read_text())["version"] == configs.VERSION


def test_what_a_run_may_be_continued_with(tiny):
    other = tiny.copy_and_resolve_references()
    other.train.num_steps, other.sampler.num_steps, other.eval.w = 99, 7, (0.0,)
    assert configs.differences(tiny, other) == []
    other.p_uncond, other.train.batch_size = 0.2, 64
    assert configs.differences(tiny, other) == ["p_uncond: 0.1 -> 0.2", "train.batch_size: 8 -> 64"]


def test_a_long_value_is_cut_where_it_is_refused():
    with pytest.raises(InputError) as refused:
        choice("x" * 5000, ("ddim",), "config.sampler.name")
    assert len(str(refused.value)) < 200
