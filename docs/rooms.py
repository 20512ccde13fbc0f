"""Which room of cfg_jax imports which: counted from the code, and drawn as docs/rooms.svg.

python docs/rooms.py
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# a room may import from itself and from those before it
ROOMS = ("diffusion", "models", "data", "store", "sampling", "training", "evaluation", "sweep", "perf")
CELL, LEFT, TOP, WIDTH = 42, 20, 24, 504
INK, SOFT, PAPER, LINE = "#1b1b1b", "#5b6470", "#ffffff", "#d5dae0"


def imports(path: Path) -> Iterator[str]:
    """Yield every name that a Python file imports, wherever in it: cfg_jax.models.build."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def modules(place: str) -> list[Path]:
    return sorted(path for path in (ROOT / place).rglob("*.py") if path.name != "__init__.py" and not path.is_symlink())


def importers(place: str, room: str) -> int:
    """Count the modules of a place that import a room."""
    return sum(any(f"{name}.".startswith(f"cfg_jax.{room}.") for name in imports(path)) for path in modules(place))


def svg() -> str:
    """Draw a row for each room and one for the commands, and in it how many of its modules import each room before."""
    places = [*(f"cfg_jax/{room}" for room in ROOMS), "experiments"]
    lines = []
    for i, place in enumerate(places):
        y = TOP + i * CELL + (10 if place == "experiments" else 0)
        total, columns = len(modules(place)), ROOMS[: i + 1]
        for j, room in enumerate(columns):
            lines.append(cell(LEFT + j * CELL, y, importers(place, room), total, own=i == j))
        x = LEFT + len(columns) * CELL + 8
        lines.append(text(x, y + 18, place.removeprefix("cfg_jax/"), 17, INK, "600"))
        lines.append(text(x, y + 34, f"{total} modules", 13, SOFT))
    for k, line in enumerate(("How many modules of a row", "import the room of a column:", "none above the diagonal")):
        lines.append(text(WIDTH - LEFT, TOP + 18 + 20 * k, line, 14, SOFT, anchor="end"))
    height = TOP + len(places) * CELL + 10 + 20
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" role="img">',
            "<title>Which room of cfg_jax imports which</title>",
            f'<rect width="{WIDTH}" height="{height}" rx="10" fill="{PAPER}"/>',
            *lines,
            "</svg>\n",
        ]
    )


def cell(x: int, y: int, count: int, total: int, own: bool) -> str:
    """Draw a square, the darker the larger the share of the row's modules."""
    share = count / total
    square = f'<rect x="{x + 2}" y="{y + 2}" width="{CELL - 4}" height="{CELL - 4}" rx="6" '
    if own:
        square += f'fill="none" stroke="{LINE}" stroke-width="1.5"/>'
    elif count:
        square += f'fill="#0072b2" fill-opacity="{0.12 + 0.88 * share:.2f}"/>'
    else:
        return square + 'fill="#f3f5f7"/>'
    ink = SOFT if own else ("#ffffff" if share > 0.6 else INK)
    return square + text(x + CELL / 2, y + CELL / 2 + 5.5, str(count), 15, ink, anchor="middle")


def text(x: float, y: float, words: str, size: int, fill: str, weight: str = "400", anchor: str = "start") -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{fill}" text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{words}</text>'


if __name__ == "__main__":
    (ROOT / "docs" / "rooms.svg").write_text(svg())
