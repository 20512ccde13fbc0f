"""Every reader of a file, on many members of each kind of wrong file: one InputError that names the file, soon.

The readers are called in this process, so that a traceback of any other kind fails the test.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import resource
import shutil
import socket
import struct
import threading
import time
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from cfg_jax import config as configs
from cfg_jax import inputs, meshes
from cfg_jax.data import cards, origins, prepare, sources
from cfg_jax.data.pictures import Settings, convert_one
from cfg_jax.errors import InputError
from cfg_jax.evaluation import classifiers, references, samples
from cfg_jax.models import inception, torch_file
from cfg_jax.perf import estimate
from cfg_jax.sampling import pairs
from cfg_jax.store import checkpoint, hub, weights
from cfg_jax.sweep import read, report
from cfg_jax.training import records
from experiments import export
from experiments.helpers import config_file, model_card
from tests.conftest import tiny_config
from tests.hostile.test_hostile import bomb_png
from tests.running import RECORDED

SECONDS, BYTES = 10, 4 << 30
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@contextmanager
def soon():
    """Within ten seconds, and without 4 GB more of addresses."""
    began, limits = time.monotonic(), resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert time.monotonic() - began < SECONDS


def refused(reader, path, *said):
    """The one line of a reader for a file; it names the file."""
    with pytest.raises(InputError) as error, soon():
        reader(path)
    line = str(error.value)
    assert "\n" not in line and len(line) < 700 and line.isprintable(), line
    assert path.name in line, line
    for part in said:
        assert part in line, line
    return line


# JSON that parses and is something else

ROW = {
    "run": "a", "p_uncond": 0.1, "w": 1.0, "T": 3, "sampler": "ancestral", "threshold": "static", "grid": "paper",
    "guidance": "classifier-free", "seed": 0, "N": 20, "scores": {"fid_digits@20": 3.0, "is_digits@20": 2.0},
    "resampled": {}, "spreads": {}, "seconds": 1.0, "s": 2.0, "labels": "balanced", "bootstrap": 0, "data": "digits",
}  # fmt: skip
CARD = cards.Card("a", "b", "c", ("0", "1"), (8, 8, 1), "none", {"train": 2}, {"train": "0" * 64}, "itself")
PROGRAM = {
    "fits": True, "target": "a", "device": "b", "program": "training", "images": 8, "seconds": 1.0, "flops_per_s": 1e9,
    "share": 0.5,
}  # fmt: skip
ABOUT = {
    "distances": ["fid_inception"], "data": "a", "card": "b", "split": "train", "resize": "none", "N": 9,
    "image_shape": [8, 8, 1], "features": "c",
}  # fmt: skip
IMPORTED = dict.fromkeys(("checkpoint", "sha256", "as", "attention_order", "noise_schedule"), "x")


def of_text(suffix=".json", before=None):
    """A file of a text, and what belongs beside it."""

    def write(tmp_path, text):
        path = tmp_path / f"x{suffix}"
        path.write_text(text, errors="surrogatepass")
        if before:
            before(path)
        return path

    return write


def with_picture(path):
    Image.new("RGB", (8, 8)).save(path.with_suffix(".png"))


def as_reference(tmp_path, text):
    path, moments = tmp_path / "x.npz", {"mu": np.zeros(4), "sigma": np.eye(4)}
    np.savez(path, about=np.array(text), **moments)
    return path


def as_export(tmp_path, text, step="3"):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"a": np.zeros(1, np.float32)}, {"format": "cfg_jax 1", "config": text, "step": step}))
    return path


def as_checkpoint(tmp_path, text):
    (tmp_path / "1" / "ema").mkdir(parents=True)
    (tmp_path / "1" / "ema" / "a").write_bytes(b"x")
    (tmp_path / "1" / "sha256.json").write_text(text)
    return tmp_path / "1" / "sha256.json"


def manifest(path):
    if problem := checkpoint.damage(path.parent):
        raise InputError(f"{path}: {problem}")


# {kind: (how it is written, its reader, a value that is right, whether NaN is another's to find)}
JSONS = {
    "config": (of_text(), configs.load, configs.to_json(tiny_config())),
    "card": (of_text(), cards.load, {**asdict(CARD), "digest": CARD.digest, "seal": "0"}),
    "metrics": (of_text(".jsonl"), lambda path: records.troubles(path.parent, 3), {"step": 1, "skipped": 0}),
    "digests": (as_checkpoint, manifest, {"ema/a": "0" * 64}),
    "cell": (of_text(before=with_picture), read.read_row, ROW),
    "reference": (as_reference, references.read, ABOUT),
    "imported": (of_text(), export.origin, IMPORTED),
    "export": (as_export, weights.read, configs.to_json(tiny_config())),
    "compiled": (of_text(), estimate.rows_of, {"rows": [PROGRAM]}),
}
DEEP = 200_000
OTHERS = {
    "lists 200,000 deep": "[" * DEEP + "]" * DEEP, "objects 200,000 deep": '{"a":' * DEEP + "1" + "}" * DEEP,
    "lists 200 deep": "[" * 200 + "]" * 200, "a list": "[]", "a number": "3", "a text": '"x"', "null": "null",
    "an infinite number": "Infinity", "NaN": "NaN", "true": "true", "nothing": "", "half": '{"a": ', "two": "{} {}",
    "a number of 5,000 digits": "9" * 5000, "half a character": '{"\\ud800": 1}', "a list of objects": "[{}]",
    "an empty object": "{}",
}  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("kind", JSONS)
def test_json_that_is_something_else(tmp_path, kind, other):
    write, reader, _ = JSONS[kind]
    if (kind, other) == ("digests", "an empty object"):
        return  # says that the file has no digest
    path = write(tmp_path, OTHERS[other] + ("\n" if kind == "metrics" else ""))
    if kind == "metrics":
        path = path.rename(tmp_path / "metrics.jsonl")
    refused(reader, path)


def leaves(value, path=()):
    """Paths of all keys of a value of JSON."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, part in below:
        yield (*path, key)
        yield from leaves(part, (*path, key))


