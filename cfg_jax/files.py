"""Files that are either whole or absent, and the rules for where a command may write."""

import errno
import hashlib
import io
import json
import os
import re
import socket
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np

from cfg_jax.errors import InputError, require

try:
    import fcntl
except ImportError:  # Windows, where models are loaded and sampled, and nothing is locked
    fcntl: Any = None

MARK = "Written by cfg_jax"
MARKED = {"written_by": "cfg_jax"}  # the first field of a JSON file that a user names
# {suffix: how a file that this code wrote at a user's path begins or ends}
OURS = {
    ".png": rb"\A\x89PNG.{,200}" + MARK.encode(),
    ".svg": rb"\A<\?xml.{,2000}" + MARK.encode(),
    ".npz": MARK.encode() + rb"\Z",
    ".json": rb'\A\{\s*"written_by": "cfg_jax"',
    ".onnx": rb"\A\x08.{,200}" + MARK.encode(),
    ".safetensors": rb'\A.{8}\{"__metadata__":.*"cfg_jax 1"',
    # a page names its command below its title, a model card names this library
    ".md": rb"\A(# [^\n]*\n\n)?(    python -m |Made by `(python -m )?)experiments\.|\A# [^\n]*\n\njax \S+, this code "
    rb"|\A---\n[^#]*library_name: cfg_jax\n",
}
HEAD, TAIL = 1 << 16, 1 << 8  # bytes that are searched
LONGEST = 200  # bytes of a name: file systems take 255, and locks and temporary files add to it
PATIENCE = 5.0  # seconds that a process has to write its purpose into a shared lock
# {kind of directory: (the names that identify it, the other names that are written there)}
KINDS = {
    "run": (
        ("checkpoints", "metrics.jsonl", "machine.json", "imported.json"),
        ("config.json", "data.json", "samples", "damaged", "wandb_id"),
    ),
    "sweep": (
        ("cells",),
        ("config.json", "results.csv", "table.md", "curves.png", "curves.svg", "curves_T.png", "curves_T.svg",
         "samples.png", "report.html", *(f"frontier.{kind}" for kind in ("html", "md", "png", "svg", "json"))),
    ),
    "data set": (("card.json",), ()),
    "page": ((), ()),  # a page of results; its README.md identifies it
}  # fmt: skip


def check_output(
    path: str | Path, kind: str, *, flag: str = "--out", reads: Iterable[str | Path | None] = (),
    page: Path | None = None,
) -> None:  # fmt: skip
    """Check, before any work, that an output may be written to `path`.

    It may be written where no file exists. It may replace a file of the same kind (a key of OURS) that this code wrote
    and that is not among the inputs `reads`. A file that belongs to `page` is this code's if that page is. A kind that
    is not in OURS, such as a CSV, has no mark and is never replaced. The path ends in its kind, and its directory can
    be written to. Raises InputError otherwise.
    """
    path = Path(path)
    check_writable(path.parent if os.path.exists(path) else path, f"{flag}={path}")
    require(not path.is_dir(), f"{flag}={path} is a directory: name a file")
    for other in map(Path, filter(None, reads)):
        same = path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other))
        require(not same, f"{flag}={path} is a file that this command also takes: choose another {flag}")
    ours = is_ours(path, kind) or (page and is_ours(page, ".md"))
    remedy = f"remove it, or choose another {flag}"
    require(ours or not os.path.lexists(path), f"{path} is there, and this code did not write it: {remedy}")
    require(path.suffix.lower() == kind, f"{flag}={path} must end in {kind}, which is what it will hold")


def check_writable(directory: str | Path, what: str) -> None:
    """Check, before any work, that files can be made in a directory, or that the directory can be made.

    what: the flag and its value, for the message. A file without a name is made and removed. Raises InputError.
    """
    directory = Path(directory)
    try:
        while not os.path.lexists(directory):
            require(len(os.fsencode(directory.name)) <= LONGEST, f"{what}: a name is longer than {LONGEST} bytes")
            directory = directory.parent
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        remedy = "choose another place"
        raise InputError(f"{what} cannot be written, {error.strerror} ({directory}): {remedy}") from error


def is_ours(path: Path, kind: str) -> bool:
    """Return whether a file carries the mark of an output of this kind that this code wrote."""
    if kind not in OURS or not path.is_file():
        return False
    with open(path, "rb") as file:
        if kind == ".npz":
            file.seek(max(0, path.stat().st_size - TAIL))
        return bool(re.search(OURS[kind], file.read(HEAD), re.DOTALL))


def check_directory(directory: str | Path, kind: str, what: str = "") -> None:
    """Check, before any work, that a directory may hold the files of this kind, a key of KINDS.

    what: the flag and its value, for the message. Raises InputError if it holds another kind, or files of these names
    without being of this kind, if one of the files is a link, through which a file elsewhere would be changed, or if
    nothing can be written there. The directory itself may be a link.
    """
    directory = Path(directory)
    check_writable(directory, what or str(directory))
    present = {name for names in KINDS.values() for name in chain(*names) if os.path.lexists(directory / name)}
    for other, (known, _) in KINDS.items():
        if other != kind and (marks := present.intersection(known)):
            raise InputError(f"{directory} holds a {other} ({min(marks)}): choose another directory for this {kind}")
    known, written = KINDS[kind]
    if not present.intersection(known) and (strange := present.intersection(written)):
        raise InputError(f"{directory} is no {kind} and has a {min(strange)}: choose another directory")
    for path in (directory / name for name in (".lock", *known, *written)):
        require(not path.is_symlink(), f"{path} is a link: replace it with the file or directory that it points to")


