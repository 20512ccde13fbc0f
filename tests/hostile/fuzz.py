"""Read files that were changed at random, for as long as is asked, and report whatever does not end in one line.

python -m tests.hostile.fuzz 600          # seconds; a second argument is the seed, 0

A tiny run, its sweep, its export, a data set and further files are made, and one file at a time is damaged: cut,
flipped, its numbers, types and names replaced, nested, swapped for another file. Its readers are called in this
process. Each must take it or raise an InputError of one line, within ten seconds and 4 GB.
"""

import collections
import copy
import faulthandler
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from cfg_jax import checks
from cfg_jax import config as configs
from cfg_jax.data import cards, origins, prepare, sources
from cfg_jax.data.pictures import Settings, convert_one
from cfg_jax.errors import InputError
from cfg_jax.evaluation import classifiers, references, samples
from cfg_jax.models import torch_file
from cfg_jax.perf import estimate
from cfg_jax.sampling import pairs
from cfg_jax.store import weights
from cfg_jax.sweep import claims, read, report, spec
from cfg_jax.sweep import run as sweeps
from cfg_jax.training import records, trainer
from experiments import export
from experiments.helpers import config_file, model_card
from tests.conftest import tiny_config
from tests.hostile.test_hostile import IMAGES
from tests.running import RECORDED, ROOT

SECONDS, BYTES = 10, 4 << 30
NUMBERS = (0, -1, 1, 2**31, 2**63, 10**30, -(10**400), 0.5, 1e308, float("nan"), float("inf"), 4096, 10**9)
VALUES = (*NUMBERS, None, True, "", "many", "\ud800", "\x1b[31m", "a/../b", "x" * 5000, [], {}, [[]], {"a": 1}, ["a"])
CONFIG = ROOT / "configs" / "digits.py"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


class TooLongError(BaseException):
    pass


@dataclass
class Target:
    path: Path
    reader: object
    kind: str  # of its content


