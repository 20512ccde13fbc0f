"""Where pictures come from: a source on disk -> {split: Pictures}. Lists and reads, decodes and extracts nothing."""

import os
import re
import tarfile
import threading
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from cfg_jax.data.pictures import Pictures
from cfg_jax.data.tfds_origin import SPLITS, from_tfds, tfds_directory
from cfg_jax.errors import InputError

ILSVRC_TARS = {"ILSVRC2012_img_train": "train", "ILSVRC2012_img_val": "val"}
ARRAYS = (("train_images", "train_labels", "train"), ("images", "labels", "train"), ("arr_0", "arr_1", "train"),
          ("test_images", "test_labels", "validation"), ("val_images", "val_labels", "validation"))  # fmt: skip


def find(source):
    """Tell by its files what a source is."""
    path = Path(source)
    if not path.exists():
        raise InputError(f"--source={source} does not exist: name a folder, a .tar, an .npz or a .npy")
    if path.suffix in (".npz", ".npy"):
        return arrays(path)
    if path.is_file():
        if not tarfile.is_tarfile(path):
            raise InputError(f"--source={source} is no folder, .tar, .npz or .npy of pictures")
        return by_class(tar_entries(path), source)
    if directory := tfds_directory(path):
        return from_tfds(directory)
    if zips := sorted(path.glob("Imagenet64_*_npz.zip")):
        return zipped_batches(zips)
    tars = sorted(p for p in path.iterdir() if re.search(r"\.(tar|tar\.gz|tgz)$", p.name))
    entries = [entry for tar in tars for entry in tar_entries(tar)] if tars else folder_entries(path)
    return by_class(entries, source)


def by_class(entries, source):
    """[(path, place)] laid out as [.../]train/CLASS/.../FILE, or CLASS/.../FILE where there is no train."""
    has_splits = any("train" in path.split("/")[:-1] for path, _ in entries)
    found = {}
    for path, place in sorted(entries, key=lambda entry: entry[0]):
        *folders, file = path.split("/")
        if has_splits:
            at = next((i for i, folder in enumerate(folders) if folder in SPLITS), None)
            if at is None:
                continue  # a list or a readme beside the splits
            split, folders = SPLITS[folders[at]], folders[at + 1 :]
        else:
            split = "train"
        if not folders and (number := re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", file)):
            folders = [validation_synsets()[int(number[1]) - 1]]
        if folders:
            found.setdefault(split, []).append((path, folders[0], place))
    if "train" not in found:
        raise InputError(f"--source={source} has no pictures: expected train/CLASS/FILE or CLASS/FILE below it")
    return {split: _of_entries(entries) for split, entries in found.items()}


def _of_entries(entries):
    def read(i):
        _, label, place = entries[i]
        if isinstance(place, bytes):
            return place, label
        path, offset, size = place
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size), label

    sizes = [len(place) if isinstance(place, bytes) else place[2] for _, _, place in entries]
    return Pictures([path for path, _, _ in entries], sizes, read)


def folder_entries(root):
    entries = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [name for name in files if not name.startswith(".")]
        if not folders and not files:
            raise InputError(f"{folder} is empty: put the pictures of that class there, or remove it")
        below = Path(folder).relative_to(root)
        for name in files:
            path = os.path.join(folder, name)
            entries.append(((below / name).as_posix(), (path, 0, os.path.getsize(path))))
    return entries


def tar_entries(path):
    """Members as byte ranges of the archive, those of tars within it too; a compressed one is read into memory."""
    prefix = ILSVRC_TARS.get(path.stem)
    prefix = f"{prefix}/" if prefix else ""
    try:
        if path.suffix == ".tar":
            with open(path, "rb") as file:
                return list(_tar_ranges(file, path, prefix))
        with tarfile.open(path) as tar:
            return [(prefix + m.name, tar.extractfile(m).read()) for m in tar if _is_visible_file(m)]
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}): fetch it again") from error


