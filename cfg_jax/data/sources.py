"""Data sets by name: uint8 images [N, H, W, C], int32 labels [N], and a card that describes them."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cfg_jax.config import image_shape
from cfg_jax.data import cards
from cfg_jax.errors import require
from cfg_jax.inputs import npy, reading


@dataclass(frozen=True)
class Source:
    images: np.ndarray  # in memory, or mapped from disk
    labels: np.ndarray
    card: cards.Card

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i) -> dict:
        return {"image": self.images[i], "label": self.labels[i]}


def digits() -> Source:
    """Return scikit-learn's 1,797 handwritten digits of 8x8 (UCI, 43 writers), 17 grey levels stretched to 0..255."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]
    origin = "scikit-learn: UCI optical recognition of handwritten digits, its test set"
    return in_memory("digits", images, data.target, map(str, data.target_names), source=origin, licence="CC BY 4.0")


def synthetic(image_size: int, channels: int, num_classes: int) -> Source:
    """Return 256 images of uniform noise with labels in turn, for benchmarks and smoke runs of the big configs."""
    images = np.random.default_rng(0).integers(0, 256, (256, image_size, image_size, channels), np.uint8)
    num_classes = max(1, num_classes)
    labels = np.arange(len(images)) % num_classes
    return in_memory("synthetic", images, labels, map(str, range(num_classes)), source="numpy", licence="none")


def in_memory(
    name: str, images: np.ndarray, labels: np.ndarray, class_names: Iterable[str], *, source: str, licence: str
) -> Source:
    """Return a source of training images uint8 [N, H, W, C] and labels [N], with a new card."""
    labels = labels.astype(np.int32)
    sha256 = {"train": hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()}
    card = cards.Card(
        name, source, licence, tuple(class_names), images.shape[1:], "none", {"train": len(labels)}, sha256, "itself"
    )
    return Source(images, labels, card)


def prepared(directory: str | Path, split: str = "train") -> Source:
    """Return the data set that experiments.prepare_data wrote. The images stay on disk until they are read.

    Raises InputError if the directory is no data set, is damaged, or differs from its card.
    """
    directory = Path(directory)
    require(
        (directory / "card.json").exists(),
        f"config.data: {directory} is no prepared data set: make it with experiments.prepare_data "
        f"--out={directory}, or set config.data.root and config.data.name (or digits, synthetic) to what is there",
    )
    card = cards.load(directory / "card.json")
    require(split in card.counts, f"{directory} has no {split} pictures: choose one of {', '.join(card.counts)}")
    again = "run its experiments.prepare_data again"
    with reading(path := directory / f"{split}-images.npy", "is damaged", again):
        images = npy(path, mmap=True)
    with reading(path := directory / f"{split}-labels.npy", "is damaged", again):
        labels = npy(path)
    shaped = images.shape == (card.counts[split], *card.image_shape) and labels.shape == images.shape[:1]
    right = shaped and images.dtype == np.uint8 and labels.dtype == np.int32
    right = right and len(labels) and 0 <= labels.min() <= labels.max() < len(card.class_names)
    require(right, f"{directory} is not what its card says: run its experiments.prepare_data again")
    return Source(images, labels, card)


def load(config: ConfigDict) -> tuple[Source, ConfigDict]:
    """Return the source that config.data describes, and a copy of the config with the digest of its card.

    Raises InputError if the source differs from the config.
    """
    data = config.data
    if data.name == "digits":
        source = digits()
    elif data.name == "synthetic":
        source = synthetic(data.image_size, data.channels, data.num_classes)
    else:
        source = prepared(Path(data.root) / data.name)
    check(source, data)
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.data.card = source.card.digest
    return source, config


def check(source: Source, data: ConfigDict) -> None:
    """Raise InputError, before anything is compiled, if the source differs from config.data."""
    shape, num_classes = image_shape(data), len(source.card.class_names)
    require(
        source.images.shape[1:] == shape,
        f"config.data says images of {shape}, {data.name} has {source.images.shape[1:]}: "
        "set config.data.image_size and config.data.channels to match",
    )
    require(
        data.num_classes in (0, num_classes),  # 0: unconditional
        f"{data.name} has {num_classes} classes, config.data.num_classes={data.num_classes}: "
        f"set config.data.num_classes={num_classes}",
    )
    require(
        data.get("card") in (None, source.card.digest),
        f"{data.name} is of card {source.card.digest}, config.data.card={data.get('card')} asks for other content: "
        "name the set it was trained on, or start a new workdir",
    )
