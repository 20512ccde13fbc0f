"""Classes as a source calls them -> labels 0..K-1. A wrong count, class or name is refused with an InputError."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cfg_jax.data.cards import Recipe
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
    try:
        lines = table.read_text().splitlines() if table and table.is_file() else []
    except UnicodeDecodeError as error:
        raise InputError(f"{table} is not UTF-8 text: write it anew, or remove it") from error
    return {line.split(maxsplit=1)[0]: " ".join(line.split()) for line in lines if line.strip()}


def of_all(
    name: str, recipe: Recipe, classes: dict[str, Sequence[str]], words: dict[str, str], partial_set: bool
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """{split: class of each picture} -> (class_names, {split: int32 labels}).

    The classes are the recipe's where it names them; a source calls them by name, by synset or by number. Otherwise
    they are the source's own, sorted. Raises InputError for a class that is none of these. Without partial_set it also
    raises for a class that has no picture.
    """
    found = set(classes["train"])
    if not found:
        raise InputError("no training picture can be read: report.json says why")
    if recipe.class_names:
        class_names = recipe.class_names
        known = {c: k for k, c in enumerate(class_names)} | {c.split()[0]: k for k, c in enumerate(class_names)}
        known |= {str(k): k for k in range(len(class_names))} if found <= set(map(str, range(len(class_names)))) else {}
    elif name == "arrays":
        class_names = tuple(str(k) for k in range(max(map(int, found)) + 1))
        known = {c: k for k, c in enumerate(class_names)}
    else:
        known = {c: k for k, c in enumerate(sorted(found))}
        class_names = tuple(words.get(c, c) for c in known)
        if len(known) == 1 and not partial_set:
            raise InputError(
                f"all training pictures are of one class, {class_names[0]}, and guidance needs two or more: name the "
                "folder whose folders are the classes, or take it as it is with --partial and set "
                "config.data.num_classes=0, which trains without labels"
            )
    for split, of in classes.items():
        if strange := sorted(set(of) - known.keys()):
            raise InputError(f"{split} has classes that are none of this set's, such as {strange[0]}: remove or rename")
    labels = {split: np.array([known[c] for c in of], np.int32) for split, of in classes.items()}
    check_classes(labels, class_names, partial_set)
    return class_names, labels


def check_classes(labels: dict[str, np.ndarray], class_names: Sequence[str], partial_set: bool) -> None:
    """Raise InputError where a split has no picture of some class, unless a partial set is allowed."""
    for split, found in labels.items():
        absent = sorted(set(range(len(class_names))) - set(found.tolist()))
        if absent and not partial_set:
            names = ", ".join(class_names[k] for k in absent[:3])
            raise InputError(
                f"{split} has no picture of {len(absent)} of the {len(class_names)} classes ({names}): add them, or "
                "take what is there with --partial"
            )
