"""Text that is written in more than one place."""

from typing import Any


def short(value: Any) -> str:
    """A field's value: a number with up to six digits, several as 0:1.5, anything else as it prints."""
    if isinstance(value, tuple):
        return ":".join(map(short, value))
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def markdown(lines: list[list[str]]) -> str:
    """A table of cells, the second line its rule."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
