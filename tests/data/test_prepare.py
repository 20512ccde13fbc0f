"""experiments.prepare_data from every kind of source, interrupted and mistreated."""

import errno
import gzip
import io
import json
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from cfg_jax import config as configs
from cfg_jax.data import array_origin, cards, origins, pipeline, prepare, sources, tfds_origin
from cfg_jax.data.labels import label_pictures
from cfg_jax.data.pictures import ORIENTATION, Pictures, Settings, convert_one
from cfg_jax.data.resize import area
from cfg_jax.errors import InputError
from cfg_jax.sampling.model import Model
from cfg_jax.sweep.run import check_same_data
from cfg_jax.training import trainer
from configs import imagenet64
from tests.running import ROOT

SAMPLE = Path(os.environ.get("CFG_JAX_ASSETS") or "absent") / "ilsvrc2012_sample.tar"
SYNSETS = [name.split()[0] for name in cards.IMAGENET]


def encode(array, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def colour(seed, width=20, height=16):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def put(root, *names):
    """A picture at each path below root."""
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode(colour(seed)))
    return root


def tree(root, classes=("ant", "bee"), per_class=3):
    """root/train/CLASS/n.png and root/val/CLASS/0.png."""
    counts = {"train": per_class, "val": 1}
    return put(root, *(f"{split}/{c}/{i}.png" for c in classes for split, n in counts.items() for i in range(n)))


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def packed(source, suffix=".tar"):
    """A tar of a folder, with its empty folders."""
    path = source.with_suffix(suffix)
    with tarfile.open(path, "w:gz" if suffix == ".tar.gz" else "w") as tar:
        tar.add(source, arcname=".")
    return path


def folder(source, out, **kwargs):
    return prepare.prepare("folder", source, out, **{"resize": "area", "size": 8, **kwargs})


def refused(source, out, match, name="folder", **kwargs):
    """Check that a source is refused in one line, which `match` is searched in."""
    defaults = {"resize": "area", "size": 8} if name == "folder" else {}
    with pytest.raises(InputError, match=match) as error:
        prepare.prepare(name, source, out, **defaults | kwargs)
    assert "\n" not in str(error.value)


@pytest.fixture
def source(tmp_path):
    return tree(tmp_path / "in")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def report(out):
    return json.loads((out / "report.json").read_text())


