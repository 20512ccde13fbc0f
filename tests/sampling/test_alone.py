"""What an image depends on, its seed, index, label and w, and what is said instead of being ignored."""

import json
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax import pinned
from cfg_jax.data import sources
from cfg_jax.diffusion import guidance, rules, samplers, struct
from cfg_jax.diffusion.guidance import Guided, Stateless
from cfg_jax.errors import InputError
from cfg_jax.files import write_json
from cfg_jax.models import build
from cfg_jax.perf import cost
from cfg_jax.sampling import draw
from cfg_jax.sampling.model import Guides, Model
from cfg_jax.store import weights
from cfg_jax.sweep import run
from cfg_jax.training import state as states
from tests.conftest import fill, tiny_config
from tests.evaluation.test_references import Network


def made(**fields):
    config = tiny_config()
    config.update_from_flattened_dict(fields)
    return Model(config, build.denoiser(config, fill(jax.eval_shape(lambda: states.create(config)).params)))


@pytest.fixture(scope="module")
def model():
    return made()


ZERO = {"guidance": "cfg_zero", "zero_below": 0.0}
ROUNDS = {"rounds": 1, "renoise_logsnr": 0.0}


@pytest.mark.parametrize(
    "settings", [ROUNDS, ZERO, ROUNDS | ZERO, {"rescale": 0.7}, {"guidance": "apg"}, {"uncond": "other_label"}]
)
@pytest.mark.slow
def test_an_image_does_not_depend_on_the_w_of_others(model, settings):
    together = model.sample([1, 2], w=[0.0, 1.0], **settings)
    for i, w in ((0, 0.0), (1, 1.0)):
        alone = model.sample([1, 2], w=w, **settings)[i]
        assert np.abs(together[i].astype(int) - alone).max() <= 1  # the last bit of a batch of one half or two


@pytest.mark.parametrize("settings", [ROUNDS, ZERO, ROUNDS | {"uncond": "other_label"}])
@pytest.mark.slow
def test_the_least_w_makes_no_jump(model, settings):
    found, least = (model.sample([1, 2], w=w, **settings).astype(int) for w in (0.0, 1e-20))
    assert np.abs(found - least).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("of", [np.array, jnp.array])
def test_a_schedule_is_no_number_for_each_image(model, of):
    """Of as many points as there are images, in two batches."""
    rule = rules.Scheduled(guidance.ClassifierFree(1.0), of([-5.0, 0.0, 5.0]), of([0.5, 1.0, 2.0]))
    asked = {"guidance": rule, "batch_size": 2}
    listed = rule.replace(schedule_logsnr=(-5.0, 0.0, 5.0), schedule_w=(0.5, 1.0, 2.0))
    np.testing.assert_array_equal(
        model.sample([1, 2, 3], **asked), model.sample([1, 2, 3], **asked | {"guidance": listed})
    )


@pytest.mark.slow
def test_every_other_field_is_left_whole_and_those_of_each_image_are_counted(model):
    rule = rules.TwoLabels(jnp.ones(3), other_label=np.array([4, 5, 6]))
    apart = [
        model.sample([1, 2, 3], guidance=rule.replace(w=1.0, other_label=int(c)))[i] for i, c in enumerate((4, 5, 6))
    ]
    together = model.sample([1, 2, 3], guidance=rule, batch_size=2).astype(int)
    assert np.abs(together - np.stack(apart)).max() <= 1
    wrongs = {
        "w": rule.replace(w=jnp.ones(2)),
        "other_label": rules.Interval(rule.replace(other_label=np.array([4, 5]))),
    }
    for name, wrong in wrongs.items():
        with pytest.raises(InputError, match=rf"{name} has shape \(2,\): give one number, or one for each of the 3"):
            model.sample([1, 2, 3], guidance=wrong)


def test_noises_and_labels_are_drawn_by_different_keys():
    keys, z = samplers.start(0, np.arange(2), (2,))
    state = guidance.Guidance(guidance.ClassifierFree(1.0), guidance.OtherLabel()).init(keys, z)
    of_labels, state = [], state[1]
    for _ in range(40):
        state = jax.vmap(lambda key: jax.random.fold_in(key, 2))(state)
        of_labels.append(jax.random.key_data(state))
    of_noise = [jax.random.key_data(jax.vmap(lambda key, t=t: jax.random.fold_in(key, t))(keys)) for t in range(200)]
    seen = {tuple(map(int, key)) for key in np.concatenate([*of_labels, *of_noise])}
    assert len(seen) == 2 * 240


