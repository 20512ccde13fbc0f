import io
import math
import os
import re
import struct
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import cfg_jax
from cfg_jax.errors import InputError
from cfg_jax.evaluation import classifiers
from cfg_jax.files import sha256_of
from cfg_jax.images import to_float
from cfg_jax.models import adm, build, noise_level, torch_file, unet
from cfg_jax.models.denoiser import Denoiser, NoisyClassifier
from cfg_jax.sampling.model import Guides, Model, load_classifier
from cfg_jax.training import state as states
from cfg_jax.training import trainer
from configs import imagenet64
from tests.conftest import fill
from tests.running import RECORDED, run

DATA = RECORDED
SMALL = {"channels": 32, "multipliers": (1, 2), "num_blocks": 1, "attention_resolutions": (4,), "num_classes": 4}
TINY = {"channels": 32, "multipliers": (1, 2, 3), "num_blocks": 2, "attention_resolutions": (8, 4), "num_classes": 10}


def network(**fields):
    """As the golden one: six outputs, no null row, time given on ADM's own scale."""
    return unet.UNet(**{"head_width": 16, **fields}, out_channels=6, null_label=False, noise_level=lambda t: t)


def golden(path):
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    state = {name.removeprefix("param/"): a.astype("f4") for name, a in arrays.items() if name.startswith("param/")}
    x, out = (arrays[name].transpose(0, 2, 3, 1) for name in ("in/x", "out"))
    return state, (x, arrays["in/t"], arrays["in/y"].astype("i4")), out


def template(net, inputs):
    return jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize(("name", "fields"), [("micro", SMALL), ("tiny", TINY)])
def test_the_network_is_adms(name, fields):
    path = DATA / f"adm_unet_{name}.npz"
    if not path.exists():
        path = Path(os.environ.get("CFG_JAX_ASSETS") or "absent").parent / "golden" / path.name
    if not path.exists():
        pytest.skip(f"{path.name} is not beside CFG_JAX_ASSETS")
    state, inputs, out = golden(path)
    net = network(**fields)
    params = adm.convert(state, template(net, inputs))
    assert relative(jax.jit(net.apply)({"params": params}, *inputs), out) < 1e-5


@pytest.fixture(scope="module")
def micro():
    state, inputs, out = golden(DATA / "adm_unet_micro.npz")
    return state, inputs, out, template(network(**SMALL), inputs)


def test_the_legacy_attention_order_is_another_order_of_the_same_channels(micro):
    """A legacy checkpoint has each head's q, k and v side by side; importing it gives back the same parameters."""
    state, _, _, shapes = micro
    heads = lambda channels: channels // 16  # noqa: E731
    legacy = dict(state)
    for name, array in state.items():
        if ".qkv." in name:
            q, k, v = np.split(array, 3)
            per_head = [np.split(part, heads(len(q))) for part in (q, k, v)]
            legacy[name] = np.concatenate([part[h] for h in range(heads(len(q))) for part in per_head])
    params = adm.convert(state, shapes)
    jax.tree.map(np.testing.assert_array_equal, adm.convert(legacy, shapes, heads), params)
    with pytest.raises(AssertionError):
        jax.tree.map(np.testing.assert_array_equal, adm.convert(legacy, shapes), params)


def test_heads_by_count_are_heads_by_width(micro):
    state, inputs, out, shapes = micro
    net = network(**SMALL, head_width=None, num_heads=4)  # 64 channels wherever attention is
    assert relative(jax.jit(net.apply)({"params": adm.convert(state, shapes)}, *inputs), out) < 1e-5


def test_every_key_and_shape_is_checked(micro):
    state, _, _, shapes = micro
    wrong = dict(state)
    del wrong["out.2.bias"]
    wrong["input_blocks.9.0.in_layers.0.weight"] = np.zeros(32)
    wrong["nonsense"] = np.zeros(3)
    wrong["label_emb.weight"] = np.zeros((5, 128))
    with pytest.raises(InputError) as error:
        adm.convert(wrong, shapes)
    lines = str(error.value).splitlines()[1:]
    assert [line.split(":")[0] for line in lines] == ["extra", "extra", "mis-shaped", "missing"]
    assert "(5, 128)" in lines[2] and "out_conv.bias" in lines[3]