def changed(value, path, new):
    value = json.loads(json.dumps(value))
    *groups, last = path
    part = value
    for group in groups:
        part = part[group]
    if new is None:
        del part[last]
    else:
        part[last] = new
    return value


WRONG = ([], {}, "many", {"a": []}, [[[]]], -1e308, 10**30, float("nan"), float("inf"), True, "\ud800", "", None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", JSONS)
def test_json_of_other_fields(tmp_path, kind):
    """Every key in turn of every other type: the reader takes it or says in one line what is wrong."""
    write, reader, right = JSONS[kind]
    count = 0
    for path in leaves(right):
        for new in WRONG:
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()
            text = json.dumps(changed(right, path, new)) + "\n"
            file = write(tmp_path, text)
            if kind == "metrics":
                file = file.rename(tmp_path / "metrics.jsonl")
            try:
                with soon():
                    reader(file)
            except InputError as error:
                assert file.name in str(error) and "\n" not in str(error) and len(str(error)) < 700, error
            count += 1
    print(f"{kind}: {count}")  # for docs/promises.md


@pytest.mark.parametrize(
    ("kind", "path", "new", "said"),
    [
        ("config", ("train", "num_steps"), float("inf"), "train.num_steps is inf, not a whole number"),
        ("config", ("train", "batch_size"), "many", "train.batch_size is 'many', not a whole number"),
        ("config", ("model",), [], "model is a list, not an object"),
        ("config", ("eval", "w"), ["a"], "eval.w[0] is 'a', not a finite number"),
        ("config", ("data",), None, "data is missing"),
        ("card", ("class_names",), {}, "class_names is an object, not a list"),
        ("metrics", ("step",), float("inf"), "in line 1 (step is inf, not a whole number)"),
        ("digests", ("ema/a",), 3, "sha256.json cannot be read"),
        ("cell", ("scores",), [], "scores is a list, not an object"),
        ("cell", ("w",), "a", "w is 'a', not a finite number"),
        ("reference", ("N",), "many", "N is 'many', not a whole number"),
        ("imported", ("as",), 3, "as is 3, not a text"),
        ("export", ("seed",), 1.5, "seed is 1.5, not a whole number"),
        ("compiled", ("rows", 0, "seconds"), "a", "rows[0].seconds"),
        ("compiled", ("rows",), {}, "rows is an object, not a list"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, kind, path, new, said):
    write, reader, right = JSONS[kind]
    file = write(tmp_path, json.dumps(changed(right, path, new)) + "\n")
    if kind == "metrics":
        file = file.rename(tmp_path / "metrics.jsonl")
    refused(reader, file, said.replace("rows[0].", "[0].") if kind == "compiled" else said)


@pytest.mark.parametrize("step", ["Infinity", "-1", "1.5", "[]", "many", "9" * 5000, "", "NaN", str(2**63), "true"])
def test_the_step_of_an_export(tmp_path, step):
    refused(weights.read, as_export(tmp_path, json.dumps(configs.to_json(tiny_config())), step))


# Archives and arrays


def deflated(path, member="arr_0.npy", content=b"\0" * 4096):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)


def broken_deflate(path):
    deflated(path, content=np.random.default_rng(0).bytes(4096))
    content = bytearray(path.read_bytes())
    content[60:160] = b"\xff" * 100
    path.write_bytes(bytes(content))


def with_header(path, flag=None, method=None):
    """Change the flags or the method of the first member, in both of its headers."""
    deflated(path)
    content = bytearray(path.read_bytes())
    for magic, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        begin = content.index(magic)
        if flag:
            content[begin + at] |= flag
        if method:
            content[begin + at + 2 : begin + at + 4] = struct.pack("<H", method)
    path.write_bytes(bytes(content))


def header(descr, shape, fortran=False):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": fortran, "shape": shape})
    return buffer.getvalue()


def says(descr, shape, members=("arr_0", "mu", "sigma", "images", "labels", "about", "accuracy", "data", "until")):
    """An .npz whose arrays say that they are of a shape, and have 64 bytes."""

    def make(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name in members:
                archive.writestr(f"{name}.npy", header(descr, shape) + b"\0" * 64)

    return make


@cache
def bomb_content():
    """An .npz of 14 MB with an array of 3.2 GB."""
    buffer, number = io.BytesIO(), 50 << 20
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("mu.npy", "w", force_zip64=True) as file,
    ):
        file.write(header("<f8", (8 * number,)))
        for _ in range(64):
            file.write(bytes(number))
    return buffer.getvalue()


def bomb(path):
    path.write_bytes(bomb_content())


def crc(path):
    deflated(path, content=header("|u1", (8, 8, 8, 1)) + bytes(512))
    content = bytearray(path.read_bytes())
    content[14:18] = b"\1\2\3\4"
    begin = content.index(b"PK\1\2")
    content[begin + 16 : begin + 20] = b"\1\2\3\4"
    path.write_bytes(bytes(content))


def written(content):
    return lambda path: path.write_bytes(content)


def squeezed():
    buffer = io.BytesIO()
    np.savez(buffer, arr_0=np.zeros((8, 8, 8, 1), np.uint8), mu=np.zeros(3), sigma=np.eye(3))
    return buffer.getvalue()


ARCHIVES = {
    "of no bytes": written(b""), "of text": written(b"hello"), "that is a cut zip": written(b"PK\3\4 cut"),
    "that is an empty zip": lambda path: zipfile.ZipFile(path, "w").close(), "with a broken deflate": broken_deflate,
    "that is encrypted": lambda path: with_header(path, flag=1), 
    "of an unknown method": lambda path: with_header(path, method=42),
    "of deflate64": lambda path: with_header(path, method=9), 
    "of zstd inside": lambda path: with_header(path, method=93),
    "of bzip2 that is none": lambda path: with_header(path, method=12),
    "of lzma that is none": lambda path: with_header(path, method=14), "of a wrong checksum": crc,
    "of text members": lambda path: deflated(path, "arr_0.npy", b"hello"),
    "of members that are no arrays": lambda path: deflated(path, "arr_0.txt", b"hello"),
    "that says 10^12 numbers": says("<f8", (10**12,)), "that says 2^62 by 2^62": says("<f8", (2**62, 2**62)),
    "of a negative shape": says("<f8", (-1, 4)), "of no width": says("<U0", (10**15,)),
    "of objects": says("|O", (4,)), "of dates": says("<M8[s]", (4,)), "of records": says([("a", "<f8")], (4,)),
    "of nothing": says("<f8", (0,)), "of nothing by 2^62": says("<f8", (0, 2**62)), "of texts": says("<U4", (4,)),
    "of 64 dimensions": says("|u1", (1,) * 64), "of booleans": says("|b1", (8, 2, 2, 1)),
    "that unpacks to 3 GB": bomb, "that is a pointer of Git LFS": written(POINTER),
    "of gzip": lambda path: path.write_bytes(gzip.compress(squeezed())),
    "of bzip2": lambda path: path.write_bytes(bz2.compress(squeezed())),
    "of xz": lambda path: path.write_bytes(lzma.compress(squeezed())),
    "of zstd": written(b"\x28\xb5\x2f\xfd" + bytes(64)), "of 7-zip": written(b"7z\xbc\xaf\x27\x1c" + bytes(64)),
    "of lz4": written(b"\x04\x22\x4d\x18" + bytes(64)),
    "that is a directory": lambda path: path.mkdir(), "that is a pipe": os.mkfifo,
    "that is /dev/zero": lambda path: path.symlink_to("/dev/zero"), "that is absent": lambda path: None,
    "that is a loop of links": lambda path: path.symlink_to(path),
}  # fmt: skip


class Model:
    """What classifiers._read asks of a model."""

    name = "a"

    def shapes(self):
        return {"a": (4,)}


def read_all(path):
    return list(samples.load(path).batches())


ARRAY_READERS = {
    "samples": read_all, "reference": references.read, "pairs": pairs.read, "inception": inception.load,
    "layers": lambda path: inception.convert(path, path.with_name("out.npz")), "part": references.read_part,
    "classifier": lambda path: classifiers._read(Model(), path, "0"), "source": origins.find,
    "torch": torch_file.read, "export": weights.read,
}  # fmt: skip


@pytest.mark.parametrize("reader", ARRAY_READERS)
@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives(tmp_path, kind, reader):
    suffix = {"torch": ".pt", "export": ".safetensors"}.get(reader, ".npz")
    path = tmp_path / f"x{suffix}"
    ARCHIVES[kind](path)
    line = refused(ARRAY_READERS[reader], path)
    if kind in ("of gzip", "of bzip2", "of xz", "of zstd", "of 7-zip", "of lz4"):
        assert "compressed by" in line and "unpack it" in line and "damaged" not in line, line
    if kind == "that is a pointer of Git LFS":
        assert "git lfs pull" in line, line
    if kind == "that unpacks to 3 GB" and reader == "reference":
        assert "it needs 3,355,443,328 bytes" in line, line


NPYS = {
    "of no bytes": written(b""), "of text": written(b"hello"), "of a cut header": written(header("|u1", (4,))[:20]),
    "that says 10^12": written(header("|u1", (10**12, 8, 8, 1)) + bytes(64)),
    "of objects": written(header("|O", (4,)) + pickle.dumps([1])),
    "of a negative shape": written(header("|u1", (-4, 8))),
    "of a wrong version": written(b"\x93NUMPY\x09\x00" + bytes(80)), "that is a pointer": written(POINTER),
    "of gzip": written(gzip.compress(b"x")), "that is a directory": Path.mkdir,
    "that is a pipe": os.mkfifo, "that is /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "that is absent": lambda path: None, "of floats": lambda path: np.save(path, np.zeros((2, 8, 8, 1))),
    "of nothing": lambda path: np.save(path, np.zeros(0)),
    "of one number": lambda path: np.save(path, np.uint8(3)),
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    np.savez(root / "in.npz", images=np.zeros((4, 8, 8, 1), np.uint8), labels=np.arange(4) % 2)
    prepare.prepare("arrays", root / "in.npz", root / "set")
    return root / "set"


@pytest.mark.parametrize("name", ["train-images.npy", "train-labels.npy"])
@pytest.mark.parametrize("kind", NPYS)
def test_arrays_of_a_data_set(prepared, tmp_path, kind, name):
    path = Path(shutil.copytree(prepared, tmp_path / "x.npy")) / name
    path.unlink()
    NPYS[kind](path)
    with pytest.raises(InputError, match=r"x\.npy"), soon():
        sources.prepared(path.parent)


@pytest.mark.parametrize("kind", NPYS)
def test_samples_and_sources_of_npy(tmp_path, kind):
    path = tmp_path / "x.npy"
    np.save(tmp_path / "labels.npy", np.zeros(4, int))
    NPYS[kind](path)
    refused(read_all, path)
    refused(origins.find, path)


def torch_file_of(program, storages=()):
    def make(path):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a/data.pkl", program)
            for key, content in storages:
                file.writestr(f"a/data/{key}", content)

    return make


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"


def tensor(shape, strides, offset=b"K\x00"):
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + offset + shape + strides + b"\x89}tR"


def named(value, name=b"X\x01\x00\x00\x00a"):
    return b"\x80\x02}" + name + value + b"s."


DOUBLED = b"q\x00".join([b"K\x01", b""]) + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
FOUR = [("0", bytes(16))]
TORCH = {
    "APPENDS on an int": torch_file_of(b"\x80\x02K\x01(K\x02e."),
    "SETITEM on an int": torch_file_of(b"\x80\x02K\x01K\x02K\x03s."),
    "an empty stack": torch_file_of(b"\x80\x02."), "no STOP": torch_file_of(b"\x80\x02}"),
    "a mark that is none": torch_file_of(b"\x80\x02t."), "an unknown memo": torch_file_of(b"\x80\x02h\x05."),
    "a list as key": torch_file_of(b"\x80\x02}]K\x01s."), "an int as key": torch_file_of(b"\x80\x02}K\x01K\x01s."),
    "tuples 2^60 deep": torch_file_of(named(DOUBLED)),
    "such as a key": torch_file_of(b"\x80\x02}" + DOUBLED + b"K\x01s."),
    "such as a function": torch_file_of(named(DOUBLED + b")R")),
    "such as a name of a function": torch_file_of(named(b"K\x01" + DOUBLED + b"\x86)R")),
    "such as a storage": torch_file_of(named(DOUBLED + b"Q")),
    "such as a storage's key": torch_file_of(
        named(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + DOUBLED + b"X\x03\x00\x00\x00cpuK\x04tQ")),
    "such as a dtype": torch_file_of(
        named(b"(X\x07\x00\x00\x00storageX\x05\x00\x00\x00torch" + DOUBLED + b"\x86X\x01\x00\x00\x000NK\x04tQ")),
    "such as a shape": torch_file_of(named(tensor(DOUBLED, b")")), FOUR),
    "a stride of 0 over 10^9": torch_file_of(named(tensor(b"J\x00\xca\x9a\x3b\x85", b"K\x00\x85")), FOUR),
    "a negative shape": torch_file_of(named(tensor(b"J\xff\xff\xff\xff\x85", b"K\x01\x85")), FOUR),
    "a shape of texts": torch_file_of(named(tensor(b"X\x01\x00\x00\x00a\x85", b"K\x01\x85")), FOUR),
    "a huge number": torch_file_of(named(tensor(b"\x8a\xff" + b"\x7f" * 255 + b"\x85", b"K\x01\x85")), FOUR),
    "no storage": torch_file_of(named(tensor(b"K\x04\x85", b"K\x01\x85"))),
    "a short storage": torch_file_of(named(tensor(b"K\x04\x85", b"K\x01\x85")), [("0", b"\0")]),
    "a text a gigabyte long": torch_file_of(b"\x80\x02X\xff\xff\xff\x7fa."), "two pickles": lambda path: (
        zipfile.ZipFile(path, "w").writestr("a/data.pkl", b"."), None)[1],
    "no pickle": lambda path: deflated(path, "a/version"),
    "10^7 opcodes": torch_file_of(b"\x80\x02" + b"K\x01" * 10**7),
    "a legacy file that is cut": written((RECORDED / "torch_legacy.pt").read_bytes()[:-8]),
    "a legacy file without numbers": written((RECORDED / "torch_legacy.pt").read_bytes()[:300]),
}  # fmt: skip


@pytest.mark.parametrize("kind", TORCH)
def test_torch_files(tmp_path, kind):
    path = tmp_path / "x.pt"
    TORCH[kind](path)
    refused(torch_file.read, path)


def test_tensors_called_a_and_a_b(tmp_path):
    path, config = tmp_path / "x.safetensors", json.dumps(configs.to_json(tiny_config()))
    tensors = {name: np.zeros(1, np.float32) for name in ("a", "a/b")}
    path.write_bytes(save(tensors, {"format": "cfg_jax 1", "config": config, "step": "3"}))
    refused(weights.read, path)
    path = tmp_path / "i.npz"
    np.savez(path, **tensors, bias_of_logits=np.zeros(0), sha256=np.array("0"), until=np.array("mixed_8"))
    refused(inception.load, path, "has no Inception weights")


HEAD = "run,w,T,seed,parameters,fid_digits@20\n"
CSVS = {
    "cut in a row": HEAD + "a,1,3,0,p,3.5\nb,2", "too long a row": HEAD + "a,1,3,0,p,3.5,9,9\n", "empty": "",
    "a word for w": HEAD + "a,much,3,0,p,3.5\n", "a word for a score": HEAD + "a,1,3,0,p,low\n",
    "NaN": HEAD + "a,1,3,0,p,nan\n", "no seed": "run,w,T,parameters,fid_digits@20\na,1,3,p,3.5\n",
    "an open quote": HEAD + 'a,1,3,0,p,"3.5\n', "no score": "run\na\n", "a null byte": HEAD + "a,1,3,0,\0p,low\n",
    "a field of a megabyte": HEAD + "a" * 10**6 + ",1,3,0,p,3.5\n", "half a character": HEAD + "\udcff,1,3,0,p,x\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", CSVS)
def test_tables(tmp_path, kind):
    (tmp_path / "results.csv").write_text(CSVS[kind], errors="surrogateescape")
    refused(lambda path: model_card.scores(path.parent, {}), tmp_path / "results.csv")


# Config files that are none

CONFIG_FILES = {
    "a syntax error": ("def get_config(:\n", "line 1: SyntaxError"),
    "no get_config": ("x = 1\n", "has no get_config()"),
    "None": ("\ndef get_config():\n    return None\n", "line 2: get_config() gives NoneType"),
    "an exception": ("def get_config():\n    x = 1\n    return x / 0\n", "line 3: ZeroDivisionError"),
    "an exception below": ("import json\ndef get_config():\n    return json.loads('{')\n", "line 3: JSONDecodeError"),
    "an exit": ("import sys\nsys.exit(3)\n", "line 2: SystemExit"), "nothing": ("", "has no get_config()"),
    "an import of nothing": ("import nothing_of_this_name\n", "line 1: ModuleNotFoundError"),
    "a missing group": ("from configs import digits\ndef get_config():\n    c = digits.get_config()\n    del c.train\n"
                        "    return c\n", "line 2: train is missing"),
    "a missing field": ("from configs import digits\ndef get_config():\n    c = digits.get_config()\n"
                        "    del c.train.num_steps\n    return c\n", "line 2: train.num_steps is missing"),
    "other fields": ("from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'a': 1})\n",
                     "line 2: data is missing"),
    "an empty config": ("from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict()\n",
                        "missing"),
    "a group that is a number": ("from configs import digits\ndef get_config():\n    c = digits.get_config()\n"
                                 "    del c.train\n    c.train = 3\n    return c\n", "train is 3, not an object"),
    "get_config that is a number": ("get_config = 3\n", "has no get_config()"),
    "get_config with an argument": ("def get_config(a):\n    return a\n", "TypeError"),
    "endless recursion": ("def get_config():\n    return get_config()\n", "nested too deeply"),
    "brackets": ("(" * 10_000 + "\n", "x.py"), "a null byte": ("x = '\0'\n", "x.py"),
    "indentation": ("def get_config():\nreturn 3\n", "line 2: IndentationError"),
    "a raised text": ("raise Exception('a\\nb\\x1b[31m')\n", "line 1: Exception: a"),
    "binary": ("\x7fELF\x02", "line 1"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONFIG_FILES)
def test_config_files(tmp_path, kind):
    content, said = CONFIG_FILES[kind]
    (tmp_path / "x.py").write_text(content)
    refused(config_file.read, tmp_path / "x.py", said)


@pytest.mark.parametrize("kind", ["a syntax error", "None", "an exception", "a missing group", "an exit"])
def test_config_files_of_a_command(tmp_path, kind, command):
    content, said = CONFIG_FILES[kind]
    (tmp_path / "x.py").write_text(content)
    done = command("train", f"--config={tmp_path}/x.py", f"--workdir={tmp_path}/run")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr


# Size and time


def large_png(path, side):
    """A picture of side x side pixels of one colour, in a few kilobytes."""
    rows = zlib.compressobj(9)
    data = b"".join([*(rows.compress(bytes(1 + side // 8) * 100) for _ in range(side // 100)), rows.flush()])
    chunks = (b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")
    parts = [struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("side", [8800, 13_200, 50_000, 2**31 - 1])
def test_large_pictures(tmp_path, side):
    path = tmp_path / "x.png"
    bomb_png(path, side)
    if side == 13_200:
        large_png(path, side)
        assert path.stat().st_size < 30_000
    pictures = origins._at_places([path.name], ["a"], [(path, 0, path.stat().st_size)])
    with soon():
        image, _, [(kind, remark)] = convert_one(pictures, 0, settings=Settings(8, "area", 3, False))
    assert image is None and kind == "unreadable" and (f"{side:,}" in remark or f"{side**2}" in remark), remark
    (tmp_path / "x.json").write_text(json.dumps(ROW))
    refused(lambda path: read.read_row(path.with_suffix(".json")), path)


def test_large_pictures_wait_for_one_another():
    room, left = inputs.Room(3 * inputs.SMALL), []
    picture = Image.new("1", (2048, 1024))

    def decode():
        with room.of(picture):
            left.append(room.left)
            time.sleep(0.01)
            left.append(room.left)

    threads = [threading.Thread(target=decode) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left == 12 * [inputs.SMALL] and room.left == 3 * inputs.SMALL


@pytest.mark.parametrize("group", ["train", "eval"])
@pytest.mark.parametrize("size", [10**9, 10**12, 2**62])
def test_batches_that_do_not_fit(tiny, group, size):
    tiny[group].batch_size = tiny.eval.num_images = size
    with pytest.raises(InputError, match=f"config.{group}.batch_size={size} needs .* GB for one layer"), soon():
        meshes.check_batch(tiny, group)
    tiny[group].batch_size = 8
    meshes.check_batch(tiny, group)


SPECIAL = {"a pipe": os.mkfifo, "/dev/zero": lambda path: path.symlink_to("/dev/zero"), "a directory": Path.mkdir}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("reader", JSONS)
def test_what_is_no_file(tmp_path, reader, kind):
    if reader in ("reference", "export", "digests"):
        return  # above, or no file of its own
    path = tmp_path / ("metrics.jsonl" if reader == "metrics" else "x.json")
    SPECIAL[kind](path)
    refused(JSONS[reader][1], path, "it is a")


def test_a_hub_that_never_answers(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(hub, "PATIENCE", 1.0)
        with pytest.raises(InputError, match=r"gave no answer within 1 s") as error, soon():
            hub.fetch("hf://me/digits")
        assert "\n" not in str(error.value)


# What is sound, and was called damaged or taken without a word


def test_a_checkpoint_of_pointers_is_not_set_aside(tmp_path):
    (tmp_path / "checkpoints" / "4" / "ema").mkdir(parents=True)
    (tmp_path / "checkpoints" / "4" / "ema" / "a").write_bytes(POINTER)
    (tmp_path / "checkpoints" / "4" / "sha256.json").write_bytes(POINTER)
    with pytest.raises(InputError, match="git lfs pull"):
        checkpoint.set_aside_damaged(tmp_path / "checkpoints")
    assert (tmp_path / "checkpoints" / "4").is_dir()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_of_other_methods_are_read(tmp_path, method, rng):
    images, path = rng.integers(0, 256, (9, 8, 8, 1), np.uint8), tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in {"arr_0": images, "arr_1": np.arange(9)}.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    given = samples.load(path)
    np.testing.assert_array_equal(np.concatenate([*given.batches()]), images)
    np.testing.assert_array_equal(given.labels, np.arange(9))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.arange(9 * 64).reshape(9, 8, 8, 1) % 5 % 2, "holds only 0 and 1"),
        (np.full((9, 8, 8, 1), 200), "are all equal"), (np.zeros((9, 8, 8, 1)), "are all equal"),
        (np.tile(np.arange(64).reshape(1, 8, 8, 1), (9, 1, 1, 1)), "are all equal"),
    ],
)  # fmt: skip
def test_samples_that_mean_little_are_warned_of(tmp_path, caplog, images, said):
    np.savez(tmp_path / "x.npz", images.astype(np.uint8))
    samples.load(tmp_path / "x.npz")
    assert said in caplog.text


def test_a_renamed_data_folder_is_the_same_data(tiny):
    renamed = tiny.copy_and_resolve_references()
    renamed.data.name = "another"
    assert configs.differences(tiny, renamed) == ["data.name: digits -> another"]
    tiny.data.card = renamed.data.card = "0123456789ab"
    assert configs.differences(tiny, renamed) == []
    renamed.data.card = "ba9876543210"
    assert len(configs.differences(tiny, renamed)) == 2


def test_resamples_of_a_cell_are_numbers(tmp_path):
    of_a_cell = ROW | {"bootstrap": 3, "resampled": {"fid_digits@20": [None, "1.5", 2]}}
    (tmp_path / "x.json").write_text(json.dumps(of_a_cell))
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    found = read.read_row(tmp_path / "x.json")["resampled"]["fid_digits@20"]
    assert np.isnan(found[0]) and found[1:] == [1.5, 2.0]


def test_a_report_of_a_sweep_with_a_bomb(tmp_path):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "x.json").write_text(json.dumps(ROW))
    bomb_png(tmp_path / "cells" / "x.png")
    configs.save(tmp_path / "config.json", tiny_config())
    with pytest.raises(InputError, match=r"x\.json is damaged .*x\.png: "), soon():
        report.write(tmp_path)


def test_a_message_names_the_field_and_the_remedy_beside_a_long_value():
    told = str(InputError(f"field={'9' * 5000}: set 1, not {'9 ' * 500}"))
    assert told.startswith("field=999") and f"9: set 1, not {'9 ' * 500}" in told and len(told) < 1500
