"""experiments.prepare_data from every kind of source, interrupted and mistreated."""

import errno
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cfg_jax import config as configs
from cfg_jax.data import array_origin, cards, origins, pipeline, prepare, sources, tfds_origin
from cfg_jax.data.pictures import ORIENTATION
from cfg_jax.errors import InputError
from cfg_jax.sweep.run import check_same_data
from cfg_jax.training import trainer

ROOT = Path(__file__).parents[1]
SAMPLE = Path(os.environ.get("CFG_JAX_ASSETS") or "absent") / "ilsvrc2012_sample.tar"
SYNSETS = [name.split()[0] for name in cards.imagenet_classes()]


def encode(array, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def colour(seed, width=20, height=16):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def tree(root, classes=("ant", "bee"), per_class=3):
    """root/train/CLASS/n.png and root/val/CLASS/n.png."""
    for k, name in enumerate(classes):
        for split, count in (("train", per_class), ("val", 1)):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                (root / split / name / f"{i}.png").write_bytes(encode(colour(100 * k + i + 50 * (split == "val"))))
    return root


def folder(source, out, **kwargs):
    return prepare.prepare("folder", source, out, **{"resize": "area", "size": 8, **kwargs})


def test_a_folder_becomes_arrays_with_a_card(tmp_path):
    source, out = tree(tmp_path / "in"), tmp_path / "set"
    (source / "classes.txt").write_text("ant\tCamponotus\nbee Apis\n")
    card = folder(source, out)
    assert card.class_names == ("ant Camponotus", "bee Apis") and card.counts == {"train": 6, "validation": 2}
    loaded = sources.prepared(out)
    assert loaded.images.shape == (6, 8, 8, 3) and isinstance(loaded.images, np.memmap)
    np.testing.assert_array_equal(loaded.labels, [0, 0, 0, 1, 1, 1])
    from cfg_jax.data.resize import area

    np.testing.assert_array_equal(loaded.images[4], area(Image.fromarray(colour(101)), 8))
    assert loaded.card == card and not (out / "parts").exists()
    assert sources.prepared(out, "validation").images.shape == (2, 8, 8, 3)


def test_tars_and_folders_give_the_same_set(tmp_path):
    source = tree(tmp_path / "in")
    want = folder(source, tmp_path / "a").sha256
    for name, mode in (("all.tar", "w"), ("all.tar.gz", "w:gz")):
        with tarfile.open(tmp_path / name, mode) as tar:
            tar.add(source, arcname=".")
        assert folder(tmp_path / name, tmp_path / f"of-{name}").sha256 == want


def test_two_tars_in_a_folder_are_one_set(tmp_path):
    source = tree(tmp_path / "in")
    (tmp_path / "tars").mkdir()
    for name in ("ant", "bee"):
        with tarfile.open(tmp_path / "tars" / f"{name}.tar.gz", "w:gz") as tar:
            for split in ("train", "val"):
                tar.add(source / split / name, arcname=f"{split}/{name}")
    assert folder(tmp_path / "tars", tmp_path / "a").sha256 == folder(source, tmp_path / "b").sha256


def test_an_archive_cannot_reach_out_of_itself(tmp_path):
    """Members are read where they are and never unpacked: .. and / in a name, and links, lead nowhere."""
    source = tree(tmp_path / "in")
    (tmp_path / "secret.png").write_bytes(next((source / "train" / "ant").iterdir()).read_bytes())
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        tar.add(source, arcname=".")
        for name in ("train/../../../evil/x.png", f"{tmp_path}/train/evil/x.png"):
            add(tar, name, (tmp_path / "secret.png").read_bytes())
        link = tarfile.TarInfo("train/ant/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
        tar.addfile(link)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"no picture of 1 of the 3 classes \(evil\)"):
        folder(tmp_path / "bad.tar", tmp_path / "out")
    assert all(tmp_path / "out" in (p, *p.parents) for p in set(tmp_path.rglob("*")) - before)


def test_a_tar_of_tars_keeps_its_folders(tmp_path):
    source = tree(tmp_path / "in")
    with tarfile.open(tmp_path / "outer.tar", "w") as outer:
        for split in ("train", "val"):
            for name in ("ant", "bee"):
                inner = io.BytesIO()
                with tarfile.open(fileobj=inner, mode="w") as tar:
                    for path in sorted((source / split / name).iterdir()):
                        add(tar, path.name, path.read_bytes())
                add(outer, f"{split}/{name}.tar", inner.getvalue())
    assert folder(tmp_path / "outer.tar", tmp_path / "a").sha256 == folder(source, tmp_path / "b").sha256


@pytest.mark.parametrize("where", ["header", "end", "gzip"])
def test_a_damaged_archive_is_not_taken_for_a_short_one(tmp_path, where):
    source, path = tree(tmp_path / "in"), tmp_path / ("a.tar.gz" if where == "gzip" else "a.tar")
    with tarfile.open(path, "w:gz" if where == "gzip" else "w") as tar:
        tar.add(source, arcname=".")
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
    with pytest.raises(InputError, match=r"is damaged \(.*fetch it again"):
        folder(path, tmp_path / "out")


def test_what_is_in_no_class_is_listed(tmp_path):
    source = tree(tmp_path / "in")
    (source / "train" / "loose.png").write_bytes(encode(colour(1)))
    (source / "cow").mkdir()
    (source / "cow" / "1.png").write_bytes(encode(colour(2)))
    (source / "test" / "ant").mkdir(parents=True)
    (source / "test" / "ant" / "1.png").write_bytes(encode(colour(3)))
    (source / "train" / "ant" / "boxes.txt").write_text("1 2 3 4")
    assert folder(source, tmp_path / "out").counts == {"train": 6, "validation": 2}
    [(kind, files)] = json.loads((tmp_path / "out" / "report.json").read_text()).items()
    assert kind.startswith("of no use")
    assert sorted(files) == ["cow/1.png", "test/ant/1.png", "train/ant/boxes.txt", "train/loose.png"]


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "1.png").write_bytes(encode(colour(1)))
    assert folder(tmp_path / "in", tmp_path / "out").class_names == ("bus", "train")