def make(root):
    """Return the targets, files of which each reader takes what is there now."""
    config = tiny_config()
    config.train.averages = (0.05, 0.1)
    trainer.train(config, root / "run")
    sweeps.sweep(config, [root / "run"], [0.0, 1.0, 2.0], root / "sweep")
    report.write(root / "sweep")
    _, step, params = weights.read(root / "run")
    saved = configs.load(root / "run" / "config.json")
    weights.export(root / "m.safetensors", saved, step, params)
    save_file({"a": np.zeros(3, np.float32)}, root / "other.safetensors")
    with samples.writer(root / "s.npz", IMAGES.shape, np.arange(len(IMAGES))) as write:
        write(np.random.default_rng(0).integers(0, 256, IMAGES.shape, np.uint8))
    np.save(root / "s.npy", np.random.default_rng(0).integers(0, 256, IMAGES.shape, np.uint8))
    pairs.write(root / "p.npz", pairs.Pairs(np.zeros((4, 8, 8, 2), np.float32), np.zeros(4, np.int32)))
    np.savez(root / "a.npz", images=IMAGES, labels=np.arange(8) % 2)
    prepare.prepare("arrays", root / "a.npz", root / "set")
    for name in ("x.png", "x.jpg", "x.gif", "x.tiff", "x.webp", "x.bmp", "x.ppm"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)).save(root / name)
    (root / "imported.json").write_text(
        json.dumps(dict.fromkeys(("checkpoint", "sha256", "as", "attention_order", "noise_schedule"), "x"))
    )
    compiled = next((ROOT / "experiments" / "results" / "compiled").glob("*.json"))
    for path in (
        compiled,
        RECORDED / "torch_state_dict.pt",
        RECORDED / "torch_legacy.pt",
        CONFIG,
    ):
        shutil.copy(path, root)
    source, saved = sources.load(saved)
    model = classifiers.DataClassifier(source, root / "sweep" / "classifier.npz")
    features = classifiers.Features(model)

    def of_weights(path):
        weights.read(path)

    def of_run(_):
        weights.read(root / "run")

    def of_report(_):
        cells = read.read(root / "sweep", spec.settings(configs.load(root / "sweep" / "config.json")))
        for group in read.grouped(cells).values():
            rows = list(group.values())
            report.table(rows), report.more_scores(rows), report.strip(group), report.curves_of_steps(rows)
            report.claims_text(claims.judge(rows, rows[0]["T"]))
        report.results_csv(list(cells.values()))

    def of_reference(path):
        references.check_compatible(references.read(path), path, features, source.card)

    def of_config(path):
        checks.saved(path, configs.load(path))

    def of_classifier(path):
        classifiers._read(model, path, source.card.digest)

    def of_picture(path):
        if not path.is_file():  # as the listing of a folder sees to
            raise InputError("no file")
        pictures = origins._at_places([path.name], ["a"], [(path, 0, path.stat().st_size)])
        convert_one(pictures, 0, settings=Settings(8, "area", 3, True))

    def of_source(path):
        found, _ = origins.find(path)
        found["train"].read(0)

    run, sweep = root / "run", root / "sweep"
    of_set = lambda _: sources.prepared(root / "set")  # noqa: E731
    targets = [
        Target(run / "config.json", of_config, "json"),
        Target(run / "config.json", of_run, "json"),
        Target(run / "metrics.jsonl", lambda path: records.troubles(run, 3), "lines"),
        Target(run / "data.json", cards.load, "json"),
        *(Target(path, of_run, "bytes") for path in sorted((run / "checkpoints").rglob("*")) if path.is_file()),
        *(Target(path, of_report, "json") for path in sorted((sweep / "cells").glob("*.json"))),
        *(Target(path, of_report, "bytes") for path in sorted((sweep / "cells").glob("*.png"))),
        Target(sweep / "config.json", of_report, "json"),
        Target(sweep / "results.csv", lambda path: model_card.scores(path.parent, params), "text"),
        Target(sweep / "classifier.npz", of_classifier, "npz"),
        *(Target(path, of_reference, "npz") for path in sweep.glob("reference-*.npz")),
        Target(root / "m.safetensors", of_weights, "safetensors"),
        Target(root / "other.safetensors", of_weights, "safetensors"),
        Target(root / "s.npz", lambda path: list(samples.load(path).batches()), "npz"),
        Target(root / "s.npy", lambda path: list(samples.load(path).batches()), "bytes"),
        Target(root / "p.npz", pairs.read, "npz"),
        Target(root / "a.npz", of_source, "npz"),
        *(Target(path, of_set, "json" if path.suffix == ".json" else "bytes") for path in (root / "set").glob("*.*")),
        *(Target(path, of_picture, "bytes") for path in sorted(root.glob("x.*"))),
        Target(root / "imported.json", export.origin, "json"),
        Target(root / compiled.name, lambda path: estimate.fastest(estimate.rows_of(path)), "json"),
        Target(root / "torch_state_dict.pt", torch_file.read, "zip"),
        Target(root / "torch_legacy.pt", torch_file.read, "bytes"),
        Target(root / "digits.py", config_file.read, "python"),
    ]
    return [target for target in targets if target.path.name not in ("report.json", ".lock")]


