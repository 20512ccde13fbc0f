"""Labels 0..K-1 for the classes of a source. A wrong count, class or name raises InputError."""

import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from cfg_jax.data.cards import Recipe, printable
from cfg_jax.errors import InputError, require


def check_counts(counts: dict[str, int], recipe: Recipe, partial_set: bool) -> None:
    """Raise InputError if {split: pictures} differs from the recipe's, unless a partial set is allowed."""
    if partial_set or not recipe.counts or counts == recipe.counts:
        return
    split = next(s for s in recipe.counts if counts.get(s) != recipe.counts[s])
    raise InputError(
        f"--source has {counts.get(split, 0):,} {split} pictures, the whole set {recipe.counts[split]:,}: complete it, "
        "or take what is there with --partial"
    )


def read_class_names(source: str | Path | None) -> dict[str, str]:
    """Return {class: its line} of the source's classes.txt, {} without one. Raises InputError if it is not UTF-8."""
    table = Path(source or "") / "classes.txt"
    lines = text_of(table.read_bytes(), table).splitlines() if source and table.is_file() else []
    return {line.split()[0]: " ".join(line.split()) for line in lines if line.strip()}


def text_of(content: bytes, name: str | Path) -> str:
    """Return UTF-8 text without a byte order mark, in composed letters. Raises InputError if it is no such text."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    # UTF-16 of ASCII letters decodes as UTF-8 too, with a zero after each letter
    require("\0" not in text, f"{name} is not UTF-8 text: write it anew, or remove it")
    return unicodedata.normalize("NFC", text)


def label_pictures(
    name: str, recipe: Recipe, classes: dict[str, Sequence[str]], every: Collection[str], names: dict[str, str],
    partial_set: bool,
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:  # fmt: skip
    """Return (class_names, {split: int32 labels}) from {split: class of each picture}.

    `every` and `names` are as in label_classes. Raises InputError for a class that is not in `every`. Without
    partial_set it also raises for a class that has no picture.
    """
    require(len(classes["train"]), "no training picture can be read: report.json says why")
    class_names, known = label_classes(name, recipe, every, names)
    if len(class_names) == 1 and not (partial_set or recipe.class_names or name == "arrays"):
        raise InputError(
            f"all training pictures are of one class, {printable(class_names[0])}, and guidance needs two or more: "
            "name the folder whose folders are the classes, or take it as it is with --partial and set "
            "config.data.num_classes=0, which trains without labels"
        )
    alike: dict[str, list[str]] = {}
    for c in sorted(c for c in every if len(c) > 1):  # single letters, A and a, may be two classes
        alike.setdefault(c.casefold(), []).append(c)
    for twins in alike.values():
        both = printable(" and ".join(twins))
        require(len(twins) == 1, f"the classes {both} differ by case alone: merge or rename them")
    labels = {}
    for split, of_picture in classes.items():
        if strange := sorted(set(of_picture) - known.keys()):
            raise InputError(
                f"{split} has classes that are none of this set's, such as {printable(strange[0])}: remove or rename"
            )
        labels[split] = np.array([known[c] for c in of_picture], np.int32)
        # the validation split of arrays and of tensorflow-datasets may have pictures of some classes only
        may_lack = partial_set or (split != "train" and name in ("arrays", "tfds"))
        absent = sorted(set(range(len(class_names))) - set(labels[split].tolist()))
        some = ", ".join(printable(class_names[k]) for k in absent[:3])
        require(
            may_lack or not absent,
            f"{split} has no picture of {len(absent)} of the {len(class_names)} classes ({some}): add them, or take "
            "what is there with --partial",
        )
    return class_names, labels


def label_classes(
    name: str, recipe: Recipe, every: Collection[str], names: dict[str, str]
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return (class_names, {class as the source calls it: label}) of the classes `every` that a source has.

    If the recipe names the classes, a source calls them by name, by synset or by number. Otherwise the classes are the
    source's own, with longer names from `names`: sorted as numbers if all are whole numbers, so that 10 comes after 2,
    else sorted as text. A class keeps its label even if none of its pictures can be read.
    """
    if recipe.class_names:
        class_names = recipe.class_names
        known = {c: k for k, c in enumerate(class_names)} | {c.split()[0]: k for k, c in enumerate(class_names)}
        numbers = {str(k): k for k in range(len(class_names))}
        return class_names, known | (numbers if numbers.keys() >= set(every) else {})
    if name == "arrays":
        class_names = tuple(str(k) for k in range(max(map(int, every)) + 1))
    else:
        numeric = all(c.isascii() and c.isdecimal() for c in every)
        class_names = tuple(sorted(every, key=lambda c: (int(c) if numeric else 0, c)))
    return tuple(names.get(c, c) for c in class_names), {c: k for k, c in enumerate(class_names)}
