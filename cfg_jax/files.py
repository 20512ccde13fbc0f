"""Files that are either whole or not there."""

import fcntl
import hashlib
import io
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from cfg_jax.errors import InputError


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


def write_npz(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


@contextmanager
def claimed(path: str | Path, wait: bool = False) -> Iterator[bool]:
    """Claim `path` -> whether it is this process's to make. With `wait`, wait until no other process claims it.

    The system releases a claim when its process ends, however it ends. That holds on a local disk, on NFS, and on
    Lustre with flock. Look again whether `path` exists once it is claimed: another process may have made it, whole.
    """
    lock = Path(f"{path}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a") as file:
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
    path = Path(directory) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait
    with open(path, "a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    holder = file.read() or "another process"
                    raise InputError(f"{directory} is in use by {holder}: wait for it") from None
                time.sleep(0.2)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield file


@contextmanager
def shared(directory: str | Path, purpose: str) -> Iterator[None]:
    """Hold `directory` together with any processes of the same purpose, a text.

    Raises InputError where a process of another purpose holds it.
    """
    path = Path(directory) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        with suppress(BlockingIOError):  # of the first one alone
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(purpose)
            file.flush()
        fcntl.flock(file, fcntl.LOCK_SH)
        file.seek(0)
        if (theirs := file.read()) != purpose:  # also where another came first while this lock turned from EX to SH
            raise InputError(
                f"{directory} is in use by a job of {theirs}; this one has {purpose}: wait, or choose another"
            )
        yield
