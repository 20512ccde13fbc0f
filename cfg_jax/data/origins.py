"""Find the pictures of a source on disk: {split: Pictures}. Files are listed and read, not decoded.

A place is (holder, offset, size) of a file's bytes. The holder is the path of the file or archive, or its bytes.
"""

import gzip
import io
import os
import re
import stat
import tarfile
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

from cfg_jax.data.array_origin import arrays, zipped_batches
from cfg_jax.data.cards import printable
from cfg_jax.data.labels import text_of
from cfg_jax.data.pictures import Pictures
from cfg_jax.data.splits import find_splits, is_in
from cfg_jax.data.tfds_origin import from_tfds, tfds_directory
from cfg_jax.errors import InputError, installed, require
from cfg_jax.inputs import MOST, MOST_PIXELS, check_begin

ILSVRC_TARS = {"ILSVRC2012_img_train": "train", "ILSVRC2012_img_val": "val"}
# suffixes of pictures; a file of these that Pillow cannot read is listed as unreadable, not as unused
PICTURES = (
    ".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm", ".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".dng", ".cr2", ".nef", ".arw",
)  # fmt: skip
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar")
# names that systems, file servers and notebooks add; names that begin with a point are skipped as well
SERVICE = {
    "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "~snapshot", "$recycle.bin",
    "recycler", "recycled", "system volume information", "lost+found", "found.000", "network trash folder",
    "temporary items", "__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
}  # fmt: skip


def find(source: str | Path, out: str | Path | None = None) -> tuple[dict[str, Pictures], list[str]]:
    """Return ({split: Pictures}, [unused files]) of a source, whose kind is told from its files.

    A folder `out` within the source, which is being prepared, is skipped. Raises InputError if the source is absent,
    damaged or without training pictures, or if the class or split of a picture cannot be told.
    """
    path = Path(source)
    require(path.exists(), f"--source={source} does not exist: name a folder, a .tar, an .npz or a .npy")
    try:
        splits, unused = _find(path, out)
    except (InputError, OSError):
        raise
    except Exception as error:  # zip, zlib, tar, numpy and protobuf each have their own for a damaged file
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"--source={source} cannot be read ({reason}): fetch it again") from error
    expected = "expected train/CLASS/FILE or CLASS/FILE below it"
    require("train" in splits, f"--source={source} has no training pictures: {expected}")
    return splits, unused


def _find(path, out):
    if path.is_file():
        if path.suffix in (".npz", ".npy"):
            return arrays(path), []
        with open(path, "rb") as file:
            check_begin(path, file.read(32), readable="gzip")
        require(tarfile.is_tarfile(path), f"--source={path} is no folder, .tar, .npz or .npy of pictures")
        return by_class(tar_entries(path))
    require(path.is_dir(), f"--source={path} is no folder and no file: name a folder, a .tar, an .npz or a .npy")
    if directory := tfds_directory(path):
        return from_tfds(directory)
    if zips := sorted(p for p in path.glob("Imagenet64_*_npz.zip") if p.is_file()):
        return zipped_batches(zips), []
    avoid = Path(out or "").resolve()
    listed = sorted(p for p in path.iterdir() if not is_service(p.name) and p.resolve() != avoid)
    tars = [p for p in listed if p.name.lower().endswith((".tar", ".tar.gz", ".tgz")) and p.is_file()]
    if originals := [p for p in tars if p.stem in ILSVRC_TARS]:
        tars = originals
    elif tars and (others := [p.name for p in listed if p.is_dir() or (p not in tars and is_picture(p.name))]):
        raise InputError(
            f"--source={path} has folders and archives ({tars[0].name}), such as {others[0]}: name one, or move the "
            "other away"
        )
    return by_class([entry for tar in tars for entry in tar_entries(tar)] if tars else folder_entries(path, avoid))


def is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURES)