def test_unconditional_and_plain_resampling(micro):
    """Without classes c is not read; without residual resampling there is one convolution, as in ADM's names."""
    _, inputs, _, _ = micro
    net = network(**SMALL | {"num_classes": 0}, resample_blocks=False)
    shapes = template(net, inputs)
    assert "label_emb" not in shapes
    assert shapes["input_2_down"]["kernel"].shape == (3, 3, 32, 32)
    assert shapes["output_1_up"]["kernel"].shape == (3, 3, 64, 64)
    assert adm.rename("input_blocks.2.0.op.weight") == (("input_2_down",), "weight")
    assert adm.rename("output_blocks.1.2.conv.bias") == (("output_1_up",), "bias")
    apply, params = jax.jit(net.apply), {"params": fill(shapes)}
    x, t, c = inputs
    np.testing.assert_array_equal(apply(params, x, t, c), apply(params, x, t, c * 0))


@pytest.mark.slow
def test_guidance_acts_on_eps_and_not_on_a_learned_variance(micro):
    state, (x, t, c), out, shapes = micro
    net = network(**SMALL)
    eps = jax.jit(Denoiser(adm.convert(state, shapes), net).eps_fn)(x, t, c)
    assert eps.shape == x.shape and relative(eps, out[..., :3]) < 1e-5


def test_adm_time_is_exact_at_every_step_of_its_schedules(tiny):
    """logsnr -> t at the schedules' own levels, which closed forms give: telescoping for cosine, Gamma for linear."""
    t = np.arange(999)  # the cosine schedule's last beta is cut to 0.999
    f = lambda s: np.cos((s / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2  # noqa: E731
    cosine = f(t + 1.0) / f(0.0)
    step = (0.02 - 1e-4) / 999
    top = (1 - 1e-4) / step + 1
    linear = np.exp([(k + 1) * math.log(step) + math.lgamma(top) - math.lgamma(top - k - 1) for k in t])
    for name, alpha_bar in (("adm_cosine", cosine), ("adm_linear", linear)):
        logsnr = np.log(alpha_bar / (1 - alpha_bar))
        level = noise_level.NOISE_LEVELS[name]
        np.testing.assert_allclose(level(jnp.float32(logsnr)), t, atol=0.02)
        tiny.model.time = name
        assert build.network(tiny) == build.network(tiny)  # jit would compile again for another
        assert level(jnp.float32(50.0)) == 0 and level(jnp.float32(-50.0)) == 999


def test_a_torch_file_is_read_without_being_run():
    state = torch_file.read(DATA / "torch_state_dict.pt")
    base = np.arange(24.0).reshape(4, 6)
    np.testing.assert_array_equal(state["a"], base[1:3, ::2])
    np.testing.assert_array_equal(state["b"], base.T)
    np.testing.assert_array_equal(state["half"], np.float16([1.5, -2]))
    assert state["count"] == 7 and state["count"].shape == () and list(state) == ["a", "b", "half", "count"]


def test_a_torch_file_of_before_1_6():
    state = torch_file.read(DATA / "torch_legacy.pt")
    base = np.arange(24.0).reshape(4, 6)
    np.testing.assert_array_equal(state["conv.weight"], base.reshape(2, 3, 4))
    np.testing.assert_array_equal(state["shared"], base[1:3])
    np.testing.assert_array_equal(state["t"], base.T)
    np.testing.assert_array_equal(state["half"], np.arange(5, dtype=np.float16))
    assert state["bn.num_batches_tracked"] == 7


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b"cos\nsystem\n(X\x04\x00\x00\x00truetR.", "os.system"),
        (b"\x80\x02}.", None),
        (b"\x80\x02]q\x00.", "more than tensors by name"),
        (b"\x80\x02\x8f.", "EMPTY_SET"),
        (b"\x80\x02}", "before seeing STOP|exhausted|ends early"),
    ],
)
def test_a_torch_file_that_asks_for_more_is_refused(tmp_path, program, said):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", program)
    if said is None:
        assert torch_file.read(path) == {}
        return
    with pytest.raises(InputError, match=said):
        torch_file.read(path)


def adm_name(path):
    """The inverse of adm.rename, by its tables; every block first in its place, attention second."""
    *module, leaf = path
    leaf = "bias" if leaf == "bias" else "weight"
    top = {new: old for old, new in adm.TOP.items()}
    if module[0] in top:
        return f"{top[module[0]]}.{leaf}"
    side, index, kind = module[0].split("_")
    table = adm.ATTENTION if kind == "attention" else adm.BLOCK
    inner = next(old for old, new in table.items() if new == module[1])
    place = "middle_block." + index if side == "middle" else f"{side}_blocks.{index}.{int(kind == 'attention')}"
    return f"{place}.{inner}.{leaf}"


