"""The commands and the Python that stand in README and docs: every flag is one that its command has, and those of the
pages for newcomers run, at a small size and in the order in which they stand."""

import os
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from tests.running import ROOT, TINY

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "experiments/studies/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "docs" / "howto").glob("*.md"))
EVAL = [flag for flag in TINY if ".eval." in flag or ".sampler." in flag]
FEW = {
    "train": [*TINY, "--config.model.num_blocks=1"], "sweep": EVAL,
    "sample": ["--num_steps=3"], "train_classifier": TINY,
}  # fmt: skip
# what lies on nobody's disk without a download, and what test_frontier runs
ELSEWHERE = re.compile(
    r"experiments\.frontier|imagenet|ILSVRC|64x64_|adm64|fetch_inception|reference_stats|experiments\.score|--step=|--format=onnx"
)


def commands(page):
    """(name, arguments) of each indented `python -m experiments.NAME` of a page."""
    text = re.sub(r"\\\n +", "", page.read_text())
    for name, rest in re.findall(r"^ {4,}(?:\.venv/bin/)?python -m experiments\.([\w.]+)(.*)$", text, re.MULTILINE):
        if not rest.strip().startswith("--help"):
            yield name, shlex.split(rest, comments=True)


def python(page):
    """The blocks of Python of a page that quote no file of ours."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def known(done):
    """Was nothing wrong with a command's flags but the word that is none?"""
    return "unexpected argument 'stray'" in done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_flag_in_a_page_is_one_of_its_command(page, command):
    for name, given in commands(page):
        assert known(command(name, *given, "stray")), f"{name} {given}"


def test_the_pages_are_found():
    assert len(PAGES) >= 18 and sum(len([*commands(page)]) for page in PAGES) >= 100


def test_a_flag_that_is_none_is_found_out(command):
    assert not known(command("sample", "--run=digits", "--guidance_scale=7.5", "stray"))
    assert not known(command("train", "--config=configs/digits.py", "--workdir=x", "--config.lr=1", "stray"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder with this repository's configs, and the pictures that the how-to speaks of."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name in ("configs", "experiments", "docs"):
        os.symlink(ROOT / name, folder / name)
    for number, pet in enumerate(("cats", "dogs")):
        (folder / "my-pictures" / pet).mkdir(parents=True)
        for i in range(40):
            pixels = np.random.default_rng([number, i]).integers(
                100 * number, 100 * number + 100, (40, 40, 3), np.uint8
            )
            Image.fromarray(pixels).save(folder / "my-pictures" / pet / f"{i}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", ["tutorial", "howto/resume", "howto/ablation", "howto/pictures", "howto/score", "howto/weights"]
)
def test_a_newcomers_page_runs(page, folder, command):
    ran = 0
    for name, given in commands(ROOT / "docs" / f"{page}.md"):
        if not ELSEWHERE.search(" ".join([f"experiments.{name}", *given])):
            done = command(name, *given, *FEW.get(name, []), cwd=folder, timeout=300)
            assert done.returncode == 0, f"{name} {given}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
            ran += 1
    assert ran


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
@pytest.mark.slow
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "tutorial").mkdir(parents=True)
    (block,) = python(ROOT / page)
    exec(compile(block, page, "exec"), {})
    assert [*tmp_path.rglob("*.png")]
