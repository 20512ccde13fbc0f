"""ONNX graphs by onnxruntime, against the networks that they were made of."""

import json
import re
import sys

import jax
import numpy as np
import pytest

import cfg_jax
from cfg_jax import config as configs
from cfg_jax.diffusion import samplers
from cfg_jax.errors import InputError
from cfg_jax.models import build
from cfg_jax.store import onnx
from tests.conftest import fill
from tests.models.test_jit import tiny_jit
from tests.running import ROOT

PAGE = ROOT / "docs" / "howto" / "weights.md"


@pytest.fixture(scope="module")
def runtime():
    pytest.importorskip("jax2onnx", reason="the extra onnx is not installed")
    return pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def digits(runtime, command, tmp_path_factory):
    """The weights in the package, exported by the command."""
    path = tmp_path_factory.mktemp("onnx") / "digits.onnx"
    done = command("export", "--run=digits", "--format=onnx", f"--out={path}")
    assert done.returncode == 0, done.stderr
    assert re.match(r"\S+: within \d\.\de-0[5-9] of the network, .*\n\S+: step 600; \S+: its card\n$", done.stdout)
    assert not done.stderr
    return path


@pytest.mark.slow
def test_the_graph_is_the_model_at_any_batch(digits, runtime):
    session, model = runtime.InferenceSession(digits), cfg_jax.load("digits")
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("z", ["B", 8, 8, 1]), ("logsnr", ["B"]), ("c", ["B"])]
    for count in (1, 3):
        rng = np.random.default_rng(count)
        z, logsnr = rng.normal(size=(count, 8, 8, 1)).astype("f4"), rng.uniform(-20, 20, count).astype("f4")
        c = np.int32([10, 0, 7][:count])
        [eps] = session.run(["eps"], {"z": z, "logsnr": logsnr, "c": c})
        np.testing.assert_allclose(eps, jax.jit(model.eps_fn)(z, logsnr, c), atol=1e-4)
    header = session.get_modelmeta().custom_metadata_map
    assert configs.from_json(json.loads(header["config"])) == model.config and header["step"] == "600"
    assert 'InferenceSession("digits.onnx")' in digits.with_suffix(".md").read_text()


class Noise:
    """Ours of seed 0, image by image, in the place of numpy's."""

    def __init__(self, seed):
        self.keys, self.t = samplers.start(seed, np.arange(10), (1,))[0], -1

    def standard_normal(self, shape, dtype):
        self.t += 1
        return np.asarray(samplers.noise_of(self.keys, self.t, shape[1:]))


@pytest.mark.slow
def test_the_numpy_of_the_page_draws_the_models_digits(digits, monkeypatch):
    monkeypatch.chdir(digits.parent)
    monkeypatch.setattr(np.random, "default_rng", Noise)
    (block,) = re.findall(
        r"^```python\n(import numpy as np\nimport onnxruntime.*?)^```$", PAGE.read_text(), re.M | re.S
    )
    drawn = {}
    exec(compile(block, str(PAGE), "exec"), drawn)
    ours = cfg_jax.load("digits").sample(range(10), w=1.0)
    np.testing.assert_allclose(np.int32(drawn["images"]), ours, atol=1)


@pytest.mark.slow
def test_a_student_takes_w(tiny, runtime, tmp_path):
    tiny.teacher.how, tiny.p_uncond, tiny.model.null_label = "guided", 0.0, False
    params = fill(build.shapes(tiny))
    assert onnx.export(tmp_path / "m.onnx", tiny, 3, params) < onnx.TOLERANCE
    assert [i.name for i in runtime.InferenceSession(tmp_path / "m.onnx").get_inputs()] == ["z", "logsnr", "c", "w"]


@pytest.mark.slow
def test_a_network_of_x_and_one_without_classes(tiny, runtime, tmp_path):
    """eps of x divides by sigma, and multiplies by alpha at log-SNRs where the runtime's sigmoid is 0."""
    tiny.objective.predicts = "x"
    assert onnx.export(tmp_path / "x.onnx", tiny, 3, fill(build.shapes(tiny))) < onnx.TOLERANCE
    tiny.data.num_classes, tiny.p_uncond = 0, 0.0
    assert onnx.export(tmp_path / "plain.onnx", tiny, 3, fill(build.shapes(tiny))) < onnx.TOLERANCE


@pytest.mark.slow
def test_a_transformer(runtime, tmp_path):
    config = tiny_jit()
    assert onnx.export(tmp_path / "jit.onnx", config, 3, fill(build.shapes(config))) < onnx.TOLERANCE


@pytest.mark.slow
def test_a_graph_that_differs_is_not_written(tiny, runtime, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "TOLERANCE", 0.0)
    params = fill(build.shapes(tiny))
    with pytest.raises(InputError, match="differs from the network by"):
        onnx.export(tmp_path / "m.onnx", tiny, 3, params)
    assert not [*tmp_path.iterdir()]


def test_without_the_extra_it_is_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(InputError, match=r"jax2onnx is not installed: .*cfg_jax\[onnx\]"):
        onnx.export(tmp_path / "m.onnx", tiny, 3, {})
