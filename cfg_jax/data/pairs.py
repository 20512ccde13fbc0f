"""Pairs of noise and the image that a run's probability-flow ODE draws from it, to train rectified flow on.

Liu et al. 2023. A pair is (x, z_1) with z_1 ~ N(0, I) at the noisy end of the grid, and the label of the draw.
"""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from cfg_jax.errors import InputError, require
from cfg_jax.files import digest, write_npz


@dataclass(frozen=True)
class Pairs:
    images: np.ndarray  # float32 [N, H, W, 2 C]: x, then its noise
    labels: np.ndarray  # int32 [N], the null label for a draw without a label

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of x."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels // 2

    @property
    def digest(self) -> str:
        return digest(self.images, self.labels)


def write(path: str | Path, pairs: Pairs) -> None:
    write_npz(path, {"images": pairs.images, "labels": pairs.labels})


def read(path: str | Path) -> Pairs:
    """Return the pairs in a file. Raises InputError if it has none."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            pairs = Pairs(file["images"], file["labels"])
    except (OSError, ValueError, KeyError, IndexError, EOFError, TypeError, AttributeError, BadZipFile) as error:
        raise InputError(f"{path} holds no pairs ({error}): make them with experiments.reflow") from error
    images, labels = pairs.images, pairs.labels
    floats = images.dtype == np.float32 and images.ndim == 4
    are_pairs = floats and images.shape[-1] % 2 == 0 and labels.shape == images.shape[:1]
    require(are_pairs, f"{path} holds no pairs: make them with experiments.reflow")
    return pairs
