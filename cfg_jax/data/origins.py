"""Where pictures come from: a source on disk -> {split: Pictures}. Files are listed and read, not decoded.

A place is where a file's bytes are: (path or bytes of what holds it, offset, size).
"""

import gzip
import io
import os
import re
import tarfile
import zlib
from functools import cache
from itertools import pairwise
from pathlib import Path

from cfg_jax.data.array_origin import arrays, zipped_batches
from cfg_jax.data.pictures import Pictures
from cfg_jax.data.tfds_origin import from_tfds, tfds_directory
from cfg_jax.errors import InputError, installed

ILSVRC_TARS = {"ILSVRC2012_img_train": "train", "ILSVRC2012_img_val": "val"}
SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
PICTURES = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")


def find(source: str | Path) -> tuple[dict[str, Pictures], list[str]]:
    """Tell by its files what a source is -> ({split: Pictures}, [what in it is of no use]).

    Raises InputError where it is absent, damaged or without training pictures.
    """
    path = Path(source)
    if not path.exists():
        raise InputError(f"--source={source} does not exist: name a folder, a .tar, an .npz or a .npy")
    try:
        splits, left_out = _find(path)
    except (InputError, OSError):
        raise
    except Exception as error:  # zip, zlib, tar, numpy and protobuf each have their own for a damaged file
        raise InputError(
            f"--source={source} cannot be read ({type(error).__name__}: {error}): fetch it again"
        ) from error
    if "train" not in splits:
        raise InputError(
            f"--source={source} has no training pictures: expected train/CLASS/FILE or CLASS/FILE below it"
        )
    return splits, left_out


def _find(path):
    if path.suffix in (".npz", ".npy"):
        return arrays(path), []
    if path.is_file():
        if not tarfile.is_tarfile(path):
            raise InputError(f"--source={path} is no folder, .tar, .npz or .npy of pictures")
        return by_class(tar_entries(path))
    if directory := tfds_directory(path):
        return from_tfds(directory)
    if zips := sorted(path.glob("Imagenet64_*_npz.zip")):
        return zipped_batches(zips), []
    tars = sorted(p for p in path.iterdir() if re.search(r"\.(tar|tar\.gz|tgz)$", p.name))
    tars = [p for p in tars if p.stem in ILSVRC_TARS] or tars
    if tars and tars[0].stem not in ILSVRC_TARS and any(p.is_dir() for p in path.iterdir()):
        raise InputError(f"--source={path} has folders and archives ({tars[0].name}): name one, or move the other away")
    return by_class([entry for tar in tars for entry in tar_entries(tar)] if tars else folder_entries(path))


def by_class(entries: list[tuple[str, tuple]]) -> tuple[dict[str, Pictures], list[str]]:
    """[(path, place)] -> ({split: Pictures}, [paths of no use]).

    Paths are [.../]train/CLASS/.../FILE, or CLASS/.../FILE where no folder is called train.
    """
    entries = sorted(entries, key=lambda entry: entry[0])
    listed = [path for path, _ in entries]
    if twice := [path for path, after in pairwise(listed) if path == after]:
        raise InputError(f"{twice[0]} is twice in the source: remove one")
    has_splits = any("train" in path.lower().split("/")[:-2] for path in listed)
    synset_of = annotations(entries)
    found, left_out = {}, []
    for path, place in entries:
        *folders, file = path.split("/")
        split = "train"
        if has_splits:
            at = next((i for i, folder in enumerate(folders) if folder.lower() in SPLITS), None)
            split, folders = (None, []) if at is None else (SPLITS[folders[at].lower()], folders[at + 1 :])
        label = synset_of.get(file) or (folders[0] if folders else validation_synset(file))
        if split and label and file.lower().endswith(PICTURES):
            found.setdefault(split, []).append((path, label, place))
        else:
            left_out.append(path)
    if "test" in found and "validation" not in found:
        found["validation"] = found.pop("test")
    left_out += [path for path, *_ in found.pop("test", [])]
    return {split: _of_entries(entries) for split, entries in found.items()}, left_out


def annotations(entries: list[tuple[str, tuple]]) -> dict[str, str]:
    """{file: synset} of Tiny ImageNet's validation pictures, which are published in one folder with a list."""
    lists = [fetch(place) for path, place in entries if path.endswith("val/val_annotations.txt")]
    return dict(line.split("\t")[:2] for content in lists for line in content.decode().splitlines())


def validation_synset(file: str) -> str | None:
    """The synset of a validation picture of ILSVRC2012 by its file name; None for any other file."""
    number = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.jpeg", file, re.IGNORECASE)
    synsets = validation_synsets() if number else ()
    return synsets[int(number[1]) - 1] if number and 1 <= int(number[1]) <= len(synsets) else None


def _of_entries(entries):
    paths, labels, places = zip(*entries, strict=True)
    return Pictures(paths, [size for *_, size in places], labels, lambda i: (fetch(places[i]), labels[i]))


def fetch(place: tuple[str | Path | bytes, int, int]) -> bytes:
    """The bytes at a place."""
    holder, offset, size = place
    if isinstance(holder, bytes):
        return holder[offset : offset + size]
    with open(holder, "rb") as file:
        file.seek(offset)
        return file.read(size)


def folder_entries(root: Path) -> list[tuple[str, tuple]]:
    """[(path below root, place)] of all files but hidden ones. Raises InputError for an empty folder."""

    def fail(error):
        raise error  # a folder that may not be listed would shift the labels after it

    entries = []
    for folder, folders, files in os.walk(root, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [name for name in files if not name.startswith(".")]
        if not folders and not files:
            raise InputError(f"{folder} is empty: put the pictures of that class there, or remove it")
        below = Path(folder).relative_to(root)
        for name in files:
            path = os.path.join(folder, name)
            entries.append(((below / name).as_posix(), (path, 0, os.path.getsize(path))))
    return entries


def tar_entries(path: Path) -> list[tuple[str, tuple]]:
    """[(name, place)] of the members of an archive, and of the tars within it.

    A compressed archive is read into memory. Raises InputError for a damaged one.
    """
    prefix = f"{ILSVRC_TARS[path.stem]}/" if path.stem in ILSVRC_TARS else ""
    try:
        if path.suffix == ".tar":
            with open(path, "rb") as file:
                return list(_members(file, path, prefix))
        with gzip.open(path) as file:
            content = file.read()  # to its end, where its checksum is
        return list(_members(io.BytesIO(content), content, prefix))
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}): fetch it again") from error


def _members(file, holder, prefix):
    with tarfile.open(fileobj=file, mode="r:") as tar:
        members = list(tar)
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a broken header for the end
            raise tarfile.ReadError(f"it breaks off after {len(members)} members")
    for member in members:
        name = prefix + os.path.normpath(member.name).lstrip("/")
        if member.isdir() or Path(name).name.startswith("."):
            continue
        if not member.isfile():
            yield name + " (a link)", (b"", 0, 0)
        elif name.endswith(".tar"):  # ILSVRC2012_img_train.tar holds one for each synset
            file.seek(member.offset_data)
            yield from _members(file, holder, name.removesuffix(".tar") + "/")
        else:
            yield name, (holder, member.offset_data, member.size)


@cache
def validation_synsets() -> list[str]:
    """The synsets of ILSVRC2012's 50,000 validation pictures in order, since their archive has no folders."""
    tfds = installed("tensorflow_datasets", extra="tfds")

    return tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
