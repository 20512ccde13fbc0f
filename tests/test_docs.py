"""What docs/extending.md and CONTRIBUTING.md quote stands in the files they name; rooms as drawn."""

import re
from xml.etree import ElementTree

from docs import rooms
from tests.running import ROOT


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
        assert path.exists() and (ROOT / re.search(r"`(tests/[\w/]+\.py)`", row[6])[1]).exists()


def test_the_reference_has_every_module():
    pages = "".join(page.read_text() for page in sorted((ROOT / "docs" / "api").glob("*.md")))
    named = re.findall(r"automodule:: (\S+)", pages)
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in (ROOT / "cfg_jax").rglob("*.py")]
    assert sorted(named) == sorted(name for name in modules if not name.endswith("__init__"))


def test_every_page_of_results_is_in_the_table_of_contents():
    entries = re.findall(r"- (?:file|glob): (experiments/results/\S+)", (ROOT / "docs" / "_toc.yml").read_text())
    for page in (ROOT / "experiments" / "results").rglob("*.md"):
        name = page.relative_to(ROOT).with_suffix("")
        assert any(name.match(entry) for entry in entries), f"{name} has no line in docs/_toc.yml"


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_picture_of_the_rooms_is_of_the_code():
    drawn = (ROOT / "docs" / "rooms.svg").read_text()
    assert drawn == rooms.svg(), "the code has other imports than the picture: run python docs/rooms.py"
    assert ElementTree.fromstring(drawn).tag.endswith("svg")


def test_a_module_that_imports_a_room_is_counted_once(tmp_path, monkeypatch):
    monkeypatch.setattr(rooms, "ROOT", tmp_path)
    for name, lines in {
        "a.py": "from cfg_jax.models import unet, build\nfrom cfg_jax.models.norm import Norm",
        "b.py": "def f():\n    import cfg_jax.models",
        "c.py": "from cfg_jax import models_of_others, config",
        "__init__.py": "from cfg_jax.models import unet",
    }.items():
        (tmp_path / name).write_text(lines)
    assert rooms.importers(".", "models") == 2 and rooms.importers(".", "data") == 0


def test_the_page_of_the_rooms_names_them_in_order():
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE)
    assert tuple(rows) == rooms.ROOMS and len(page.splitlines()) <= 60
    for name in re.findall(r"`(\w+\.py)`", page):
        assert list((ROOT / "cfg_jax").rglob(name)), f"docs/architecture.md names {name}"
