"""What jax's environment may not change: images, and what training draws, are the same under every setting of it."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cfg_jax
from cfg_jax import pinned
from cfg_jax.diffusion import samplers
from cfg_jax.errors import InputError
from cfg_jax.models import build
from cfg_jax.training import state as states

DRAWN = """
import hashlib
from pathlib import Path
import numpy as np
import cfg_jax
from cfg_jax.training import records, trainer
digest = lambda *a: hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in a)).hexdigest()
model = cfg_jax.load("digits")
print(digest(model.sample([3, 1, 4], w=[0.0, 1.0, 2.0], num_steps=2, seed=7, v=0.3)))
print(digest(model.sample([3, 1, 4], w=1.0, num_steps=2, sampler="heun", uncond="other_label", batch_size=1)))
from configs import digits
config = digits.get_config()
config.model.multipliers, config.model.attention_resolutions = (1,), ()
config.train.update(num_steps=2, batch_size=8, log_every=1, checkpoint_every=2, sample_every=9)
trainer.train(config, "run")
losses = [row["loss"] for _, row in records.read(Path("run/metrics.jsonl"))]
print(cfg_jax.load("run", params="params").digest, losses)
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    def run(**environment):
        root = Path(cfg_jax.__file__).parents[1]
        cache = str(root / ".pytest_cache" / "xla")
        own = {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache}
        done = subprocess.run(
            [sys.executable, "-c", DRAWN], env=os.environ | own | environment, cwd=tmp_path_factory.mktemp("drawn"),
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def as_set(drawn):
    return drawn()


@pytest.mark.parametrize(
    "environment",
    [
        {"JAX_ENABLE_X64": "1"},
        {"JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_RANDOM_SEED_OFFSET": "5"},
        {"JAX_DEFAULT_PRNG_IMPL": "unsafe_rbg", "JAX_ENABLE_X64": "1", "JAX_THREEFRY_PARTITIONABLE": "0"},
    ],
)
@pytest.mark.slow
def test_images_and_training_do_not_depend_on_the_environment(drawn, as_set, environment):
    assert drawn(**environment) == as_set


def test_a_walk_of_ones_own_is_pinned_or_refused():
    """samplers.start says the kind of key and the dtype itself; how its bits are drawn it cannot say."""
    wanted = samplers.start(3, np.arange(2), (4,))
    with jax.default_prng_impl("rbg"), jax.enable_x64(True):
        found = samplers.start(3, np.arange(2), (4,))
    assert found[1].dtype == jnp.float32 and jnp.array_equal(found[1], wanted[1])
    assert jnp.array_equal(*(jax.random.key_data(keys) for keys, _ in (found, wanted)))
    with (
        jax.threefry_partitionable(False),
        pytest.raises(InputError, match=r"JAX_THREEFRY_PARTITIONABLE=0 .* unset it"),
    ):
        samplers.start(3, np.arange(2), (4,))


@pytest.mark.parametrize("sampler", samplers.SAMPLERS.values())
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_every_walk_is_in_float32(sampler, dtype):
    """Also of z and an eps_fn in another dtype, with 64 bits switched on."""
    with jax.enable_x64(True):
        keys, z = samplers.start(0, np.arange(2), (4,))
        eps_fn = samplers.plain(lambda z, logsnr, c: (0.3 * z).astype(dtype))
        x = samplers.Walk(sampler(), np.linspace(-5, 5, 3))(keys, eps_fn, z.astype(dtype), np.zeros(2, np.int32))
    assert x.dtype == jnp.float32 and np.isfinite(x).all()


@pytest.mark.parametrize("seed", [-1, 2**31, 2**40, 0.5, None, "1", True])
def test_a_seed_that_is_none_is_one_line(tiny, seed):
    with pytest.raises(InputError, match=r"seed=.* must be a whole number in \[0, 2\^31\)"):
        samplers.start(seed, np.arange(2), (4,))
    with pytest.raises(InputError, match=r"seed=.* must be a whole number in \[0, 2\^31\)"):
        cfg_jax.load("digits").sample([1], seed=seed)


def test_the_largest_seed_is_its_own():
    assert not jnp.array_equal(
        samplers.start(2**31 - 1, np.arange(1), (4,))[1], samplers.start(0, np.arange(1), (4,))[1]
    )


def test_what_is_pinned_is_written_down(tiny):
    assert pinned.RECORD == {"keys": "threefry2x32, partitionable", "floats": "float32"}
    with jax.default_prng_impl("rbg"), jax.enable_x64(True):
        assert jax.random.key_impl(pinned.key(0)) == pinned.KEYS
        with pinned.pinned():
            assert jnp.zeros(1).dtype == jnp.float32
            assert all(a.dtype != jnp.float64 for a in jax.tree.leaves(jax.eval_shape(lambda: states.create(tiny))))
            assert build.shapes(tiny)
