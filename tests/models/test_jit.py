"""JiT against recorded results of its authors' PyTorch code; then trained, resumed, exported and distilled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cfg_jax
from cfg_jax import checks
from cfg_jax.diffusion import process
from cfg_jax.errors import InputError
from cfg_jax.models import attention, build, jit_weights, torch_file
from cfg_jax.sweep.run import sweep
from cfg_jax.training import students, trainer
from configs import digits_jit, fashion_mnist_jit, imagenet64_jit
from tests.conftest import fill
from tests.evaluation.test_references import Network
from tests.running import RECORDED


def tiny_jit():
    """Two blocks, before the second of which two class tokens join, and a few steps."""
    config = digits_jit.get_config()
    config.model.update(patch=4, width=16, depth=2, num_heads=2, class_tokens=2, class_tokens_from=1, bottleneck=8)
    config.train.update(num_steps=4, batch_size=8, log_every=2, checkpoint_every=2, sample_every=4, warmup_steps=1)
    config.sampler.num_steps = 3
    return config


@pytest.fixture
def config():
    return tiny_jit()


def read(name):
    with np.load(RECORDED / name, allow_pickle=False) as file:
        return dict(file)


def last(array):
    """Move PyTorch's channels, the second axis, to where they are here."""
    return np.moveaxis(array, 1, -1)


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def from_straight(net, params, x, t, c, scale=1.0):
    """The network's output at z_t = t x + (1 - t) scale eps, which it is told as z and a log-SNR."""
    logsnr = jnp.float32(2 * np.log(np.float64(t) / (1 - np.float64(t)) / scale))
    z = x * (process.alpha(logsnr) + process.sigma(logsnr) / scale)[:, None, None, None]
    return net.apply({"params": params}, z, logsnr, jnp.int32(c))


@pytest.mark.slow
def test_output_and_gradients_are_those_of_the_authors_code():
    recorded = read("jit_micro.npz")
    state, gradients = (
        {key.removeprefix(f"{kind}/"): a for key, a in recorded.items() if key.startswith(f"{kind}/")}
        for kind in ("param", "grad")
    )
    config = jit_weights.config_of(state, imagenet64_jit.get_config())
    model = config.model
    assert (model.num_heads, model.class_tokens, model.class_tokens_from, config.data.image_size) == (2, 2, 1, 6)
    model.dtype = "float32"
    net, shapes = build.network(config), build.shapes(config)
    params, x, t, c = jit_weights.convert(state, shapes), last(recorded["in/x"]), recorded["in/t"], recorded["in/y"]

    def loss(params, x):
        out = from_straight(net, params, x, t, c)
        return jnp.mean(out * last(recorded["in/cotangent"])), out

    (_, out), (of_params, of_x) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)
    assert relative(out, last(recorded["out"])) < 1e-5
    assert relative(of_x, last(recorded["grad_x"])) < 1e-5
    apart = jax.tree.map(relative, of_params, jit_weights.convert(gradients, shapes))
    assert max(jax.tree.leaves(apart)) < 1e-5, apart
    louder = jax.jit(lambda: from_straight(net.clone(noise_scale=2.0), params, x, t, c, 2.0))()
    assert relative(louder, out) < 1e-5


