"""Files that are read: each is of its kind, and of a size that fits, or is refused in one line before it is read.

Whatever a library raises for a file that is damaged, hostile or of another kind becomes one InputError: `reading`.
"""

import csv
import json
import logging
import math
import os
import stat
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from types import UnionType
from typing import IO, Any, get_args

import numpy as np
from PIL import Image

from cfg_jax.errors import InputError, require

MOST = 3_000_000_000  # bytes that are read at once; ADM's largest reference and its largest checkpoint have 2.2e9
MOST_JSON = 50_000_000  # bytes, which take up to 2 GB as objects
DEEPEST = 50  # objects and lists within one another; what this code writes has 6 at most
MOST_PIXELS = 1 << 26  # of one picture, and of all that are decoded at once; ImageNet's largest has 6.1e7
SMALL = 1 << 20  # pixels; such pictures wait for no others
LFS = b"version https://git-lfs"
# {how a file begins: what compressed it}; a zip is told by its own reader
COMPRESSED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x9d": "compress", b"LZIP": "lzip", b"7z\xbc\xaf\x27\x1c": "7-zip", b"Rar!": "rar",
}  # fmt: skip
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)  # that Python unpacks
METHODS = {9: "deflate64", 93: "zstd", 95: "xz", 98: "ppmd"}  # that it does not
KINDS = {
    int: "a whole number", float: "a finite number", str: "a text", bool: "true or false", dict: "an object",
    list: "a list", tuple: "a list", type(None): "null",
}  # fmt: skip
# what Pillow says of a picture that is damaged or large is in the report of what could not be read
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


@contextmanager
def reading(path: str | Path, what: str, remedy: str, most: float = math.inf) -> Iterator[None]:
    """Check that a file has up to `most` bytes. An error, also of the block, becomes "PATH what (reason): remedy"."""
    try:
        check_file(path, most)
        yield
    except InputError:
        raise
    except Exception as error:  # zip, zlib, lzma, numpy, json, Pillow and safetensors each have their own
        raise InputError(f"{path} {what} ({reason(error)}): {remedy}") from error


def check_file(path: str | Path, most: float = math.inf) -> None:
    """Check, without reading it, that `path` is a file of up to `most` bytes.

    Raises OSError if it is absent, ValueError if it is a directory, a pipe, a device or too large, and InputError if
    it is compressed or a pointer of Git LFS.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is a directory" if stat.S_ISDIR(status.st_mode) else "it is a pipe or a device")
    check_size(status.st_size, most)
    with open(path, "rb") as file:
        check_begin(path, file.read(32))


def check_begin(path: object, begin: bytes, readable: str | None = None) -> str | None:
    """Return what compressed a file, by its first bytes, or None.

    Raises InputError for a pointer of Git LFS, and for any compression but `readable`.
    """
    check_pointer(path, begin)
    by = next((by for magic, by in COMPRESSED.items() if begin.startswith(magic)), None)
    require(by in (None, readable), f"{path} is compressed by {by}, which is not read here: unpack it")
    return by


def check_pointer(path: object, begin: bytes) -> None:
    """Raise InputError for a pointer of Git LFS, by the first bytes of a file."""
    require(not begin.startswith(LFS), f"{path} is a pointer of Git LFS and not the file: fetch it with git lfs pull")


def check_size(size: float, most: float = MOST) -> None:
    """Raise ValueError for more than `most` bytes."""
    if size > most:
        raise ValueError(f"it needs {size:,.0f} bytes, and at most {most:,.0f} are read")


def reason(error: BaseException) -> str:
    """Return an error's first line, up to 200 characters that can be printed."""
    match error:
        case RecursionError():
            return "it is nested too deeply"
        case MemoryError():
            return "it needs more memory than there is"
        case KeyError():
            text = f"it has no {error.args[0] if error.args else 'such entry'}"
        case OSError(strerror=str(said)):
            text = said
        case _:
            text = str(error)
    line = (text.splitlines() or [type(error).__name__])[0][:200]
    return line if line.isprintable() else ascii(line)


def read_json(path: str | Path, schema: Any, what: str, remedy: str) -> Any:
    """Return the value in a JSON file. Raises InputError, "PATH what (reason): remedy", unless it is of the schema."""
    with reading(path, what, remedy, MOST_JSON):
        return json_of(Path(path).read_bytes(), schema)


