"""Text of more than one place: a field's value, a table."""

from typing import Any


def short(value: Any) -> str:
    """Return a field's value as text: numbers with up to six digits, a tuple as 0:1.5."""
    if isinstance(value, tuple):
        return ":".join(map(short, value))
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def markdown(lines: list[list[str]]) -> str:
    """Return a table of cells; the second line is the rule below the header."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