def test_tiny_imagenet_as_published(tmp_path):
    """A folder deeper, boxes beside the pictures, validation in one heap with a list, a test without labels."""
    root, x = tmp_path / "tiny-imagenet-200", encode(colour(1, 64, 64), "JPEG")
    for synset in ("n02", "n01"):
        (root / "train" / synset / "images").mkdir(parents=True)
        (root / "train" / synset / "images" / f"{synset}_0.JPEG").write_bytes(x)
        (root / "train" / synset / f"{synset}_boxes.txt").write_text("box")
    for split, names in (("val", ("val_0.JPEG", "val_1.JPEG")), ("test", ("test_0.JPEG",))):
        (root / split / "images").mkdir(parents=True)
        for name in names:
            (root / split / "images" / name).write_bytes(x)
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\nval_1.JPEG\tn01\t0\t0\n")
    prepare.prepare("tiny_imagenet", root, tmp_path / "out")
    np.testing.assert_array_equal(sources.prepared(tmp_path / "out").labels, [0, 1])
    np.testing.assert_array_equal(sources.prepared(tmp_path / "out", "validation").labels, [1, 0])
    assert "test/images/test_0.JPEG" in (tmp_path / "out" / "report.json").read_text()


def test_parts_of_another_resize_are_not_taken(tmp_path, monkeypatch):
    """Killed under one resize, then under another, then finished under the first: as if never interrupted."""
    source, out = tree(tmp_path / "in"), tmp_path / "out"
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


