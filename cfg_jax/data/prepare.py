"""A source of pictures -> a directory that trains: {split}-images.npy, {split}-labels.npy, card.json, report.json.

Work is cut into parts of a few thousand pictures. A part is whole on the disk or not there, so a preparation that is
killed goes on with the part it was in. At the end the parts are joined, and the card is written last. A directory that
holds anything else is refused, and only files that a preparation wrote are deleted.
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

import numpy as np
import PIL
from threadpoolctl import threadpool_limits

from cfg_jax.data import cards, labels, origins, tfds_origin
from cfg_jax.data.pictures import Pictures, Settings, convert_one
from cfg_jax.data.resize import RESIZES
from cfg_jax.errors import InputError
from cfg_jax.files import digest_json, only_one, read_json, write_atomic, write_json
from cfg_jax.progress import progress

log = logging.getLogger(__name__)
PART = 2048  # pictures
# the files of a preparation, whole or left by a kill: in its directory, and in parts
TEMPORARY = r"\.((card|report)\.json|(train|validation)-(images|labels)\.npy)(\.[0-9a-f]{8})?\.tmp"
WRITTEN = rf"\.lock|(card|report)\.json|(train|validation)-(images|labels)\.npy|{TEMPORARY}"
PART_FILE = r"\.?(train|validation)-\d{5}-[0-9a-f]{12}\.(npy|json)(\.[0-9a-f]{8}\.tmp)?"
TIMED = 48  # pictures converted beforehand to say how long all will take


def prepare(
    name: str, source: str | Path | None, out: str | Path, *, resize: str | None = None, size: int | None = None,
    partial_set: bool = False, skip_unreadable: bool = False, workers: int | None = None,
) -> cards.Card:  # fmt: skip
    """Write the data set `name`, a key of cards.RECIPES, from the files of `source` to `out` -> its card.

    partial_set: accept fewer pictures or classes than the set has. skip_unreadable: leave out files that cannot be
    read. Raises InputError where either is needed and not given; a report names the files that cannot be read.
    """
    recipe, out = cards.recipe(name), Path(out)
    check_flags(name, recipe, resize, size)
    check_out(out)
    pictures, unused = origins.find(source or tfds_origin.by_tfds(recipe.tfds), out)
    settings = settings_of(name, recipe, resize, size, pictures)
    words = labels.words_of(source)
    with only_one(out):
        remove(out, TEMPORARY)
        plans = {split: plan(split, found, settings) for split, found in sorted(pictures.items())}
        keys = [key for parts in plans.values() for *_, key in parts]
        listing = digest_json([name, partial_set, skip_unreadable, sorted(words.items()), keys])
        every = pictures["train"].every_class()
        if card := finished(out, listing):
            if every and card.class_names != labels.numbered(name, recipe, every, words)[0]:
                raise InputError(
                    f"{out} has its classes in the order of an earlier version, {card.class_table()}: train on it as "
                    "it is, or choose another --out"
                )
            remove_parts(out)
            return card
        labels.check_counts({split: len(found.names) for split, found in pictures.items()}, recipe, partial_set)
        if all(found.classes is not None for found in pictures.values()):  # before the work, where it can be told
            classes = {split: found.classes for split, found in pictures.items()}
            labels.of_all(name, recipe, classes, every, words, partial_set)
        parts = convert(out, pictures, plans, settings, workers or os.cpu_count())

        report = gather_report(parts, unused)
        write_json(out / "report.json", report)
        for kind, files in report.items():
            log.info("%d %s, such as %s", len(files), kind, files[0])
        unreadable = report.get("unreadable", [])
        if unreadable and not skip_unreadable:
            raise InputError(
                f"{len(unreadable)} files cannot be read, listed in {out / 'report.json'}, such as {unreadable[0]}: "
                "mend them and run the same command, or leave them out with --skip_unreadable"
            )
        classes = {split: [c for part in parts[split] for c in part["classes"]] for split in parts}
        class_names, found = labels.of_all(name, recipe, classes, every or set(classes["train"]), words, partial_set)
        counts = {split: len(of) for split, of in found.items()}
        shape = (settings.size, settings.size, settings.channels)
        card = cards.Card(
            name=out.name, source=recipe.source, licence=recipe.licence, comparable=recipe.comparable,
            class_names=class_names, image_shape=shape, resize=settings.resize, counts=counts,
            sha256={split: join(out, split, of, shape, plans[split]) for split, of in found.items()},
            left_out=len(unreadable), complete=counts == (recipe.counts or counts) and not (unreadable or partial_set),
            pillow=PIL.__version__, listing=listing,
        )  # fmt: skip
        cards.save(out / "card.json", card)
        remove_parts(out)
        return card


def check_out(out: Path) -> None:
    """Raise InputError where a directory has files and is no preparation, finished or stopped.

    A finished one has a card; a user may have added files to it. A stopped one has a lock or parts, and no other files
    than a preparation writes.
    """
    with suppress(InputError, OSError):
        cards.load(out / "card.json")
        return
    there = sorted(out.iterdir()) if out.is_dir() else []
    strange = [path.name for path in there if not re.fullmatch(f"{WRITTEN}|parts", path.name)]
    parts = [path.name for path in sorted(out.glob("parts/*"))]
    strange += [f"parts/{name}" for name in parts if not re.fullmatch(PART_FILE, name)]
    if there and (strange or not (parts or is_lock(out / ".lock"))):
        raise InputError(
            f"--out={out} holds {[*strange, there[0].name][0]}, which no preparation wrote: choose another --out, or "
            "move that away"
        )


def is_lock(path: Path) -> bool:
    """Return whether a file is a lock that only_one wrote. A killed process may have left it empty."""
    return path.is_file() and re.match(rb"process \d+ on |$", path.read_bytes()) is not None


def remove(directory: Path, pattern: str) -> None:
    """Delete the files in a directory whose names are of a pattern."""
    for path in list(directory.glob("*")):
        if re.fullmatch(pattern, path.name):
            path.unlink()


def remove_parts(out: Path) -> None:
    """Delete the parts, and their directory where nothing else is in it."""
    remove(out / "parts", PART_FILE)
    with suppress(OSError):
        (out / "parts").rmdir()


def check_flags(name: str, recipe: cards.Recipe, resize: str | None, size: int | None) -> None:
    """Raise InputError, before the source is looked at, where --resize or --size is absent, unknown or not allowed."""
    if (resize or recipe.resize) not in RESIZES:
        given = f"--resize={resize} is unknown" if resize else f"{name} needs --resize"
        raise InputError(f"{given}: choose one of {', '.join(RESIZES)}")
    if recipe.size and size not in (None, recipe.size):
        raise InputError(f"{name} is of {recipe.size} pixels, not --size={size}: leave --size out, or use folder")
    if not (size or recipe.size or name == "arrays"):
        raise InputError(f"{name} needs --size, the side in pixels")


def settings_of(
    name: str, recipe: cards.Recipe, resize: str | None, size: int | None, pictures: dict[str, Pictures]
) -> Settings:
    """resize and size as given, else the recipe's, else those of the arrays."""
    size, channels = size or recipe.size, recipe.channels
    if name == "arrays":
        first, _ = pictures["train"].read(0)
        if isinstance(first, bytes):
            raise InputError("arrays needs an .npz or .npy as --source: use folder for files of pictures")
        size, channels = size or len(first), first.shape[2] if first.ndim == 3 else 1
    return Settings(size or 0, resize or recipe.resize or "", channels, recipe.upright)