def state_dict(template, array):
    """Arrays under the published names, for parameters of this shape."""
    leaves = flatten_dict(template)
    attended = {path[0].removesuffix("_attention") for path in leaves if path[0].endswith("_attention")}
    state = {}
    for path, leaf in leaves.items():
        name = adm_name((path[0].replace("_up", "_block"), *path[1:]))
        if path[0].endswith("_up"):
            number = 2 if path[0].removesuffix("_up") in attended else 1
            name = re.sub(r"(output_blocks\.\d+)\.0", rf"\1.{number}", name)
        shape = leaf.shape
        if path[-1] == "kernel":
            shape = shape[::-1][:2] + shape[:-2]
            shape += (1,) if path[-2] in ("qkv", "out") else (1, 1) if path[-2] == "skip" else ()
        state[name] = array(shape)
    return state


def test_a_published_64x64_checkpoint_fits_by_name_and_shape():
    config = adm.config_of("64x64_diffusion", imagenet64.get_config())
    shapes = jax.eval_shape(lambda: states.create(config)).params
    state = state_dict(shapes, lambda shape: np.broadcast_to(np.float32(0), shape))
    assert sum(a.size for a in state.values()) == 295_904_454
    assert state["output_blocks.3.2.in_layers.2.weight"].shape == (768, 768, 3, 3)  # up from 8x8, after attention
    params = adm.convert(state, shapes)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda a: a.shape, shapes)


