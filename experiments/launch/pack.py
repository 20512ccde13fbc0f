"""Pack what a machine without a network lacks: this code, packages, data and weights, in parts of a size to carry.

python -m experiments.launch.pack --there=there.json --tiny_imagenet=FOLDER --fashion_mnist=fashion_mnist.npz \
    --inception=inception.npz --out=carry

there.json is what `python3 experiments/launch/unpack.py --list` printed there: packages that are there stay as
they are. --out also has unpack.py, which puts all in place there. It needs uv (python -m pip install uv), as make lock.
"""

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

from absl import flags
from packaging.utils import canonicalize_name

from cfg_jax.data import origins
from cfg_jax.errors import InputError, require
from cfg_jax.files import read_json, write_atomic
from experiments import cli

ROOT = Path(__file__).parents[2]
THERE = flags.DEFINE_string("there", None, "what unpack.py --list printed on that machine; default: no packages")
TINY_IMAGENET = flags.DEFINE_string("tiny_imagenet", None, "its files, as experiments.prepare_data --source takes them")
PER_CLASS = flags.DEFINE_integer("per_class", 300, "training pictures of tiny_imagenet", lower_bound=1)
FASHION_MNIST = flags.DEFINE_string("fashion_mnist", None, "an .npz with its pictures")
INCEPTION = flags.DEFINE_string("inception", None, "an .npz with Inception's weights")
RENEWED = flags.DEFINE_list("renewed", [], "packages to carry although that machine has a version of them")
CODE = flags.DEFINE_bool("code", True, "this project's files")
PART_MIB = flags.DEFINE_integer("part_mib", 60, "size of a part", lower_bound=1)
OUT = flags.DEFINE_string("out", "carry", "directory of the parts, which is made anew")


def main():
    out = Path(OUT.value)
    for path in out.iterdir() if out.exists() else ():  # which is removed
        ours = re.fullmatch(r"part\d+\.tar|unpack\.py", path.name)
        require(ours, f"--out={out} is made anew, but {path} is no part: name a directory for the parts alone")
    for flag in (TINY_IMAGENET, FASHION_MNIST, INCEPTION, THERE):
        require(not flag.value or Path(flag.value).exists(), f"--{flag.name}={flag.value} does not exist")
    with tempfile.TemporaryDirectory() as directory:
        stage = Path(directory)
        if THERE.value:
            wheels(read_json(THERE.value), stage / "wheels")
        if CODE.value:
            code(stage)
        (stage / "carried").mkdir()
        for flag, name in ((FASHION_MNIST, "fashion_mnist.npz"), (INCEPTION, "inception.npz")):
            if flag.value:
                shutil.copyfile(flag.value, stage / "carried" / name)
        if TINY_IMAGENET.value:
            pictures(TINY_IMAGENET.value, stage / "carried" / "tiny_imagenet.tar.gz")
        files = sorted(path for path in stage.rglob("*") if path.is_file())
        require(files, "nothing to pack: --help says what can be carried")
        contents = divided(files, PART_MIB.value * 2**20, stage)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        for number, part in enumerate(contents, 1):
            write_part(out / f"part{number}.tar", part, stage)
    shutil.copyfile(ROOT / "experiments" / "launch" / "unpack.py", out / "unpack.py")
    for path in sorted(out.iterdir()):
        print(f"{path}: {path.stat().st_size / 2**20:,.1f} MiB")


def wheels(there, directory):
    """Download wheels of the project's packages, and theirs, that are not there in the version that all agree on."""
    uv = shutil.which("uv") or shutil.which("uv", path=Path(sys.executable).parent)
    require(uv, "uv is not installed: python -m pip install uv")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    here = {canonicalize_name(name): version for name, version in there["packages"].items()}
    kept = {name: version for name, version in here.items() if name not in map(canonicalize_name, RENEWED.value)}
    directory.mkdir()
    (directory / "asked.in").write_text("\n".join(project["dependencies"]))
    (directory / "there.txt").write_text("\n".join(f"{name}=={public(version)}" for name, version in kept.items()))
    major, minor = (there["glibc"] or "2.28").split(".")[:2]
    command = [uv, "pip", "compile", "asked.in", "--constraint=there.txt", "--no-header", "--no-annotate", "--quiet",
               f"--python-version={there['python']}", "--only-binary=:all:",
               f"--python-platform={there['machine']}-manylinux_{major}_{minor}"]  # fmt: skip
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    if done.returncode:
        reason = " ".join(done.stderr.split())
        raise InputError(f"the packages there do not go with this project's ranges ({reason}): name some in --renewed")
    pins = dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)
    missing = [f"{name}=={pin}" for name, pin in pins.items() if public(here.get(canonicalize_name(name), "")) != pin]
    (directory / "asked.in").unlink()
    (directory / "there.txt").unlink()
    if not missing:
        return print("every package is there")
    print(f"{len(missing)} of {len(pins)} packages are not there: {', '.join(missing)}", flush=True)
    platforms = [f"manylinux_{major}_{m}_{there['machine']}" for m in range(5, int(minor) + 1)]
    platforms += [f"{old}_{there['machine']}" for old in ("manylinux1", "manylinux2010", "manylinux2014")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", f"--python-version={there['python']}", "--implementation=cp",
               *(f"--platform={platform}" for platform in platforms), "--dest=.", *missing]  # fmt: skip
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"pip cannot download them: {' '.join(done.stderr.split())}")


def public(version):
    """A version without its local part, which no index has: 2.11.0 of 2.11.0+cu130."""
    return version.partition("+")[0]


def code(stage):
    """What git tracks, without results, which nothing there reads."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    require(listed.returncode == 0, "this is no git checkout: pass --nocode, and carry the project's files yourself")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not re.match(r"experiments/results/|docs/.*\.(png|svg)", name):
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, stage / name)


def pictures(source, path):
    """A tar of the first pictures of each class, as they are stored, and of all validation pictures.

    Compressed: a header takes half of what a small picture does.
    """
    found, _ = origins.find(source)
    with tarfile.open(path, "w:gz") as tar:
        for split, of in found.items():
            count = Counter()
            for i, name in enumerate(of.names):
                content, label = of.read(i)
                require(isinstance(content, bytes), f"--tiny_imagenet={source} has no picture files: name those")
                count[label] += 1
                if split != "train" or count[label] <= PER_CLASS.value:
                    add(tar, f"{split}/{label}/{Path(name).name}", content)


def divided(files, size, stage):
    """Lists of files of at most `size` bytes each, the largest files first."""
    parts = []
    for path in sorted(files, key=lambda path: -path.stat().st_size):
        taken = path.stat().st_size + 1024  # a tar's header and padding
        if taken > size:
            raise InputError(
                f"{path.relative_to(stage)} has {taken / 2**20:,.1f} MiB: raise --part_mib, or lower --per_class"
            )
        fitting = next((part for part in parts if part[0] + taken <= size - 2**20), None)  # room for the manifest
        if fitting is None:
            parts.append(fitting := [0])
        fitting[0] += taken
        fitting.append(path)
    return [part[1:] for part in parts]


def write_part(path, files, stage):
    contents = {file.relative_to(stage).as_posix(): file for file in sorted(files)}
    manifest = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in contents.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        add(tar, "manifest.json", json.dumps(manifest, indent=0).encode())
        for name, file in contents.items():
            add(tar, name, file.read_bytes(), file.stat().st_mode & 0o777)
    write_atomic(path, buffer.getvalue())


def add(tar, name, content, mode=0o644):
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    cli.run(main)
