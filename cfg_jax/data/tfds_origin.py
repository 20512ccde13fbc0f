"""Data sets that tensorflow-datasets built: their files' bytes as they are, read without TensorFlow."""

import importlib.util
from pathlib import Path
from typing import Any

from cfg_jax.data.pictures import Pictures
from cfg_jax.errors import InputError, installed


def tfds_directory(path: Path) -> Path | None:
    """The directory that tensorflow-datasets wrote at or below `path`, or None. Raises InputError for several."""
    found = sorted({p.parent for depth in range(4) for p in path.glob("*/" * depth + "dataset_info.json")})
    if len(found) > 1:
        raise InputError(f"--source={path} has several prepared data sets: name one, such as {found[-1]}")
    return found[0] if found else None


def from_tfds(directory: Path) -> tuple[dict[str, Pictures], list[str]]:
    """A data set that tensorflow-datasets prepared -> ({split: Pictures}, splits of no use).

    Classes are the names of its labels. Raises InputError unless it has images with one label each, as ArrayRecord.
    """
    tfds = installed("tensorflow_datasets", extra="tfds")

    builder: Any = tfds.builder_from_directory(str(directory))
    features = builder.info.features or {}
    if not {"image", "label"} <= set(features):
        raise InputError(f"{directory} has no image and label: name a data set of pictures with one class each")
    names = features["label"].names
    wanted = {"train": "train", "validation": "validation", "test": "validation"}
    if "validation" in builder.info.splits:
        del wanted["test"]
    left_out = [f"split {split}" for split in builder.info.splits if split not in wanted]

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
            if not 0 <= record["label"] < len(names):
                raise InputError(f"{directory} has label {record['label']} in {split}: leave that split out")
            return record["image"], names[record["label"]]

        version = f"{builder.name} {builder.info.version}"
        numbers = range(len(records))
        return Pictures([f"{split}[{i}]" for i in numbers], [version] * len(records), None, read, names)

    return {name: pictures(split) for split, name in wanted.items() if split in builder.info.splits}, left_out


def by_tfds(name: str) -> Path:
    """Let tensorflow-datasets download and build `name` -> the directory it wrote.

    Raises InputError where TensorFlow is not installed or the download fails.
    """
    tfds = installed("tensorflow_datasets", extra="tfds")

    if not importlib.util.find_spec("tensorflow"):
        raise InputError(
            f"tensorflow-datasets builds {name} with TensorFlow, for this once: python -m pip install tensorflow-cpu; "
            "or give --source, a directory it wrote elsewhere or an .npz"
        )
    try:
        builder = tfds.builder(name, file_format="array_record")
        builder.download_and_prepare()
    except (OSError, AssertionError) as error:
        first = str(error).splitlines()[0][:160]
        raise InputError(f"tensorflow-datasets could not fetch {name} ({first}): give --source") from error
    return Path(builder.data_dir)
