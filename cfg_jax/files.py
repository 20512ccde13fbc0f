"""Files that are either whole or not there."""

import fcntl
import hashlib
import io
import json
import os
import socket
import uuid
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cfg_jax.errors import InputError


def write_atomic(path, content):
    """Write str or bytes so that a reader, or a kill at any moment, sees the old file or the new one."""
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


def write_json(path, value):
    write_atomic(path, json.dumps(value, indent=1) + "\n")


def digest(*parts):
    """Twelve hex digits of arrays and strings."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return sha.hexdigest()[:12]


def sha256_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value):
    """Twelve hex digits of a value."""
    return digest(json.dumps(value, sort_keys=True))


def read_json(path):
    return json.loads(Path(path).read_text())


def write_npz(path, arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


@contextmanager
def claimed(path, wait=False):
    """Whether `path` is this process's to make; with `wait`, not before every other has let go of it.

    The system lets go of a claim when its process ends, however it ends: on a local disk, NFS, or Lustre with flock.
    Look again whether `path` exists once it is claimed; what was made in the meantime is whole.
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


def to_make(paths, done=Path.exists):
    """Yield, while it is claimed, each path that is this process's to make, however many share the work.

    What another holds is waited for when nothing else is left, and made after all should that one have died.
    """
    for wait in (False, True):
        for path in [path for path in paths if not done(path)]:
            with claimed(path, wait) as mine:
                if mine and not done(path):
                    yield path


@contextmanager
def only_one(directory):
    """Hold `directory` for this process; the system lets go of it when the process ends, however it ends."""
    path = Path(directory) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(f"{directory} is in use by {file.read() or 'another process'}: wait for it") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


@contextmanager
def shared(directory, purpose):
    """Hold `directory` with others of the same purpose, a text; one of another purpose is refused meanwhile."""
    path = Path(directory) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(purpose)
            file.flush()
            fcntl.flock(file, fcntl.LOCK_SH)
        except BlockingIOError:
            fcntl.flock(file, fcntl.LOCK_SH)  # the first one has written its purpose by then
            file.seek(0)
            if (theirs := file.read()) != purpose:
                raise InputError(
                    f"{directory} is in use by a job of {theirs}; this one has {purpose}: wait, or choose another"
                ) from None
        yield
