"""Classes as a source calls them -> labels 0..K-1. A wrong count, class or name is refused with an InputError."""

import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from cfg_jax.data.cards import Recipe, printable
from cfg_jax.errors import InputError


def check_counts(found: dict[str, int], recipe: Recipe, partial_set: bool) -> None:
    """Raise InputError where {split: pictures} is not the recipe's, unless a partial set is allowed."""
    if partial_set or not recipe.counts or found == recipe.counts:
        return
    split = next(s for s in recipe.counts if found.get(s) != recipe.counts[s])
    raise InputError(
        f"--source has {found.get(split, 0):,} {split} pictures, the whole set {recipe.counts[split]:,}: complete it, "
        "or take what is there with --partial"
    )


def words_of(source: str | Path | None) -> dict[str, str]:
    """{class: its line} of the source's classes.txt, {} where it has none. Raises InputError if it is not UTF-8."""
    table = Path(source) / "classes.txt" if source else None
    lines = text_of(table.read_bytes(), table).splitlines() if table and table.is_file() else []
    return {line.split(maxsplit=1)[0]: " ".join(line.split()) for line in lines if line.strip()}


def text_of(content: bytes, name: str | Path) -> str:
    """UTF-8 text without a byte order mark, in composed letters. Raises InputError where it is no such text."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # UTF-16 of plain letters is UTF-8 too, with a zero after each letter
        raise InputError(f"{name} is not UTF-8 text: write it anew, or remove it")
    return unicodedata.normalize("NFC", text)


def of_all(
    name: str, recipe: Recipe, classes: dict[str, Sequence[str]], every: Collection[str], words: dict[str, str],
    partial_set: bool,
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:  # fmt: skip
    """{split: class of each picture} -> (class_names, {split: int32 labels}).

    `every` is as in numbered. Raises InputError for a class that is not in it. Without partial_set it also raises for a
    class that has no picture.
    """
    if not len(classes["train"]):
        raise InputError("no training picture can be read: report.json says why")
    class_names, known = numbered(name, recipe, every, words)
    if len(class_names) == 1 and not (partial_set or recipe.class_names or name == "arrays"):
        raise InputError(
            f"all training pictures are of one class, {printable(class_names[0])}, and guidance needs two or more: "
            "name the folder whose folders are the classes, or take it as it is with --partial and set "
            "config.data.num_classes=0, which trains without labels"
        )
    alike: dict[str, list[str]] = {}
    for c in sorted(c for c in every if len(c) > 1):  # letters, as A and a, may be classes
        alike.setdefault(c.casefold(), []).append(c)
    if twins := next((of for of in alike.values() if len(of) > 1), None):
        raise InputError(f"the classes {printable(' and '.join(twins))} differ by case alone: merge or rename them")
    for split, of in classes.items():
        if strange := sorted(set(of) - known.keys()):
            raise InputError(
                f"{split} has classes that are none of this set's, such as {printable(strange[0])}: remove or rename"
            )
    labels = {split: np.array([known[c] for c in of], np.int32) for split, of in classes.items()}
    check_classes(labels, class_names, partial_set, whole=name not in ("arrays", "tfds"))
    return class_names, labels


def numbered(
    name: str, recipe: Recipe, every: Collection[str], words: dict[str, str]
) -> tuple[tuple[str, ...], dict[str, int]]:
    """The classes `every` that a source has -> (class_names, {what the source calls a class: its label}).

    They are the recipe's where it names them; a source calls them by name, by synset or by number. Otherwise they are
    the source's own: by their numbers where all are whole numbers, so that 10 comes after 2, else sorted as text. A
    class keeps its label where none of its pictures can be read.
    """
    if recipe.class_names:
        class_names = recipe.class_names
        known = {c: k for k, c in enumerate(class_names)} | {c.split()[0]: k for k, c in enumerate(class_names)}
        numbers = {str(k): k for k in range(len(class_names))}
        return class_names, known | (numbers if numbers.keys() >= set(every) else {})
    if name == "arrays":
        class_names = tuple(str(k) for k in range(max(map(int, every)) + 1))
    else:
        whole = all(c.isascii() and c.isdecimal() for c in every)
        class_names = tuple(sorted(every, key=lambda c: (int(c) if whole else 0, c)))
    return tuple(words.get(c, c) for c in class_names), {c: k for k, c in enumerate(class_names)}


def check_classes(
    labels: dict[str, np.ndarray], class_names: Sequence[str], partial_set: bool, whole: bool = True
) -> None:
    """Raise InputError where a split has no picture of some class, unless a partial set is allowed.

    Where classes are not folders (not `whole`), a validation split may have pictures of some of them.
    """
    for split, found in labels.items():
        if split != "train" and not whole:
            continue
        absent = sorted(set(range(len(class_names))) - set(found.tolist()))
        if absent and not partial_set:
            names = ", ".join(printable(class_names[k]) for k in absent[:3])
            raise InputError(
                f"{split} has no picture of {len(absent)} of the {len(class_names)} classes ({names}): add them, or "
                "take what is there with --partial"
            )