@struct.dataclass
class Mine(Stateless):
    """A rule of a user's own, which has no w."""

    strength: Any = 1.0

    def __call__(self, halves, z, logsnr, c, state):
        cond, uncond = halves.both(z, logsnr, c)
        return Guided.of((cond + self.strength * (cond - uncond)).astype(jnp.bfloat16)), state


@struct.dataclass
class Walker(Stateless):
    """A sampler of a user's own that says nothing."""

    def step(self, predict, z, state, logsnr, logsnr_next, noise):
        return samplers.DDIM().step(predict, z, state, logsnr, logsnr_next, noise)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"w": 1.0, "guidance": Mine()}, "w=1.0 has no effect beside a guidance of your own"),
        ({"w": 0.0, "guidance": guidance.ClassifierFree(2.0)}, "w=0.0 has no effect beside a guidance of your own"),
        ({"v": 0.1, "sampler": samplers.Heun()}, "v=0.1 has no effect beside a sampler of your own"),
        ({"eta": 0.1, "sampler": Walker()}, "eta=0.1 has no effect beside a sampler of your own"),
        ({"rescale": 0.5, "guidance": Mine()}, "rescale=0.5 has no effect beside a guidance of your own"),
        ({"classifier": "mean", "sampler": samplers.DDIM()}, "classifier=mean moves the mean .* sampler ddim has not"),
        ({"classifier": "mean", "sampler": Walker()}, "sampler Walker has not: .* your own says takes_push = True"),
        (ROUNDS | {"sampler": samplers.DPMpp2M()}, "rounds go back on the grid, where sampler dpmpp_2m cannot"),
        ({"guidance": rules.Rounds(Mine()), "sampler": samplers.Heun()}, "rounds go back .* sampler heun cannot"),
        ({"guidance": rules.Interval(rules.PlusPlus(0.5))}, "cfg_pp is a step of DDIM"),
        ({"w": 0.5, "guidance": "cfg_pp", "sampler": Walker()}, "cfg_pp is a step of DDIM"),
        ({"guidance": rules.APG(1.0), "sampler": samplers.Ancestral(particles=2)}, "particles=2 has the weights of"),
        ({"guidance": Mine(), "sampler": samplers.Ancestral(particles=2)}, "particles=2 has the weights of"),
        ({"w": 1.0, "rescale": 0.7, "sampler": samplers.Ancestral(particles=2)}, "particles=2 has the weights of"),
        ({"w": [1.0, 2.0], "sampler": samplers.Ancestral(particles=2)}, "must have one label and one w"),
    ],
)
def test_what_would_be_ignored_by_a_value_is_refused(model, settings, said):
    with pytest.raises(InputError, match=said):
        model.sample([1, 1], **settings)


@pytest.mark.parametrize(
    "rule",
    [Mine(), guidance.ClassifierFree(1.0), rules.Interval(Mine()), rules.Rescaled(rules.APG(2.0)), rules.PlusPlus(0.0)],
)
def test_a_run_without_an_unconditional_half_refuses_a_value_too(rule):
    with pytest.raises(InputError, match="p_uncond=0"):
        made(p_uncond=0.0).sample([1, 2], guidance=rule, sampler=samplers.DDIM())


def test_a_value_that_needs_one_half_is_taken(model):
    found = made(p_uncond=0.0).sample([1, 2], guidance=guidance.Unguided())
    np.testing.assert_array_equal(found, model.sample([1, 2]))


@pytest.mark.slow
def test_a_rule_in_bfloat16_walks_within_an_interval(model):
    rule = rules.Interval(Mine(0.5), -3.0, 3.0)
    found, wanted = (
        model.sample([1, 2], guidance=of) for of in (rule, rule.replace(rule=guidance.ClassifierFree(0.5)))
    )
    assert np.abs(found.astype(int) - wanted).max() < 20  # of bfloat16


def test_a_batch_larger_than_the_images_is_not_drawn_in_full(model, monkeypatch):
    asked = []
    drawn = draw.draw
    monkeypatch.setattr(draw, "draw", lambda *args, **kwargs: asked.append(len(args[4])) or drawn(*args, **kwargs))
    model.sample([1, 2], batch_size=4000)
    assert asked == [4]  # of four devices


class Half:
    """log p of a classifier whose gradient is constant."""

    def log_prob(self, z, logsnr, c):
        return 0.05 * z.sum((1, 2, 3))


