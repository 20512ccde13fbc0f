"""Data sets by name, whole in memory: uint8 images [N, H, W, C], int32 labels [N], class names."""

from dataclasses import dataclass

import numpy as np

from cfg_jax.errors import InputError


@dataclass(frozen=True)
class Source:
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return {"image": self.images[i], "label": self.labels[i]}


def digits():
    """scikit-learn's 1,797 handwritten digits (UCI, 43 writers), 8x8, 17 grey levels stretched to 0..255."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]
    return Source(images, data.target.astype(np.int32), tuple(str(name) for name in data.target_names))


def synthetic(image_size, channels, num_classes, size=256):
    """Uniform noise with labels in turn: for benchmarks and smoke runs of the big configs."""
    images = np.random.default_rng(0).integers(0, 256, (size, image_size, image_size, channels), np.uint8)
    return Source(images, np.arange(size, dtype=np.int32) % num_classes, tuple(map(str, range(num_classes))))


def load(data):
    """The source a `config.data` describes, checked against it."""
    if data.name == "digits":
        source = digits()
    elif data.name == "synthetic":
        source = synthetic(data.image_size, data.channels, data.num_classes)
    else:
        raise InputError(f"config.data.name={data.name!r} is unknown: choose digits or synthetic")
    check(source, data)
    return source


def check(source, data):
    """Refuse a source that is not what the config says, before anything is compiled."""
    shape = (data.image_size, data.image_size, data.channels)
    if source.images.shape[1:] != shape:
        raise InputError(
            f"config.data says images of {shape}, {data.name} has {source.images.shape[1:]}: "
            "set config.data.image_size and config.data.channels to match"
        )
    low, high = int(source.labels.min()), int(source.labels.max())
    if low < 0 or high >= data.num_classes:
        raise InputError(
            f"{data.name} has labels {low}..{high}, config.data.num_classes={data.num_classes} allows "
            f"0..{data.num_classes - 1}: set config.data.num_classes={high + 1} or mend the labels"
        )