def of_bytes(rng, content):
    """Cut, flip, fill, insert, repeat, or put a huge number."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        at = min(int(rng.expovariate(1 / 200)), len(content)) if rng.random() < 0.5 else rng.randint(0, len(content))
        match rng.randrange(6):
            case 0:
                del content[at:]
            case 1:
                content[at : at + 1] = bytes([rng.randrange(256)])
            case 2:
                content[at : at + 8] = rng.choice((b"\xff", b"\0", b"\x7f")) * 8
            case 3:
                content[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
            case 4:
                content[at:at] = content[at : at + rng.choice((4, 64, 1000))]
            case 5:
                content[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice((1, 2**31, 2**32 - 1, 65_536)))
    return bytes(content)


def of_value(rng, value, depth=0):
    """Change a value of JSON somewhere: another value, another type, a key gone, renamed or doubled, or nested deep."""
    below = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    if below and rng.random() < 0.8:
        key = rng.choice(below)
        match rng.randrange(8):
            case 0 if isinstance(value, dict):
                del value[key]
            case 1 if isinstance(value, dict):
                value[f"{key}x"] = value.pop(key)
            case 2 if isinstance(value, list):
                value += value[:] * rng.choice((1, 100))
            case 3 if isinstance(value, list):
                del value[key]
            case _:
                value[key] = of_value(rng, value[key], depth + 1)
        return value
    if rng.random() < 0.1:
        for _ in range(rng.choice((2, 40, 400))):
            value = rng.choice(([value], {"a": value}))
        return value
    return copy.deepcopy(rng.choice(VALUES))


def of_json(rng, content):
    if rng.random() < 0.2:
        return of_bytes(rng, content)
    if rng.random() < 0.02:
        return rng.choice((b"[", b'{"a":')) * 200_000
    value = json.loads(content)
    for _ in range(rng.choice((1, 1, 3))):
        value = of_value(rng, value)
    return json.dumps(value).encode()


def of_lines(rng, content):
    lines = content.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    lines[at] = of_json(rng, lines[at]) + b"\n"
    return b"".join(lines)


def of_text(rng, content):
    """Replace words by others."""
    words = content.replace(b"\n", b" \n ").split(b" ") if rng.random() < 0.2 else content.split(b",")
    words[rng.randrange(len(words))] = str(rng.choice(VALUES)).encode(errors="surrogatepass")
    return of_bytes(rng, content) if rng.random() < 0.3 else b",".join(words)


def of_python(rng, content):
    """Cut, or a value replaced: the file is executed, so nothing else."""
    lines = content.decode().splitlines(keepends=True)
    at = rng.randrange(len(lines))
    match rng.randrange(3):
        case 0:
            del lines[at:]
        case 1:
            del lines[at]
        case 2 if " = " in lines[at]:
            lines[at] = f"{lines[at].partition(' = ')[0]} = {rng.choice(VALUES)!r}\n"
    return "".join(lines).encode(errors="replace")


def of_array(rng, content):
    """Another shape, dtype or content of an .npy."""
    if rng.random() < 0.5:
        return of_bytes(rng, content)
    array = np.load(io.BytesIO(content))
    if array.dtype.kind == "U" and array.ndim == 0 and rng.random() < 0.8:
        try:
            array = np.array(of_json(rng, str(array).encode()).decode(errors="replace"))
        except ValueError:
            array = np.array("".join(rng.sample("abc{}[]:,", 5)))
    else:
        match rng.randrange(5):
            case 0:
                array = array.astype(rng.choice(("u1", "f2", "f8", "i8", "?", "c16", "U3", "S3", "M8[s]")))
            case 1:
                array = array[..., None]
            case 2:
                array = array.ravel()[: rng.randint(0, array.size)]
            case 3:
                array = np.full_like(array, rng.choice((0, 1, -1 if array.dtype.kind != "u" else 1)))
            case 4 if array.dtype.kind == "f":
                array = np.full_like(array, rng.choice((np.nan, np.inf, 1e30)))
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def of_zip(rng, content, change=of_bytes):
    """Change a member and pack all again, by any method; or change the bytes of the archive."""
    if rng.random() < 0.3:
        return of_bytes(rng, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice([*members])
    match rng.randrange(6):
        case 0:
            del members[name]
        case 1:
            members[rng.choice(("x", f"{name}/b", f"x{name}"))] = members.pop(name)
        case _:
            members[name] = change(rng, members[name])
    buffer, method = io.BytesIO(), rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return buffer.getvalue()


def of_safetensors(rng, content):
    if rng.random() < 0.3:
        return of_bytes(rng, content)
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    if (meta := header.get("__metadata__")) and rng.random() < 0.7:
        meta["config"] = of_json(rng, meta["config"].encode()).decode(errors="replace")
    else:
        header = of_value(rng, header)
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + content[8 + size :]


CHANGES = {
    "json": of_json, "lines": of_lines, "text": of_text, "bytes": of_bytes, "python": of_python, "zip": of_zip,
    "npz": partial(of_zip, change=of_array), "safetensors": of_safetensors,
}  # fmt: skip


def damage(rng, target, content, others):
    """Put a damaged file in a target's place."""
    path = target.path
    path.unlink()
    match rng.randrange(60) if target.kind != "python" else 60:
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to("/dev/zero")
        case 3:
            pass
        case 4:
            path.write_bytes(POINTER)
        case 5:
            path.write_bytes(rng.choice(others))
        case _:
            try:
                path.write_bytes(CHANGES[target.kind](rng, content))
            except (ValueError, TypeError):  # numpy has no such array
                path.write_bytes(of_bytes(rng, content))