def test_a_folder_becomes_arrays_with_a_card(tmp_path, out):
    source, out = tree(tmp_path / "in"), tmp_path / "set"
    (source / "classes.txt").write_text("ant\tCamponotus\nbee Apis\n")
    card = folder(source, out)
    assert card.class_names == ("ant Camponotus", "bee Apis") and card.counts == {"train": 6, "validation": 2}
    loaded = sources.prepared(out)
    assert loaded.images.shape == (6, 8, 8, 3) and isinstance(loaded.images, np.memmap)
    np.testing.assert_array_equal(loaded.labels, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(loaded.images[4], area(Image.fromarray(colour(5)), 8))
    assert loaded.card == card and not (out / "parts").exists()
    assert sources.prepared(out, "validation").images.shape == (2, 8, 8, 3)


def test_archives_give_the_same_set_as_the_folder(tmp_path, source):
    """One tar, compressed or not; a tar for each class; a tar of a tar for each class."""
    forms = [packed(source), packed(source, ".tar.gz"), tmp_path / "tars", tmp_path / "outer.tar"]
    forms[2].mkdir()
    for name in ("ant", "bee"):
        with tarfile.open(forms[2] / f"{name}.tar.gz", "w:gz") as tar:
            for split in ("train", "val"):
                tar.add(source / split / name, arcname=f"{split}/{name}")
    with tarfile.open(forms[3], "w") as outer:
        for inner in sorted(source.glob("*/*")):
            name = str(inner.relative_to(source))
            add(outer, f"{name}.tar", packed(inner).read_bytes())
            packed(inner).unlink()
    want = folder(source, tmp_path / "of-folder").sha256
    for form in forms:
        assert folder(form, tmp_path / f"of-{form.name}").sha256 == want


def test_an_archive_cannot_reach_out_of_itself(tmp_path, source, out):
    """Members are read where they are and never unpacked: .. and / in a name, and links, lead nowhere."""
    put(tmp_path, "secret.png")
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        tar.add(source, arcname=".")
        for name in ("train/../../../evil/x.png", f"{tmp_path}/train/evil/x.png"):
            add(tar, name, (tmp_path / "secret.png").read_bytes())
        link = tarfile.TarInfo("train/ant/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
        tar.addfile(link)
    before = set(tmp_path.rglob("*"))
    refused(tmp_path / "bad.tar", out, match=r"/train and train are both train pictures by their names")
    assert all(out in (p, *p.parents) for p in set(tmp_path.rglob("*")) - before)


@pytest.mark.parametrize("where", ["header", "end", "gzip"])
def test_a_damaged_archive_is_not_taken_for_a_short_one(tmp_path, out, where):
    path = packed(tree(tmp_path / "in"), ".tar.gz" if where == "gzip" else ".tar")
    content = bytearray(path.read_bytes())
    if where == "gzip":
        content[-6] ^= 1  # of the checksum
    else:
        with tarfile.open(path) as tar:
            offset = list(tar)[6].offset
        if where == "header":
            content[offset + 5] ^= 8
        else:
            del content[offset:]
    path.write_bytes(content)
    refused(path, out, match=r"is damaged \(.*fetch it again")


def test_what_is_in_no_class_is_listed(tmp_path, out):
    source = put(tree(tmp_path / "in"), "train/loose.png", "cow/1.png", "test/ant/1.png")
    (source / "train" / "ant" / "boxes.txt").write_text("1 2 3 4")
    assert folder(source, out).counts == {"train": 6, "validation": 2}
    [(kind, files)] = report(out).items()
    assert kind.startswith("of no use")
    assert sorted(files) == ["cow/1.png", "test/ant/1.png", "train/ant/boxes.txt", "train/loose.png"]


def test_tiny_imagenet_as_published(tmp_path, out):
    """A folder deeper, boxes beside the pictures, validation in one folder with a list, a test without labels."""
    root, x = tmp_path / "tiny-imagenet-200", encode(colour(1, 64, 64), "JPEG")
    put(root, *(f"train/{synset}/images/{synset}_0.JPEG" for synset in ("n02", "n01")))
    put(root, *(f"{name}.JPEG" for name in ("val/images/val_0", "val/images/val_1", "test/images/test_0")))
    for path in root.glob("**/*.JPEG"):
        path.write_bytes(x)
    (root / "train" / "n01" / "n01_boxes.txt").write_text("box")
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\nval_1.JPEG\tn01\t0\t0\n")
    prepare.prepare("tiny_imagenet", root, out)
    np.testing.assert_array_equal(sources.prepared(out).labels, [0, 1])
    np.testing.assert_array_equal(sources.prepared(out, "validation").labels, [1, 0])
    [(_, unused)] = report(out).items()
    assert {"test/images/test_0.JPEG", "train/n01/n01_boxes.txt"} <= {*unused}


def test_parts_of_another_resize_are_not_taken(tmp_path, source, out, monkeypatch):
    """Killed under one resize, then under another, then finished under the first: as if never interrupted."""
    write = prepare.write_json

    for resize, stop in (("area", "report.json"), ("adm", ".json")):

        def dies(path, value, stop=stop):
            if path.name.endswith(stop):
                raise KeyboardInterrupt
            write(path, value)

        monkeypatch.setattr(prepare, "write_json", dies)
        with pytest.raises(KeyboardInterrupt):
            folder(source, out, resize=resize)
    monkeypatch.undo()
    assert folder(source, out).sha256 == folder(source, tmp_path / "clean").sha256


def test_the_original_ilsvrc_tars(tmp_path, out):
    """A tar of a tar for each synset, and validation pictures in one heap, whose synsets are a list of their own."""
    inner = {synset: io.BytesIO() for synset in ("n01440764", "n15075141")}
    for k, (synset, buffer) in enumerate(inner.items()):
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            add(tar, f"{synset}_7.JPEG", encode(colour(k), "JPEG"))
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "ILSVRC2012_img_train.tar", "w") as tar:
        for synset, buffer in inner.items():
            add(tar, f"{synset}.tar", buffer.getvalue())
    with tarfile.open(tmp_path / "in" / "ILSVRC2012_img_val.tar", "w") as tar:
        add(tar, "ILSVRC2012_val_00000001.JPEG", encode(colour(9), "JPEG"))
    whole = r"2 train pictures, the whole set 1,281,167.*--partial"
    refused(tmp_path / "in", out, match=whole, name="imagenet64", resize="area")
    card = prepare.prepare("imagenet64", tmp_path / "in", out, resize="area", partial_set=True)
    assert not card.complete and len(card.class_names) == 1000 and card.class_names[0] == "n01440764 tench"
    np.testing.assert_array_equal(sources.prepared(out).labels, [0, 999])
    first = SYNSETS.index(origins.validation_synsets()[0])  # published: the first validation picture is class 65
    assert first == 65 and sources.prepared(out, "validation").labels == [65]


def test_strange_pictures_are_handled_and_listed(source, out):
    here = source / "train" / "ant"
    (here / "grey.jpg").write_bytes(encode(colour(1)[..., 0], "JPEG"))
    Image.fromarray(colour(2)).convert("CMYK").save(here / "cmyk.jpg")
    clear = np.concatenate([colour(3), np.zeros((16, 20, 1), np.uint8)], -1)
    (here / "clear.png").write_bytes(encode(clear))
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    (here / "turned.png").write_bytes(encode(colour(4), exif=exif))
    (here / "upright.png").write_bytes(encode(colour(4)[::-1, ::-1]))
    (here / "small.png").write_bytes(encode(colour(5, 5, 6)))
    (here / ".DS_Store").write_bytes(b"not looked at")
    folder(source, out)
    assert report(out) == {
        "transparent, put on white": ["train/ant/clear.png"],
        "of mode CMYK, made RGB": ["train/ant/cmyk.jpg"],
        "of mode L, made RGB": ["train/ant/grey.jpg"],
        "smaller than asked, enlarged": ["train/ant/small.png"],
        "rotated by EXIF, turned upright": ["train/ant/turned.png"],
    }
    names = sorted(p.name for p in here.glob("[!.]*"))
    images = dict(zip(names, sources.prepared(out).images, strict=False))
    assert (images["clear.png"] == 255).all()
    np.testing.assert_array_equal(images["turned.png"], images["upright.png"])
    assert np.ptp(images["grey.jpg"], axis=-1).max() == 0


@pytest.fixture
def damaged(source):
    """A source with four unreadable files, and the whole content of each; one keeps its size."""
    jpeg, png = encode(colour(6, 64, 64), "JPEG"), (source / "train/bee/1.png").read_bytes()
    files = {
        "train/ant/cut.jpg": (jpeg[: len(jpeg) // 2], jpeg),
        "train/ant/deep.png": (encode(colour(7)[..., 0].astype(np.uint16)), png),
        "train/ant/notes.png": (b"no picture", png),
        "train/bee/1.png": (bytes(len(png)), png),
    }
    for name, (content, _) in files.items():
        (source / name).write_bytes(content)
    return {name: whole for name, (_, whole) in files.items()}


def test_unreadable_files_are_listed_and_nothing_is_finished(source, out, damaged):
    refused(source, out, match=r"4 files cannot be read.*report\.json.*--skip_unreadable")
    assert not (out / "card.json").exists()
    assert [line.split(":")[0] for line in report(out)["unreadable"]] == [*damaged]
    card = folder(source, out, skip_unreadable=True)
    assert card.left_out == 4 and card.counts["train"] == 5


def test_a_mended_file_is_read_again_by_the_second_run(source, out, damaged):
    refused(source, out, match="4 files cannot be read")
    for name, whole in damaged.items():
        (source / name).write_bytes(whole)
    assert folder(source, out).counts["train"] == 9


def test_a_damaged_part_is_made_again(source, out, damaged, tmp_path):
    refused(source, out, match="4 files cannot be read")
    for name in damaged:
        (source / name).unlink()
    [images] = (out / "parts").glob("validation-*.npy")
    images.write_bytes(images.read_bytes()[:-9])
    for notes in (out / "parts").glob("train-*.json"):
        notes.write_text(notes.read_text()[:9])
    assert folder(source, out).sha256 == folder(source, tmp_path / "clean").sha256


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: shutil.rmtree(s), "does not exist"),
        (lambda s: [shutil.rmtree(p) for p in s.iterdir()], "is empty"),
        (lambda s: [p.unlink() for p in (s / "train" / "bee").iterdir()], "train/bee is empty"),
        (lambda s: shutil.rmtree(s / "val" / "bee"), "validation has no picture of 1 of the 2 classes (bee)"),
        (lambda s: (s / "val" / "bee").rename(s / "val" / "cow"), "validation has classes that are none of this set's"),
        (lambda s: [shutil.rmtree(p) for p in s.glob("*/bee")], "one class, ant, and guidance needs two or more: name"),
        (lambda s: tarfile.open(s / "x.tar", "w").close(), "has folders and archives (x.tar)"),
        (lambda s: (s / "classes.txt").write_bytes(b"ant \xe9"), "is not UTF-8"),
        (lambda s: (s / "train" / "bee").rename(s / "train" / "\u00b2"), "validation has classes that are none"),
        (lambda s: (shutil.rmtree(s), s.write_text("x")), "is no folder, .tar, .npz or .npy"),
    ],
)
def test_a_bad_source_is_one_line(source, out, spoil, message):
    spoil(source)
    refused(source, out, match=re.escape(message))
    assert not (out / "card.json").exists()