@pytest.mark.slow
def test_a_training_checkpoint_is_imported_by_its_shapes(command, tmp_path):
    """The average that the authors sample from, in a file with an optimizer and flags; then its export's card."""
    file, out = RECORDED / "jit_checkpoint.pth", tmp_path / "jit"
    done = command("import_jit", f"--checkpoint={file}", f"--out={out}", "--config.model.dtype=float32")
    assert done.returncode == 0, done.stderr
    assert "6,910 parameters of model_ema1, class tokens from 1, noise scale 1" in done.stdout
    model, recorded = cfg_jax.load(out), read("jit_checkpoint.npz")
    assert (model.config.model.depth, model.config.model.patch, model.config.data.num_classes) == (3, 4, 3)
    given = (last(recorded["x"]), recorded["t"], recorded["y"])
    assert relative(from_straight(build.network(model.config), model.params, *given), last(recorded["out"])) < 1e-5
    assert command("export", f"--run={out}", f"--out={tmp_path / 'm.safetensors'}").returncode == 0
    card = (tmp_path / "m.md").read_text()
    assert "read as JiT:\n  part model_ema1, class tokens from 1, noise scale 1.0" in card and "patches of 4x4" in card

    other = command("import_jit", f"--checkpoint={file}", f"--out={tmp_path / 'b'}", "--part=model")
    assert other.returncode == 0
    assert relative(cfg_jax.load(tmp_path / "b").params["out"]["bias"], model.params["out"]["bias"]) > 0.1
    for flags, said in (
        ([f"--checkpoint={RECORDED / 'torch_state_dict.pt'}"], "torch_state_dict.pt has no model_ema1"),
        ([f"--checkpoint={file}", "--config.model.class_tokens_from=3"], "class_tokens_from=3 is no block"),
        ([f"--checkpoint={file}", "--config.model.width=16"], "the checkpoint is not of this network"),
    ):
        refused = command("import_jit", f"--out={tmp_path / 'no'}", *flags)
        assert refused.returncode == 1 and said in refused.stderr and "Traceback" not in refused.stderr
        assert not (tmp_path / "no").exists()


def test_what_is_no_jit_is_named():
    with pytest.raises(InputError, match=r"the checkpoint is no JiT \('x_embedder\.proj1\.weight'\)"):
        jit_weights.config_of(torch_file.read(RECORDED / "torch_state_dict.pt"), imagenet64_jit.get_config())


def test_sizes_are_the_authors_to_the_parameter():
    """Their code has as many that are trained: JiT-B/4 at 64x64 and JiT-B/16 at 256x256."""
    config = imagenet64_jit.get_config()
    count = lambda: sum(a.size for a in jax.tree.leaves(build.shapes(config)))  # noqa: E731
    assert count() == 130_477_872
    config.model.patch, config.data.image_size = 16, 256
    assert count() == 131_123_712


@pytest.mark.parametrize("module", [digits_jit, fashion_mnist_jit, imagenet64_jit])
def test_configs_build(module):
    config = module.get_config()
    checks.everything(config)
    size, net = config.data.image_size, build.network(config)
    z = jax.ShapeDtypeStruct((2, size, size, config.data.channels), "float32")
    shapes = build.shapes(config)
    out = jax.eval_shape(net.apply, {"params": shapes}, z, jnp.zeros(2), jnp.zeros(2, "i4"))
    assert (out.shape, out.dtype) == (z.shape, jnp.float32)
    assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("model.patch", 3, "config.model.patch=3 does not divide config.data.image_size=8"),
        ("model.patch", 0, "config.model.patch=0 must be at least 1"),
        ("model.num_heads", 3, "config.model.num_heads=3 must divide config.model.width=16 into heads"),
        ("model.num_heads", 8, "a multiple of 4"),
        ("model.class_tokens_from", 2, "class_tokens_from=2 is no block: config.model.depth=2 has 0 to 1"),
        ("model.class_tokens_from", -1, "config.model.class_tokens_from=-1 is no block"),
        ("model.class_tokens", -1, "config.model.class_tokens=-1 must be 0, for none, or more"),
        ("model.noise_scale", 0.0, "config.model.noise_scale=0.0 must be above 0"),
        ("model.dropout", 1.0, "config.model.dropout=1.0"),
        ("model.width", 10**9, "more than 16,384"),
    ],
)
def test_bad_values_are_named_with_their_remedy(config, field, value, said):
    config.update_from_flattened_dict({field: value})
    with pytest.raises(InputError) as error:
        checks.everything(config)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_without_class_tokens_their_block_is_not_asked_for(config):
    config.model.class_tokens, config.model.class_tokens_from = 0, 9
    checks.everything(config)


def test_one_block_has_no_middle_for_an_inner_head(config):
    config.model.update(depth=1, class_tokens=0, inner_head=True)
    with pytest.raises(InputError, match="set 2 or more"):
        checks.everything(config)


