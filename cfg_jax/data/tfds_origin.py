"""Data sets that tensorflow-datasets built, read without TensorFlow: the bytes of their files, not decoded."""

import importlib.util
from pathlib import Path
from typing import Any

from cfg_jax.data.pictures import Pictures
from cfg_jax.errors import InputError, first_line, installed, require


def tfds_directory(path: Path) -> Path | None:
    """Return the directory of tensorflow-datasets at or below `path`, or None. Raises InputError for several."""
    prepared = sorted({p.parent for depth in range(4) for p in path.glob("*/" * depth + "dataset_info.json")})
    if len(prepared) > 1:
        raise InputError(f"--source={path} has several prepared data sets: name one, such as {prepared[-1]}")
    return prepared[0] if prepared else None


def from_tfds(directory: Path) -> tuple[dict[str, Pictures], list[str]]:
    """Return ({split: Pictures}, [unused splits]) of a data set that tensorflow-datasets prepared.

    Classes are the names of its labels. Raises InputError unless it has images with one label each, as ArrayRecord.
    """
    tfds = installed("tensorflow_datasets", extra="tfds")
    builder: Any = tfds.builder_from_directory(str(directory))
    features = builder.info.features or {}
    labelled = {"image", "label"} <= set(features)
    require(labelled, f"{directory} has no image and label: name a data set of pictures with one class each")
    names = features["label"].names
    held_out = "validation" if "validation" in builder.info.splits else "test"
    used = {"train": "train", held_out: "validation"}
    unused = [f"split {split}" for split in builder.info.splits if split not in used]

    def pictures(split):
        try:
            records = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        except (NotImplementedError, ValueError, ImportError) as error:
            raise InputError(
                f"{directory} is not stored as ArrayRecord, the form that is read without TensorFlow: convert it where "
                "that is installed (tfds convert_format --out_file_format=array_record) and name the new directory"
            ) from error

        def read(i):
            record = records[i]
            label = record["label"]
            require(0 <= label < len(names), f"{directory} has label {label} in {split}: leave that split out")
            return record["image"], names[label]

        version = f"{builder.name} {builder.info.version}"
        numbers = range(len(records))
        return Pictures([f"{split}[{i}]" for i in numbers], [version] * len(records), None, read, names)

    return {name: pictures(split) for split, name in used.items() if split in builder.info.splits}, unused


def by_tfds(name: str) -> Path:
    """Let tensorflow-datasets download and build `name`, and return the directory that it wrote.

    Raises InputError if TensorFlow is not installed or the download fails.
    """
    tfds = installed("tensorflow_datasets", extra="tfds")
    require(
        importlib.util.find_spec("tensorflow"),
        f"tensorflow-datasets builds {name} with TensorFlow, which is needed only here: python -m pip install "
        "tensorflow-cpu; or give --source, a directory it wrote elsewhere or an .npz",
    )
    try:
        builder = tfds.builder(name, file_format="array_record")
        builder.download_and_prepare()
    except (OSError, AssertionError) as error:
        reason = first_line(error)[:160]
        raise InputError(f"tensorflow-datasets could not fetch {name} ({reason}): give --source") from error
    return Path(builder.data_dir)
