"""Find the folders of a source that are its splits, by their names and their content."""

import re
from collections.abc import Collection, Iterable

from cfg_jax.data.cards import printable
from cfg_jax.errors import InputError, require

WORDS = (
    dict.fromkeys(("train", "training", "trainval", "trn"), "train")
    | dict.fromkeys(("test", "testing", "tst"), "test")
    | dict.fromkeys(("val", "valid", "validation", "validating", "dev", "eval", "evaluation", "holdout"), "validation")
)
PLAIN = ("dataset", "data", "sets", "set", "images", "image", "imgs", "img", "pictures", "photos", "pics", "files")

Folder = tuple[str, ...]  # the parts of a path


def find_splits(pictures: Iterable[str]) -> dict[Folder, str]:
    """Return {folder: its split} for paths of pictures; the folders in a split's folder are the classes.

    It is {(): "train"} if no folder is a split. Test pictures are for validation if the source has no others. A folder
    called train is a class, the vehicle, if it holds no folder and no other split lies next to it. Raises InputError if
    split and class cannot be told apart, for instance if two or three folders with any names have folders of the same
    names.
    """
    holders = {tuple(path.split("/")[:-1]) for path in pictures}
    below: dict[Folder, set[str]] = {}  # {folder: the folders in it that have pictures}
    for folder in holders:
        for i, name in enumerate(folder):
            below.setdefault(folder[:i], set()).add(name)
    named = {(*parent, name): split for parent, names in below.items() for name, split in split_names(names).items()}
    outer = {folder: split for folder, split in named.items() if not any(is_in(folder[:-1], other) for other in named)}
    train = next((folder for folder, split in outer.items() if split == "train" and folder in below), None)
    if train is None:
        check_no_split(holders, below, outer)
        return {(): "train"}
    check_one_folder_a_split(holders, outer, train)
    splits = {}
    for folder, split in outer.items():
        while below.get(folder) == {folder[-1]} and (*folder, folder[-1]) in below:  # seg_train/seg_train/CLASS
            folder = (*folder, folder[-1])
        splits[folder] = split
    for folder, split in named.items():
        if split != "train" and any(is_in(folder[:-1], other) for other in splits):
            raise InputError(
                f"{shown(folder)} is called like a split, but is within one: move it away, or rename it if it is "
                "a class"
            )
    if "validation" in splits.values():
        return {folder: split for folder, split in splits.items() if split != "test"}
    return {folder: "validation" if split == "test" else split for folder, split in splits.items()}


def check_no_split(holders: set[Folder], below: dict[Folder, set[str]], outer: dict[Folder, str]) -> None:
    """Raise InputError if a source without a train folder has a folder that may be a split."""
    if strange := sorted(folder for folder, split in outer.items() if split != "train"):
        raise InputError(
            f"{shown(strange[0])} is called like a split, and no folder train with a folder for each class is "
            "beside it: expected train/CLASS/FILE; move it away, or rename it if it is a class"
        )
    tops = sorted(below.get((), ()))
    if 2 <= len(tops) <= 3 and not any((top,) in holders for top in tops):
        common = set.intersection(*(below[top,] for top in tops))
        if len(common) >= 2:
            raise InputError(
                f"{printable(' and '.join(tops))} hold folders of the same names, such as {printable(min(common))}, as "
                "splits do: call them train, val and test, or put the pictures of each class into one folder"
            )


def check_one_folder_a_split(holders: set[Folder], outer: dict[Folder, str], train: Folder) -> None:
    """Raise InputError unless each split has one folder, beside `train`, and `train` cannot be a class."""
    first_of = {}
    for folder, split in sorted(outer.items()):
        first = first_of.setdefault(split, folder)
        require(
            first == folder,
            f"{shown(first)} and {shown(folder)} are both {split} pictures by their names: expected one folder of a "
            "split, with a folder for each class in it; move the other away",
        )
    for folder in sorted(outer):
        require(
            folder[:-1] == train[:-1],
            f"{shown(folder)} is called like a split, but is not beside {shown(train)}: expected train/CLASS/FILE and "
            "val/CLASS/FILE; move it there or away",
        )
    outside = sorted(f for f in holders if not any(is_in(f, split) for split in outer) and not is_in(train, f))
    if len(outer) == 1 and outside:
        raise InputError(
            f"{shown(train)} is a split or a class, which cannot be told beside {shown(outside[0])}: rename it if "
            "it is a class, else move the other away"
        )


def split_names(names: Collection[str]) -> dict[str, str]:
    """Return {name: split} for folders beside each other: train, Training, train_images; seg_train beside seg_test."""
    read = {name: parsed for name in names if (parsed := split_of(name))}
    kinds: dict[Folder, set[str]] = {}  # {further words: the splits whose folders have them}
    for split, rest in read.values():
        kinds.setdefault(rest, set()).add(split)
    paired = {rest for rest, splits in kinds.items() if not rest or ("train" in splits and len(splits) > 1)}
    return {name: split for name, (split, rest) in read.items() if rest in paired}


def split_of(name: str) -> tuple[str, Folder] | None:
    """Return (split, further words) of a folder's name, or None if no word names a split."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [strip_plain(word) for word in re.findall(r"[^\W\d_]+", spaced.lower())]
    kinds = {WORDS[word] for word in words if word in WORDS}
    if kinds == {"train", "validation"}:
        kinds = {"train"}
    return (kinds.pop(), tuple(word for word in words if word and word not in WORDS)) if len(kinds) == 1 else None


def strip_plain(word: str) -> str:
    """Remove words such as images, which any folder of pictures may have: trainset -> train, images -> ""."""
    if word in PLAIN:
        return ""
    return next((word[: -len(p)] for p in PLAIN if word.endswith(p) and word[: -len(p)] in WORDS), word)


def is_in(folder: Folder, other: Folder) -> bool:
    """Return whether a folder is `other` or lies below it."""
    return folder[: len(other)] == other


def shown(folder: Folder) -> str:
    """Return a folder's path for a message."""
    return printable("/".join(folder))
