"""Prepare a data set: memory-mapped arrays with a card, from files as they were published.

python -m experiments.prepare_data --dataset=imagenet64 --source=/path --resize=area
python -m experiments.prepare_data --dataset=folder --source=DIR --resize=lanczos --size=64 --out=data/mine

--source is a folder of pictures by class (train/CLASS/FILE, or CLASS/FILE), the original tars or any .tar, a directory
that tensorflow-datasets prepared, the Imagenet64_*_npz.zip files, an .npz or .npy. If the command is stopped, run it
again and it resumes; if it is finished, it verifies the checksums. It prints the table of labels, classes and counts.
"""

from pathlib import Path

import numpy as np
from absl import flags

from cfg_jax.data import cards, prepare
from cfg_jax.data.resize import RESIZES
from cfg_jax.errors import require
from experiments.helpers import cli

DATASET = flags.DEFINE_enum("dataset", None, list(cards.RECIPES), "the name of the data set", required=True)
SOURCE = cli.define_path(
    "source", None, "its files; tensorflow-datasets downloads fashion_mnist, cifar10 and imagenet_resized itself"
)
OUT = cli.define_path("out", None, "default: data/DATASET, with the resize if there is a choice", writes="data set")
RESIZE = flags.DEFINE_enum("resize", None, list(RESIZES), "default: the data set's, if it has one")
SIZE = cli.define_count("size", None, "side in pixels, for a folder", high=4096)
PARTIAL = flags.DEFINE_bool("partial", False, "accept fewer pictures or classes than the whole set has")
SKIP = flags.DEFINE_bool("skip_unreadable", False, "leave out files that cannot be read")
WORKERS = cli.define_count("workers", None, "threads; default: one a core")


def main():
    name, recipe = DATASET.value, cards.RECIPES[DATASET.value]
    downloads = recipe.tfds and recipe.resize
    require(SOURCE.value or downloads, f"{name} needs --source: where its files are")
    require(OUT.value or recipe.size, f"{name} needs --out: the directory to write")
    choice = "" if recipe.resize else f"-{RESIZE.value}"
    out = OUT.value or f"data/{name}{choice}"
    card = prepare.prepare(
        name, SOURCE.value, out, resize=RESIZE.value, size=SIZE.value, partial_set=PARTIAL.value,
        skip_unreadable=SKIP.value, workers=WORKERS.value,
    )  # fmt: skip
    num_classes = len(card.class_names)
    labels = {split: np.load(Path(out) / f"{split}-labels.npy") for split in card.counts}
    print(card.label_table({split: np.bincount(x, minlength=num_classes) for split, x in labels.items()}))
    counts = ", ".join(f"{n:,} {split}" for split, n in card.counts.items())
    print(f"{out}: {counts} images {card.image_shape}, {num_classes} classes, resize {card.resize}, card {card.digest}")
    if card.left_out:
        print(f"{card.left_out} unreadable files are left out: {out}/report.json lists them")


if __name__ == "__main__":
    cli.run(main)
