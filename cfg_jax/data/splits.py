"""Which folders of a source are its splits, told by their names and by what is in them."""

import re
from collections.abc import Collection, Iterable

from cfg_jax.data.cards import printable
from cfg_jax.errors import InputError, require

WORDS = {
    "train": "train", "training": "train", "trainval": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "validating": "validation", "dev": "validation", "eval": "validation",
    "evaluation": "validation", "holdout": "validation", "test": "test", "testing": "test", "trn": "train",
    "tst": "test",
}  # fmt: skip
PLAIN = ("dataset", "data", "sets", "set", "images", "image", "imgs", "img", "pictures", "photos", "pics", "files")

Folder = tuple[str, ...]  # a path by its parts


def find_splits(pictures: Iterable[str]) -> dict[Folder, str]:
    """Paths of pictures -> {folder whose folders are the classes: its split}.

    {(): "train"} where no folder is a split. Test pictures are for validation where the source has no others.
    A folder called train may be a class, the vehicle: it is one if it has no folders in it and no split is beside it.
    Raises InputError where split and class cannot be told apart: also where two or three folders, however they are
    called, have folders of the same names.
    """
    holders = {tuple(path.split("/")[:-1]) for path in pictures}
    below: dict[Folder, set[str]] = {}  # the folders with pictures in a folder
    for folder in holders:
        for i, name in enumerate(folder):
            below.setdefault(folder[:i], set()).add(name)
    named = {(*parent, name): split for parent, names in below.items() for name, split in split_names(names).items()}
    outer = {folder: split for folder, split in named.items() if not any(is_in(folder[:-1], other) for other in named)}
    train = [folder for folder, split in outer.items() if split == "train" and folder in below]
    if not train:
        if strange := sorted(folder for folder, split in outer.items() if split != "train"):
            raise InputError(
                f"{shown(strange[0])} is called like a split, and no folder train with a folder for each class is "
                "beside it: expected train/CLASS/FILE; move it away, or rename it where it is a class"
            )
        tops = sorted(below.get((), ()))
        both = set.intersection(*(below.get((top,), set()) for top in tops)) if 2 <= len(tops) <= 3 else set()
        require(
            len(both) < 2 or any((top,) in holders for top in tops),
            f"{printable(' and '.join(tops))} hold folders of the same names, such as {printable(min(both or ['']))}, "
            "as splits do: call them train, val and test, or put the pictures of each class into one folder",
        )
        return {(): "train"}
    for folder in sorted(outer):
        twin = next((other for other in sorted(outer) if other != folder and outer[other] == outer[folder]), None)
        require(
            not twin,
            f"{shown(folder)} and {shown(twin or ())} are both {outer[folder]} pictures by their names: expected one "
            "folder of a split, with a folder for each class in it; move the other away",
        )
        require(
            folder[:-1] == train[0][:-1],
            f"{shown(folder)} is called like a split, but is not beside {shown(train[0])}: expected "
            "train/CLASS/FILE and val/CLASS/FILE; move it there or away",
        )
    outside = sorted(f for f in holders if not any(is_in(f, split) for split in outer) and not is_in(train[0], f))
    require(
        len(outer) > 1 or not outside,
        f"{shown(train[0])} is a split or a class, which cannot be told beside {shown((outside or [()])[0])}: rename "
        "it where it is a class, else move the other away",
    )
    splits = {}
    for folder, split in outer.items():
        while below.get(folder) == {folder[-1]} and (*folder, folder[-1]) in below:  # seg_train/seg_train/CLASS
            folder = (*folder, folder[-1])
        splits[folder] = split
    for folder, split in named.items():
        inner = next((other for other in splits if is_in(folder[:-1], other)), None)
        require(
            split == "train" or not inner,
            f"{shown(folder)} is called like a split, but is within one: move it away, or rename it where it is a "
            "class",
        )
    if "validation" in splits.values():
        return {folder: split for folder, split in splits.items() if split != "test"}
    return {folder: "validation" if split == "test" else split for folder, split in splits.items()}


def split_names(names: Collection[str]) -> dict[str, str]:
    """{name: split} of folders that are beside each other: train, Training, train_images; seg_train beside seg_test."""
    read = {name: split_of(name) for name in names}
    kinds: dict[Folder, set[str]] = {}
    for split, rest in filter(None, read.values()):
        kinds.setdefault(rest, set()).add(split)
    return {
        name: found[0]
        for name, found in read.items()
        if found and (not found[1] or ("train" in kinds[found[1]] and len(kinds[found[1]]) > 1))
    }


def split_of(name: str) -> tuple[str, Folder] | None:
    """(split, further words) of a folder's name, None where no word is a split's."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [strip_plain(word) for word in re.findall(r"[^\W\d_]+", spaced.lower())]
    kinds = {WORDS[word] for word in words if word in WORDS}
    if kinds == {"train", "validation"}:
        kinds = {"train"}
    return (kinds.pop(), tuple(word for word in words if word and word not in WORDS)) if len(kinds) == 1 else None


def strip_plain(word: str) -> str:
    """trainset -> train, images -> "": without what says of any folder that it has pictures."""
    if word in PLAIN:
        return ""
    return next((word[: -len(p)] for p in PLAIN if word.endswith(p) and word[: -len(p)] in WORDS), word)


def is_in(folder: Folder, other: Folder) -> bool:
    """Return whether a folder is the other one or lies below it."""
    return folder[: len(other)] == other


def shown(folder: Folder) -> str:
    return printable("/".join(folder))