def put_back(target, content):
    path = target.path
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def too_long(*_):
    raise TooLongError(f"more than {SECONDS} seconds")


def problem_of(target):
    """Return what was wrong, or None, and what the reader did: "taken" or "refused"."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    faulthandler.dump_traceback_later(3 * SECONDS, exit=True)  # where C code does not come back
    try:
        target.reader(target.path)
    except InputError as error:
        line = str(error)
        bad = "\n" in line or len(line) > 900
        return (f"a message of {len(line)} characters: {line[:300]!r}", "") if bad else (None, "refused")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(str(ROOT))]
        places = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-4:]))
        return f"{type(error).__name__} at {places}", str(error)[:200]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
    return None, "taken"


def fuzz(seconds, seed, root, kept):
    targets = make(root)
    contents = {target.path: target.path.read_bytes() for target in targets}
    for target in targets:
        problem, what = problem_of(target)
        assert what == "taken" or target.path.name == "other.safetensors", (target.path, problem, what)
    by_reader = collections.defaultdict(list)
    for target in targets:
        by_reader[getattr(target.reader, "__name__", ""), target.path.suffix].append(target)
    shares = [1 if name[0] == "of_run" else 10 for name in by_reader]  # orbax takes a second
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + BYTES, resource.RLIM_INFINITY))
    rng, began, done, problems = random.Random(seed), time.monotonic(), collections.Counter(), collections.Counter()
    small = [content for content in contents.values() if len(content) < 1 << 20]
    while time.monotonic() - began < seconds:
        target = rng.choice(rng.choices([*by_reader.values()], shares)[0])
        damage(rng, target, contents[target.path], small)
        if target.path.is_file():
            shutil.copy(target.path, kept / "last")  # where the process itself ends
            (kept / "last.txt").write_text(str(target.path))
        problem, what = problem_of(target)
        done[what if problem is None else "else"] += 1
        if problem and not problems[problem]:
            print(f"{target.path.relative_to(root)}: {problem}: {what}", flush=True)
            if target.path.is_file():
                shutil.copy(target.path, kept / f"{len(problems)}-{target.path.name}")
        problems[problem] += problem is not None
        put_back(target, contents[target.path])
    said = ", ".join(f"{count:,} {what}" for what, count in done.items())
    print(f"{time.monotonic() - began:.0f} s, seed {seed}: {sum(done.values()):,} inputs: {said}")
    return sum(count > 0 for count in problems.values())


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, too_long)
    with tempfile.TemporaryDirectory() as root:
        kept = Path(tempfile.mkdtemp(prefix="fuzz-"))
        found = fuzz(float(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 0, Path(root), kept)
        print(f"{found} kinds of problem; their files are in {kept}")
    sys.exit(found > 0)