@contextmanager
def whole_file(path: str | Path) -> Iterator[IO[bytes]]:
    """Yield a file to write into, which replaces `path` when the block ends.

    A reader, or a kill at any moment, leaves the whole old file or the whole new one there. If the block raises, `path`
    stays as it was. An OSError names `path`, since "No space left on device" alone says no place.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a file as whole_file does."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: str | Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, indent=1) + "\n")


def digest(*parts: str | np.ndarray) -> str:
    """Return twelve hex digits of the SHA-256 of arrays and strings, one after the other."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return sha.hexdigest()[:12]


def sha256_of(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """Return twelve hex digits of a value that JSON can hold. The order of its keys does not matter."""
    return digest(json.dumps(value, sort_keys=True))


def write_npz(path: str | Path, arrays: dict[str, np.ndarray], *, mark: bool = False) -> None:
    """Write arrays to an .npz. `mark` is for a path that a user names: the same command may then write it again."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    if mark:
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.comment = MARK.encode()
    write_atomic(path, buffer.getvalue())


@contextmanager
def claimed(path: str | Path, wait: bool = False) -> Iterator[bool]:
    """Claim `path` and yield whether this process may make it. With `wait`, wait until no other process claims it.

    The system releases a claim when its process ends for any reason. This holds on a local disk, on NFS, and on
    Lustre with flock. Check again whether `path` exists once it is claimed: another process may have made it.
    """
    lock = Path(f"{path}.lock")
    with _lock_file(lock) as file:
        if not _locks(file, alone=True, wait=wait):
            yield False
            return
        yield True
        if Path(path).exists():  # a process that waits on this lock sees that the work is done
            lock.unlink(missing_ok=True)


def to_make(paths: Collection[Path], done: Callable[[Path], bool] = Path.exists) -> Iterator[Path]:
    """Yield each path that this process has to make, and hold its claim meanwhile. Any number of processes share them.

    At the end, wait for the paths that others claim. A path whose process died is yielded then.
    """
    for wait in (False, True):
        for path in [path for path in paths if not done(path)]:
            with claimed(path, wait) as mine:
                if mine and not done(path):
                    yield path


@contextmanager
def only_one(directory: str | Path) -> Iterator[IO[str]]:
    """Hold `directory` for this process alone. Raises InputError if another holds it.

    The system releases it when the process ends for any reason. A child process that inherits the file holds it too.
    """
    with _lock_file(Path(directory) / ".lock") as file:
        _hold(file, True, directory, 0)
        _overwrite(file, f"process {os.getpid()} on {socket.gethostname()}")
        yield file


@contextmanager
def shared(directory: str | Path, purpose: str) -> Iterator[None]:
    """Hold `directory` together with any processes of the same purpose, which is a text.

    Raises InputError if a process of another purpose holds it, or if one holds it alone.
    """
    with _lock_file(Path(directory) / ".lock") as file:
        if _locks(file, alone=True):  # only the first process gets this lock
            _overwrite(file, purpose)
        _hold(file, False, directory, PATIENCE)  # wait while the first process writes its purpose
        file.seek(0)
        theirs = file.read()  # another process may have written while this lock changed from EX to SH
        remedy = "wait, or choose another"
        require(theirs == purpose, f"{directory} is in use by a job of {theirs}; this one has {purpose}: {remedy}")
        yield


def _locks(file: IO[str], *, alone: bool, wait: bool = False) -> bool:
    """Lock a file, for this process alone or shared, and return whether it is. With `wait`, wait until it is.

    Raises InputError where the system or the file system has no such locks.
    """
    systems = "take Linux or macOS, where training, sweeps and preparations lock what they write"
    require(fcntl, f"{file.name}: this system has no file locks: {systems}")
    how = (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        remedy = "choose a directory on another disk, or mount this one with flock"
        raise InputError(f"{file.name}: the file system has no locks ({error.strerror}): {remedy}") from error
    return True


def _overwrite(file, text):
    file.truncate(0)
    file.write(text)
    file.flush()


def _lock_file(path: Path) -> IO[str]:
    """Open a lock file. Raises InputError for a link, since the file that it points to would be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        return open(path, "a+", opener=lambda name, _: os.open(name, flags, 0o666))
    except OSError as error:
        require(error.errno != errno.ELOOP, f"{path} is a link: remove it")
        raise


def _hold(file: IO[str], alone: bool, directory: str | Path, wait: float) -> None:
    """Lock a file. Raises InputError with its holder if it is still locked after `wait` seconds."""
    deadline = time.monotonic() + wait
    while not _locks(file, alone=alone):
        if time.monotonic() >= deadline:
            file.seek(0)
            holder = file.read() or "another process"
            raise InputError(f"{directory} is in use by {holder}: wait for it")
        time.sleep(0.2)