@pytest.mark.slow
def test_a_classifier_acts_within_the_interval_alone(model):
    def sample(scale, low, high, **settings):
        config = model.config.copy_and_resolve_references()
        config.guidance.logsnr_low, config.guidance.logsnr_high = low, high
        rule = model.rule(config.guidance, np.zeros(2, np.float32), classifier=True)
        how = guidance.Guidance(rule, classifier=Half(), classifier_scale=scale)
        keys, z = samplers.start(0, np.arange(2), (8, 8, 1))
        return build.walk(config)(keys, how.on(model.denoiser), z, np.zeros(2, np.int32), how.init(keys, z))

    none, outside, inside = sample(0.0, 25.0, 30.0), sample(3.0, 25.0, 30.0), sample(3.0, -30.0, 30.0)
    np.testing.assert_allclose(outside, none, atol=1e-6)
    assert np.abs(np.asarray(inside - none)).max() > 0.01


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({}, 6),
        ({"sampler.name": "heun"}, 12),
        ({"guidance.name": "two_labels", "guidance.other_label": 1}, 9),
        ({"guidance.rounds": 2, "guidance.renoise_logsnr": 0.0}, 3 + 2 * 2 * 2),
        ({"guidance.logsnr_low": 25.0}, 3),
    ],
)
def test_flop_are_of_the_passes_that_are_made(fields, passes):
    config = made(**fields).config
    assert cost.sampling_flops(config, 10, [1.0, 2.0], 7) == 2 * 10 * 7 * passes
    assert cost.passes_an_image(config, 1.0) == passes


def test_guides_check_a_value_with_its_own_w(model):
    other = made(**{"data.image_size": 16})
    with pytest.raises(InputError, match="give one of the same shape"):
        model.sample([1, 2], guidance=guidance.ClassifierFree(1.0), guides=Guides(uncond=other))
    other = made(**{"data.channels": 3})
    with pytest.raises(InputError, match=r"have the shape \(8, 8, 3\), and the model's \(8, 8, 1\)"):
        model.sample([1, 2], guidance=guidance.ClassifierFree(1.0), guides=Guides(uncond=other))
    judge = SimpleNamespace(config=model.config.copy_and_resolve_references())
    judge.config.data.num_classes = 20
    with pytest.raises(InputError, match="the classifier has 20 classes, the model 10"):
        Guides(classifier=judge).check(model, [0.0])


@pytest.mark.parametrize(
    ("field", "value"),
    [("schedule", "cosine"), ("schedule_w", (0.0, 1.0)), ("rescale", 0.5), ("uncond", "other_label")],
)
def test_what_a_classifier_that_guides_would_ignore_is_refused(model, field, value):
    judge = SimpleNamespace(config=model.config)
    config = model.config.copy_and_resolve_references()
    config.guidance[field] = value
    config.guidance.schedule_logsnr = (-6.0, 6.0) if field == "schedule_w" else None
    with pytest.raises(InputError, match=f"config.guidance.{field} has no effect on --classifier_run"):
        run.check_variant(config, [model], Guides(classifier=judge), [1.0])


def test_a_sweep_by_a_classifier_keeps_the_interval(model, tmp_path):
    config = model.config.copy_and_resolve_references()
    config.guidance.logsnr_low = -2.0
    guides = Guides(classifier=SimpleNamespace(network=Half()), name="classifier half")
    for name, direction in (("classifier-free", guidance.Unguided), ("unconditional", guidance.Unconditional)):
        config.guidance.name = name
        how = run.guidance_of(run.Cell(tmp_path, model, config, {"w": 3.0}, None), guides)
        assert isinstance(how.rule, rules.Interval) and isinstance(how.rule.rule, direction)
        assert how.classifier_scale == 3.0 and how.rule.logsnr_low == -2.0


@pytest.mark.slow
def test_a_cell_that_an_earlier_version_drew_otherwise_is_made_anew(model, tmp_path, monkeypatch):
    """Rounds at w = 0: the file does not say drawn_as, which is what older ones look like."""
    monkeypatch.setattr("cfg_jax.sweep.run.features_of", lambda *_: Network())
    config = model.config.copy_and_resolve_references()
    config.data.card = sources.digits().card.digest
    weights.export(tmp_path / "m.safetensors", config, 7, model.params)
    config.eval.update(bootstrap=0)
    config.guidance.update(ROUNDS)
    files = []
    for _ in range(2):
        (row,) = run.sweep(config, [tmp_path / "m.safetensors"], [0.0], tmp_path / "sweep")
        (path,) = (tmp_path / "sweep" / "cells").glob("*.json")
        files.append(json.loads(path.read_text()))
        assert row["passes"] == 3 + 2 and row["keys"] == pinned.KEYS + ", partitionable" and row["floats"] == "float32"
        old = {k: v for k, v in files[-1].items() if k != "drawn_as"} | {"seconds": -1.0}
        write_json(path, old)
    assert [of["drawn_as"] for of in files] == [2, 2] and files[1]["seconds"] >= 0