def read_csv(path: str | Path, what: str, remedy: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file by the names in its first line. Raises InputError for a row of another length."""
    with reading(path, what, remedy, MOST_JSON), open(path, newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file, strict=True)
        for number, row in enumerate(rows, 2):
            if len(row) != len(head):
                raise ValueError(f"row {number} has {len(row)} fields, and the first has {len(head)}")
        return [dict(zip(head, row, strict=True)) for row in rows]


def json_of(content: str | bytes, schema: Any) -> Any:
    """Return the value of a JSON text. Raises ValueError or RecursionError unless it is of the schema, see check."""
    check_size(len(content), MOST_JSON)
    value = json.loads(content)
    todo = [(value, 0)]
    while todo:
        part, depth = todo.pop()
        if depth > DEEPEST:
            raise RecursionError
        if isinstance(part, str):
            part.encode(errors="surrogateescape")  # raises for half a character; a file's name may be bytes
        elif isinstance(part, dict | list):
            below = [*part, *part.values()] if isinstance(part, dict) else part
            todo += [(each, depth + 1) for each in below]
    check(value, schema)
    return value


def check(value: Any, schema: Any, name: str = "") -> None:
    """Raise ValueError, which names the key, unless a value is of a schema.

    A schema is a type or a union of types, [schema] for a list of any length, [schema, None] for such a list or null,
    {str: schema} for an object of any keys, or {key: schema} for an object that has at least these keys, but for those
    that end in "?". A number is finite and below 2^63, and an int may stand for a float.
    """
    if isinstance(schema, dict) and isinstance(value, dict):
        for key, below in dict.fromkeys(value, schema[str]).items() if str in schema else schema.items():
            field, optional = f"{name}.{key}".strip(".?"), key.endswith("?") and str not in schema
            key = key.removesuffix("?") if optional else key
            if key in value:
                check(value[key], below, field)
            elif not optional:
                raise ValueError(f"{field} is missing")
    elif isinstance(schema, list) and isinstance(value, list | tuple):
        for i, part in enumerate(value):
            check(part, schema[0], f"{name}[{i}]")
    else:
        kinds = get_args(schema) if isinstance(schema, UnionType) else (schema,)
        if isinstance(schema, list):
            kinds = (list, *map(type, schema[1:]))
        if not any(_is_a(value, kind) for kind in kinds):
            wanted = " or ".join(KINDS[kind if isinstance(kind, type) else type(kind)] for kind in kinds)
            given = KINDS[type(value)] if isinstance(value, dict | list | tuple) else repr(value)[:60]
            raise ValueError(f"{name or 'it'} is {given}, not {wanted}")


def _is_a(value, kind):
    if kind in (int, float):
        number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        return number and -(2.0**63) < value < 2.0**63
    return isinstance(kind, type) and isinstance(value, kind)


@contextmanager
def zip_file(source: str | Path | IO[bytes], name: object = None) -> Iterator[zipfile.ZipFile]:
    """Yield an open zip. Raises InputError for a member that is encrypted, or compressed as Python cannot unpack.

    `name` is what messages call the file, if not `source`.
    """
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            method = METHODS.get(member.compress_type, f"method {member.compress_type}")
            known = member.compress_type in ZIP_METHODS
            path = name or source
            require(known, f"{path} is compressed by {method}, which is not read here: pack it again with deflate")
            require(not member.flag_bits & 1, f"{path} is encrypted: pack it again without a password")
        yield archive


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of an open .npz by name. Each is read when it is asked for, and all together up to MOST bytes.

    Reading raises ValueError for more, and whatever zipfile and numpy raise for a member that is damaged.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive, self.read = archive, 0
        members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        self.members = {member.filename.removesuffix(".npy"): member for member in members}

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, name: object) -> bool:  # Mapping's would read the array
        return name in self.members

    def size(self, name: str) -> int:
        """Return the bytes of an array and its header."""
        return self.members[name].file_size

    def open(self, name: str) -> IO[bytes]:
        """Open an array as the .npy that it is in the archive."""
        return self.archive.open(self.members[name])

    def __getitem__(self, name: str) -> np.ndarray:
        self.read += self.size(name)
        check_size(self.read)
        with self.open(name) as file:
            npy_header(file, self.size(name))
        with self.open(name) as file:
            return np.lib.format.read_array(file, allow_pickle=False)


@contextmanager
def arrays(source: str | Path | IO[bytes], name: object = None) -> Iterator[Arrays]:
    """Yield the Arrays of an .npz. Raises what zip_file does."""
    with zip_file(source, name) as archive:
        yield Arrays(archive)


def npy_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of an .npy of `size` bytes: (shape, whether in Fortran's order, dtype).

    Raises ValueError if the array is of objects or does not fit into these bytes.
    """
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        raise ValueError("its array is of objects")
    count, there = math.prod(shape), size - file.tell()
    if min((0, *shape)) < 0 or count * max(1, dtype.itemsize) > there:
        raise ValueError(f"it says {dtype} {shape}, {count * dtype.itemsize:,} bytes, and has {there:,}")
    return shape, fortran, dtype


def npy(path: str | Path, mmap: bool = False) -> np.ndarray:
    """Return the array of an .npy, in memory, or mapped from the disk. Raises ValueError or OSError if it has none."""
    check_file(path, math.inf if mmap else MOST)
    with open(path, "rb") as file:
        npy_header(file, os.fstat(file.fileno()).st_size)
    return np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)


def picture(source: str | Path | IO[bytes], formats: tuple[str, ...]) -> Image.Image:
    """Open a picture without decoding it. Raises ValueError, with its size, for one of more than MOST_PIXELS."""
    if isinstance(source, str | Path):
        check_file(source)
    opened = Image.open(source, "r", formats)
    if opened.width * opened.height > MOST_PIXELS:
        size = f"{opened.width:,} x {opened.height:,} pixels"
        opened.close()
        raise ValueError(f"it has {size}, and at most {MOST_PIXELS:,} are read: scale it down")
    return opened


class Room:
    """So many pixels may be decoded at once. A thread with a large picture waits until there is room for it."""

    def __init__(self, pixels: int) -> None:
        self.left, self.changed = pixels, Condition()

    @contextmanager
    def of(self, picture: Image.Image) -> Iterator[None]:
        pixels = picture.width * picture.height
        pixels = 0 if pixels <= SMALL else pixels
        with self.changed:
            self.changed.wait_for(lambda: self.left >= pixels)
            self.left -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.left += pixels
                self.changed.notify_all()
