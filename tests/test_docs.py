"""What docs/extending.md and CONTRIBUTING.md quote is what stands in the files that they name."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def quoted(text):
    """(path, block) of each python block; a block without a path of its own is of the last one named."""
    path = None
    for named, block in re.findall(r"^`([\w/.]+)`:$|^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        path = named or path
        if block:
            yield path, block


def lines(text):
    """Without indentation and empty lines, which the formatter sets by itself in a document."""
    return "\n".join(filter(None, map(str.strip, text.splitlines())))


def test_the_code_in_the_recipes_is_there():
    recipes, style = (list(quoted((ROOT / name).read_text())) for name in ("docs/extending.md", "CONTRIBUTING.md"))
    assert len(recipes) >= 12 and len(style) >= 3
    for path, block in recipes + style:
        assert lines(block) in lines((ROOT / path).read_text()), f"{path} has no longer\n{block}"


def test_the_files_and_names_in_the_table_are_there():
    rows = [
        line.split("|") for line in (ROOT / "docs" / "extending.md").read_text().splitlines() if line.startswith("| a ")
    ]
    assert len(rows) >= 5
    for row in rows:
        path = ROOT / re.search(r"`(cfg_jax/[\w/.]+)`", row[2])[1]
        assert path.exists() and (ROOT / re.search(r"`(tests/\w+\.py)`", row[6])[1]).exists()
