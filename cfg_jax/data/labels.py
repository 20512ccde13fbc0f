"""Classes as a source calls them -> labels 0..K-1, refused where a count, a class or a name is not right."""

from pathlib import Path

import numpy as np

from cfg_jax.errors import InputError


def check_counts(found, recipe, partial_set):
    if partial_set or not recipe.counts or found == recipe.counts:
        return
    split = next(s for s in recipe.counts if found.get(s) != recipe.counts[s])
    raise InputError(
        f"--source has {found.get(split, 0):,} {split} pictures, the whole set {recipe.counts[split]:,}: complete it, "
        "or take what is there with --partial"
    )


def words_of(source):
    """{class: its line} of the source's classes.txt, where it has one."""
    table = Path(source) / "classes.txt" if source else None
    try:
        lines = table.read_text().splitlines() if table and table.is_file() else []
    except UnicodeDecodeError as error:
        raise InputError(f"{table} is not UTF-8 text: write it anew, or remove it") from error
    return {line.split(maxsplit=1)[0]: " ".join(line.split()) for line in lines if line.strip()}


def of_all(name, recipe, classes, words, partial_set):
    """{split: class of each picture} -> (class_names, {split: int32 labels}), refused where one is strange or absent.

    The classes are the recipe's, known by name, by synset, and of arrays by number; else the source's own in order.
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
                f"all training pictures are of one class, {class_names[0]}: name the folder whose folders are the "
                "classes, or take it as it is with --partial"
            )
    for split, of in classes.items():
        if strange := sorted(set(of) - known.keys()):
            raise InputError(f"{split} has classes that are none of this set's, such as {strange[0]}: remove or rename")
    labels = {split: np.array([known[c] for c in of], np.int32) for split, of in classes.items()}
    check_classes(labels, class_names, partial_set)
    return class_names, labels


def check_classes(labels, class_names, partial_set):
    for split, found in labels.items():
        absent = sorted(set(range(len(class_names))) - set(found.tolist()))
        if absent and not partial_set:
            names = ", ".join(class_names[k] for k in absent[:3])
            raise InputError(
                f"{split} has no picture of {len(absent)} of the {len(class_names)} classes ({names}): add them, or "
                "take what is there with --partial"
            )
