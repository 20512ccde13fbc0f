"""source -> endless batches of uint8 images and int32 labels; batch = f(seed, step)."""

import grain


def batches(source, *, batch_size, seed, flip, process=0, num_processes=1):
    """A random-access sequence: batches(...)[step] is this process's share of the global batch of that step.

    Every epoch is a permutation of its own; the processes' shares are disjoint and make the same global
    batch whatever their number, so a run resumes by its step alone.
    """
    ds = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    if flip:
        ds = ds.random_map(random_flip)
    # a global batch is num_processes shares in order, so position in the batch, which decides its noise, stays
    return ds.batch(batch_size // num_processes, drop_remainder=True)[process::num_processes]


def ahead(batches, start, stop, num_threads=1):
    """The batches of steps start..stop-1 in order, made while the device works on those before.

    By experiments.bench.data more threads gain nothing: gathering small arrays holds the interpreter's lock.
    """
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    return iter(batches[start:stop].to_iter_dataset(options))


def random_flip(example, rng):
    """Mirror left to right with probability 1/2."""
    return {**example, "image": example["image"][:, ::-1]} if rng.integers(2) else example
