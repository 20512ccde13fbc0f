"""Bad input and damage, counted: each ends in one line that names it, and nothing that was there is changed.

A case is a command; {run}, {sweep}, ... are what `here` made. What the commands read lies below `here`, and so does
what they write: the test looks that nothing else was written or executed.
"""

import gzip
import io
import json
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cfg_jax.files import sha256_of
from tests.running import ROOT

SMALL = [
    "--config.model.multipliers=(1,)", "--config.model.attention_resolutions=()", "--config.train.num_steps=4",
    "--config.train.batch_size=8", "--config.train.checkpoint_every=2", "--config.train.log_every=2",
    "--config.train.sample_every=4", "--config.sampler.num_steps=2", "--config.eval.num_images=20",
    "--config.eval.batch_size=20", "--config.eval.bootstrap=0", "--config.eval.splits=2", "--config.eval.w=(0.0,1.0)",
]  # fmt: skip
RUN = "<script>alert(1)<"  # a slash would end a file's name


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/cfg_jax_was_executed", "w"))


@pytest.fixture(scope="module")
def good(tmp_path_factory, command):
    """A run, its export and a sweep of it, each under a name that asks for trouble."""
    root = tmp_path_factory.mktemp("ü b")
    run, sweep = root / RUN, root / "swéep of it"
    digits = "--config=configs/digits.py", *SMALL
    for name, args in (
        ("train", (*digits, f"--workdir={run}")),
        ("sweep", (*digits, f"--runs={run}", f"--workdir={sweep}")),
        ("export", (f"--run={run}", f"--out={root / 'model.safetensors'}")),
    ):
        done = command(name, *args)
        assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def here(good, tmp_path):
    """A copy of it, to be damaged, and files of every wrong kind."""
    shutil.copytree(good, tmp_path / "good")
    for made, name in ((RUN, RUN), ("swéep of it", "sweep"), ("model.safetensors", "model.safetensors")):
        (tmp_path / "good" / made).rename(tmp_path / name)
    return tmp_path


def npz(path, **arrays):
    np.savez(path, **arrays)


def claimed_shape(path, shape):
    """An .npz whose array says that it is of `shape`, and holds next to nothing."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("arr_0.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.write(b"\0" * 64)


def safetensors(path, header, data=b"\0" * 4):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content + data)


def exported(path, **changes):
    """The export, its config changed."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    meta = header["__metadata__"]
    config = json.loads(meta["config"])
    for field, value in changes.items():
        *groups, name = field.split("__")
        group = config
        for part in groups:
            group = group[part]
        if value is None:
            del group[name]
        else:
            group[name] = value
    meta["config"] = json.dumps(config)
    safetensors(path, header, content[8 + size :])