def test_the_original_ilsvrc_tars(tmp_path):
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
    with pytest.raises(InputError, match=r"2 train pictures, the whole set 1,281,167.*--partial"):
        prepare.prepare("imagenet64", tmp_path / "in", tmp_path / "out", resize="area")
    card = prepare.prepare("imagenet64", tmp_path / "in", tmp_path / "out", resize="area", partial_set=True)
    assert not card.complete and len(card.class_names) == 1000 and card.class_names[0] == "n01440764 tench"
    np.testing.assert_array_equal(sources.prepared(tmp_path / "out").labels, [0, 999])
    first = SYNSETS.index(origins.validation_synsets()[0])  # published: the first validation picture is class 65
    assert first == 65 and sources.prepared(tmp_path / "out", "validation").labels == [65]


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def test_strange_pictures_are_handled_and_listed(tmp_path):
    source = tree(tmp_path / "in")
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
    folder(source, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report == {
        "transparent, put on white": ["train/ant/clear.png"],
        "of mode CMYK, made RGB": ["train/ant/cmyk.jpg"],
        "of mode L, made RGB": ["train/ant/grey.jpg"],
        "smaller than asked, enlarged": ["train/ant/small.png"],
        "rotated by EXIF, turned upright": ["train/ant/turned.png"],
    }
    images = dict(
        zip(sorted(p.name for p in here.glob("[!.]*")), sources.prepared(tmp_path / "out").images, strict=False)
    )
    assert (images["clear.png"] == 255).all()
    np.testing.assert_array_equal(images["turned.png"], images["upright.png"])
    assert np.ptp(images["grey.jpg"], axis=-1).max() == 0


@pytest.fixture
def damaged(tmp_path):
    source = tree(tmp_path / "in")
    here = source / "train" / "ant"
    whole = encode(colour(6, 64, 64), "JPEG")
    (here / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (here / "notes.png").write_text("no picture")
    (here / "deep.png").write_bytes(encode(colour(7)[..., 0].astype(np.uint16)))
    return source, here, whole


def test_unreadable_files_are_listed_and_nothing_is_finished(tmp_path, damaged):
    source, here, whole = damaged
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"3 files cannot be read.*report\.json.*--skip_unreadable"):
        folder(source, out)
    assert not (out / "card.json").exists()
    unreadable = json.loads((out / "report.json").read_text())["unreadable"]
    assert [line.split(":")[0] for line in unreadable] == [
        f"train/ant/{n}" for n in ("cut.jpg", "deep.png", "notes.png")
    ]
    card = folder(source, out, skip_unreadable=True)
    assert card.left_out == 3 and card.counts["train"] == 6
    (here / "cut.jpg").write_bytes(whole)  # mended: it is taken up, and the rest may go
    (here / "deep.png").unlink()
    (here / "notes.png").unlink()
    shutil.rmtree(out)
    assert folder(source, out).counts["train"] == 7


def test_a_mended_file_is_read_again_by_the_second_run(tmp_path, damaged):
    source, here, whole = damaged
    with pytest.raises(InputError):
        folder(source, tmp_path / "out")
    (here / "cut.jpg").write_bytes(whole)
    (here / "deep.png").write_bytes(whole)
    (here / "notes.png").write_bytes(whole)
    assert folder(source, tmp_path / "out").counts["train"] == 9


def test_a_damaged_part_is_made_again(tmp_path, damaged):
    source, here, _ = damaged
    with pytest.raises(InputError):
        folder(source, tmp_path / "out")
    for path in (here / "cut.jpg", here / "notes.png", here / "deep.png"):
        path.unlink()
    [images] = (tmp_path / "out" / "parts").glob("validation-*.npy")
    images.write_bytes(images.read_bytes()[:-9])
    for notes in (tmp_path / "out" / "parts").glob("train-*.json"):
        notes.write_text(notes.read_text()[:9])
    assert folder(source, tmp_path / "out").sha256 == folder(source, tmp_path / "clean").sha256


def test_a_file_mended_at_equal_size_is_read_again(tmp_path):
    source = tree(tmp_path / "in")
    path = source / "train" / "bee" / "1.png"
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    with pytest.raises(InputError, match="1 files cannot be read"):
        folder(source, tmp_path / "out")
    path.write_bytes(whole)
    assert folder(source, tmp_path / "out").counts["train"] == 6


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: shutil.rmtree(s), "does not exist"),
        (lambda s: [shutil.rmtree(p) for p in s.iterdir()], "is empty"),
        (lambda s: [p.unlink() for p in (s / "train" / "bee").iterdir()], "train/bee is empty"),
        (lambda s: shutil.rmtree(s / "val" / "bee"), "validation has no picture of 1 of the 2 classes (bee)"),
        (lambda s: (s / "val" / "bee").rename(s / "val" / "cow"), "validation has classes that are none of this set's"),
        (
            lambda s: [shutil.rmtree(s / t / "bee") for t in ("train", "val")],
            "one class, ant, and guidance needs two or more: name the folder",
        ),
        (lambda s: tarfile.open(s / "x.tar", "w").close(), "has folders and archives (x.tar)"),
        (lambda s: (s / "classes.txt").write_bytes(b"ant \xe9"), "is not UTF-8"),
        (lambda s: (s / "train" / "bee").rename(s / "train" / "\u00b2"), "validation has classes that are none"),
        (lambda s: (shutil.rmtree(s), s.write_text("x")), "is no folder, .tar, .npz or .npy"),
        (lambda s: (shutil.rmtree(s), s.with_suffix(".tar").write_bytes(b"x")), "does not exist"),
    ],
)
def test_a_bad_source_is_one_line(tmp_path, spoil, said):
    source = tree(tmp_path / "in")
    spoil(source)
    with pytest.raises(InputError) as error:
        folder(source, tmp_path / "out")
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out" / "card.json").exists()


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
    ("arrays", "said"),
    [
        ({"images": np.zeros((3, 8, 8, 3), np.float32), "labels": np.arange(3)}, "float32"),
        ({"images": np.zeros((3, 8, 8, 3), np.uint8), "labels": np.arange(2)}, "labels int64 (2,)"),
        (
            {"images": np.zeros((3, 8, 8, 3), np.uint8), "labels": np.array([0, 2, 2])},
            "no picture of 1 of the 3 classes (1)",
        ),
        ({"images": np.zeros((3, 8, 8, 3), np.uint8), "labels": np.array([0, -1, 1])}, "number classes 0..K-1"),
        ({"images": np.zeros((3, 8, 8, 4), np.uint8), "labels": np.arange(3)}, "images of 4 channels"),
        ({"images": np.zeros((3, 8, 8), np.uint8), "labels": np.array([0, 1, 20_000_000])}, "labels 0..20000000 on 3"),
        ({"x": np.zeros(3)}, "call the arrays train_images and train_labels"),
        ({"images": np.array([{}], object), "labels": np.arange(1)}, "cannot be read"),
    ],
)
def test_bad_arrays_are_one_line(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError) as error:
        prepare.prepare("arrays", tmp_path / "a.npz", tmp_path / "out")
    assert said in str(error.value)