def is_service(name: str) -> bool:
    """Return whether a file or folder of this name is skipped: it is hidden, or its name is in SERVICE."""
    return (name.startswith(".") and name != "..") or name.lower() in SERVICE


def by_class(entries: Iterable[tuple[str, tuple]]) -> tuple[dict[str, Pictures], list[str]]:
    """Return ({split: Pictures}, [unused paths]) of [(path, place)]. A folder's path ends in /.

    Paths are [.../]train/CLASS/.../FILE, or CLASS/.../FILE if no folder is a split. Raises InputError if a folder at
    the place of a class has no picture, since the classes after it would take other labels.
    """
    entries = sorted(entries, key=lambda entry: entry[0])
    listed = [path for path, _ in entries if not path.endswith("/")]
    if twice := [path for path, after in pairwise(listed) if path == after]:
        raise InputError(f"{printable(twice[0])} is twice in the source: remove one")
    if archives := [path for path in listed if path.lower().endswith(ARCHIVES)]:
        raise InputError(f"{printable(archives[0])} is an archive within the source: unpack it there, or move it away")
    splits = find_splits(path for path in listed if is_picture(path))
    synset_of = annotations(entries)
    pictures, unused, first_files, with_pictures = {}, [], {}, set()
    for path, place in entries:
        *folders, file = path.split("/")
        top = next((top for top in splits if is_in(tuple(folders), top)), None)
        split, below = (None, []) if top is None else (splits[top], folders[len(top) :])
        class_folder = (*(top or ()), *below[:1])
        if below:
            first_files[class_folder] = first_files.get(class_folder) or file
        label = synset_of.get(file) if split == "validation" else None
        if below and not label:
            label = unicodedata.normalize("NFC", below[0])  # an archive and a folder may encode one name in two ways
        elif split and not label and (label := validation_synset(file)):
            split = "validation"
        if split and label and is_picture(file):
            pictures.setdefault(split, []).append((path, label, place))
            with_pictures.add(class_folder)
        elif file:
            unused.append(path)
    for folder, file in first_files.items():
        name = printable("/".join(folder))
        require(file, f"{name} is empty: put the pictures of that class there, or remove it")
        require(
            folder in with_pictures,
            f"{name} has no picture that is known by its ending (its first file is {printable(file)}): convert them to "
            ".png or .jpg, or remove it",
        )
    return {split: _at_places(*zip(*rows, strict=True)) for split, rows in pictures.items()}, unused


def _at_places(paths, labels, places):
    return Pictures(paths, [size for *_, size in places], labels, lambda i: (fetch(places[i]), labels[i]))


def annotations(entries: list[tuple[str, tuple]]) -> dict[str, str]:
    """Return {file: synset} of Tiny ImageNet's validation pictures, which are published in one folder with a list."""
    lists = [fetch(place) for path, place in entries if path.endswith("val/val_annotations.txt")]
    lines = [line for content in lists for line in text_of(content, "val_annotations.txt").splitlines() if line.strip()]
    if wrong := [line for line in lines if "\t" not in line]:
        raise InputError(f"val_annotations.txt has the line {wrong[0][:60]!r}: give FILE, a tab and SYNSET in each")
    return dict(line.split("\t")[:2] for line in lines)


def validation_synset(file: str) -> str | None:
    """Return the synset of a validation picture of ILSVRC2012 by its file name; None for any other file."""
    number = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.jpeg", file, re.IGNORECASE)
    synsets = validation_synsets() if number else ()
    return synsets[int(number[1]) - 1] if number and 1 <= int(number[1]) <= len(synsets) else None


def fetch(place: tuple[str | Path | bytes, int, int]) -> bytes:
    """Return the bytes at a place."""
    holder, offset, size = place
    require(size <= MOST_FILE, f"{holder} has {size:,} bytes, and a picture has at most {MOST_FILE:,}: move it away")
    if isinstance(holder, bytes):
        return holder[offset : offset + size]
    with open(holder, "rb") as file:
        file.seek(offset)
        return file.read(size)


