"""What extending.md and CONTRIBUTING.md quote stands in the files that they name; the reference has every module."""

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


def test_the_reference_has_every_module():
    pages = "".join(page.read_text() for page in sorted((ROOT / "docs" / "api").glob("*.md")))
    named = re.findall(r"automodule:: (\S+)", pages)
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in (ROOT / "cfg_jax").rglob("*.py")]
    assert sorted(named) == sorted(name for name in modules if not name.endswith("__init__"))


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
