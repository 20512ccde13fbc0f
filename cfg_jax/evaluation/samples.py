"""Samples in ADM's .npz, read and written a batch at a time: arr_0 uint8 [N, H, W, C], arr_1 labels [N]."""

import logging
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cfg_jax.errors import InputError, require
from cfg_jax.files import whole_file
from cfg_jax.inputs import arrays, check_size, npy_header, reading

BATCH = 500
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """A file of images, which are read when they are needed."""

    path: Path
    shape: tuple[int, ...]  # N, H, W, C
    labels: np.ndarray | None  # int [N], if the file has them

    def batches(self) -> Iterator[np.ndarray]:
        """Yield uint8 [n, H, W, C] in order, n up to BATCH. Raises InputError if the file is damaged."""
        with _open(self.path) as (_, _, read):
            for begin in range(0, self.shape[0], BATCH):
                with reading(self.path, f"is damaged after {begin} images", "fetch it again"):
                    batch = read(min(BATCH, self.shape[0] - begin))
                yield batch.reshape(len(batch), *self.shape[1:])


def load(path: str | Path) -> Samples:
    """Open an .npz (arr_0, arr_1) or an .npy. Raises InputError if it does not hold uint8 images."""
    path = Path(path)
    with reading(path, "cannot be read", "give an .npz with arr_0, or an .npy, of images"):
        with _open(path) as (shape, dtype, read):
            first = read(min(BATCH, shape[0])) if shape and shape[0] else np.zeros(0, dtype)
        labels = None
        if path.suffix == ".npz":
            with arrays(path) as file:
                labels = next((file[name] for name in ("arr_1", "labels") if name in file), None)
    if dtype.kind == "f":
        bad = f"{dtype} from {first.min():.3g} to {first.max():.3g}" if first.size else f"{dtype} {shape}"
        bad = "NaN" if np.isnan(first).any() else bad
        raise InputError(f"{path} holds {bad}: give uint8 images 0..255, as they would be published")
    shape = (*shape, 1) if len(shape) == 3 else shape
    are_images = dtype == np.uint8 and len(shape) == 4 and shape[3] in (1, 3) and first.size
    require(are_images, f"{path} holds {dtype} {shape}: give uint8 images [N, H, W, 1 or 3]")
    if labels is not None and (labels.shape != shape[:1] or labels.dtype.kind not in "iu"):
        raise InputError(f"{path} has labels {labels.dtype} {labels.shape} for {shape[0]} images: give integers [N]")
    few = np.unique(first)
    if len(few) == 1 or (first == first[:1]).all():
        log.warning("%s: its first %d images are all equal, and a score of them means little", path, len(first))
    elif few[-1] <= 1:
        log.warning("%s holds only 0 and 1, and images are 0..255: were they scaled to 255?", path)
    return Samples(path, shape, labels)


@contextmanager
def _open(path):
    """Yield (shape, dtype, read) of an .npy, or of arr_0 of an .npz. read(n) returns the next n images."""
    with ExitStack() as stack:
        if path.suffix == ".npz":
            members = stack.enter_context(arrays(path))
            name = "arr_0" if "arr_0" in members else next(iter(members), "arr_0")
            file, size = stack.enter_context(members.open(name)), members.size(name)
        else:
            file, size = stack.enter_context(open(path, "rb")), path.stat().st_size
        shape, fortran, dtype = npy_header(file, size)
        if fortran:
            raise ValueError("its array is in Fortran's order")

        def read(n):
            wanted = n * math.prod(shape[1:]) * dtype.itemsize
            check_size(wanted)
            content = file.read(wanted)
            return np.frombuffer(content, dtype).reshape(n, *shape[1:])

        yield shape, dtype, read


@contextmanager
def writer(path: str | Path, shape: tuple[int, ...], labels: np.ndarray) -> Iterator[Callable[[np.ndarray], object]]:
    """Yield write(uint8 [n, H, W, C]), to be called until `shape` (N, H, W, C) is full.

    The file appears when the block ends. If the block raises, no file appears.
    """
    path = Path(path)
    for left_over in path.parent.glob(f".{path.name}.*.tmp"):  # of a job that was killed
        left_over.unlink(missing_ok=True)
    with whole_file(path) as whole, zipfile.ZipFile(whole, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
            np.lib.format.write_array_header_1_0(file, header)
            yield lambda batch: file.write(np.ascontiguousarray(batch).tobytes())
        with archive.open("arr_1.npy", "w") as file:
            np.lib.format.write_array(file, np.asarray(labels, np.int64))
