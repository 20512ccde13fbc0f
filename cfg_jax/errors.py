"""What a user can put right: shown as one line, without a traceback."""

import difflib
import importlib
from collections.abc import Collection, Iterable
from types import ModuleType
from typing import Any

LONG = 900  # characters of a line


class InputError(ValueError):
    """Bad input. The message names the field and the remedy. A line that quotes a long value loses its middle."""

    def __init__(self, message: str) -> None:
        lines = (line if len(line) <= LONG else f"{line[:500]} ... {line[-300:]}" for line in message.split("\n"))
        super().__init__("\n".join(lines))


def did_you_mean(name: object, known: Iterable) -> str:
    """ "did you mean ddim? " where a known name is near, else ""."""
    near = difflib.get_close_matches(str(name), map(str, known), 1)
    return f"did you mean {near[0]}? " if near else ""


def require(condition, message: str) -> None:
    if not condition:
        raise InputError(message)


def choice(value: Any, choices: Collection[str], field: str) -> None:
    """Check that value is one of the choices. The message suggests the nearest one."""
    if value not in choices:
        meant = did_you_mean(value, choices)
        raise InputError(f"{field}={value!r} is unknown: {meant}choose {', '.join(choices)}")


def installed(module: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency. Raises InputError where the extra that brings it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: python -m pip install 'cfg_jax[{extra}]'") from error
