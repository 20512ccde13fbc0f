"""Make a directory that trains from a source of pictures.

It has {split}-images.npy, {split}-labels.npy, card.json and report.json. The work is cut into parts of a few thousand
pictures. A part is whole on disk or absent, so a preparation that was killed resumes with the part that it was making.
At the end the parts are joined, and the card is written last. A directory that holds anything else is refused, and only
files that a preparation wrote are deleted.
"""

import hashlib
import io
import logging
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from threadpoolctl import threadpool_limits

from cfg_jax.data import cards, labels, origins, tfds_origin
from cfg_jax.data.pictures import Pictures, Settings, convert_one
from cfg_jax.data.resize import RESIZES
from cfg_jax.errors import InputError, choice, require
from cfg_jax.files import digest_json, only_one, whole_file, write_atomic, write_json
from cfg_jax.inputs import npy, read_json
from cfg_jax.progress import progress

log = logging.getLogger(__name__)
PART = 2048  # pictures
# the files of a preparation, whole or left by a kill: in its directory, and in parts
TEMPORARY = r"\.((card|report)\.json|(train|validation)-(images|labels)\.npy)(\.[0-9a-f]{8})?\.tmp"
WRITTEN = rf"\.lock|(card|report)\.json|(train|validation)-(images|labels)\.npy|{TEMPORARY}"
PART_FILE = r"\.?(train|validation)-\d{5}-[0-9a-f]{12}\.(npy|json)(\.[0-9a-f]{8}\.tmp)?"
TIMED = 48  # pictures that are converted first, to estimate the time of all


class Part(NamedTuple):
    """The pictures begin..end-1 of a split. The key changes with anything that decides their content."""

    split: str
    begin: int
    end: int
    key: str

    def path(self, out: Path, suffix: str) -> Path:
        return out / "parts" / f"{self.split}-{self.begin // PART:05d}-{self.key}.{suffix}"


def prepare(
    name: str, source: str | Path | None, out: str | Path, *, resize: str | None = None, size: int | None = None,
    partial_set: bool = False, skip_unreadable: bool = False, workers: int | None = None,
) -> cards.Card:  # fmt: skip
    """Write the data set `name`, a key of cards.RECIPES, from the files of `source` to `out`, and return its card.

    partial_set accepts fewer pictures or classes than the set has. skip_unreadable leaves out files that cannot be
    read. Raises InputError if either is needed and not given; report.json names the files that cannot be read.
    """
    choice(name, cards.RECIPES, "--dataset")
    recipe, out = cards.RECIPES[name], Path(out)
    check_flags(name, recipe, resize, size)
    check_out(out)
    pictures, unused = origins.find(source or tfds_origin.by_tfds(recipe.tfds), out)
    settings = settings_of(name, recipe, resize, size, pictures)
    names = labels.read_class_names(source)
    with only_one(out):
        remove(out, TEMPORARY)
        parts = plan(pictures, settings)
        keys = [part.key for part in parts]
        listing = digest_json([name, partial_set, skip_unreadable, sorted(names.items()), keys])
        every = {*pictures["train"].named, *(pictures["train"].classes or ())}
        if card := finished(out, listing):
            require(
                not every or card.class_names == labels.label_classes(name, recipe, every, names)[0],
                f"{out} has its classes in the order of an earlier version, {card.class_table()}: train on it as it "
                "is, or choose another --out",
            )
            remove_parts(out)
            return card
        labels.check_counts({split: len(found.names) for split, found in pictures.items()}, recipe, partial_set)
        if all(found.classes is not None for found in pictures.values()):  # then check them before the work
            classes = {split: found.classes for split, found in pictures.items()}
            labels.label_pictures(name, recipe, classes, every, names, partial_set)
        contents = convert(out, pictures, parts, settings, workers or os.cpu_count())

        report = {"of no use: in no class, no picture, or of another split": unused} if unused else {}
        classes = {split: [] for split in sorted(pictures)}
        for part, content in zip(parts, contents, strict=True):
            classes[part.split] += content["classes"]
            for kind, file in content["notes"]:
                report.setdefault(kind, []).append(file)
        write_json(out / "report.json", report)
        for kind, files in report.items():
            log.info("%d %s, such as %s", len(files), kind, files[0])
        unreadable = report.get("unreadable", [])
        if unreadable and not skip_unreadable:
            raise InputError(
                f"{len(unreadable)} files cannot be read, listed in {out / 'report.json'}, such as {unreadable[0]}: "
                "mend them and run the same command, or leave them out with --skip_unreadable"
            )
        every = every or set(classes["train"])
        class_names, labelled = labels.label_pictures(name, recipe, classes, every, names, partial_set)
        counts = {split: len(found) for split, found in labelled.items()}
        shape = (settings.size, settings.size, settings.channels)
        sha256 = {split: join(out, split, found, shape, parts) for split, found in labelled.items()}
        card = cards.Card(
            name=out.name, source=recipe.source, licence=recipe.licence, comparable=recipe.comparable,
            class_names=class_names, image_shape=shape, resize=settings.resize, counts=counts, sha256=sha256,
            left_out=len(unreadable), complete=counts == (recipe.counts or counts) and not (unreadable or partial_set),
            pillow=PIL.__version__, listing=listing,
        )  # fmt: skip
        cards.save(out / "card.json", card)
        remove_parts(out)
        return card