def test_arrays_keep_their_bytes(tmp_path):
    images, labels = np.stack([colour(i, 8, 8) for i in range(6)]), np.array([2, 0, 1, 1, 0, 2])
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", labels)
    np.savez(tmp_path / "adm.npz", arr_0=images, arr_1=labels.astype(np.uint8))
    found = [prepare.prepare("arrays", tmp_path / n, tmp_path / f"of-{n}") for n in ("a.npz", "images.npy", "adm.npz")]
    assert len({card.digest for card in found}) == 1 and found[0].class_names == ("0", "1", "2")
    np.testing.assert_array_equal(sources.prepared(tmp_path / "of-a.npz").images, images)
    np.testing.assert_array_equal(sources.prepared(tmp_path / "of-a.npz").labels, labels)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((3, 8, 8, 3), np.float32), [0, 1, 2], "float32"),
        (np.zeros((3, 8, 8, 3), np.uint8), [0, 1], "labels int64 (2,)"),
        (np.zeros((3, 8, 8, 3), np.uint8), [0, 2, 2], "no picture of 1 of the 3 classes (1)"),
        (np.zeros((3, 8, 8, 3), np.uint8), [0, -1, 1], "number classes 0..K-1"),
        (np.zeros((3, 8, 8, 4), np.uint8), [0, 1, 2], "images of 4 channels"),
        (np.zeros((3, 8, 8), np.uint8), [0, 1, 20_000_000], "labels 0..20000000 on 3"),
        (np.array([{}], object), [0], "cannot be read"),
        (None, [0], "call the arrays train_images and train_labels"),
    ],
)
def test_bad_arrays_are_one_line(tmp_path, out, images, labels, message):
    np.savez(tmp_path / "a.npz", **({"x": np.zeros(3)} if images is None else {"images": images, "labels": labels}))
    refused(tmp_path / "a.npz", out, match=re.escape(message), name="arrays")


def test_chrabaszcz_zips_are_mapped_to_the_standard_labels(tmp_path, out):
    """Label 1 of these files is n02119789, 278 in the standard order."""
    (tmp_path / "in").mkdir()
    flat = np.random.default_rng(0).integers(0, 256, (2, 3 * 64 * 64), np.uint8)
    for name, rows in (("train_part1", 2), ("train_part2", 1), ("val", 1)):
        buffer = io.BytesIO()
        np.savez(buffer, data=flat[:rows], labels=np.array([1, 1000][:rows]))
        with zipfile.ZipFile(tmp_path / "in" / f"Imagenet64_{name}_npz.zip", "w") as archive:
            archive.writestr("batch.npz", buffer.getvalue())
    prepare.prepare("imagenet_resized", tmp_path / "in", out, partial_set=True)
    loaded = sources.prepared(out)
    np.testing.assert_array_equal(loaded.images[1], flat[1].reshape(3, 64, 64).transpose(1, 2, 0))
    assert loaded.labels[0] == loaded.labels[2] == SYNSETS.index("n02119789") == 278
    assert len(sources.prepared(out, "validation")) == 1


def test_a_tensorflow_datasets_directory_without_tensorflow(tmp_path, out):
    """A real builder writes ArrayRecord; what comes out of the loader is what went in, labels by their names."""
    import tensorflow_datasets as tfds

    pngs = [encode(colour(i, 8, 8)) for i in range(8)]
    pictures = {"train": pngs[:6], "test": pngs[6:]}

    class Insects(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = None

        def _info(self):
            label = tfds.features.ClassLabel(names=["n02119789", "n01440764"])
            features = {"image": tfds.features.Image(shape=(8, 8, 3)), "label": label}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {split: self._generate_examples(split) for split in pictures}

        def _generate_examples(self, split):
            for i, png in enumerate(pictures[split]):
                yield i, {"image": io.BytesIO(png), "label": i % 2}

    Insects(data_dir=str(tmp_path / "tfds"), file_format="array_record").download_and_prepare()
    card = prepare.prepare("tfds", tmp_path / "tfds", out, resize="none", size=8)
    assert card.class_names == ("n01440764", "n02119789") and card.counts == {"train": 6, "validation": 2}
    loaded = sources.prepared(out)
    want = {colour(i, 8, 8).tobytes(): (1, 0)[i % 2] for i in range(6)}
    batch = pipeline.batches(loaded, batch_size=6, seed=0, flip=False)[0]
    assert {x.tobytes(): c for x, c in zip(batch["image"], batch["label"], strict=True)} == want
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    "needs",
    [
        lambda: tfds_origin.by_tfds("mnist"),
        lambda: tfds_origin.from_tfds(Path()),
        lambda: array_origin.zipped_batches([]),
        origins.validation_synsets.__wrapped__,
    ],
)
def test_without_tensorflow_datasets_what_needs_it_names_the_extra(monkeypatch, needs):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r"^tensorflow_datasets is not installed: .* 'cfg_jax\[tfds\]'$"):
        needs()