@pytest.mark.slow
def test_class_dropout_remat_and_bfloat16(config):
    """Dropout differs by key, the class is heard, and the function is the same with less memory or fewer digits."""
    config.model.update(depth=4, dropout=0.5)
    net, params = build.network(config), {"params": fill(build.shapes(config))}
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((3, 8, 8, 1)).astype("f4"), np.float32([-3, 0, 7]), np.int32([0, 4, 10])
    apply = jax.jit(net.apply, static_argnames="train")
    out = apply(params, *inputs)
    dropped = [apply(params, *inputs, train=True, rngs={"dropout": jax.random.key(k)}) for k in (0, 0, 1)]
    np.testing.assert_array_equal(dropped[0], dropped[1])
    assert min(relative(dropped[2], dropped[0]), relative(dropped[0], out)) > 1e-4
    z, logsnr, c = inputs
    for changed in (apply(params, z, logsnr + 1, c), apply(params, z, logsnr, (c + 1) % 11)):
        assert np.abs(changed - out).max((1, 2, 3)).min() > 1e-5

    total = lambda net: jax.jit(jax.grad(lambda p: net.apply(p, *inputs).sum()))(params)  # noqa: E731
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
                 total(net), total(net.clone(remat=True)))  # fmt: skip
    half = jax.jit(net.clone(dtype=jnp.bfloat16).apply)(params, *inputs)
    assert half.dtype == jnp.float32 and 1e-5 < relative(half, out) < 0.05


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("train_classifier", ["--workdir={}"]),
        ("studies.capacity", ["--out={}"]),
        ("import_adm", ["--out={}", "--checkpoint=64x64_diffusion.pt"]),
    ],
)
def test_what_needs_a_u_net_says_so(command, tmp_path, name, flags):
    out = tmp_path / "out"
    done = command(name, "--config=configs/digits_jit.py", *(flag.format(out) for flag in flags))
    assert done.returncode == 1 and "config.model.name=jit is no unet" in done.stderr and not out.exists()
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The tiny config trained for its four steps."""
    workdir = tmp_path_factory.mktemp("run") / "jit"
    trainer.train(tiny_jit(), workdir)
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("kind", attention.PERTURBATIONS)
def test_the_attention_of_its_middle_block_can_be_made_worse(kind):
    config, rng = tiny_jit(), np.random.default_rng(0)
    params = jax.tree.map(lambda a: jnp.float32(rng.normal(0, 0.3, a.shape)), build.shapes(config))
    model = build.denoiser(config, params)
    z, c = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.int32([1, 2])
    both = [of.eps_fn(z, jnp.zeros(2), c) for of in (model, model.perturbed(kind))]
    assert np.abs(both[0] - both[1]).max() > 1e-4


@pytest.mark.slow
def test_two_and_two_steps_are_four(config, run, tmp_path):
    config.train.num_steps = 2
    trainer.train(config, tmp_path)
    config.train.num_steps = 4
    trainer.train(config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, cfg_jax.load(tmp_path).params, cfg_jax.load(run).params)


@pytest.mark.slow
def test_it_is_exported_loaded_and_swept_with_its_interval(command, run, tmp_path, monkeypatch):
    file = tmp_path / "m.safetensors"
    done = command("export", f"--run={run}", f"--out={file}")
    assert done.returncode == 0, done.stderr
    assert "2 blocks, 16 channels, 2 heads" in file.with_suffix(".md").read_text()
    model = cfg_jax.load(file)
    jax.tree.map(np.testing.assert_array_equal, model.params, cfg_jax.load(run).params)
    assert model.sample([1, 2], 1.0).shape == (2, 8, 8, 1)
    monkeypatch.setattr("cfg_jax.sweep.run.features_of", lambda *_: Network())
    config = model.config.copy_and_resolve_references()
    config.eval.update(num_images=24, batch_size=8, splits=2, bootstrap=0)
    rows = sweep(config, [file], [0.0, 1.0], tmp_path / "sweep")
    assert [row["w"] for row in rows] == [0, 1] and {row["guidance.logsnr_low"] for row in rows[1:]} == {-4.39}


@pytest.mark.slow
def test_a_student_of_it_takes_w(config, run, tmp_path):
    trainer.train(students.distilled(config, str(run), 0, 4), tmp_path)
    student = cfg_jax.load(tmp_path)
    assert "w_embed" in student.params and student.sample([1], w=4.0).shape == (1, 8, 8, 1)
