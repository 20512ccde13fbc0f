import re
import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from experiments.bench import dependencies
from tests.test_house import ROOT, run


def test_each_has_a_row_and_the_file_that_it_names_imports_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    here = dependencies.applying(map(Requirement, project["dependencies"]))
    page = (ROOT / "docs" / "dependencies.md").read_text()
    rows = re.findall(r"^\| (\w[\w-]+) \| .* \| `([\w/.]+)` \| ", page, re.MULTILINE)
    assert [name for name, _ in rows] == [one.name for one in here]
    modules = metadata.packages_distributions()
    for name, path in rows:
        imported = re.findall(r"^ *(?:import|from) (\w+)", (ROOT / path).read_text(), re.MULTILINE)
        found = {canonicalize_name(of) for module in imported for of in modules.get(module, ())}
        assert canonicalize_name(name) in found, f"{path} does not import {name}"


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (["a"], {"a", "b-b", "c"}),
        (["c"], {"c"}),
        (["b_b", "c[more]"], {"b-b", "c", "d"}),
        (["c", "c[more]", "a; python_version<'3'"], {"c", "d"}),
    ],
)
def test_what_is_needed(monkeypatch, asked, names):
    of = {"a": ["B_b>=1", "nothing; python_version<'3'"], "b_b": ["c"], "c": ["d; extra == 'more'", "a; extra == 'x'"]}
    monkeypatch.setattr(dependencies.metadata, "requires", lambda name: of.get(name.lower()))
    assert dependencies.needed(dependencies.applying(map(Requirement, asked))) == names


def test_the_command():
    done = run("bench.dependencies")
    sizes = dict(re.findall(r"^\| ([\w ,-]+) \| ([\d,.]+) \|", done.stdout, re.MULTILINE))
    assert done.returncode == 0 and "| the extra tfds |" in done.stdout, done.stderr
    total = next(float(size.replace(",", "")) for name, size in sizes.items() if name.startswith("all, "))
    assert total > sum(float(size) for name, size in sizes.items() if not name.startswith("all, ")) > 0