def test_a_finished_set_is_not_made_again(source, out, monkeypatch):
    card = folder(source, out)
    monkeypatch.setattr(prepare, "convert", None)
    assert folder(source, out) == card
    refused(source, out, resize="adm", match="choose another --out")


def flipped(content):
    return content[:200] + bytes([content[200] ^ 1]) + content[201:]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-images.npy", flipped, None),  # the checksum alone shows it
        ("card.json", lambda content: content[:100], "is no data card"),
        ("train-labels.npy", None, "is damaged"),
        (
            "card.json",
            lambda content: content.replace(b'"format": 1', b'"format": 0'),
            r"format 0, this version reads 1: run experiments\.prepare_data again",
        ),
    ],
)
def test_a_damaged_or_older_set_is_refused_and_made_again(source, out, name, change, message):
    card = folder(source, out)
    content = (out / name).read_bytes()
    (out / name).unlink()
    if change:
        (out / name).write_bytes(change(content))
    if message:
        with pytest.raises(InputError, match=message):
            sources.prepared(out)
    assert folder(source, out) == card
    assert sources.prepared(out).card == card


def test_another_picture_of_the_same_name_is_another_set(tmp_path, out):
    images, labels = np.stack([colour(i, 8, 8) for i in range(4)]), np.array([0, 1, 0, 1])
    for changed in (images, labels):
        np.savez(tmp_path / "a.npz", images=images, labels=labels)
        prepare.prepare("arrays", tmp_path / "a.npz", out)
        changed[:2] = changed[1::-1].copy()
        np.savez(tmp_path / "a.npz", images=images, labels=labels)
        refused(tmp_path / "a.npz", out, match="of other files, settings or flags", name="arrays")
        shutil.rmtree(out)


def test_a_card_changed_by_hand_is_refused(source, out):
    folder(source, out)
    text = (out / "card.json").read_text()
    for old, new in (('"area"', '"adm"'), ("pictures' own", "MIT"), ('"validation": 2', '"validation": 1')):
        assert old in text
        (out / "card.json").write_text(text.replace(old, new))
        with pytest.raises(InputError, match="changed by hand"):
            sources.prepared(out)
    (out / "card.json").write_text(text.replace('"train"', '"tarin"'))
    with pytest.raises(InputError, match="is no data card"):
        sources.prepared(out)


def test_labels_that_are_none_are_refused(source, out):
    folder(source, out)
    for labels in (np.array([0, 0, 0, 1, 1, 2], np.int32), np.zeros(6, np.int64)):
        np.save(out / "train-labels.npy", labels)
        with pytest.raises(InputError, match="is not what its card says"):
            sources.prepared(out)


def test_a_full_disk_loses_nothing(tmp_path, out, monkeypatch):
    source = tree(tmp_path / "in", per_class=6)
    monkeypatch.setattr(prepare, "PART", 2)
    write, converted = prepare.write_atomic, []

    def full(path, content):
        if path.name.startswith("train-00003") and path.suffix == ".npy":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(prepare, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        folder(source, out)
    monkeypatch.setattr(prepare, "write_atomic", write)
    one = prepare.convert_one
    monkeypatch.setattr(prepare, "TIMED", 1)
    monkeypatch.setattr(prepare, "convert_one", lambda p, i, **k: converted.append(p.names[i]) or one(p, i, **k))
    card = folder(source, out)
    assert len(converted) == 1 + 6 + 2  # the trial, what was missing of 12, the validation pictures
    monkeypatch.undo()
    assert card.sha256 == folder(source, tmp_path / "whole").sha256


def test_too_small_a_disk_is_reported_before_the_work(tmp_path, source, out, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: usage._replace(free=100))
    refused(source, out, match=r"needs 0\.00 GB more.*make room")


def test_two_at_once(source, out):
    with prepare.only_one(out), pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
        folder(source, out)
    folder(source, out)


CHILD = """
import sys
from cfg_jax.data import prepare
from tests.running import ROOT
prepare.PART = 4
prepare.prepare("folder", sys.argv[1], sys.argv[2], resize="adm", size=32, workers=2)
"""


@pytest.mark.slow
def test_killed_at_random_it_ends_with_the_same_content(tmp_path, out):
    source = tree(tmp_path / "in", per_class=150)
    child = [sys.executable, "-c", CHILD, str(source)]
    began = time.perf_counter()
    subprocess.run([*child, str(tmp_path / "whole")], cwd=ROOT, check=True)
    seconds = time.perf_counter() - began
    rng, kills = random.Random(0), 0
    while kills < 10:
        process = subprocess.Popen([*child, str(out)], cwd=ROOT)
        try:
            process.wait(timeout=rng.uniform(0.3, 1) * seconds)
            shutil.rmtree(out)  # it got through: from the start
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    subprocess.run([*child, str(out)], cwd=ROOT, check=True)
    assert cards.load(out / "card.json").sha256 == cards.load(tmp_path / "whole" / "card.json").sha256
    for name in ("train-images.npy", "train-labels.npy", "validation-images.npy", "validation-labels.npy"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list(out.glob("**/*.tmp")) and not (out / "parts").exists()


def splits(source):
    """{split: {class: pictures}} that a source is read as, from a folder and from a tar alike."""
    forms = [origins.find(place)[0] for place in (source, packed(source))]
    counts = [{split: dict(Counter(pictures.classes)) for split, pictures in form.items()} for form in forms]
    assert counts[0] == counts[1]
    return counts[0]


def refusal(source):
    """The line that refuses a source, from a folder and from a tar alike."""
    lines = []
    for place in (source, packed(source)):
        with pytest.raises(InputError) as error:
            origins.find(place)
        lines.append(str(error.value))
    assert lines[0] == lines[1] and "\n" not in lines[0]
    return lines[0]


TWO = {"train": {"a": 1, "b": 1}, "validation": {"a": 1, "b": 1}}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"), ("seg_train/seg_train", "seg_test/seg_test"), ("train_images", "val-images"),
        ("trainingSet/trainingSet", "testSet"), ("TRAIN", "DEV"), ("set/train2017", "set/val2017"),
        ("trainval", "test"), ("asl_alphabet_train", "asl_alphabet_test"), ("training data", "Evaluation"),
    ],
)  # fmt: skip
def test_split_folders_have_many_names(tmp_path, train, test):
    source = put(tmp_path / "in", *(f"{split}/{c}/1.png" for split in (train, test) for c in "ab"))
    assert splits(source) == TWO