def folder_entries(root: Path, avoid: Path) -> list[tuple[str, tuple]]:
    """Return [(path below root, place)] of all files and folders, without service ones and the folder `avoid`.

    Raises InputError if two paths lead to one folder, as in a loop of links.
    """

    def fail(error):
        raise error  # a folder that may not be listed would change the labels after it

    entries, seen = [], {}
    for folder, folders, files in os.walk(root, onerror=fail, followlinks=True):
        folders[:] = [n for n in folders if not is_service(n) and Path(folder, n).resolve() != avoid]
        same = seen.setdefault(os.path.realpath(folder), folder)
        twice = f"{printable(folder)} is a link to {printable(same)}: remove it, its pictures would be taken twice"
        require(same == folder, twice)
        below = Path(folder).relative_to(root)
        entries += [((below / name).as_posix() + "/", NOTHING) for name in folders]
        for name in filter(lambda name: not is_service(name), files):
            path = os.path.join(folder, name)
            status = os.stat(path)
            regular = stat.S_ISREG(status.st_mode)  # a pipe or device is never opened
            place = (path, 0, status.st_size) if regular else NOTHING
            entries.append(((below / name).as_posix() + ("" if regular else NO_FILE), place))
    require(entries, f"{root} is empty: put a folder of pictures for each class there")
    return entries


MOST_FILE = 4 * MOST_PIXELS  # bytes of a picture that is not compressed, of 8 bits a channel
NOTHING = (b"", 0, 0)  # the place of a folder, or of a file that is not read
NO_FILE = " (no file: a link, pipe or device)"


def tar_entries(path: Path) -> list[tuple[str, tuple]]:
    """Return [(name, place)] of the members of an archive and of the tars within it.

    A compressed archive is read into memory. Raises InputError for a damaged one.
    """
    prefix = f"{ILSVRC_TARS[path.stem]}/" if path.stem in ILSVRC_TARS else ""
    try:
        with open(path, "rb") as file:
            if not check_begin(path, file.read(32), readable="gzip"):
                file.seek(0)
                return list(_members(file, path, prefix, os.path.getsize(path)))
        with gzip.open(path) as file:
            content = file.read(MOST + 1)  # to its end, where the checksum is
        require(len(content) <= MOST, f"{path} has more than {MOST:,} bytes when unpacked: unpack it to the disk")
        return list(_members(io.BytesIO(content), content, prefix, len(content)))
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}): fetch it again, or unpack it and name the folder") from error


def _members(file, holder, prefix, end) -> Iterator[tuple[str, tuple]]:
    """Yield (name, place) of the members of a tar that begins at the position of `file` and ends at the byte `end`."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        members = list(tar)
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile ends silently at a broken header
            raise tarfile.ReadError(f"it breaks off after {len(members)} members")
        while block := file.read(max(0, min(1 << 20, end - file.tell()))):
            if block.count(0) < len(block):
                raise tarfile.ReadError(f"it goes on after its {len(members)} members, as several archives joined do")
    for member in members:
        name = prefix + os.path.normpath(member.name).lstrip("/")
        if any(map(is_service, name.split("/"))):
            continue
        if member.isdir():
            yield name + "/", NOTHING
        elif not member.isfile() or member.issparse():
            yield name + NO_FILE, NOTHING
        elif name.lower().endswith(".tar"):  # ILSVRC2012_img_train.tar has one for each synset
            file.seek(member.offset_data)
            yield name[:-4] + "/", NOTHING
            yield from _members(file, holder, name[:-4] + "/", member.offset_data + member.size)
        else:
            yield name, (holder, member.offset_data, member.size)


@cache
def validation_synsets() -> list[str]:
    """Return the synsets of ILSVRC2012's 50,000 validation pictures in order, since their archive has no folders."""
    tfds = installed("tensorflow_datasets", extra="tfds")
    return tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
