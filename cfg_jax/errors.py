"""What a user can put right: shown as one line, without a traceback."""

import difflib
import importlib
import re
from collections.abc import Collection, Iterable
from types import ModuleType
from typing import Any


class InputError(ValueError):
    """Bad input. The message names the field and the remedy. A word of 500 characters or more loses its middle."""

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(r"(\S{200})\S{200,}(\S{100})", r"\1...\2", message))


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the error's type if it has no message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


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
        raise InputError(f"{field}={value!r:.100} is unknown: {meant}choose {', '.join(choices)}")


def installed(module: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency. Raises InputError where the extra that brings it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: python -m pip install 'cfg_jax[{extra}]'") from error
