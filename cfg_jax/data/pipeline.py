"""Endless batches of uint8 images and int32 labels. A batch is a function of the source, the seed and the step."""

from collections.abc import Iterator

import grain
import numpy as np

from cfg_jax.data.sources import Source


def batches(
    source: Source, *, batch_size: int, seed: int, flip: bool, process: int = 0, num_processes: int = 1
) -> grain.MapDataset:
    """Return a random-access sequence: batches(...)[step] is this process's share of the global batch of that step.

    Every epoch is another permutation. The processes' shares are disjoint. Together they are the same global batch
    for any number of processes, so a run needs only its step to resume.
    """
    ds = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    if flip:
        ds = ds.random_map(random_flip)
    # the shares in order are the global batch, so an image keeps its place in it, which decides its noise
    return ds.batch(batch_size // num_processes, drop_remainder=True)[process::num_processes]


def ahead(batches: grain.MapDataset, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield the batches of steps start..stop-1 in order. The next batches are made while the device computes.

    More threads are not faster (docs/data.md): gathering small arrays holds the interpreter's lock.
    """
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    return iter(batches[start:stop].to_iter_dataset(options))


def random_flip(example: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Mirror the image left to right with probability 1/2."""
    return {**example, "image": example["image"][:, ::-1]} if rng.integers(2) else example