def plan(split: str, pictures: Pictures, settings: Settings) -> list[tuple[int, int, int, str]]:
    """[(number, begin, end, key)] of a split's parts. The key changes with anything that decides the content."""
    names = pictures.names
    ranges = [(begin, min(begin + PART, len(names))) for begin in range(0, len(names), PART)]
    return [
        (number, begin, end, digest_json([split, asdict(settings), names[begin:end], pictures.stamps[begin:end]]))
        for number, (begin, end) in enumerate(ranges)
    ]


def finished(out: Path, listing: str) -> cards.Card | None:
    """The card of a finished preparation with right checksums, or None. InputError where it is of other settings."""
    path = out / "card.json"
    if not path.exists():
        return None
    try:
        card = cards.load(path)
    except InputError:
        log.info("%s is damaged or of another version: the set is made anew", path)
        return None
    if card.listing != listing:
        raise InputError(
            f"{out} holds {card.name} of other files, settings or flags ({card.resize}, {card.image_shape}): choose "
            "another --out, or remove it"
        )
    for split, sha256 in card.sha256.items():
        try:
            same = checksum(out, split) == sha256
        except OSError:
            same = False
        if not same:
            log.info("%s is damaged: it is made anew", images_path(out, split))
            return None
    log.info("%s is finished, its checksums are right", out)
    return card