def test_test_pictures_beside_a_validation_split_are_left_out(tmp_path):
    source = put(tmp_path / "in", *(f"{split}/{c}/1.png" for split in ("Training", "valid", "Testing") for c in "ab"))
    assert splits(source) == TWO
    assert origins.find(source)[1] == ["Testing/a/1.png", "Testing/b/1.png"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat/1.png", "dog/1.png", "test/1.png"], "test is called like a split, and no folder train"),
        (["cat/1.png", "dog/1.png", "Validation Set/1.png"], "Validation Set is called like a split, and no folder tr"),
        (["train/1.png", "train/2.png", "test/1.png"], "test is called like a split, and no folder train"),
        (["val/a/1.png", "val/b/1.png"], "val is called like a split, and no folder train"),
        (["cat/train/1.png", "cat/test/1.png", "dog/train/1.png"], "cat/test is called like a split, and no folder tr"),
        (["cat/1.png", "dog/1.png", "dog/testing/1.png"], "dog/testing is called like a split, and no folder train"),
        (["cat/train/x/1.png", "dog/train/y/1.png"], "cat/train and dog/train are both train pictures"),
        (["bus/1.png", "car/1.png", "train/x/1.png", "train/y/1.png"], "train is a split or a class, which cannot be"),
        (["train/a/1.png", "train/b/1.png", "Training/a/1.png"], "Training and train are both train pictures by"),
        (["train/a/1.png", "train/b/1.png", "x/val/a/1.png"], "x/val is called like a split, but is not beside train"),
        (["train/a/1.png", "train/b/1.png", "train/test/1.png"], "train/test is called like a split, but is within"),
        ([f"{at}/{c}/1.png" for at in ("learn", "probe") for c in "ab"], "learn and probe hold folders of the same na"),
        (["train/a/1.png", "train/b/test/1.png"], "train/b/test is called like a split, but is within one"),
    ],
)
def test_a_split_that_may_be_a_class_is_refused(tmp_path, names, message):
    assert refusal(put(tmp_path / "in", *names)).startswith(message)


def test_classes_may_have_folders_in_them(tmp_path):
    assert splits(put(tmp_path / "in", "cat/images/1.png", "dog/images/1.png"))["train"] == {"cat": 1, "dog": 1}
    numbered = put(tmp_path / "numbered", *(f"{c}/{i}/1.png" for c in "abcd" for i in range(2)))
    assert splits(numbered)["train"] == dict.fromkeys("abcd", 2)


def test_a_class_may_have_a_word_of_a_split_in_its_name(tmp_path):
    classes = ("bullet_train", "crash test", "valley", "cheval", "val d'or", "contest", "train")
    source = put(tmp_path / "in", *(f"{name}/1.png" for name in classes))
    assert splits(source) == {"train": dict.fromkeys(sorted(classes), 1)}
    vehicles = put(tmp_path / "v", *(f"{split}/{c}/1.png" for split in ("train", "val") for c in ("bus", "train")))
    assert splits(vehicles) == {split: {"bus": 1, "train": 1} for split in ("train", "validation")}


@pytest.mark.parametrize(
    "name", ["@eaDir", ".ipynb_checkpoints", ".Trash-1000", "__MACOSX", "$RECYCLE.BIN", "#recycle", "Lost+Found"]
)
def test_service_folders_are_no_classes(tmp_path, name):
    """Beside the classes, in them, and as files; in folders and in archives."""
    source = put(tmp_path / "in", *(f"{split}/{c}/1.png" for split in ("train", "val") for c in "ab"))
    put(source, *(f"{at}{name}/x.png" for at in ("", "train/", "val/", "train/a/")))
    put(source, "train/b/._1.png", "train/b/Thumbs.db", "train/b/desktop.ini")
    assert splits(source) == TWO
    assert origins.find(source)[1] == [] == origins.find(packed(source))[1]
    plain = put(tmp_path / "plain", "a/1.png", "b/1.png", f"{name}/x.png", f"b/{name}/x.png")
    assert splits(plain) == {"train": {"a": 1, "b": 1}}


def test_a_service_folder_beside_archives_is_not_in_the_way(tmp_path):
    with tarfile.open(put(tmp_path / "in", "@eaDir/x.png") / "a.tar", "w") as tar:
        for name in ("ant/1.png", "bee/1.png"):
            add(tar, name, encode(colour(1)))
    assert origins.find(tmp_path / "in")[0]["train"].classes == ("ant", "bee")
    put(tmp_path / "in", "x.png")
    with pytest.raises(InputError, match=r"has folders and archives \(a\.tar\), such as x\.png"):
        origins.find(tmp_path / "in")


@pytest.mark.parametrize("folder", ["b", "train/b", "val/b"])
@pytest.mark.parametrize("file", ["1.xyz", "1", "1.zip.txt", "sub/1.mp4", ""])
def test_a_class_without_a_known_picture_is_refused(tmp_path, folder, file):
    """Else the class after it would take its label. Also if the folder is in an archive, and is empty there."""
    source, at = tmp_path / "in", ("train/", "val/") if "/" in folder else ("",)
    put(source, *(f"{split}{c}/1.png" for split in at for c in "abc"))
    (source / folder / "1.png").unlink()
    if file:
        put(source / folder, file)
        unknown = f"has no picture that is known by its ending (its first file is {Path(file).name})"
        assert refusal(source).startswith(f"{folder} {unknown}")
    else:
        assert refusal(source) == f"{folder} is empty: put the pictures of that class there, or remove it"