def test_chrabaszcz_zips_are_mapped_to_the_standard_labels(tmp_path):
    """Label 1 of these files is n02119789, 278 in the standard order."""
    (tmp_path / "in").mkdir()
    flat = np.random.default_rng(0).integers(0, 256, (2, 3 * 64 * 64), np.uint8)
    for name, rows in (("train_part1", 2), ("train_part2", 1), ("val", 1)):
        buffer = io.BytesIO()
        np.savez(buffer, data=flat[:rows], labels=np.array([1, 1000][:rows]))
        with zipfile.ZipFile(tmp_path / "in" / f"Imagenet64_{name}_npz.zip", "w") as archive:
            archive.writestr("batch.npz", buffer.getvalue())
    prepare.prepare("imagenet_resized", tmp_path / "in", tmp_path / "out", partial_set=True)
    loaded = sources.prepared(tmp_path / "out")
    np.testing.assert_array_equal(loaded.images[1], flat[1].reshape(3, 64, 64).transpose(1, 2, 0))
    assert loaded.labels[0] == loaded.labels[2] == SYNSETS.index("n02119789") == 278
    assert len(sources.prepared(tmp_path / "out", "validation")) == 1


def test_a_tensorflow_datasets_directory_without_tensorflow(tmp_path):
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
    card = prepare.prepare("tfds", tmp_path / "tfds", tmp_path / "out", resize="none", size=8)
    assert card.class_names == ("n01440764", "n02119789") and card.counts == {"train": 6, "validation": 2}
    loaded = sources.prepared(tmp_path / "out")
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


def test_a_finished_set_is_not_made_again(tmp_path, monkeypatch):
    source, out = tree(tmp_path / "in"), tmp_path / "out"
    card = folder(source, out)
    monkeypatch.setattr(prepare, "convert", None)
    assert folder(source, out) == card
    with pytest.raises(InputError, match="choose another --out"):
        folder(source, out, resize="adm")


@pytest.mark.parametrize("spoil", ["image", "card format", "card cut", "labels gone"])
def test_a_damaged_or_older_set_is_refused_and_made_again(tmp_path, spoil):
    source, out = tree(tmp_path / "in"), tmp_path / "out"
    card = folder(source, out)
    if spoil == "image":
        content = bytearray((out / "train-images.npy").read_bytes())
        content[200] ^= 1
        (out / "train-images.npy").write_bytes(content)
    elif spoil == "card cut":
        (out / "card.json").write_text((out / "card.json").read_text()[:100])
        with pytest.raises(InputError, match="is no data card"):
            sources.prepared(out)
    elif spoil == "labels gone":
        (out / "train-labels.npy").unlink()
        with pytest.raises(InputError, match="is damaged"):
            sources.prepared(out)
    else:
        values = json.loads((out / "card.json").read_text())
        (out / "card.json").write_text(json.dumps({**values, "format": 0}))
        with pytest.raises(InputError, match=r"format 0, this version reads 1: run experiments\.prepare_data again"):
            sources.prepared(out)
    assert folder(source, out) == card
    assert sources.prepared(out).card == card


