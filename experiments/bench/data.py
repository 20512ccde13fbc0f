"""Images/s of the loader for each form that a data set could be stored in, and write JSON.

python -m experiments.bench.data --out=runs/benchmark-data.json

Noise of 64x64 in: arrays in memory; the memory-mapped arrays that experiments.prepare_data writes; ArrayRecord of raw
bytes and of PNG, as tensorflow-datasets stores images. Batches by the training's own pipeline.
"""

import io
import itertools
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import grain
import numpy as np
from absl import flags
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from cfg_jax.data import pipeline, sources
from cfg_jax.files import MARKED, check_output, write_json
from experiments import cli

OUT = flags.DEFINE_string("out", "runs/benchmark-data.json", "JSON to write")
NUM_IMAGES = flags.DEFINE_integer("num_images", 16_384, "in each form", lower_bound=256)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "images", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 3.0, "timed, for each form and number of threads")
REPEATS = flags.DEFINE_integer("repeats", 3, "timings of each", lower_bound=1)
SHAPE = (64, 64, 3)


class Records:
    """ArrayRecord of bytes with a decoder; the label is the index."""

    def __init__(self, path, images, encode, decode):
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for image in images:
            writer.write(encode(image))
        writer.close()
        self.records, self.decode = grain.sources.ArrayRecordDataSource(str(path)), decode

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        return {"image": self.decode(self.records[i]), "label": np.int32(i)}


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def forms(directory):
    """{name: source}."""
    memory = sources.synthetic(SHAPE[0], SHAPE[2], 10, size=NUM_IMAGES.value)
    np.save(directory / "images.npy", memory.images)
    mapped = np.load(directory / "images.npy", mmap_mode="r")
    raw = Records(
        directory / "raw", memory.images, np.ndarray.tobytes, lambda b: np.frombuffer(b, np.uint8).reshape(SHAPE)
    )
    compressed = Records(directory / "png", memory.images, png, lambda b: np.asarray(Image.open(io.BytesIO(b))))
    return {
        "in memory": memory,
        "memory-mapped .npy": sources.Source(mapped, memory.labels, memory.card),
        "ArrayRecord, raw": raw,
        "ArrayRecord, PNG": compressed,
    }


def images_per_s(source, threads):
    batches = pipeline.batches(source, batch_size=BATCH_SIZE.value, seed=0, flip=True)
    upcoming = pipeline.ahead(batches, 0, 10**9, threads)
    next(upcoming)
    began = time.perf_counter()
    for n in itertools.count(1):
        next(upcoming)
        if (seconds := time.perf_counter() - began) > SECONDS.value:
            return n * BATCH_SIZE.value / seconds


def main():
    check_output(OUT.value, ".json")
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for name, source in forms(Path(directory)).items():
            for threads in (0, 1, 2, 4):
                rates = [images_per_s(source, threads) for _ in range(REPEATS.value)]
                rows.append({"form": name, "threads": threads, "images_per_s": [round(r) for r in rates]})
                spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
                print(f"{name:20} {threads} threads {statistics.median(rates):8,.0f} images/s ({spread})")
    cores = len(os.sched_getaffinity(0))
    write_json(OUT.value, MARKED | {"cores": cores, "processor": platform.processor(), "shape": SHAPE, "rows": rows})


if __name__ == "__main__":
    cli.run(main)