def test_pictures_that_are_not_read_are_listed_as_unreadable(tmp_path, out):
    """By their ending they are pictures: they do not vanish from a class, and a class of them keeps its label."""
    source = put(tmp_path / "in", *(f"{c}/1.png" for c in "abc"))
    (source / "a" / "2.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (source / "a" / "3.jfif").write_bytes(encode(colour(5), "JPEG"))
    (source / "a" / "4.JPG").write_bytes(encode(colour(6), "PNG"))  # the ending lies
    (source / "a" / "5.png").write_bytes(encode(colour(7), "JPEG2000"))
    (source / "b" / "1.png").rename(source / "b" / "1.avif")
    (source / "b" / "1.avif").write_bytes(b"no picture")
    refused(source, out, match="3 files cannot be read")
    refused(source, out, skip_unreadable=True, match=r"train has no picture of 1 of the 3 classes \(b\)")
    card = folder(source, out, skip_unreadable=True, partial_set=True)
    assert card.class_names == ("a", "b", "c") and sources.prepared(out).labels.tolist() == [0, 0, 0, 2]


@pytest.mark.parametrize("name", ["train/b.zip", "train/a/more.7z", "b.tar.gz", "train/B.TAR"])
def test_an_archive_within_a_folder_is_refused(tmp_path, name):
    source = put(tmp_path / "in", "train/a/1.png", "train/b/1.png")
    (source / name).write_bytes(b"PK")
    with pytest.raises(InputError, match=r"archive"):
        origins.find(source)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("more", ["another tar", "x", "\0" * 10240])
def test_what_follows_a_tar_is_not_ignored(tmp_path, gz, more):
    """Zeros are its padding. Another archive, as by cat, or anything else is not read, and so refused."""
    first, second = (packed(put(tmp_path / c, f"{c}/1.png")).read_bytes() for c in "ab")
    joined = first + (second if more == "another tar" else more.encode())
    path = tmp_path / ("both.tar.gz" if gz else "both.tar")
    path.write_bytes(gzip.compress(joined) if gz else joined)
    if more.startswith("\0"):
        assert origins.find(path)[0]["train"].classes == ("a",)
        return
    with pytest.raises(InputError, match=r"it goes on after its \d members, as several archives joined do\): fetch"):
        origins.find(path)


def test_what_follows_a_tar_in_a_tar_is_not_ignored(tmp_path):
    inner = packed(put(tmp_path / "a", "1.png")).read_bytes()
    with tarfile.open(tmp_path / "outer.tar", "w") as tar:
        add(tar, "a.tar", inner)
        add(tar, "b.tar", inner + inner)
    with pytest.raises(InputError, match="it goes on after its 2 members"):
        origins.find(tmp_path / "outer.tar")


def test_classes_that_are_numbers_are_in_their_order_and_shown(tmp_path, out, command):
    source = put(tmp_path / "in", *(f"{split}/{c}/1.png" for split in ("train", "val") for c in ("0", "1", "2", "10")))
    put(source, "train/10/2.png")
    flags = "--dataset=folder", "--size=8", "--resize=area", f"--source={source}", f"--out={out}"
    for _ in ("made", "found finished"):
        done = command("prepare_data", *flags)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[:5] == [
            "label  train  validation  class",
            "    0      1           1  0",
            "    1      1           1  1",
            "    2      1           1  2",
            "    3      2           1  10",
        ]
    card = cards.load(out / "card.json")
    cards.save(out / "card.json", replace(card, class_names=("0", "1", "10", "2")))
    refused(source, out, match="in the order of an earlier version, 0 0; 1 1; 2 10; 3 2: train on it")
    mixed = put(tmp_path / "mixed", *(f"{c}/1.png" for c in ("2", "10", "x")))
    assert folder(mixed, tmp_path / "text").class_names == ("10", "2", "x")


def test_lists_of_classes_with_a_byte_order_mark(tmp_path, out):
    source = put(tmp_path / "in", "ant/1.png", "bee/1.png")
    (source / "classes.txt").write_text("ant Camponotus\nbee Apis\n", encoding="utf-8-sig")
    assert folder(source, out).class_names == ("ant Camponotus", "bee Apis")
    for encoding in ("utf-16", "utf-16-le"):
        (source / "classes.txt").write_text("ant Camponotus\nbee Apis\n", encoding=encoding)
        refused(source, tmp_path / "out2", match=r"classes\.txt is not UTF-8 text: write it anew")
    heap = put(tmp_path / "heap", "train/ant/1.png", "train/bee/1.png", "val/images/7.png", "val/images/8.png")
    (heap / "val" / "val_annotations.txt").write_text("7.png\tbee\t0\n8.png\tant\t0\n\n", encoding="utf-8-sig")
    assert splits(heap)["validation"] == {"bee": 1, "ant": 1}
    assert origins.find(heap)[0]["validation"].classes == ("bee", "ant")
    for content, message in ((b"\xff\xfe7\0", "is not UTF-8"), (b"7.png bee\n", "has the line '7.png bee': give FILE")):
        (heap / "val" / "val_annotations.txt").write_bytes(content)
        assert message in refusal(heap)


def test_a_name_in_two_unicode_forms_is_one_class(tmp_path):
    """As where a Mac packed one of two folders."""
    composed, parts = "caf\u00e9", "cafe\u0301"
    source = put(tmp_path / "in", f"train/{composed}/1.png", "train/tea/1.png", f"val/{parts}/1.png", "val/tea/1.png")
    assert splits(source) == {split: {composed: 1, "tea": 1} for split in ("train", "validation")}


def test_classes_that_differ_by_case_alone_are_letters_or_refused(tmp_path, out):
    assert folder(put(tmp_path / "letters", "A/1.png", "a/1.png"), out).class_names == ("A", "a")
    source = put(tmp_path / "in", "Cat/1.png", "cat/1.png", "dog/1.png")
    refused(source, tmp_path / "out2", match="the classes Cat and cat differ by case alone: merge or rename them")


def test_names_that_cannot_be_printed_are_escaped(tmp_path, out):
    source = put(tmp_path / "in", "a\nb/1.png", "\udcffx/1.png", "c/1.png")
    table = folder(source, out).label_table({"train": [1, 1, 1]})
    assert table.splitlines()[1:] == ["    0      1  'a\\nb'", "    1      1  c", "    2      1  '\\udcffx'"]
    (source / "a\nb" / "1.png").unlink()
    assert refusal(source) == "'a\\nb' is empty: put the pictures of that class there, or remove it"


def test_annotations_are_of_validation_pictures_alone(tmp_path):
    source = put(tmp_path / "in", "train/ant/7.png", "train/bee/1.png", "val/images/7.png")
    (source / "val" / "val_annotations.txt").write_text("7.png\tbee\n")
    assert splits(source) == {"train": {"ant": 1, "bee": 1}, "validation": {"bee": 1}}


def test_validation_pictures_of_ilsvrc_are_not_trained_on(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ILSVRC2012_val_00000001.JPEG").write_bytes(encode(colour(9), "JPEG"))
    with pytest.raises(InputError, match="no training pictures"):
        origins.find(tmp_path / "in")


def png16(channels):
    """A PNG of 16 bits a channel, which Pillow does not write in colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 16, 16, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + bytes(16 * channels * 2) for _ in range(16))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff16():
    """An RGB TIFF of 16 bits a channel."""
    content, at = bytes(16 * 16 * 6), 8 + 2 + 9 * 12 + 4  # the three depths are there, and the pixels follow
    tags = {256: 16, 257: 16, 258: None, 259: 1, 262: 2, 273: at + 6, 277: 3, 278: 16, 279: len(content)}
    entries = (struct.pack("<HHII", tag, *((3, 3, at) if v is None else (4, 1, v))) for tag, v in tags.items())
    depths = bytes(4) + struct.pack("<3H", 16, 16, 16)
    return struct.pack("<2sHIH", b"II", 42, 8, 9) + b"".join(entries) + depths + content


def converted(content, resize="area"):
    """The image and the notes of a file."""
    pictures = Pictures(["x.jpg"], [0], None, lambda _: (content, "a"))
    image, _, notes = convert_one(pictures, 0, settings=Settings(8, resize, 3, True))
    return image, notes


@pytest.mark.parametrize(
    "content",
    [*map(png16, (1, 2, 3, 4)), tiff16(), *(kind + b"\n16 16\n65535\n" + bytes(1536) for kind in (b"P5", b"P6"))],
    ids=["grey", "grey alpha", "rgb", "rgb alpha", "tiff", "pgm", "ppm"],
)
def test_more_than_8_bits_a_channel_are_never_cut(content):
    Image.open(io.BytesIO(content)).load()  # it is whole
    image, notes = converted(content)
    assert image is None and notes == [("unreadable", ": ValueError: more than 8 bits a channel: convert it to 8")]


def test_a_class_that_a_data_set_names_keeps_its_label_without_a_picture():
    """As of tensorflow-datasets, which names classes beside the pictures."""
    few = "tfds", cards.RECIPES["tfds"], {"train": ["2", "10"], "validation": ["2"]}, ("2", "10", "3"), {}
    with pytest.raises(InputError, match=r"train has no picture of 1 of the 3 classes \(3\)"):
        label_pictures(*few, False)
    names, found = label_pictures(*few, True)
    assert names == ("2", "3", "10") and found["train"].tolist() == [0, 2]


def test_a_jpeg_of_two_pictures_is_read():
    """As phones and cameras write them, called .jpg."""
    buffer = io.BytesIO()
    Image.fromarray(colour(1)).save(buffer, "MPO", save_all=True, append_images=[Image.fromarray(colour(2))])
    image, notes = converted(buffer.getvalue())
    assert image is not None and notes == [("of several frames, the first taken", "")]


def test_pixels_of_16_bits_are_not_channels_of_16():
    """A BMP of 5, 6 and 5 bits."""
    header = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 16, 3, 128, 0, 0, 0, 0) + struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    content = b"BM" + struct.pack("<IHHI", 14 + len(header) + 128, 0, 0, 14 + len(header)) + header + bytes(128)
    assert converted(content, "none")[0].shape == (8, 8, 3)


def test_a_picture_that_would_start_a_program_is_unreadable():
    assert converted(encode(colour(1), "EPS"))[0] is None


def test_pipes_and_sockets_are_never_opened(tmp_path, source, out):
    os.mkfifo(source / "train" / "ant" / "pipe.png")
    os.mkfifo(source / "classes.txt")
    here, there = Path.cwd(), socket.socket(socket.AF_UNIX)
    try:
        os.chdir(source)  # the name of a socket is short
        there.bind("s.png")
    finally:
        os.chdir(here)
        there.close()
    card = folder(source, out)
    assert card.counts == {"train": 6, "validation": 2}
    [(_, files)] = report(out).items()
    assert [name.split(" ")[0] for name in files] == ["classes.txt", "s.png", "train/ant/pipe.png"]
    for name in ("x.npz", "x.tar", "x"):
        os.mkfifo(tmp_path / name)
        refused(tmp_path / name, tmp_path / "out2", match="is no folder and no file")
    os.mkfifo(tmp_path / "labels.npy")
    np.save(tmp_path / "images.npy", np.zeros((2, 8, 8), np.uint8))
    refused(tmp_path / "images.npy", tmp_path / "out2", match="has no labels")


@pytest.mark.parametrize("target", [".", "..", "../bee"])
def test_links_that_show_a_folder_twice_are_refused(tmp_path, target):
    source = put(tmp_path / "in", "ant/1.png", "bee/1.png")
    (source / "ant" / "link").symlink_to(target)
    with pytest.raises(InputError, match=r"is a link to .*: remove it, its pictures would be taken twice"):
        origins.find(source)


def test_a_class_may_be_a_link_to_another_place(tmp_path):
    put(tmp_path, "in/ant/1.png", "elsewhere/1.png")
    (tmp_path / "in" / "bee").symlink_to(tmp_path / "elsewhere")
    assert origins.find(tmp_path / "in")[0]["train"].classes == ("ant", "bee")


def test_a_test_split_of_arrays_may_be_smaller_than_the_classes(tmp_path, out):
    images, labels = np.zeros((200, 8, 8), np.uint8), np.arange(200) % 100
    test = {"test_images": images[:50], "test_labels": labels[50:100]}
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels, **test)
    card = prepare.prepare("arrays", tmp_path / "a.npz", out)
    assert card.counts == {"train": 200, "validation": 50} and len(card.class_names) == 100 and card.complete
    np.savez(tmp_path / "b.npz", train_images=images[:50], train_labels=2 * labels[:50])
    absent = r"train has no picture of 49 of the 99 classes \(1, 3, 5\).*--partial"
    refused(tmp_path / "b.npz", tmp_path / "out2", match=absent, name="arrays")
    assert len(prepare.prepare("arrays", tmp_path / "b.npz", tmp_path / "out2", partial_set=True).class_names) == 99


@pytest.mark.parametrize(
    "names",
    [
        ["notes.txt"], ["parts/wing.stl"], [".draft.tmp"], ["train-images.npy"], ["card.json"], [".lock", "mine.npy"],
        ["parts/train-00000-0123456789ab.npy", "parts/mine.npy"], [".git/config"],
    ],
)  # fmt: skip
def test_a_directory_of_other_files_is_left_alone(tmp_path, out, names):
    source = put(tmp_path / "in", "ant/1.png", "bee/1.png")
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    before = {path: path.is_file() and path.read_bytes() for path in out.rglob("*")}
    refused(source, out, match=r"--out=.* holds .*, which no preparation wrote: choose another --out")
    assert {path: path.is_file() and path.read_bytes() for path in out.rglob("*")} == before


@pytest.mark.parametrize("lock", ["process 7 on here", "", None])
def test_a_killed_preparation_is_known_and_only_its_files_go(tmp_path, out, lock, monkeypatch):
    source = put(tmp_path / "in", "ant/1.png", "bee/1.png")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prepare, "join", mock.Mock(side_effect=KeyboardInterrupt))
        folder(source, out)
    (out / ".lock").unlink() if lock is None else (out / ".lock").write_text(lock)
    left = (".train-images.npy.tmp", ".card.json.0123abcd.tmp", "parts/.train-00000-0123456789ab.npy.0123abcd.tmp")
    for name in left:
        (out / name).write_bytes(b"half")
    card = folder(source, out)
    written = {".lock", "card.json", "report.json", "train-images.npy", "train-labels.npy"}
    assert {path.name for path in out.iterdir()} == written
    for name in ("parts/wing.stl", ".draft.tmp", "README"):  # added to what is finished
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    assert folder(source, out) == card
    assert all((out / name).read_text() == "mine" for name in ("parts/wing.stl", ".draft.tmp", "README"))


def test_out_may_be_in_the_source(tmp_path):
    source = put(tmp_path / "in", "ant/1.png", "bee/1.png")
    card = folder(source, source / "prepared")
    assert card.class_names == ("ant", "bee") and folder(source, source / "prepared") == card


@pytest.fixture
def on_a_folder(tmp_path, tiny):
    """A tiny config on a prepared folder of two classes."""
    folder(tree(tmp_path / "in"), tmp_path / "data" / "insects")
    tiny.data.update(root=str(tmp_path / "data"), name="insects", channels=3, num_classes=2)
    return tiny


@pytest.mark.slow
def test_a_run_keeps_the_card_of_its_data(tmp_path, on_a_folder):
    trainer.train(on_a_folder, tmp_path / "run")
    card = cards.load(tmp_path / "data" / "insects" / "card.json")
    assert configs.load(tmp_path / "run" / "config.json").data.card == card.digest
    assert cards.load(tmp_path / "run" / "data.json") == card
    # the same place with other content
    shutil.rmtree(tmp_path / "data")
    folder(tree(tmp_path / "in2", per_class=4), tmp_path / "data" / "insects")
    on_a_folder.train.num_steps = 6
    with pytest.raises(InputError, match=rf"data\.card: {card.digest} -> "):
        trainer.train(on_a_folder, tmp_path / "run")


def test_a_reference_of_another_resize_is_refused(tmp_path, on_a_folder):
    _, config = sources.load(on_a_folder)
    model = Model(config, None)
    folder(tmp_path / "in", tmp_path / "data" / "insects-adm", resize="adm")
    on_a_folder.data.name = "insects-adm"
    _, other = sources.load(on_a_folder)
    check_same_data(config, model, tmp_path, False)
    with pytest.raises(InputError, match=r"data\.card: .*insects -> insects-adm.*--other_reference"):
        check_same_data(other, model, tmp_path, False)
    check_same_data(other, model, tmp_path, True)
    other.data.num_classes = 3
    with pytest.raises(InputError, match="num_classes"):
        check_same_data(other, model, tmp_path, True)


@pytest.mark.skipif(not SAMPLE.exists(), reason="ilsvrc2012_sample.tar is not in CFG_JAX_ASSETS")
@pytest.mark.slow
def test_imagenet64_trains_from_real_pictures(tmp_path):
    card = prepare.prepare("imagenet64", SAMPLE, tmp_path / "imagenet64-area", resize="area", partial_set=True)
    assert card.counts == {"train": 50} and card.sha256["train"].startswith("c39bb3b9d3f57c88")
    config = imagenet64.get_config()
    config.data.root = str(tmp_path)
    config.model.update(channels=32, multipliers=(1,), num_blocks=1, attention_resolutions=(), head_width=32)
    config.train.update(num_steps=2, batch_size=4, log_every=1)
    trainer.train(config, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["loss"]) for row in rows) and rows[-1]["step"] == 2
