"""Text of more than one place: a field's value, a table, and names that anyone may have given."""

import re
from collections.abc import Collection, Sequence
from typing import Any

# what would move a terminal's cursor, end a line, or turn what follows around; halves of characters
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    r"""Return text for a terminal: control characters but tabs and ends of lines as Python writes them, \x1b."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """Return text for a terminal, as `plain` does, without ends of lines."""
    return plain(" ".join(text.splitlines()))


def escaped(text: str) -> str:
    """Return text for Markdown and its tables, in which it starts no HTML, no column, and no line."""
    return one_line(text).replace("<", "&lt;").replace("|", "\\|")


def cell(value: Any) -> Any:
    """Return a value for a CSV file. Text that a spreadsheet would take for a formula begins with a quote then."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def short(value: Any) -> str:
    """Return a field's value as text: numbers with up to six digits, a tuple as 0:1.5."""
    if isinstance(value, tuple):
        return ":".join(map(short, value))
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def markdown(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """Return a table of cells, which are escaped; the first row is its head. left: the columns that are not numbers."""
    head, *below = rows
    rule = ["---" if i in left else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(map(escaped, row)) + " |" for row in (head, rule, *below)) + "\n"
