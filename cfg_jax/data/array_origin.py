"""Pictures that are stored as numpy arrays."""

import threading
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from cfg_jax.data.pictures import Pictures
from cfg_jax.errors import InputError, installed, require
from cfg_jax.inputs import arrays as npz
from cfg_jax.inputs import check_file, npy, reading, zip_file

# {split: the names that its images and labels may have}
ARRAYS = {
    "train": (("train_images", "train_labels"), ("images", "labels"), ("arr_0", "arr_1")),
    "validation": (("test_images", "test_labels"), ("val_images", "val_labels")),
}


def arrays(path: Path) -> dict[str, Pictures]:
    """Return {split: Pictures} of an .npz with array names of ARRAYS, or of an .npy and its labels.npy.

    Images are uint8 [N, H, W] or [N, H, W, C], labels are integers [N]. Raises InputError for any others.
    """
    if path.suffix == ".npy":
        labels = path.with_name("labels.npy")
        labelled = path.name != labels.name and labels.is_file()
        require(labelled, f"{path} has no labels: put them beside it as labels.npy")
        loaded = {"images": npy(path, mmap=True), "labels": npy(labels)}
    else:
        known = {name for pairs in ARRAYS.values() for pair in pairs for name in pair}
        large = "fetch it again, or give a large one as an .npy with its labels.npy, which stay on the disk"
        with reading(path, "cannot be read", large), npz(path) as file:
            loaded = {name: file[name] for name in known.intersection(file)}
    splits = {}
    for split, pairs in ARRAYS.items():
        if pair := next((pair for pair in pairs if loaded.keys() >= set(pair)), None):
            splits[split] = _checked(path, *(loaded[name] for name in pair))
    names = " or ".join(map(" and ".join, ARRAYS["train"]))
    require("train" in splits, f"{path} has no training images and labels: call the arrays {names}")
    return splits


def _checked(path, images, labels):
    uint8 = images.dtype == np.uint8 and images.ndim in (3, 4)
    require(
        uint8 and labels.shape == images.shape[:1] and labels.dtype.kind in "iu",
        f"{path} has images {images.dtype} {images.shape} and labels {labels.dtype} {labels.shape}: "
        "give uint8 [N, H, W] or [N, H, W, C] and integers [N]",
    )
    channels = images.shape[3] if images.ndim == 4 else 1
    require(channels in (1, 3), f"{path} has images of {channels} channels: give 1 (grey) or 3 (RGB)")
    require(len(labels), f"{path} has a split without images: leave its arrays out")
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < 2**16:  # a split may have fewer pictures than there are classes
        raise InputError(f"{path} has labels {low}..{high} on {len(labels)} images: number classes 0..K-1")
    names = [f"{path.name}[{i}]" for i in range(len(labels))]
    stamps = [f"{zlib.crc32(image.tobytes()):08x} {label}" for image, label in zip(images, labels, strict=True)]
    classes = [str(label) for label in labels]
    return Pictures(names, stamps, classes, lambda i: (images[i], classes[i]))


def zipped_batches(paths: Iterable[Path]) -> dict[str, Pictures]:
    """Return {split: Pictures} of Chrabaszcz et al.'s Imagenet64_*_npz.zip, with synsets as classes.

    Their batches have flat CHW images, and labels 1..1000 in another order than the standard one.
    """
    tfds = installed("tensorflow_datasets", extra="tfds")

    synsets = tfds.core.tfds_path("image_classification/imagenet_resized_labels.txt").read_text().split()
    lock = threading.Lock()

    @lru_cache(maxsize=2)  # a part may need the end of one batch and the start of the next
    def batch(path, member):
        with zip_file(path) as archive, archive.open(member) as file, npz(file, path) as batch:
            images, labels = batch["data"], batch["labels"]
        if not 1 <= labels.min() <= labels.max() <= len(synsets):
            raise ValueError(f"{member} has labels {labels.min()}..{labels.max()}, not 1..{len(synsets)}")
        return images.reshape(len(labels), 3, 64, 64), labels

    places = {"train": [], "validation": []}
    for path in paths:
        check_file(path)
        with zip_file(path) as archive:
            members = sorted((m.filename, m.CRC) for m in archive.infolist() if m.filename.endswith(".npz"))
        for member, crc in members:
            places["validation" if "_val_" in path.name else "train"] += [
                (path, member, crc, row, synsets[label - 1]) for row, label in enumerate(batch(path, member)[1])
            ]

    def pictures(places):
        def read(i):
            path, member, _, row, label = places[i]
            with lock:
                images, _ = batch(path, member)
            return images[row].transpose(1, 2, 0), label

        names = [f"{path.name}/{member}[{row}]" for path, member, _, row, _ in places]
        return Pictures(names, [crc for _, _, crc, _, _ in places], [label for *_, label in places], read)

    return {split: pictures(rows) for split, rows in places.items() if rows}
