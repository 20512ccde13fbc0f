"""Files that are either whole or not there, and what may be written where."""

import errno
import fcntl
import hashlib
import io
import json
import os
import re
import socket
import time
import uuid
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from cfg_jax.errors import InputError

MARK = "Written by cfg_jax"
MARKED = {"written_by": "cfg_jax"}  # the first field of a JSON file that a user names
# by the end of its name, how a file that this code wrote at a user's path begins or ends
OURS = {
    ".png": rb"\A\x89PNG.{,200}" + MARK.encode(),
    ".svg": rb"\A<\?xml.{,2000}" + MARK.encode(),
    ".npz": MARK.encode() + rb"\Z",
    ".json": rb'\A\{\s*"written_by": "cfg_jax"',
    ".safetensors": rb'\A.{8}\{"__metadata__":.*"cfg_jax 1"',
    # a page has its command below its title, a model card the name of its library
    ".md": rb"\A(# [^\n]*\n\n)?(    python -m |Made by `(python -m )?)experiments\.|\A# [^\n]*\n\njax \S+, this code "
    rb"|\A---\n[^#]*library_name: cfg_jax\n",
}
HEAD, TAIL = 1 << 16, 1 << 8  # bytes that are looked at
PATIENCE = 5.0  # seconds that a process has to say what it shares a directory for
# by kind of directory, what it is known by, and what else is written there
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
    "page": ((), ()),  # of results: its README.md says whose it is
}  # fmt: skip


def check_output(
    path: str | Path, kind: str, *, flag: str = "--out", reads: Iterable[str | Path | None] = (),
    page: Path | None = None,
) -> None:  # fmt: skip
    """Check, before any work, that an output may be written to `path`.

    It may where nothing is, and where this code wrote a file of the same kind, a key of OURS, that the command does not
    read. A file of another kind, such as a CSV, has no mark. A file of a page is this code's where the page is. Raises
    InputError otherwise.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{flag}={path} is a directory: name a file")
    for other in (Path(other) for other in reads if other):
        same = path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other))
        if same:
            raise InputError(f"{flag}={path} is a file that this command also takes: choose another {flag}")
    if not path.exists() or is_ours(path, kind) or (page and is_ours(page, ".md")):
        return
    raise InputError(f"{path} is there, and this code did not write it: remove it, or choose another {flag}")


def is_ours(path: Path, kind: str) -> bool:
    """Return whether a file says that this code wrote it as an output of this kind."""
    if kind not in OURS or not path.is_file():
        return False
    with open(path, "rb") as file:
        head = file.read(HEAD)
        file.seek(max(0, path.stat().st_size - TAIL))
        looked_at = file.read() if kind == ".npz" else head
    return bool(re.search(OURS[kind], looked_at, re.DOTALL))


def check_directory(directory: str | Path, kind: str) -> None:
    """Check, before any work, that a directory may hold what is of this kind, a key of KINDS.

    Raises InputError where it holds another kind, or files of those names though it is none yet, or where one of them
    is a link, through which something elsewhere would be changed. The directory itself may be a link.
    """
    directory = Path(directory)
    there = {name for known, written in KINDS.values() for name in (*known, *written) if _there(directory / name)}
    for other, (known, _) in KINDS.items():
        if other != kind and (found := there.intersection(known)):
            raise InputError(f"{directory} holds a {other} ({min(found)}): choose another directory for this {kind}")
    known, written = KINDS[kind]
    if not there.intersection(known) and (found := there.intersection(written)):
        raise InputError(f"{directory} is no {kind} and has a {min(found)}: choose another directory")
    for name in (".lock", *known, *written):
        if (directory / name).is_symlink():
            raise InputError(f"{directory / name} is a link: put what it stands for in its place")


def _there(path):
    return path.exists() or path.is_symlink()


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write so that a reader, or a kill at any moment, finds the whole old file or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "wb") as f:
            f.write(content.encode() if isinstance(content, str) else content)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, indent=1) + "\n")


def digest(*parts: str | np.ndarray) -> str:
    """Twelve hex digits of the SHA-256 of arrays and strings, one after the other."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return sha.hexdigest()[:12]


def sha256_of(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """Twelve hex digits of a value that JSON can hold. The order of keys does not matter."""
    return digest(json.dumps(value, sort_keys=True))


def read_json(path: str | Path) -> Any:
    return json.loads(Path(path).read_text())


def write_npz(path: str | Path, arrays: dict[str, np.ndarray], *, mark: bool = False) -> None:
    """Write arrays; `mark` where a user names the path, so that the same command may write there again."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    if mark:
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.comment = MARK.encode()
    write_atomic(path, buffer.getvalue())


@contextmanager
def claimed(path: str | Path, wait: bool = False) -> Iterator[bool]:
    """Claim `path` -> whether it is this process's to make. With `wait`, wait until no other process claims it.

    The system releases a claim when its process ends, however it ends. That holds on a local disk, on NFS, and on
    Lustre with flock. Look again whether `path` exists once it is claimed: another process may have made it, whole.
    """
    lock = Path(f"{path}.lock")
    with _lock_file(lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
        if Path(path).exists():  # whoever waits on this lock finds the work done
            lock.unlink(missing_ok=True)


def to_make(paths: Collection[Path], done: Callable[[Path], bool] = Path.exists) -> Iterator[Path]:
    """Yield each path that is this process's to make, and claim it meanwhile. Any number of processes share the work.

    When nothing else is left, wait for the paths that others claim. A path whose process died is yielded after all.
    """
    for wait in (False, True):
        for path in [path for path in paths if not done(path)]:
            with claimed(path, wait) as mine:
                if mine and not done(path):
                    yield path


@contextmanager
def only_one(directory: str | Path, wait: float = 0) -> Iterator[IO[str]]:
    """Hold `directory` for this process alone. Raises InputError where another still holds it after `wait` seconds.

    The system releases it when the process ends, however it ends. A child that is handed the file holds it too.
    """
    with _lock_file(Path(directory) / ".lock") as file:
        _hold(file, fcntl.LOCK_EX, directory, wait)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield file


@contextmanager
def shared(directory: str | Path, purpose: str) -> Iterator[None]:
    """Hold `directory` together with any processes of the same purpose, a text.

    Raises InputError where a process of another purpose holds it, or one holds it alone.
    """
    with _lock_file(Path(directory) / ".lock") as file:
        with suppress(BlockingIOError):  # of the first one alone
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(purpose)
            file.flush()
        _hold(file, fcntl.LOCK_SH, directory, PATIENCE)  # the first one writes its purpose
        file.seek(0)
        if (theirs := file.read()) != purpose:  # also where another came first while this lock turned from EX to SH
            raise InputError(
                f"{directory} is in use by a job of {theirs}; this one has {purpose}: wait, or choose another"
            )
        yield


def _lock_file(path: Path) -> IO[str]:
    """Open a lock. One that is a link is refused, since what it points to would be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666), "a+")
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise InputError(f"{path} is a link: remove it") from error


def _hold(file, how, directory, wait):
    """Lock it. Raises InputError with who has it where it is still locked after `wait` seconds."""
    deadline = time.monotonic() + wait
    while True:
        try:
            return fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = file.read() or "another process"
                raise InputError(f"{directory} is in use by {holder}: wait for it") from None
            time.sleep(0.2)
