"""What each dependency takes on the disk: its own files, and all that would not be there without it.

python -m experiments.bench.dependencies
"""

import tomllib
from importlib import metadata
from pathlib import Path

from absl import flags
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cfg_jax.errors import require
from cfg_jax.text import markdown
from experiments import cli

EXTRAS = flags.DEFINE_list("extras", ["tfds", "hub", "wandb"], "extras of pyproject.toml to measure as well")


def main():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    asked = applying(map(Requirement, project["dependencies"]))
    every, extras = needed(asked), project["optional-dependencies"]
    lines = [["package", "MiB", "MiB that only it brings"], ["---", "---:", "---:"]]
    for one in asked:
        others = needed(r for r in asked if r != one)
        lines.append([one.name, mib([one.name]), mib(every - others)])
    lines.append([f"all, {len(every)} packages", mib(every), ""])
    for extra in EXTRAS.value:
        require(extra in extras, f"--extras: there is no {extra} in pyproject.toml: choose of {', '.join(extras)}")
        try:
            brought = needed([*asked, *map(Requirement, extras[extra])]) - every
            lines.append([f"the extra {extra}", "", mib(brought)])
        except metadata.PackageNotFoundError as error:
            lines.append([f"the extra {extra}", "", f"{error.name} is not installed"])
    print(markdown(lines), end="")


def applying(requirements, extras=("",)):
    """Those whose markers hold here, for any of the extras."""
    return [r for r in requirements if not r.marker or any(r.marker.evaluate({"extra": extra}) for extra in extras)]


def needed(requirements):
    """The names of all packages that these bring, themselves and what they need in turn."""
    seen, left = set(), list(requirements)
    while left:
        one = left.pop()
        key = canonicalize_name(one.name), frozenset(one.extras)
        if key not in seen:
            seen.add(key)
            left += applying(map(Requirement, metadata.requires(one.name) or []), ("", *one.extras))
    return {name for name, _ in seen}


def mib(names):
    files = [file.locate() for name in names for file in metadata.files(name) or []]
    return f"{sum(Path(file).stat().st_size for file in files if Path(file).exists()) / 2**20:,.1f}"


if __name__ == "__main__":
    cli.run(main)
