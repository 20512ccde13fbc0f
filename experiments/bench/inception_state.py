"""Weights for the Inception network of FID, made from names and shapes alone, for a parity test."""

import numpy as np


def make(shapes):
    """{PyTorch name: shape} -> {name: array}: activations keep about their size from layer to layer."""
    rng = np.random.default_rng(0)
    state = {}
    for name in sorted(shapes):
        shape = shapes[name]
        leaf = name.rsplit(".", 1)[-1]
        draw = rng.standard_normal(shape).astype(np.float32)
        if leaf == "num_batches_tracked":
            state[name] = np.zeros(shape, np.int64)
        elif leaf == "running_var":
            state[name] = 1 + 0.5 * np.abs(draw)
        elif len(shape) >= 2:
            state[name] = draw * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        else:
            state[name] = 0.1 * draw + (name.endswith("bn.weight"))
    return state
