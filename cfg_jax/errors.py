"""What a user can put right: shown as one line, without a traceback."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input. The message names the field and the remedy."""


def did_you_mean(name: object, known: Iterable) -> str:
    """ "did you mean ddim? " where a known name is near, else ""."""
    near = difflib.get_close_matches(str(name), map(str, known), 1)
    return f"did you mean {near[0]}? " if near else ""


def require(condition, message: str) -> None:
    if not condition:
        raise InputError(message)