def _tar_ranges(file, path, prefix):
    with tarfile.open(fileobj=file, mode="r:") as tar:
        members = [m for m in tar if _is_visible_file(m)]
    for member in members:
        if member.name.endswith(".tar"):  # ILSVRC2012_img_train.tar holds one for each synset
            file.seek(member.offset_data)
            yield from _tar_ranges(file, path, f"{prefix}{Path(member.name).stem}/")
        else:
            yield prefix + member.name.removeprefix("./"), (path, member.offset_data, member.size)


def _is_visible_file(member):
    return member.isfile() and not Path(member.name).name.startswith(".")


def validation_synsets():
    """The synset of each of ILSVRC2012's 50,000 validation pictures, whose archive has no folders."""
    import tensorflow_datasets as tfds

    return tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()


def arrays(path):
    """An .npz of uint8 images and integer labels under one of the usual names, or images.npy with labels.npy."""
    try:
        if path.suffix == ".npy":
            labels = path.with_name("labels.npy")
            if path.name == labels.name or not labels.exists():
                raise InputError(f"{path} has no labels: put them beside it as labels.npy")
            loaded = {"images": np.load(path, mmap_mode="r"), "labels": np.load(labels)}
        else:
            with np.load(path, allow_pickle=False) as file:
                loaded = {k: file[k] for names in ARRAYS for k in names[:2] if k in file}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}): write it again with numpy, without objects") from error
    found = {}
    for images_name, labels_name, split in ARRAYS:
        if images_name in loaded and labels_name in loaded and split not in found:
            found[split] = _of_arrays(path, loaded[images_name], loaded[labels_name])
    if "train" not in found:
        names = " or ".join(f"{a} and {b}" for a, b, split in ARRAYS if split == "train")
        raise InputError(f"{path} has no training images and labels: call the arrays {names}")
    return found


def _of_arrays(path, images, labels):
    if (
        images.dtype != np.uint8
        or images.ndim not in (3, 4)
        or labels.shape != images.shape[:1]
        or labels.dtype.kind not in "iu"
    ):
        raise InputError(
            f"{path} has images {images.dtype} {images.shape} and labels {labels.dtype} {labels.shape}: "
            "give uint8 [N, H, W] or [N, H, W, C] and integers [N]"
        )
    if labels.min(initial=0) < 0 or not len(labels):
        raise InputError(f"{path} has labels from {labels.min(initial=0)}, N = {len(labels)}: number classes 0..K-1")
    names = [f"{path.name}[{i}]" for i in range(len(labels))]
    stamps = [f"{zlib.crc32(image.tobytes()):08x} {label}" for image, label in zip(images, labels, strict=True)]
    return Pictures(names, stamps, lambda i: (images[i], str(labels[i])))


def zipped_batches(paths):
    """Chrabaszcz et al.'s Imagenet64_*_npz.zip: batches of flat CHW images, labels 1..1000 in their own order."""
    import tensorflow_datasets as tfds

    synsets = tfds.core.tfds_path("image_classification/imagenet_resized_labels.txt").read_text().split()
    lock = threading.Lock()

    @lru_cache(maxsize=2)  # a shard may need the end of one batch and the start of the next
    def batch(path, member):
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(member) as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            labels = arrays["labels"]
            return arrays["data"].reshape(len(labels), 3, 64, 64), labels

    places = {"train": [], "validation": []}
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            members = sorted((m.filename, m.CRC) for m in archive.infolist() if m.filename.endswith(".npz"))
        for member, crc in members:
            count = len(batch(path, member)[1])
            places["validation" if "_val_" in path.name else "train"] += [(path, member, crc, i) for i in range(count)]

    def pictures(places):
        def read(i):
            path, member, _, row = places[i]
            with lock:
                images, labels = batch(path, member)
            return images[row].transpose(1, 2, 0), synsets[labels[row] - 1]

        names = [f"{path.name}/{member}[{row}]" for path, member, _, row in places]
        return Pictures(names, [crc for _, _, crc, _ in places], read)

    return {split: pictures(found) for split, found in places.items() if found}
