"""Files that are either whole or not there."""

import io
import json
import os
from pathlib import Path

import numpy as np


def write_atomic(path, content):
    """Write str or bytes so that a reader, or a kill at any moment, sees the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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


def read_json(path):
    return json.loads(Path(path).read_text())


def write_npz(path, arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomic(path, buffer.getvalue())
