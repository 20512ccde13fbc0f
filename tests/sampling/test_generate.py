import subprocess
import sys

import jax
import numpy as np
import pytest

import cfg_jax
from cfg_jax import meshes
from cfg_jax.errors import InputError
from cfg_jax.images import to_uint8
from cfg_jax.models import build
from cfg_jax.sampling import draw as drawing
from cfg_jax.sampling.model import Guides, Model
from cfg_jax.training import state as states
from tests.conftest import fill

LABELS = np.arange(12) % 10


@pytest.fixture(scope="module")
def model():
    """A network whose eps depends on the class and on z: numbers in place of training."""
    from tests.conftest import tiny_config

    config = tiny_config()
    shapes = jax.eval_shape(lambda: states.create(config)).params
    return Model(config, build.denoiser(config, fill(shapes)))


def draw(model, labels=LABELS, w=1.0, batch_size=12, seed=0, devices=None):
    mesh = meshes.data_mesh(devices)
    rule = build.rule(model.config.guidance, np.broadcast_to(np.float32(w), labels.shape))
    batches = drawing.batches(
        model.denoiser, labels.astype(np.int32), Guides().beside(rule, model.config.guidance),
        build.walk(model.config), shape=(8, 8, 1), seed=seed, batch_size=batch_size, mesh=mesh,
    )  # fmt: skip
    return np.concatenate(list(batches))


def test_an_image_depends_neither_on_the_batch_nor_on_the_devices(model):
    whole = draw(model, devices=jax.devices()[:1])
    assert whole.shape == (12, 8, 8, 1) and np.abs(whole).max() <= 1
    for others in (
        draw(model, batch_size=4, devices=jax.devices()[:1]),
        draw(model, devices=jax.devices()[:2]),
        draw(model, batch_size=8, devices=jax.devices()[:4]),
        draw(model, labels=LABELS[:5], batch_size=8, devices=jax.devices()[:4]),
    ):
        np.testing.assert_allclose(others, whole[: len(others)], atol=1e-5)
        np.testing.assert_array_equal(to_uint8(others), to_uint8(whole[: len(others)]))


def test_seed_label_and_w_each_change_an_image(model):
    base = draw(model)
    assert np.abs(draw(model, seed=1) - base).max((1, 2, 3)).min() > 0.01
    assert np.abs(draw(model, labels=(LABELS + 1) % 10) - base).max((1, 2, 3)).min() > 1e-3
    assert np.abs(draw(model, w=3.0) - base).max((1, 2, 3)).min() > 1e-3


@pytest.mark.slow
def test_w_0_in_one_pass_is_w_0_in_two(model):
    """An array of w with a single 1 in it takes both halves for every image."""
    w = np.zeros(12)
    w[-1] = 1
    np.testing.assert_allclose(draw(model, w=w)[:-1], draw(model, w=0)[:-1], atol=1e-5)


def test_one_program_serves_every_w_and_v(model):
    draw(model)
    compiled = drawing.draw._cache_size()
    first = model.sample(LABELS, w=0.5, num_steps=3, v=0.1)
    assert not np.array_equal(first, model.sample(LABELS, w=4.0, num_steps=3, v=0.9, seed=5))
    draw(model, w=np.linspace(0.1, 4, 12))
    assert drawing.draw._cache_size() <= compiled + 1  # sample has a mesh of its own


def test_w_minus_1_is_the_unconditional_model(model):
    one, other = draw(model, w=-1), draw(model, labels=(LABELS + 3) % 10, w=-1)
    np.testing.assert_allclose(one, other, atol=1e-5)  # whatever the label
    null = np.full(12, 10, np.int32)  # as a label, unguided; Model.sample would refuse it
    unconditional = draw(model, labels=null, w=0)
    np.testing.assert_allclose(one, unconditional, atol=1e-5)


def test_sample_is_uint8_and_repeatable(model):
    images = model.sample(LABELS, w=0.5, num_steps=3)
    assert images.dtype == np.uint8 and images.shape == (12, 8, 8, 1)
    np.testing.assert_array_equal(images, model.sample(LABELS, w=0.5, num_steps=3, batch_size=5))
    none, static = (draw_with(model, threshold=t) for t in ("none", "static"))
    assert not np.array_equal(none, static)


def draw_with(model, **settings):
    return model.sample(LABELS, w=4.0, num_steps=3, **settings)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"labels": [3, 10]}, "label 10 is out of range"),
        ({"labels": [-1]}, "label -1"),
        ({"labels": []}, "list of integers"),
        ({"labels": [0.5]}, "list of integers"),
        ({"labels": [1], "w": float("nan")}, "no finite number"),
        ({"labels": [1, 2], "w": [1.0, float("inf")]}, "no finite number"),
        ({"labels": [1, 2], "w": [1.0]}, "one for each of the 2 labels"),
        ({"labels": [1], "num_steps": 0}, "(T) must be at least 1"),
        ({"labels": [1], "threshold": "soft"}, "none, static, dynamic"),
        ({"labels": [1], "grid": "cosine"}, "paper, shifted"),
    ],
)
def test_bad_requests(model, kwargs, said):
    with pytest.raises(InputError) as error:
        model.sample(**kwargs)
    assert said in str(error.value)


def test_guidance_needs_a_model_that_saw_the_null_label(model):
    config = model.config.copy_and_resolve_references()
    config.p_uncond = 0.0
    never = Model(config, model.denoiser)
    with pytest.raises(InputError, match="trained with p_uncond=0"):
        never.sample([1], w=0.5)
    never.sample([1], w=0.0, num_steps=3)


def test_label_rules():
    assert not drawing.labels_by_rule("random", 5, 0, seed=0).any()  # unconditional
    balanced = drawing.labels_by_rule("balanced", 25, 10, seed=0)
    assert set(np.bincount(balanced)) == {2, 3}
    random = drawing.labels_by_rule("random", 5000, 10, seed=0)
    np.testing.assert_array_equal(random[:100], drawing.labels_by_rule("random", 100, 10, seed=0))
    assert np.bincount(random).min() > 400 and len(set(np.bincount(random))) > 3


def test_the_library_imports_light_and_load_is_there():
    code = "import cfg_jax, sys; assert 'orbax' not in sys.modules; assert callable(cfg_jax.load)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError):
        _ = cfg_jax.nothing
