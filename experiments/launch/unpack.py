"""On a machine without a network: put in place what experiments.launch.pack packed. It needs Python and pip alone.

    python3 unpack.py --list > there.json                  first, on that machine: what pack is to go by
    python3 unpack.py --parts=carry --into=cfg_jax         then: code, packages in cfg_jax/site, data in cfg_jax/data

Parts may come one by one: what is whole is made ready, what is there is left as it is.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path, PurePosixPath

# what makes of a file that was carried what the project reads
READY = {
    "data/inception.npz": ("experiments.fetch_inception", "--from_file=carried/inception.npz"),
    "data/fashion_mnist": (
        "experiments.prepare_data", "--dataset=fashion_mnist", "--source=carried/fashion_mnist.npz", "--partial"
    ),
    "data/tiny_imagenet": (
        "experiments.prepare_data", "--dataset=tiny_imagenet", "--source=carried/tiny_imagenet.tar.gz"
    ),
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print this machine's Python and packages as JSON")
    parser.add_argument("--parts", type=Path, help="directory with part1.tar ...")
    parser.add_argument("--into", type=Path, default=Path("."), help="directory of the project; default: this one")
    args = parser.parse_args()
    if args.list:
        print(json.dumps(listed(), indent=1))
    elif args.parts:
        unpack(args.parts, args.into)
    else:
        parser.error("give --list or --parts")


def listed():
    """Python, C library, processor and installed packages."""
    packages = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    libc, version = platform.libc_ver()
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "glibc": version if libc == "glibc" else None,
        "packages": dict(sorted(packages.items())),
    }


def unpack(parts, into):
    paths = sorted(parts.glob("part*.tar"))
    if not paths:
        sys.exit(f"error: {parts} has no part1.tar: name the directory that experiments.launch.pack wrote")
    for path in paths:
        count = place(path, into)
        print(f"{path}: {count} files", flush=True)
    wheels = sorted((into / "wheels").glob("*.whl"))
    site = into / "site"
    if wheels:
        run(into, "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--upgrade",
            "--disable-pip-version-check", "--target=site", *(f"wheels/{wheel.name}" for wheel in wheels))  # fmt: skip
    for made, (module, *flags) in READY.items():
        carried = next(flag.partition("=")[2] for flag in flags if "=carried/" in flag)
        if (into / carried).exists() and not (into / made).exists() and (into / "experiments").exists():
            run(into, module, *flags)
            print(f"{into / made}: ready", flush=True)
    print(f"cd {into}; export PYTHONPATH={site.resolve()}" if wheels else f"cd {into}")


def place(path, into):
    """Write a part's files below `into` -> how many. Each must have the SHA-256 that the part's manifest says."""
    with tarfile.open(path) as tar:
        manifest = json.loads(tar.extractfile("manifest.json").read())
        members = [member for member in tar if member.name != "manifest.json"]
        for member in members:
            name = PurePosixPath(member.name)
            if not member.isfile() or name.is_absolute() or ".." in name.parts:
                sys.exit(f"error: {path} holds {member.name}, which is no file below it: nothing packs that")
            content = tar.extractfile(member).read()
            if hashlib.sha256(content).hexdigest() != manifest.get(member.name):
                sys.exit(f"error: {member.name} in {path} is damaged: carry this part again")
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.with_name(target.name + ".part").write_bytes(content)
            target.with_name(target.name + ".part").replace(target)
            target.chmod(member.mode & 0o777)
    if len(members) != len(manifest):
        sys.exit(f"error: {path} breaks off: carry this part again")
    return len(members)


def run(into, module, *args):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str((into / "site").resolve()), str(into.resolve())])}
    done = subprocess.run([sys.executable, "-m", module, *args], cwd=into, env=env)
    if done.returncode:
        sys.exit(f"error: python -m {module} ended with status {done.returncode}: mend that and run this again")


if __name__ == "__main__":
    main()