def check_out(out: Path) -> None:
    """Raise InputError if a directory has files and is no preparation, neither finished nor stopped.

    A finished one has a card, and a user may have added files to it. A stopped one has a lock or parts, and only files
    that a preparation writes.
    """
    with suppress(InputError, OSError):
        cards.load(out / "card.json")
        return
    present = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    parts = [path.name for path in sorted(out.glob("parts/*"))]
    strange = [name for name in present if not re.fullmatch(f"{WRITTEN}|parts", name)]
    strange += [f"parts/{name}" for name in parts if not re.fullmatch(PART_FILE, name)]
    # the content of a lock of only_one; a process that was killed may have left it empty
    locked = (out / ".lock").is_file() and re.match(rb"process \d+ on |$", (out / ".lock").read_bytes())
    if present and (strange or not (parts or locked)):
        raise InputError(
            f"--out={out} holds {[*strange, *present][0]}, which no preparation wrote: choose another --out, or move "
            "that away"
        )


def remove(directory: Path, pattern: str) -> None:
    """Delete the files in a directory whose names match a pattern."""
    for path in list(directory.glob("*")):
        if re.fullmatch(pattern, path.name):
            path.unlink()


def remove_parts(out: Path) -> None:
    """Delete the parts, and their directory if nothing else is in it."""
    remove(out / "parts", PART_FILE)
    with suppress(OSError):
        (out / "parts").rmdir()


def check_flags(name: str, recipe: cards.Recipe, resize: str | None, size: int | None) -> None:
    """Raise InputError, before the source is read, if --resize or --size is absent, unknown or not allowed."""
    given = f"--resize={resize} is unknown" if resize else f"{name} needs --resize"
    require((resize or recipe.resize) in RESIZES, f"{given}: choose one of {', '.join(RESIZES)}")
    require(
        not recipe.size or size in (None, recipe.size),
        f"{name} is of {recipe.size} pixels, not --size={size}: leave --size out, or use folder",
    )
    require(size or recipe.size or name == "arrays", f"{name} needs --size, the side in pixels")


def settings_of(
    name: str, recipe: cards.Recipe, resize: str | None, size: int | None, pictures: dict[str, Pictures]
) -> Settings:
    """Return resize and size as given, else the recipe's, else those of the arrays."""
    size, channels = size or recipe.size, recipe.channels
    if name == "arrays":
        first, _ = pictures["train"].read(0)
        if isinstance(first, bytes):
            raise InputError("arrays needs an .npz or .npy as --source: use folder for files of pictures")
        size, channels = size or len(first), first.shape[2] if first.ndim == 3 else 1
    return Settings(size or 0, resize or recipe.resize or "", channels, recipe.upright)


def plan(pictures: dict[str, Pictures], settings: Settings) -> list[Part]:
    """Return the parts of all splits, in order."""
    parts = []
    for split, found in sorted(pictures.items()):
        for begin in range(0, len(found.names), PART):
            names, stamps = found.names[begin : begin + PART], found.stamps[begin : begin + PART]
            key = digest_json([split, asdict(settings), names, stamps])
            parts.append(Part(split, begin, begin + len(names), key))
    return parts