def bomb_png(path, side=50_000):
    """A picture that says it has side x side pixels."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    path.write_bytes(bytes(content))


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)).save(path)


def folder(root, classes=("ant", "bee")):
    for name in classes:
        for i in range(3):
            picture(root / "train" / name / f"{i}.png")
    return root


def tar_of(path, member, kind=tarfile.REGTYPE, target=""):
    with tarfile.open(path, "w") as archive:
        for name in ("ant", "bee"):
            buffer = io.BytesIO()
            Image.new("RGB", (12, 12)).save(buffer, "PNG")
            info = tarfile.TarInfo(f"train/{name}/0.png")
            info.size = len(buffer.getvalue())
            archive.addfile(info, io.BytesIO(buffer.getvalue()))
        info = tarfile.TarInfo(member)
        info.type, info.linkname = kind, target
        content = b"x" if kind == tarfile.REGTYPE else b""
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))


def torch_evil(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(Evil(), protocol=2))


IMAGES = np.zeros((8, 8, 8, 1), np.uint8)
TRAIN = "train --config=configs/digits.py --workdir={tmp}/new"
SWEEP = "sweep --config=configs/digits.py --runs={run} --workdir={sweep}"
PREPARE = "prepare_data --dataset=folder --size=8 --resize=area --source={tmp}/in --out={tmp}/out"
SCORE = "score --samples={tmp}/s.npz --reference={tmp}/r.npz --inception={tmp}/i.npz"


# (name, command, what the line says[, what is made before])
FLAGS = [
    *(
        (f"train {field}={value}", f"{TRAIN} --config.{field}={value}", said)
        for field, value, said in (
            ("p_uncond", "nan", "config.p_uncond"), ("p_uncond", "-1", "config.p_uncond"),
            ("p_uncond", "", "p_uncond"), ("logsnr_min", "nan", "config.logsnr_min"),
            ("logsnr_max", "inf", "config.logsnr_m"), ("seed", "-1", "config.seed"),
            ("seed", str(2**31), "config.seed"), ("seed", "1.5", "seed"), ("init_from", "nowhere", "nowhere"),
            ("data.image_size", "0", "config.data.image_size"), ("data.image_size", "-8", "config.data.image_size"),
            ("data.channels", "0", "config.data"), ("data.num_classes", "-1", "num_classes"),
            ("data.name", "", "config.data"), ("data.card", "0", "config.data.card"),
            ("model.channels", "-32", "config.model.channels"), ("model.channels", "0", "config.model.channels"),
            ("model.channels", "33", "config.model.channels"), ("model.channels", str(10**9), "config.model.channels"),
            ("model.multipliers", "()", "config.model.multipliers"),
            ("model.multipliers", "(0,1)", "config.model.multipliers"),
            ("model.multipliers", "(-1,1)", "config.model.multipliers"),
            ("model.attention_resolutions", "(7,)", "config.model.attention_resolutions"),
            ("model.num_blocks", "0", "config.model.num_blocks"), ("model.num_heads", "5", "config.model.num_heads"),
            ("model.dropout", "nan", "config.model.dropout"), ("model.dtype", "int8", "config.model.dtype"),
            ("model.time", "now", "config.model.time"), ("train.num_steps", "0", "config.train.num_steps"),
            ("train.num_steps", str(10**12), "config.train.num_steps"),
            ("train.batch_size", "-8", "config.train.batch_size"),
            ("train.learning_rate", "nan", "config.train.learning_rate"),
            ("train.learning_rate", "inf", "config.train.learning_rate"),
            ("train.grad_clip", "nan", "config.train.grad_clip"), ("train.ema_decay", "nan", "config.train.ema_decay"),
            ("train.ema_decay", "-0.1", "config.train.ema_decay"), ("train.fsdp", "3", "config.train.fsdp"),
            ("train.accumulate", "7", "config.train.accumulate"), ("train.max_skipped", "-1", "config.train.max_skip"),
            ("sampler.num_steps", "0", "config.sampler.num_steps"),
            ("sampler.num_steps", str(10**9), "config.sampler.num_steps"),
            ("sampler.variance_interp", "nan", "config.sampler.variance_interp"),
            ("sampler.threshold", "", "config.sampler.threshold"), ("eval.w", "()", "config.eval.w"),
            ("eval.w", "('a',)", "config.eval.w"), ("eval.num_images", "-5", "config.eval.num_images"),
            ("eval.num_images", "1000000000", "is more than 10,000,000"),
            ("eval.splits", "0", "config.eval.splits"), ("eval.quantize", "up", "config.eval.quantize"),
            ("eval.neighbours", "2", "config.eval.neighbours"), ("eval.bootstrap", "-3", "config.eval.bootstrap"),
        )
    ),
    ("train, no config", "train --workdir={tmp}/new", "--config"),
    ("train, a directory as config", "train --config=configs --workdir={tmp}/new", "--config=configs"),
    ("train, empty workdir", "train --config=configs/digits.py --workdir=", "--workdir"),
    ("train into a file", "train --config=configs/digits.py --workdir={tmp}/model.safetensors", "model.safetensors"),
    ("train below a file", "train --config=configs/digits.py --workdir={tmp}/model.safetensors/x", "Not a directory"),
    ("train where nothing may be written", "train --config=configs/digits.py --workdir=/proc/x", "/proc/x"),
    ("sample, no run", "sample --run=", "--run"),
    ("sample, a label out of range", "sample --run={run} --labels=10 --out={tmp}/g.png", "label 10"),
    ("sample, a negative label", "sample --run={run} --labels=-1 --out={tmp}/g.png", "label -1"),
    ("sample, a float label", "sample --run={run} --labels=1.5 --out={tmp}/g.png", "--labels=1.5"),
    ("sample, a huge label", "sample --run={run} --labels=99999999999999999999 --out={tmp}/g.png", "label"),
    ("sample, w nan", "sample --run={run} --w=nan --out={tmp}/g.png", "no finite number"),
    ("sample, w inf", "sample --run={run} --w=inf --out={tmp}/g.png", "no finite number"),
    ("sample, no w", "sample --run={run} --w=, --out={tmp}/g.png", "--w=,"),
    ("sample, T = 0", "sample --run={run} --num_steps=0 --out={tmp}/g.png", "--num_steps=0: 0 is below 1"),
    ("sample, T huge", "sample --run={run} --num_steps=1000000000 --out={tmp}/g.png", "--num_steps=1000000000"),
    ("sample, a seed too large", "sample --run={run} --seed=2147483648 --out={tmp}/g.png", "seed"),
    ("sample, no such step", "sample --run={run} --step=3 --out={tmp}/g.png", "step 3"),
    ("sample, a negative step", "sample --run={run} --step=-1 --out={tmp}/g.png", "--step=-1"),
    ("sample, another dtype", "sample --run={run} --dtype=float16 --out={tmp}/g.png", "float32|bfloat16"),
    ("sample, a directory as picture", "sample --run={run} --labels=1 --out={tmp}", "{tmp}"),
    ("sample, no classifier", "sample --run={run} --classifier_run={run} --out={tmp}/g.png", "is no classifier"),
    ("sample, scale nan", "sample --run={run} --classifier_scale=nan --out={tmp}/g.png", "classifier_scale"),
    ("sample, an unknown setting", "sample --run={run} --set=samplr=ddim --out={tmp}/g.png", "did you mean sampler?"),
    ("sample, an unknown sampler", "sample --run={run} --set=sampler=ddmi --out={tmp}/g.png", "did you mean ddim?"),
    ("sample, a setting of words", "sample --run={run} --set=v=much --out={tmp}/g.png", "v='much'"),
    ("sample, a setting out of range", "sample --run={run} --set=v=2 --out={tmp}/g.png", "must lie in [0, 1]"),
    ("sample, half a setting", "sample --run={run} --set=v --out={tmp}/g.png", "--set=v: give FIELD=VALUE"),
    ("sweep, an unknown field", SWEEP + " --vary=guidance.momentun=0", "did you mean guidance.momentum?"),
    ("sweep, an unknown rule", SWEEP + " --config.guidance.name=agp", "did you mean apg?"),
    ("sweep, a run twice", "sweep --config=configs/digits.py --runs={run},{run} --workdir={tmp}/s", "two runs are"),
    ("sweep, no run", "sweep --config=configs/digits.py --runs= --workdir={tmp}/s", "--runs"),
    ("sweep, w nan", SWEEP + " --w=0,nan", "no finite number"),
    ("sweep, an unknown axis", SWEEP + " --vary=data.name=a", "--vary=data.name"),
    ("sweep, an empty axis", SWEEP + " --vary=eval.seed=", "--vary=eval.seed"),
    ("sweep, a bad value", SWEEP + " --vary=sampler.threshold=soft", "none, static, dynamic"),
    ("report, no sweep", "report --sweep={tmp}/nothing", "no finished cells"),
    ("report of a run", "report --sweep={run}", "no finished cells"),
    ("report of a file", "report --sweep={tmp}/model.safetensors", "no finished cells"),
    ("export, another suffix", "export --run={run} --out={tmp}/x.pt", "must end in .safetensors"),
    ("export, onnx by another name", "export --run={run} --out={tmp}/x.safetensors --format=onnx", "must end in .onnx"),
    ("export, onnx of 16 bits", "export --run={run} --out={tmp}/x.onnx --format=onnx --dtype=bfloat16", "float32"),
    ("export of nothing", "export --run={tmp}/nothing --out={tmp}/x.safetensors", "no run directory"),
    ("paper, figure 9", "paper --figure=9", "figure"),
    ("paper, two things", "paper --table=1 --figure=1", "either --table or --figure"),
    ("paper, a bad seed", "paper --table=1 --scale=digits --seeds=-1 --runs={tmp}/r", "--seeds=-1"),
    ("gaussians, w nan", "studies.gaussians --w=nan --out={tmp}/g", "w"),
    ("gaussians, no samples", "studies.gaussians --num_samples=0 --out={tmp}/g", "num_samples"),
    ("curl, no probes", "studies.curl --run={run} --probes=0", "probes"),
    ("curl, no number", "studies.curl --run={run} --logsnrs=a", "--logsnrs=a"),
    ("estimate, no device", "bench.cost --config=configs/digits.py --devices=0", "devices"),
    ("estimate, another JSON", "bench.cost --config=configs/digits.py --compiled=pyproject.toml", "compiled"),
    ("estimate, no models", "bench.cost --config=configs/digits.py --models=0", "models"),
    ("benchmark, no repeats", "bench.speed --config=configs/digits.py --repeats=0", "repeats"),
    ("sample, two averages", "sample --run={run} --ema=0.1 --weights=params --out={tmp}/g.png", "leave out --weights"),
    ("sample, a scale alone", "sample --run={run} --classifier_scale=2 --out={tmp}/g.png", "without --classifier_run"),
    ("likelihood, one w", "studies.likelihood --run={run} --w=1,1 --out={tmp}/s", "--w=1 compares nothing"),
    ("likelihood, too many", "studies.likelihood --run={run} --num_images=5000 --out={tmp}/s", "at most 1740"),
    ("temperature, no guidance", "studies.temperature --run={run} --w=0 --out={tmp}/s", "a weight above it"),
    ("density, no guidance", "studies.density --run={run} --w=0 --out={tmp}/s", "give another weight"),
    ("capacity, no label", "studies.capacity --config=configs/digits.py --p_uncond=1 --out={tmp}/s", "above 0.99"),
    ("onepass, omega of no w", "studies.onepass --runs={run} --omega=0.3 --out={tmp}/s", "put that in --w"),
    ("bias, none held out", "studies.bias --config=configs/digits.py --out={tmp}/b.png", "holds out no pictures"),
    ("finished, no run", "launch.finished", "--workdir is missing"),
    ("precision, w nan", "studies.precision --run={run} --w=nan", "--w=nan"),
    ("precision, lambda nan", "studies.precision --run={run} --logsnrs=nan", "--logsnrs"),
    ("fetch, no file", "fetch_inception --from_file={tmp}/no.pth --out={tmp}/i.npz", "does not exist"),
    ("fetch, a directory", "fetch_inception --from_file={tmp} --out={tmp}/i.npz", "does not exist"),
    ("results of nothing", "results --config=configs/digits.py --sweep={tmp}/no --out={tmp}/o", "no"),
    ("prepare, no source", "prepare_data --dataset=folder --size=8 --out={tmp}/out", "--source"),
    ("prepare, no size", "prepare_data --dataset=folder --source={run} --out={tmp}/out --resize=area", "--size"),
    ("reference, no such set", "reference_stats --dataset=nothing --root={tmp} --out={tmp}/r.npz", "prepared data set"),
]  # fmt: skip

FILES = [
    ("samples that are text", SCORE, "s.npz cannot be read", lambda t: (t / "s.npz").write_text("hello")),
    ("samples of zero bytes", SCORE, "s.npz cannot be read", lambda t: (t / "s.npz").write_bytes(b"")),
    ("samples that are a directory", SCORE, "s.npz", lambda t: (t / "s.npz").mkdir()),
    ("samples of floats", SCORE, "give uint8", lambda t: npz(t / "s.npz", arr_0=IMAGES.astype("f4"))),
    ("samples with NaN", SCORE, "NaN", lambda t: npz(t / "s.npz", arr_0=np.full((8, 8, 8, 1), np.nan))),
    ("samples that are pickled", SCORE, "cannot be read", lambda t: npz(t / "s.npz", arr_0=np.array([Evil()]))),
    ("samples of four channels", SCORE, "give uint8", lambda t: npz(t / "s.npz", arr_0=IMAGES.repeat(4, 3))),
    ("too few samples", SCORE, "too few", lambda t: npz(t / "s.npz", arr_0=IMAGES[:3])),
    ("labels of another number", SCORE, "labels", lambda t: npz(t / "s.npz", arr_0=IMAGES, arr_1=np.arange(3))),
    ("labels that are floats", SCORE, "labels", lambda t: npz(t / "s.npz", arr_0=IMAGES, arr_1=np.zeros(8))),
    ("samples that claim 10^12 images", SCORE, "s.npz", lambda t: claimed_shape(t / "s.npz", (10**12, 8, 8, 3))),
    ("samples that claim a huge image", SCORE, "s.npz", lambda t: claimed_shape(t / "s.npz", (100, 10**6, 10**6, 3))),
    ("samples of a negative shape", SCORE, "s.npz", lambda t: claimed_shape(t / "s.npz", (100, -8, 8, 3))),
    ("no Inception weights", SCORE, "fetch_inception", lambda t: npz(t / "s.npz", arr_0=IMAGES.repeat(9, 0))),
    ("Inception weights that are others", SCORE, "fetch_inception",
     lambda t: (npz(t / "s.npz", arr_0=IMAGES.repeat(9, 0)), npz(t / "i.npz", a=np.zeros(3)))),
    ("Inception weights without arrays", SCORE, "i.npz",
     lambda t: (npz(t / "s.npz", arr_0=IMAGES.repeat(9, 0)),
                npz(t / "i.npz", bias_of_logits=np.zeros(0), sha256=np.array("0"), until=np.array("mixed_8")))),
    ("Inception weights of nonsense", SCORE, "i.npz",
     lambda t: (npz(t / "s.npz", arr_0=IMAGES.repeat(9, 0)),
                npz(t / "i.npz", bias_of_logits=np.zeros(0), sha256=np.array("0"), until=np.array("the end")))),
    ("a cut zip as Inception layers", "fetch_inception --from_file={tmp}/a.npz --out={tmp}/i.npz", "a.npz",
     lambda t: (t / "a.npz").write_bytes(b"PK\3\4 cut")),
    ("a .pth of another sum", "fetch_inception --from_file={tmp}/a.pth --out={tmp}/i.npz", "not the published file",
     lambda t: torch_evil(t / "a.pth")),
    ("a pickle as checkpoint", "import_adm --checkpoint={tmp}/64x64_diffusion.pt --out={tmp}/o", "cannot be read",
     lambda t: torch_evil(t / "64x64_diffusion.pt")),
    ("text as checkpoint", "import_adm --checkpoint={tmp}/64x64_diffusion.pt --out={tmp}/o", "cannot be read",
     lambda t: (t / "64x64_diffusion.pt").write_text("hello")),
    ("no checkpoint", "import_adm --checkpoint={tmp}/64x64_diffusion.pt --out={tmp}/o", "64x64_diffusion.pt", None),
    ("a directory as checkpoint", "import_adm --checkpoint={tmp}/64x64_diffusion.pt --out={tmp}/o", "64x64_diffusion",
     lambda t: (t / "64x64_diffusion.pt").mkdir()),
    ("a checkpoint of another name", "import_adm --checkpoint={tmp}/model.safetensors --out={tmp}/o", "--model", None),
    *((f"an export {what}", "sample --run={tmp}/m.safetensors --out={tmp}/g.png", said, make) for what, said, make in (
        ("of text", "cannot be read", lambda t: (t / "m.safetensors").write_text("hello")),
        ("of zero bytes", "cannot be read", lambda t: (t / "m.safetensors").write_bytes(b"")),
        ("with an oversize header", "cannot be read", lambda t: (t / "m.safetensors").write_bytes(b"\xff" * 8 + b"{}")),
        ("of no JSON", "cannot be read", lambda t: safetensors(t / "m.safetensors", b"{nothing")),
        ("with tensors past its end", "cannot be read", lambda t: safetensors(
            t / "m.safetensors", {"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}})),
        ("of others", "was not written by experiments.export", lambda t: safetensors(
            t / "m.safetensors", {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})),
        ("with a config of no JSON", "cannot be read", lambda t: safetensors(
            t / "m.safetensors", {"__metadata__": {"format": "cfg_jax 1", "config": "{", "step": "1"}}, b"")),
        ("without a config", "cannot be read", lambda t: safetensors(
            t / "m.safetensors", {"__metadata__": {"format": "cfg_jax 1", "step": "1"}}, b"")),
        ("whose config is a number", "cannot be read", lambda t: safetensors(
            t / "m.safetensors", {"__metadata__": {"format": "cfg_jax 1", "config": "3", "step": "1"}}, b"")),
    )),
    *((f"an export whose config has {what}", "sample --run={tmp}/model.safetensors --out={tmp}/g.png", said,
       lambda t, change=change: exported(t / "model.safetensors", **change)) for what, said, change in (
        ("a version to come", "version 99", {"version": 99}),
        ("no data", "data", {"data": None}),
        ("no sampler", "sampler", {"sampler": None}),
        ("no p_uncond", "p_uncond", {"p_uncond": None}),
        ("words for numbers", "model.channels is 'many', not a whole number", {"model__channels": "many"}),
        ("other channels", "model.safetensors", {"model__channels": 64}),
        ("nan for a noise level", "logsnr_min", {"logsnr_min": float("nan")}),
        ("an unknown field", "config.model has fast", {"model__fast": True}),
        ("an unknown time", "config.model.time", {"model__time": "__import__('os').system('touch /tmp/x')"}),
        ("a billion steps", "config.sampler.num_steps", {"sampler__num_steps": 10**9}),
    )),
    ("a directory as export", "export --run={run} --out={tmp}/x.safetensors", "x.safetensors",
     lambda t: (t / "x.safetensors").mkdir()),
    ("a picture that is a bomb", PREPARE, "bomb.png",
     lambda t: (folder(t / "in"), bomb_png(t / "in" / "train" / "ant" / "bomb.png"))),
    ("a cut JPEG", PREPARE, "cut.jpg", lambda t: (
        folder(t / "in"), picture(t / "in" / "train" / "ant" / "cut.jpg"),
        (t / "in" / "train" / "ant" / "cut.jpg").write_bytes(
            (t / "in" / "train" / "ant" / "cut.jpg").read_bytes()[:200]))),
    ("a cut PNG", PREPARE, "cut.png", lambda t: (
        folder(t / "in"), picture(t / "in" / "train" / "ant" / "cut.png"),
        (t / "in" / "train" / "ant" / "cut.png").write_bytes(
            (t / "in" / "train" / "ant" / "cut.png").read_bytes()[:100]))),
    ("text that is called a picture", PREPARE, "x.png",
     lambda t: (folder(t / "in"), (t / "in" / "train" / "ant" / "x.png").write_text("hello"))),
    ("a folder without classes", PREPARE, "in", lambda t: (t / "in").mkdir()),
    ("a huge size", PREPARE.replace("=8", "=1000000000"), "--size=1000000000", lambda t: folder(t / "in")),
    ("a file for a folder", PREPARE, "in", lambda t: (t / "in").write_text("hello")),
    ("no folder", PREPARE, "in", None),
    ("a cut tar", PREPARE.replace("/in ", "/in.tar "), "in.tar", lambda t: (
        tar_of(t / "in.tar", "train/ant/x.txt"),
        (t / "in.tar").write_bytes((t / "in.tar").read_bytes()[:700]))),
    ("a cut tar.gz", PREPARE.replace("/in ", "/in.tar.gz "), "in.tar.gz", lambda t: (
        tar_of(t / "in.tar", "train/ant/x.txt"),
        (t / "in.tar.gz").write_bytes(gzip.compress((t / "in.tar").read_bytes())[:-40]))),
    ("text for a tar", PREPARE.replace("/in ", "/in.tar "), "in.tar", lambda t: (t / "in.tar").write_text("hello")),
    ("arrays of floats", PREPARE.replace("=folder", "=arrays").replace("/in ", "/in.npz "), "uint8",
     lambda t: npz(t / "in.npz", train_images=IMAGES.astype("f4"), train_labels=np.arange(8))),
    ("arrays that are pickled", PREPARE.replace("=folder", "=arrays").replace("/in ", "/in.npz "), "in.npz",
     lambda t: npz(t / "in.npz", train_images=np.array([Evil()]), train_labels=np.arange(1))),
    ("a cut zip of batches", PREPARE.replace("=folder", "=imagenet_resized").replace("--size=8 --resize=area", ""),
     "in", lambda t: ((t / "in").mkdir(), (t / "in" / "Imagenet64_train_part1_npz.zip").write_bytes(b"PK\3\4"))),
]  # fmt: skip


TRAIN_ON = f"train --config=configs/digits.py {' '.join(SMALL)} --config.train.num_steps=6 --workdir={{run}}"
SWEEP_ON = f"sweep --config=configs/digits.py {' '.join(SMALL)} --runs={{run}} --workdir={{sweep}}"
SAMPLE = "sample --run={run} --labels=1 --out={tmp}/g.png"
REPORT = "report --sweep={sweep}"
MENDED = None  # the command goes on, with status 0


def cell(t):
    return sorted((t / "sweep" / "cells").glob("*.json"))[0]


def row_with(t, **changes):
    cell(t).write_text(json.dumps(json.loads(cell(t).read_text()) | changes))


def last_checkpoint(t):
    return max((p for p in (t / RUN / "checkpoints").iterdir()), key=lambda p: int(p.name))


def largest_of(directory):
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def cut(path, by=0.5):
    path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * by)])


def field_of(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def torn(t):
    with open(t / RUN / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "lo')


def garbled(t):
    path = t / RUN / "metrics.jsonl"
    path.write_text("hello\n" + path.read_text())


# (what is damaged, command, what the line says or MENDED, how)
DAMAGE = [
    *((f"config.json {what}, {line.split()[0]}", line, said, change)
      for what, change, said in (
          ("cut short", lambda t: cut(t / RUN / "config.json"), "config.json is no config"),
          ("of zero bytes", lambda t: (t / RUN / "config.json").write_bytes(b""), "config.json is no config"),
          ("that is a list", lambda t: (t / RUN / "config.json").write_text("[1]"), "config.json is no config"),
          ("of bytes", lambda t: (t / RUN / "config.json").write_bytes(b"\xff\xfe{"), "config.json is no config"),
          ("without a group", lambda t: field_of(t / RUN / "config.json", model={}), ""),
      ) for line in (SAMPLE, TRAIN_ON, SWEEP_ON)),
    ("config.json gone, sample", SAMPLE, "has no config.json", lambda t: (t / RUN / "config.json").unlink()),
    ("config.json gone, train", TRAIN_ON, MENDED, lambda t: (t / RUN / "config.json").unlink()),
    ("config.json of another run", TRAIN_ON, "seed: 1 -> 0", lambda t: field_of(t / RUN / "config.json", seed=1)),
    ("records torn at the end, train", TRAIN_ON, MENDED, torn),
    ("records torn at the end, sweep", SWEEP_ON, MENDED, torn),
    ("records garbled, train", TRAIN_ON, "metrics.jsonl", garbled),
    ("records garbled, sweep", SWEEP_ON, "metrics.jsonl", garbled),
    ("records of bytes, train", TRAIN_ON, "metrics.jsonl",
     lambda t: (t / RUN / "metrics.jsonl").write_bytes(b"\xff\xfe\n")),
    ("records gone, train", TRAIN_ON, MENDED, lambda t: (t / RUN / "metrics.jsonl").unlink()),
    ("records that are a directory", TRAIN_ON, "metrics.jsonl",
     lambda t: ((t / RUN / "metrics.jsonl").unlink(), (t / RUN / "metrics.jsonl").mkdir())),
    ("a newest checkpoint that is empty, train", TRAIN_ON, MENDED,
     lambda t: (shutil.rmtree(last_checkpoint(t)), (t / RUN / "checkpoints" / "4").mkdir())),
    ("a newest checkpoint that is cut, train", TRAIN_ON, MENDED, lambda t: cut(largest_of(last_checkpoint(t)))),
    ("a newest checkpoint that is cut, sample", SAMPLE, "checkpoint",
     lambda t: cut(largest_of(last_checkpoint(t) / "ema"))),
    ("all checkpoints cut, sample", SAMPLE, "checkpoint",
     lambda t: [cut(largest_of(p / "ema")) for p in (t / RUN / "checkpoints").iterdir()]),
    ("no checkpoints, sample", SAMPLE, "checkpoint", lambda t: shutil.rmtree(t / RUN / "checkpoints")),
    ("checkpoints that are a file", SAMPLE, "checkpoint",
     lambda t: (shutil.rmtree(t / RUN / "checkpoints"), (t / RUN / "checkpoints").write_text("hello"))),
    ("strange files among the checkpoints", TRAIN_ON, MENDED,
     lambda t: ((t / RUN / "checkpoints" / "notes.txt").write_text("x"), (t / RUN / "checkpoints" / "a").mkdir())),
    ("strange files among the checkpoints, sample", SAMPLE, MENDED,
     lambda t: ((t / RUN / "checkpoints" / "notes.txt").write_text("x"), (t / RUN / "checkpoints" / "a").mkdir())),
    ("a data card of nonsense, train", TRAIN_ON, MENDED, lambda t: (t / RUN / "data.json").write_text("hello")),
    ("a stale lock and what a kill left", TRAIN_ON, MENDED,
     lambda t: ((t / RUN / ".lock").write_text("process 1"), (t / RUN / ".config.json.0.tmp").write_text("x"),
                (t / RUN / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir())),
    *((f"a cell {what}, {line.split()[0]}", line, said, change)
      for what, change in (
          ("of zero bytes", lambda t: cell(t).write_bytes(b"")),
          ("cut short", lambda t: cut(cell(t))),
          ("that is a list", lambda t: cell(t).write_text("[]")),
          ("that is a number", lambda t: cell(t).write_text("3")),
          ("of bytes", lambda t: cell(t).write_bytes(b"\xff\xfe")),
          ("without scores", lambda t: row_with(t, scores=None)),
          ("whose scores are words", lambda t: row_with(t, scores={"fid_digits@20": "a", "is_digits@20": "b"})),
          ("whose w is a word", lambda t: row_with(t, w="a")),
          ("whose scores are others", lambda t: row_with(t, scores={})),
          ("without its picture", lambda t: cell(t).with_suffix(".png").unlink()),
          ("with a picture of zero bytes", lambda t: cell(t).with_suffix(".png").write_bytes(b"")),
          ("with a picture of text", lambda t: cell(t).with_suffix(".png").write_text("hello")),
      ) for line, said in ((REPORT, "remove it and run the sweep again"), (SWEEP_ON, MENDED))),
    ("a strange file among the cells", REPORT, "notes.json",
     lambda t: (cell(t).parent / "notes.json").write_text("{}")),
    ("a sweep's config cut short, report", REPORT, "is no config", lambda t: cut(t / "sweep" / "config.json")),
    ("a sweep's config gone, report", REPORT, "config.json", lambda t: (t / "sweep" / "config.json").unlink()),
    ("a sweep's config cut short, sweep", SWEEP_ON, MENDED, lambda t: cut(t / "sweep" / "config.json")),
    ("a classifier of zero bytes", SWEEP_ON, "classifier.npz cannot be read",
     lambda t: (t / "sweep" / "classifier.npz").write_bytes(b"")),
    ("a classifier cut short", SWEEP_ON, "classifier.npz cannot be read",
     lambda t: cut(t / "sweep" / "classifier.npz")),
    ("a classifier of others", SWEEP_ON, "classifier.npz cannot be read",
     lambda t: npz(t / "sweep" / "classifier.npz", a=np.zeros(3))),
    ("a classifier that is pickled", SWEEP_ON, "classifier.npz cannot be read",
     lambda t: npz(t / "sweep" / "classifier.npz", accuracy=np.array([Evil()]))),
    *((f"a reference {what}", SWEEP_ON, "is no reference", change) for what, change in (
        ("of zero bytes", lambda t: next((t / "sweep").glob("reference-*")).write_bytes(b"")),
        ("cut short", lambda t: cut(next((t / "sweep").glob("reference-*")))),
        ("that is pickled", lambda t: npz(next((t / "sweep").glob("reference-*")), mu=np.array([Evil()]))),
    )),
    ("a lock that a job left", SWEEP_ON, MENDED,
     lambda t: (cell(t).unlink(), Path(f"{cell(t).parent / 'x.json'}.lock").write_text(""))),
    ("a bad seal on an import", "export --run={run} --out={tmp}/x.safetensors", "imported.json",
     lambda t: (t / RUN / "imported.json").write_text("{}")),
    ("an export in a run's place", "train --config=configs/digits.py --workdir={tmp}/model.safetensors", "model.safet",
     None),
    ("a run in a config's place", "train --config={run} --workdir={tmp}/new", "--config=", None),
]  # fmt: skip


def everything(root):
    """{path: sha256} of all files below, but locks."""
    return {
        str(p.relative_to(root)): sha256_of(p) for p in root.rglob("*") if p.is_file() and not p.name.endswith(".lock")
    }


def scores(t):
    """Of every cell of the sweep."""
    return {path.name: json.loads(path.read_text())["scores"] for path in (t / "sweep" / "cells").glob("*.json")}


def check(case, here, command):
    _, line, said, *make = case
    measured = scores(here)
    if make and make[0]:
        make[0](here)
    names = {"tmp": here, "run": here / RUN, "sweep": here / "sweep"}
    before, outside = everything(here), sorted(p.name for p in ROOT.iterdir())
    name, *args = (word.replace("{", "{{").replace("}", "}}") if "(" in word else word for word in line.split())
    done = command(name, *(arg.format(**names) for arg in args))
    assert "Traceback" not in done.stderr, done.stderr[-1500:]
    if said is MENDED:
        assert done.returncode == 0, done.stderr[-1500:]
        assert scores(here) == measured
        return
    last = done.stderr.splitlines()[-1] if done.stderr else ""
    assert done.returncode == 1, (done.returncode, done.stdout[-500:], done.stderr[-1500:])
    assert last.startswith("error: "), done.stderr[-1500:]
    assert said.format(**names) in last
    after = everything(here)
    assert {path: after.get(path) for path in before} == before, "what was there has changed"
    assert sorted(p.name for p in ROOT.iterdir()) == outside and not Path("/tmp/cfg_jax_was_executed").exists()


@pytest.mark.parametrize("case", FLAGS, ids=lambda case: case[0])
def test_a_bad_flag(case, here, command):
    check(case, here, command)


@pytest.mark.parametrize("case", FILES, ids=lambda case: case[0])
def test_a_bad_file(case, here, command):
    check(case, here, command)


@pytest.mark.parametrize("case", DAMAGE, ids=lambda case: case[0])
@pytest.mark.slow
def test_damage(case, here, command):
    check(case, here, command)
