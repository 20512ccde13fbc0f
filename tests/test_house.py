"""What holds of the whole code: which way imports point, what is named exists, nothing loaded is executed."""

import ast
import re

from docs.rooms import ROOMS, imports
from tests.running import ROOT


def calls(path):
    """The last names of what is called: f of f() and of a.f()."""
    called = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return {f.id if isinstance(f, ast.Name) else f.attr for f in called if isinstance(f, ast.Name | ast.Attribute)}


def test_imports_point_one_way():
    """Rooms in order; the small modules beside them import no room but diffusion; nothing imports the commands."""
    for path in sorted((ROOT / "cfg_jax").rglob("*.py")):
        room = path.parent.name if path.parent.name in ROOMS else None
        if path == ROOT / "cfg_jax" / "__init__.py":
            continue  # the front door
        small = ("diffusion", "models") if path.stem == "checks" else ("diffusion",)  # it asks networks and rules
        allowed = ROOMS[: ROOMS.index(room) + 1] if room else small
        for name in imports(path):
            assert not name.startswith(("experiments", "configs", "tests")), f"{path} imports {name}"
            parts = name.split(".")
            if parts[0] == "cfg_jax" and len(parts) > 1 and parts[1] in ROOMS:
                assert parts[1] in allowed, f"{path} imports {name}"


def test_only_tests_import_the_tests():
    for path in sorted(p for room in ("cfg_jax", "experiments", "configs") for p in (ROOT / room).rglob("*.py")):
        for name in imports(path):
            assert name.split(".")[0] != "tests", f"{path} imports {name}"


def test_every_command_that_is_named_exists():
    """In documents, docstrings, messages and notebooks; the changelog also names what commands were called before."""
    kinds = (".py", ".md", ".ipynb", ".json", ".sh", ".yaml")
    rooms = [p for room in ("cfg_jax", "experiments", "configs", "docs") for p in (ROOT / room).rglob("*")]
    named = {}
    for path in (ROOT / "README.md", ROOT / "Makefile", *sorted(p for p in rooms if p.suffix in kinds)):
        named |= dict.fromkeys(re.findall(r"\bexperiments\.(\w+(?:\.\w+)*)", path.read_text()), path)
    assert {"train", "studies.gaussians", "bench.speed"} <= named.keys()
    for name, path in named.items():
        there = ROOT.joinpath("experiments", *name.split("."))
        assert there.with_suffix(".py").exists() or (there / "__init__.py").exists(), f"{path} names experiments.{name}"


def test_nothing_that_is_loaded_is_executed():
    forbidden = ("pickle", "marshal", "shelve", "dill", "tensorflow")
    for path in sorted(p for room in ("cfg_jax", "experiments", "configs") for p in (ROOT / room).rglob("*.py")):
        assert not [name for name in imports(path) if name.split(".")[0] in forbidden], path
        assert "allow_pickle=True" not in path.read_text(), path
        assert not calls(path) & {"eval", "exec", "system", "popen", "extract", "extractall", "unpack_archive"}, path