def finished(out: Path, listing: str) -> cards.Card | None:
    """Return the card of a finished preparation with right checksums, or None. Raises InputError for other settings."""
    path = out / "card.json"
    if not path.exists():
        return None
    try:
        card = cards.load(path)
    except InputError:
        log.info("%s is damaged or of another version: the set is made anew", path)
        return None
    require(
        card.listing == listing,
        f"{out} holds {card.name} of other files, settings or flags ({card.resize}, {card.image_shape}): choose "
        "another --out, or remove it",
    )
    for split, sha256 in card.sha256.items():
        try:
            right = checksum(out, split) == sha256
        except OSError:
            right = False
        if not right:
            log.info("%s is damaged: it is made anew", out / f"{split}-images.npy")
            return None
    log.info("%s is finished, its checksums are right", out)
    return card


def convert(
    out: Path, pictures: dict[str, Pictures], parts: list[Part], settings: Settings, workers: int | None
) -> list[dict]:
    """Make every part that is absent, and return the content of every part's json file: classes and notes."""
    total = sum(part.end - part.begin for part in parts)
    todo = [part for part in parts if not is_done(out, part)]
    missing = sum(part.end - part.begin for part in todo)
    with (
        threadpool_limits(1, "blas"),  # more BLAS threads would compete with these
        ThreadPoolExecutor(workers) as pool,  # Pillow decodes and resizes without the interpreter's lock
        progress(total=total, initial=total - missing, desc=out.name, unit="img") as bar,
    ):
        announce(out, pictures["train"], settings, total, missing, pool)
        for part in todo:
            of_split, numbers = pictures[part.split], range(part.begin, part.end)
            results = pool.map(partial(convert_one, of_split, settings=settings), numbers)
            images, classes, notes = [], [], []
            for i, (image, label, kinds) in zip(numbers, results, strict=True):
                notes += [(kind, of_split.names[i] + remark) for kind, remark in kinds]
                if image is not None:
                    images.append(image)
                    classes.append(label)
                bar.update()
            none = np.empty((0, settings.size, settings.size, settings.channels), np.uint8)
            write_npy(part.path(out, "npy"), np.stack(images) if images else none)
            write_json(part.path(out, "json"), {"classes": classes, "notes": notes})
    return [read_part(out, part) for part in parts]


def read_part(out: Path, part: Part) -> dict:
    """Return the content of a part's json file: the class of each picture, and notes as [kind, file]."""
    schema = {"classes": [str], "notes": [[str]]}
    return read_json(part.path(out, "json"), schema, "is damaged", "remove it and run the same command")


def is_done(out: Path, part: Part) -> bool:
    """Return whether a part is whole and every picture in it could be read."""
    try:
        content = read_part(out, part)
        whole = len(npy(part.path(out, "npy"), mmap=True)) == len(content["classes"])
    except (OSError, ValueError, TypeError):
        return False
    return whole and all(note[:1] != ["unreadable"] for note in content["notes"])


def announce(out: Path, pictures: Pictures, settings: Settings, total: int, missing: int, pool) -> None:
    """Log how long the work will take. Raises InputError if the disk cannot hold the result."""
    each = settings.size**2 * settings.channels
    need, free = (total + missing) * each, shutil.disk_usage(out).free  # the parts and, before they go, their copy
    some = np.unique(np.linspace(0, len(pictures.names) - 1, TIMED).astype(int))
    began = time.perf_counter()
    list(pool.map(partial(convert_one, pictures, settings=settings), map(int, some)))
    minutes = (time.perf_counter() - began) / len(some) * missing / 60
    log.info(
        "%s: %d of %d pictures to convert, about %.1f min by a trial of %d; %.2f GB when finished, twice that while it "
        "works", out, missing, total, minutes, len(some), total * each / 1e9,
    )  # fmt: skip
    space = f"{out} needs {need / 1e9:.2f} GB more, {free / 1e9:.2f} GB are free"
    require(need <= free, f"{space}: make room or move --out")


def join(out: Path, split: str, labels: np.ndarray, shape: tuple[int, ...], parts: list[Part]) -> str:
    """Write a split's parts as one array that can be memory-mapped, and return the checksum of images and labels."""
    with whole_file(out / f"{split}-images.npy") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for part in (part for part in parts if part.split == split):
            file.write(np.load(part.path(out, "npy")).tobytes())
    write_npy(out / f"{split}-labels.npy", labels)
    return checksum(out, split)


def write_npy(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomic(path, buffer.getvalue())


def checksum(out: Path, split: str) -> str:
    """Return the SHA-256 of the files of a split's images and labels."""
    sha = hashlib.sha256()
    for kind in ("images", "labels"):
        with open(out / f"{split}-{kind}.npy", "rb") as file:
            hashlib.file_digest(file, lambda: sha)
    return sha.hexdigest()