def test_another_picture_of_the_same_name_is_another_set(tmp_path):
    images, labels = np.stack([colour(i, 8, 8) for i in range(4)]), np.array([0, 1, 0, 1])
    for changed in (images, labels):
        np.savez(tmp_path / "a.npz", images=images, labels=labels)
        prepare.prepare("arrays", tmp_path / "a.npz", tmp_path / "out")
        changed[:2] = changed[1::-1].copy()
        np.savez(tmp_path / "a.npz", images=images, labels=labels)
        with pytest.raises(InputError, match="of other files, settings or flags"):
            prepare.prepare("arrays", tmp_path / "a.npz", tmp_path / "out")
        shutil.rmtree(tmp_path / "out")


def test_a_card_changed_by_hand_is_refused(tmp_path):
    folder(tree(tmp_path / "in"), tmp_path / "out")
    text = (tmp_path / "out" / "card.json").read_text()
    for old, new in (('"area"', '"adm"'), ("pictures' own", "MIT"), ('"validation": 2', '"validation": 1')):
        assert old in text
        (tmp_path / "out" / "card.json").write_text(text.replace(old, new))
        with pytest.raises(InputError, match="changed by hand"):
            sources.prepared(tmp_path / "out")
    (tmp_path / "out" / "card.json").write_text(text.replace('"train"', '"tarin"'))
    with pytest.raises(InputError, match="is no data card"):
        sources.prepared(tmp_path / "out")


def test_labels_that_are_none_are_refused(tmp_path):
    folder(tree(tmp_path / "in"), tmp_path / "out")
    for labels in (np.array([0, 0, 0, 1, 1, 2], np.int32), np.zeros(6, np.int64)):
        np.save(tmp_path / "out" / "train-labels.npy", labels)
        with pytest.raises(InputError, match="is not what its card says"):
            sources.prepared(tmp_path / "out")


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    source, out = tree(tmp_path / "in", per_class=6), tmp_path / "out"
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


def test_too_small_a_disk_is_said_beforehand(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(InputError, match=r"needs 0\.00 GB more.*make room"):
        folder(tree(tmp_path / "in"), tmp_path / "out")


def test_two_at_once(tmp_path):
    source = tree(tmp_path / "in")
    with prepare.only_one(tmp_path / "out"), pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
        folder(source, tmp_path / "out")
    folder(source, tmp_path / "out")


CHILD = """
import sys
from cfg_jax.data import prepare
prepare.PART = 4
prepare.prepare("folder", sys.argv[1], sys.argv[2], resize="adm", size=32, workers=2)
"""


def test_killed_at_random_it_ends_with_the_same_content(tmp_path):
    source, out = tree(tmp_path / "in", per_class=150), tmp_path / "out"
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


@pytest.fixture
def on_a_folder(tmp_path, tiny):
    """A tiny config on a prepared folder of two classes."""
    folder(tree(tmp_path / "in"), tmp_path / "data" / "insects")
    tiny.data.update(root=str(tmp_path / "data"), name="insects", channels=3, num_classes=2)
    return tiny


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
    from cfg_jax.sampling.model import Model

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
def test_imagenet64_trains_from_real_pictures(tmp_path):
    from configs import imagenet64

    card = prepare.prepare("imagenet64", SAMPLE, tmp_path / "imagenet64-area", resize="area", partial_set=True)
    assert card.counts == {"train": 50} and card.sha256["train"].startswith("c39bb3b9d3f57c88")
    config = imagenet64.get_config()
    config.data.root = str(tmp_path)
    config.model.update(channels=32, multipliers=(1,), num_blocks=1, attention_resolutions=(), head_width=32)
    config.train.update(num_steps=2, batch_size=4, log_every=1)
    trainer.train(config, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["loss"]) for row in rows) and rows[-1]["step"] == 2
