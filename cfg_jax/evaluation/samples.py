"""Samples in ADM's .npz, read and written a batch at a time: arr_0 uint8 [N, H, W, C], arr_1 labels [N]."""

import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cfg_jax.errors import InputError

BATCH = 500


@dataclass(frozen=True)
class Samples:
    """A file of images that are read as they are asked for."""

    path: Path
    shape: tuple[int, ...]  # N, H, W, C
    labels: np.ndarray | None  # int [N], where the file has them

    def batches(self) -> Iterator[np.ndarray]:
        """Yield uint8 [n, H, W, C] in order, n up to BATCH. Raises InputError where the file is damaged."""
        with _open(self.path) as (_, _, read):
            for begin in range(0, self.shape[0], BATCH):
                try:
                    batch = read(min(BATCH, self.shape[0] - begin))
                except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                    raise InputError(
                        f"{self.path} is damaged after {begin} images ({error}): fetch it again"
                    ) from error
                yield batch.reshape(len(batch), *self.shape[1:])


def load(path: str | Path) -> Samples:
    """Open an .npz (arr_0, arr_1) or an .npy. Raises InputError where it does not hold uint8 images."""
    path = Path(path)
    try:
        with _open(path) as (shape, dtype, read):
            first = read(min(BATCH, shape[0])) if shape and shape[0] else np.zeros(0, dtype)
        labels = None
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                labels = next((file[name] for name in ("arr_1", "labels") if name in file), None)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}): give an .npz with arr_0, or an .npy, of images") from error
    if dtype.kind == "f":
        bad = "NaN" if np.isnan(first).any() else f"{dtype} from {first.min():.3g} to {first.max():.3g}"
        raise InputError(f"{path} holds {bad}: give uint8 images 0..255, as they would be published")
    shape = (*shape, 1) if len(shape) == 3 else shape
    if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or not shape[0]:
        raise InputError(f"{path} holds {dtype} {shape}: give uint8 images [N, H, W, 1 or 3]")
    if labels is not None and (labels.shape != shape[:1] or labels.dtype.kind not in "iu"):
        raise InputError(f"{path} has labels {labels.dtype} {labels.shape} for {shape[0]} images: give integers [N]")
    return Samples(path, shape, labels)


@contextmanager
def _open(path):
    """(shape, dtype, read(n) -> the next n images) of an .npy, or of arr_0 of an .npz, none of it in memory."""
    if path.suffix == ".npz":
        archive = zipfile.ZipFile(path)
        file = archive.open("arr_0.npy" if "arr_0.npy" in archive.namelist() else archive.namelist()[0])
    else:
        archive, file = None, open(path, "rb")  # noqa: SIM115 closed below
    try:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(file)
        if fortran or dtype.hasobject:
            raise ValueError("its array is of objects, or in Fortran's order")

        def read(n):
            content = file.read(n * int(np.prod(shape[1:])) * dtype.itemsize)
            return np.frombuffer(content, dtype).reshape(n, *shape[1:])

        yield shape, dtype, read
    finally:
        file.close()
        if archive:
            archive.close()


@contextmanager
def writer(path: str | Path, shape: tuple[int, ...], labels: np.ndarray) -> Iterator[Callable[[np.ndarray], object]]:
    """Yield write(uint8 [n, H, W, C]), to be called until `shape` (N, H, W, C) is full.

    The file appears when the block ends, and not at all where it raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left_over in path.parent.glob(f".{path.name}.*.tmp"):  # of a job that was killed; the path is ours
        left_over.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            with archive.open("arr_0.npy", "w", force_zip64=True) as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
                np.lib.format.write_array_header_1_0(file, header)
                yield lambda batch: file.write(np.ascontiguousarray(batch).tobytes())
            with archive.open("arr_1.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(labels, np.int64))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