def torch_zip(path, state):
    """What torch.save writes for float32 arrays, opcode by opcode."""
    text = lambda s: b"X" + struct.pack("<I", len(s)) + s.encode()  # noqa: E731
    numbers = lambda ns: b"(" + b"".join(b"J" + struct.pack("<i", n) for n in ns) + b"t"  # noqa: E731
    program = b"\x80\x02}("
    with zipfile.ZipFile(path, "w") as file:
        for key, (name, array) in enumerate(state.items()):
            strides = [s // 4 for s in np.ascontiguousarray(array).strides]
            storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(str(key)) + text("cpu")
            program += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage
            program += b"J" + struct.pack("<i", array.size) + b"tQK\x00" + numbers(array.shape) + numbers(strides)
            program += b"\x89ccollections\nOrderedDict\n)RtR"
            file.writestr(f"x/data/{key}", np.ascontiguousarray(array, np.float32).tobytes())
        file.writestr("x/data.pkl", program + b"u.")


@pytest.mark.slow
def test_import_sample_export_load(tmp_path):
    """A small ADM-shaped checkpoint through the commands, start to end."""
    size = ["--config.data.image_size=8", "--config.data.num_classes=4", "--config.model.channels=32",
            "--config.model.multipliers=(1,2)", "--config.model.num_blocks=1", "--config.model.head_width=16",
            "--config.model.attention_resolutions=(4,)", "--config.model.dtype=float32"]  # fmt: skip
    state, (x, t, c), out = golden(DATA / "adm_unet_micro.npz")
    file, adm_dir, export = tmp_path / "small.pt", tmp_path / "adm", tmp_path / "m.safetensors"
    torch_zip(file, state)
    model_flag = "--model=64x64_diffusion"
    trained = ["--attention_order=new", "--noise_schedule=cosine"]
    guess = run("import_adm", f"--checkpoint={file}", f"--out={adm_dir}", model_flag, *size, trained[1])
    assert guess.returncode == 1 and guess.stderr.count("\n") == 1 and not adm_dir.exists()
    assert "small.pt is not the published 64x64_diffusion" in guess.stderr and "give --attention_order" in guess.stderr
    done = run("import_adm", f"--checkpoint={file}", f"--out={adm_dir}", model_flag, *size, *trained)
    assert done.returncode == 0, done.stderr
    assert "attention order new, noise schedule cosine" in done.stdout
    model = cfg_jax.load(adm_dir)
    at_t = np.interp(t, np.arange(1000), noise_level.cosine_logsnrs())
    # ADM's t here lies between steps, and float32 logsnr gives it back to a few hundredths of a step
    assert relative(model.eps_fn(x, jnp.float32(at_t), c), out[..., :3]) < 1e-3

    drawn = run("sample", f"--run={adm_dir}", "--labels=0,3", "--num_steps=4", f"--out={tmp_path / 'g.png'}")
    assert drawn.returncode == 0, drawn.stderr
    refused = run("sample", f"--run={adm_dir}", "--w=1", "--num_steps=4", f"--out={tmp_path / 'h.png'}")
    assert "trained with p_uncond=0" in refused.stderr and not (tmp_path / "h.png").exists()
    second = run("sample", f"--run={adm_dir}", f"--uncond_run={adm_dir}", "--w=1", "--num_steps=4",
                 f"--out={tmp_path / 'h.png'}")  # fmt: skip
    assert second.returncode == 0, second.stderr

    assert run("export", f"--run={adm_dir}", f"--out={export}").returncode == 0
    jax.tree.map(np.testing.assert_array_equal, cfg_jax.load(export).params, model.params)
    card = export.with_suffix(".md").read_text()
    assert (
        "w must be 0" in card
        and f"small.pt (sha256 {sha256_of(file)}), read as 64x64_diffusion:\n  attention order new" in card
    )
    other_way = run("import_adm", f"--checkpoint={file}", f"--out={tmp_path / 'legacy'}", model_flag, *size,
                    "--attention_order=legacy", "--noise_schedule=linear")  # fmt: skip
    assert other_way.returncode == 0 and "attention order legacy, noise schedule linear" in other_way.stdout
    legacy = cfg_jax.load(tmp_path / "legacy")
    assert relative(legacy.eps_fn(x, jnp.float32(at_t), c), out[..., :3]) > 0.05  # the same shapes, another network
    assert legacy.config.model.time == "adm_linear" and legacy.config.logsnr_max != model.config.logsnr_max

    other = [flag.replace("num_classes=4", "num_classes=5") for flag in size]
    wrong = run("import_adm", f"--checkpoint={file}", f"--out={tmp_path / 'no'}", model_flag, *other, *trained)
    assert wrong.returncode == 1 and "mis-shaped: label_emb.weight gives (4, 128)" in wrong.stderr
    assert not (tmp_path / "no").exists()
    unnamed = run("import_adm", f"--checkpoint={file}", f"--out={tmp_path / 'no'}")
    assert "small.pt is the name of no published model" in unnamed.stderr


def test_what_is_no_torch_file_is_named(tmp_path):
    (tmp_path / "cut.pt").write_bytes((DATA / "torch_state_dict.pt").read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be read"):
        torch_file.read(tmp_path / "cut.pt")
    (tmp_path / "older.pt").write_bytes((DATA / "torch_legacy.pt").read_bytes()[:-8])
    with pytest.raises(InputError, match="cannot be read"):
        torch_file.read(tmp_path / "older.pt")
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    (tmp_path / "empty.pt").write_bytes(empty.getvalue())
    with pytest.raises(InputError, match=r"0 data\.pkl"):
        torch_file.read(tmp_path / "empty.pt")
    with pytest.raises(InputError, match="cannot be read"):
        cfg_jax.load(tmp_path / "cut.pt")


@pytest.fixture(scope="module")
def classifier():
    """The golden classifier: its published state dict, its arrays, the network with t in the place of logsnr."""
    with np.load(DATA / "adm_classifier_micro.npz", allow_pickle=False) as file:
        arrays = dict(file)
    state = {name.removeprefix("param/"): a.astype("f4") for name, a in arrays.items() if name.startswith("param/")}
    golden = {name: a.transpose(0, 2, 3, 1) if a.ndim == 4 else a for name, a in arrays.items()}
    net = unet.Encoder(32, (1, 2), 1, (8,), num_classes=4, head_width=16, noise_level=lambda t: t)
    shapes = jax.eval_shape(net.init, jax.random.key(0), golden["in/x"], golden["in/t"])["params"]
    return state, golden, net, adm.convert(state, shapes, lambda channels: channels // 16)


@pytest.mark.slow
def test_the_classifier_and_its_gradient_are_adms(classifier):
    _, golden, net, params = classifier
    x, t, y = (golden[f"in/{name}"] for name in "xty")
    assert relative(jax.jit(net.apply)({"params": params}, x, t), golden["out"]) < 1e-5
    gradient = jax.jit(jax.grad(lambda x: NoisyClassifier(params, net).log_prob(x, t, y).sum()))(x)
    assert relative(gradient, golden["grad"]) < 5e-5
    half = jax.jit(net.clone(dtype=jnp.bfloat16, remat=True).apply)({"params": params}, x, t)
    assert half.dtype == jnp.float32 and 1e-5 < relative(half, golden["out"]) < 0.05


@pytest.mark.parametrize(("size", "count"), [(64, 65_438_568), (128, 42_568_040), (256, 54_096_360)])
def test_the_published_classifiers_have_their_counts(size, count):
    config = adm.config_of(f"{size}x{size}_classifier", imagenet64.get_config())
    params = build.shapes(config)
    assert config.data.image_size == size and sum(a.size for a in jax.tree.leaves(params)) == count
    assert params["out_pool"]["positional_embedding"].shape[0] == 1 + 8 * 8


@pytest.mark.slow
def test_import_a_classifier_and_guide_by_it(classifier, tiny, tmp_path):
    """Of a conditional and an unconditional model; each kind of run is refused where the other belongs."""
    size = ["--config.data.image_size=16", "--config.data.num_classes=4", "--config.model.channels=32",
            "--config.model.multipliers=(1,2)", "--config.model.num_blocks=1", "--config.model.head_width=16",
            "--config.model.attention_resolutions=(8,)", "--config.model.dtype=float32"]  # fmt: skip
    state, golden, _, params = classifier
    judge, images = tmp_path / "classifier", tmp_path / "adm"
    kinds = (judge, "64x64_classifier", "cosine", state), (images, "128x128_diffusion", "linear", unet_state())
    for out, model, schedule, arrays in kinds:
        torch_zip(tmp_path / "small.pt", arrays)
        trained = ["--attention_order=legacy", f"--noise_schedule={schedule}"]
        name = f"--checkpoint={tmp_path / 'small.pt'}", f"--out={out}", f"--model={model}"
        done = run("import_adm", *name, *size, *trained)
        assert done.returncode == 0, done.stderr
    loaded = load_classifier(judge)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    logsnr = np.float32(np.interp(golden["in/t"], np.arange(1000), noise_level.cosine_logsnrs()))
    expected = jax.nn.log_softmax(golden["out"])[np.arange(2), golden["in/y"]]
    np.testing.assert_allclose(loaded.log_prob(golden["in/x"], logsnr, golden["in/y"]), expected, atol=2e-3)

    guided = [f"--run={images}", f"--classifier_run={judge}", "--num_steps=4", f"--out={tmp_path / 'g.png'}"]
    drawn = run("sample", *guided, "--classifier_scale=2", f"--npz={tmp_path / 'g.npz'}")
    assert drawn.returncode == 0 and "classifier scale 2" in drawn.stdout, drawn.stderr
    conditional = cfg_jax.load(images)
    with np.load(tmp_path / "g.npz", allow_pickle=False) as file:
        assert file["arr_1"].tolist() == [0, 1, 2, 3]
        assert np.abs(file["arr_0"].astype(int) - conditional.sample([0, 1, 2, 3], num_steps=4)).max() > 1

    config = conditional.config.copy_and_resolve_references()
    config.data.num_classes = 0
    filled = fill(jax.eval_shape(lambda: states.create(config)).params)
    none = Model(config, build.denoiser(config, filled))

    def draw(labels, *scale):
        return none.sample(labels, num_steps=4, threshold="none", guides=Guides(None, loaded, *scale))

    assert np.abs(draw([0, 0, 0, 0]).astype(int) - draw([3, 3, 3, 3])).max((1, 2, 3)).min() > 1
    zero = draw([0, 1, 2, 3], 0.0)
    np.testing.assert_allclose(zero, none.sample([0, 1, 2, 3], num_steps=4, threshold="none"), atol=1)
    with pytest.raises(InputError, match="label 4 is out of range"):
        draw([4])
    with pytest.raises(InputError, match="no finite number"):
        draw([0], float("nan"))
    config.data.image_size = 32
    with pytest.raises(InputError, match=r"classifier have the shape \(16, 16, 3\), and the model's \(32, 32, 3\)"):
        draw([0])

    given = classifiers.GivenClassifier(judge.name, loaded)
    uint8 = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    logits = given(uint8).class_logits[given.name]
    clean = np.full(5, loaded.config.logsnr_max, np.float32)
    for c in range(4):  # logits of the clean images, up to their sum
        want = loaded.log_prob(to_float(uint8), clean, np.full(5, c))
        np.testing.assert_allclose(jax.nn.log_softmax(logits)[:, c], want, atol=1e-4)
    given.check((16, 16, 3))
    with pytest.raises(InputError, match=r"is of images \(16, 16, 3\), these are \(8, 8, 1\): name another"):
        given.check((8, 8, 1))

    with pytest.raises(InputError, match="adm is no classifier: name one"):
        load_classifier(images)
    with pytest.raises(InputError, match=r"holds a run of another config .*model\.name: noisy_classifier -> unet"):
        trainer.train(tiny, judge)
    with pytest.raises(InputError, match="is a classifier and makes no images"):
        cfg_jax.load(judge)  # as sweep does, too
    tiny.init_from = str(judge)
    with pytest.raises(InputError, match="is a classifier and makes no images"):
        trainer.train(tiny, tmp_path / "new")


def unet_state():
    return golden(DATA / "adm_unet_micro.npz")[0]
