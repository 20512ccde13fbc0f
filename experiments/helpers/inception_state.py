"""Weights for the Inception network of FID, made from names and shapes alone, for a parity test."""

# pyright: reportMissingImports=false
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def make(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return {name: array} of {PyTorch name: shape}. Activations keep about their size from layer to layer."""
    rng = np.random.default_rng(0)
    state = {}
    for name, shape in sorted(shapes.items()):
        draw = rng.standard_normal(shape).astype(np.float32)
        if name.endswith("num_batches_tracked"):
            state[name] = np.zeros(shape, np.int64)
        elif name.endswith("running_var"):
            state[name] = 1 + 0.5 * np.abs(draw)
        elif len(shape) >= 2:
            state[name] = draw * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        else:
            state[name] = 0.1 * draw + name.endswith("bn.weight")
    return state


def random_weights(network: Any, path: Path, size: int) -> dict[str, Any]:
    """Return a state dict of the network's shapes, with batch norms measured on pictures, so that features differ."""
    import torch

    load = network.load_state_dict
    network.load_state_dict = lambda self, state: None  # build it without its download
    torch.save({}, path)
    net = network("shapes", ["2048"], feature_extractor_weights_path=str(path))
    network.load_state_dict = load
    weights = make({name: array.shape for name, array in net.state_dict().items()})
    net.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    for module in net.train().modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net(torch.tensor(images_of(0, 16, size).transpose(0, 3, 1, 2).copy()))
    return net.state_dict()


def images_of(seed: int, count: int, size: int) -> np.ndarray:
    """Return coarse random textures, uint8 [N, H, W, 3], whose neighbouring pixels belong together."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, size // 4, size // 4, 3))
    fine = coarse.repeat(4, 1).repeat(4, 2) + rng.normal(0, 12 + 8 * seed, (count, size, size, 3))
    return np.clip(fine, 0, 255).astype(np.uint8)
