"""Facts about a data set: before it is prepared (RECIPES) and after (Card, written as card.json)."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from cfg_jax.errors import require
from cfg_jax.files import digest_json, write_json
from cfg_jax.inputs import check, json_of, reading

FORMAT = 1  # of a prepared directory
SCHEMA = {
    "name": str, "source": str, "licence": str, "class_names": [str], "image_shape": [int], "resize": str,
    "counts": {str: int}, "sha256": {str: str}, "comparable": str, "left_out": int, "complete": bool, "pillow": str,
    "listing": str, "digest": str, "seal": str,
}  # fmt: skip


@dataclass(frozen=True)
class Card:
    name: str
    source: str  # where the images come from
    licence: str
    class_names: tuple[str, ...]  # label k is class_names[k]; ImageNet's begin with the synset
    image_shape: tuple[int, int, int]  # height, width, channels
    resize: str
    counts: dict[str, int]  # images by split
    sha256: dict[str, str]  # of a split's uint8 images and int32 labels, in order
    comparable: str  # what its FID may be compared with
    left_out: int = 0  # unreadable files
    complete: bool = True  # it has every image of the published set
    pillow: str = ""  # the version that decoded and resized
    listing: str = ""  # digest of the source's file names and the settings
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """Twelve hex digits of the training images, their labels, and the meaning of the labels."""
        return digest_json([self.class_names, self.image_shape, self.resize, self.sha256["train"]])

    def label_table(self, counts: dict[str, list[int]]) -> str:
        """Return a line for each class: its label, its pictures in each split (counts has them by label), its name."""
        head = ("label", *counts)
        lines = ["  ".join([*head, "class"])]
        for k, name in enumerate(self.class_names):
            numbers = [k, *(by_label[k] for by_label in counts.values())]
            cells = [str(number).rjust(len(title)) for number, title in zip(numbers, head, strict=True)]
            lines.append("  ".join([*cells, printable(name)]))
        return "\n".join(lines)

    def class_table(self) -> str:
        """Return label and name of every class. Of more than 20 classes, return only the first and the last."""
        table = [f"{k} {printable(name)}" for k, name in enumerate(self.class_names)]
        return "; ".join(table if len(table) <= 20 else [*table[:8], "...", *table[-3:]])


def printable(name: str) -> str:
    """Return a name on one line: unchanged, or escaped if it has characters that cannot be printed."""
    return name if name.isprintable() else ascii(name)


def save(path: str | Path, card: Card) -> None:
    """Write the card with a seal: a digest of all its fields, by which load notices a change by hand."""
    write_json(path, {**asdict(card), "digest": card.digest, "seal": digest_json(asdict(card))})


def load(path: str | Path) -> Card:
    """Read a card that save wrote. Raises InputError if it is damaged, changed by hand, or of another format."""
    again = "run experiments.prepare_data again with the same --out: it writes it anew"
    with reading(path, "is no data card", again):
        values = json_of(Path(path).read_bytes(), {"format?": int})
        version = values.get("format")
        require(version == FORMAT, f"{path} is of format {version}, this version reads {FORMAT}: {again}")
        check(values, SCHEMA)
        digest, seal = values.pop("digest"), values.pop("seal")
        card = Card(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        unchanged = (card.digest, digest_json(values)) == (digest, seal)
        require(unchanged, f"{path} was changed by hand: {again}")
        return card


@dataclass(frozen=True)
class Recipe:
    """A data set by name, before its files are read."""

    source: str
    licence: str
    comparable: str
    size: int | None = None  # None: --size gives it
    resize: str | None = None  # None: --resize gives it
    channels: int = 3
    class_names: tuple[str, ...] | None = None  # None: the source gives them
    counts: dict[str, int] = field(default_factory=dict)  # of the whole published set, if it is known
    tfds: str | None = None  # the builder that downloads it
    upright: bool = False  # turn pictures by their EXIF orientation


FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# the 1,000 classes in the order of their labels, each as its synset and its name
IMAGENET = tuple(
    line
    for line in (Path(__file__).parent / "imagenet_classes.txt").read_text().splitlines()
    if not line.startswith("#")
)
IMAGENET_64 = Recipe(
    source="ILSVRC2012, image-net.org: Russakovsky et al. 2015",
    licence="ImageNet terms of access: non-commercial research",
    comparable="FID against a reference of the same resize alone: area is the paper's, adm ADM's, lanczos EDM's",
    size=64, class_names=IMAGENET, counts={"train": 1_281_167, "validation": 50_000}, tfds="imagenet2012",
)  # fmt: skip

RECIPES = {
    "fashion_mnist": Recipe(
        source="github.com/zalandoresearch/fashion-mnist: Xiao, Rasul and Vollgraf 2017",
        licence="MIT",
        comparable="nothing published: FID of 32x32 padded greyscale pictures has no common reference",
        size=32, resize="pad", channels=1, class_names=FASHION, counts={"train": 60_000, "validation": 10_000},
        tfds="fashion_mnist",
    ),
    "cifar10": Recipe(
        source="cs.toronto.edu/~kriz/cifar.html: Krizhevsky 2009",
        licence="none stated",
        comparable="published CIFAR-10 FID against the 50,000 training images",
        size=32, resize="none", class_names=CIFAR, counts={"train": 50_000, "validation": 10_000}, tfds="cifar10",
    ),
    "tiny_imagenet": Recipe(
        source="Tiny ImageNet, Stanford CS231n: pictures of ImageNet at 64x64",
        licence="ImageNet terms of access: non-commercial research",
        comparable="nothing published on ImageNet 64x64: other classes, counts and resize",
        size=64, resize="none",
    ),
    "imagenet64": IMAGENET_64,
    "imagenet128": replace(IMAGENET_64, size=128),
    "imagenet_resized": replace(
        IMAGENET_64,
        source="patrykchrabaszcz.github.io/Imagenet32: Chrabaszcz, Loshchilov and Hutter 2017, box resize of the whole "
        "picture; labels mapped to the standard order",
        comparable="FID on the same set alone: its pictures are squeezed, not cropped",
        resize="none", tfds="imagenet_resized/64x64",
    ),
    "folder": Recipe(
        source="a folder of pictures by class", licence="the pictures' own", comparable="itself", upright=True
    ),
    "arrays": Recipe(source="uint8 arrays", licence="the arrays' own", comparable="itself", resize="none"),
    "tfds": Recipe(source="a tensorflow-datasets directory", licence="the data set's own", comparable="itself"),
}  # fmt: skip