def convert(out: Path, pictures: dict[str, Pictures], plans: dict[str, list], settings: Settings, workers) -> dict:
    """Make every part that is not there yet -> {split: [what part_path's json says]}."""
    total = sum(len(found.names) for found in pictures.values())
    todo = [(split, *part) for split in plans for part in plans[split] if not is_done(out, split, part)]
    missing = sum(end - begin for _, _, begin, end, _ in todo)
    one = partial(convert_one, settings=settings)
    with (
        threadpool_limits(1, "blas"),  # whose threads would fight with these
        ThreadPoolExecutor(workers) as pool,  # Pillow decodes and resizes outside the interpreter's lock
        progress(total=total, initial=total - missing, desc=out.name, unit="img") as bar,
    ):
        announce(out, pictures["train"], settings, total, missing, pool)
        for split, number, begin, end, key in todo:
            results = pool.map(partial(one, pictures[split]), range(begin, end))
            images, classes, notes = [], [], []
            for i, (image, label, kinds) in zip(range(begin, end), results, strict=True):
                notes += [(kind, pictures[split].names[i] + why) for kind, why in kinds]
                if image is not None:
                    images.append(image)
                    classes.append(label)
                bar.update()
            shape = (0, settings.size, settings.size, settings.channels)
            stacked = np.stack(images) if images else np.empty(shape, np.uint8)
            write_npy(part_path(out, split, number, key, "npy"), stacked)
            write_json(part_path(out, split, number, key, "json"), {"classes": classes, "notes": notes})
    return {
        split: [read_json(part_path(out, split, n, key, "json")) for n, _, _, key in plans[split]] for split in plans
    }


def part_path(out: Path, split: str, number: int, key: str, suffix: str) -> Path:
    return out / "parts" / f"{split}-{number:05d}-{key}.{suffix}"


def is_done(out: Path, split: str, part: tuple) -> bool:
    """Whether a part is whole and every picture in it could be read."""
    number, _, _, key = part
    try:
        values = read_json(part_path(out, split, number, key, "json"))
        np.load(part_path(out, split, number, key, "npy"), mmap_mode="r")  # is it whole?
    except (OSError, ValueError, EOFError):
        return False
    return all(kind != "unreadable" for kind, _ in values["notes"])


def announce(out: Path, pictures: Pictures, settings: Settings, total: int, missing: int, pool) -> None:
    """Log how long the work will take. Raises InputError where the disk cannot hold the result."""
    size = total * settings.size**2 * settings.channels
    there = sum(path.stat().st_size for path in (out / "parts").glob("*.npy")) if missing < total else 0
    need, free = 2 * size - there, shutil.disk_usage(out).free
    some = np.unique(np.linspace(0, len(pictures.names) - 1, TIMED).astype(int))
    began = time.perf_counter()
    list(pool.map(partial(convert_one, pictures, settings=settings), map(int, some)))
    minutes = (time.perf_counter() - began) / len(some) * missing / 60
    log.info(
        "%s: %d of %d pictures to convert, about %.1f min by a trial of %d; %.2f GB when finished, twice that while it "
        "works", out, missing, total, minutes, len(some), size / 1e9,
    )  # fmt: skip
    if need > free:
        raise InputError(f"{out} needs {need / 1e9:.2f} GB more, {free / 1e9:.2f} GB are free: make room or move --out")


def gather_report(parts: dict[str, list[dict]], unused: list[str]) -> dict[str, list[str]]:
    """{what was unusual: files}, in order."""
    report = {"of no use: in no class, no picture, or of another split": unused} if unused else {}
    for kind, file in (note for found in parts.values() for part in found for note in part["notes"]):
        report.setdefault(kind, []).append(file)
    return report


def images_path(out: Path, split: str) -> Path:
    return out / f"{split}-images.npy"


def join(out: Path, split: str, labels: np.ndarray, shape: tuple[int, ...], parts: list[tuple]) -> str:
    """Write the parts as one array that can be memory-mapped -> the checksum of images and labels."""
    path, temporary = images_path(out, split), out / f".{split}-images.npy.tmp"
    try:
        with open(temporary, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for number, _, _, key in parts:
                file.write(np.load(part_path(out, split, number, key, "npy")).tobytes())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # on a full disk it would be in the way
    write_npy(out / f"{split}-labels.npy", labels)
    return checksum(out, split)


def write_npy(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomic(path, buffer.getvalue())


def checksum(out: Path, split: str) -> str:
    """SHA-256 of the files of a split's images and labels."""
    sha = hashlib.sha256()
    for kind in ("images", "labels"):
        with open(out / f"{split}-{kind}.npy", "rb") as file:
            while block := file.read(1 << 22):
                sha.update(block)
    return sha.hexdigest()
