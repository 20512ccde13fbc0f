"""Text that is written in more than one place."""


def markdown(lines: list[list[str]]) -> str:
    """A table of cells, the second line its rule."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
