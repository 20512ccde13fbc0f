"""Weights for the Inception network of FID, made from names and shapes alone, for a parity test."""

# pyright: reportMissingImports=false
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


def random_weights(network, path, size):
    """A state dict of the network's own shapes, with batch norms measured on pictures, so that features differ."""
    import torch

    kept = network.load_state_dict
    network.load_state_dict = lambda self, state: None  # build it without its download
    torch.save({}, path)
    net = network("shapes", ["2048"], feature_extractor_weights_path=str(path))
    network.load_state_dict = kept
    net.load_state_dict(
        {k: torch.tensor(a) for k, a in make({k: v.shape for k, v in net.state_dict().items()}).items()}
    )
    for module in net.train().modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net(torch.tensor(images_of(0, 16, size).transpose(0, 3, 1, 2).copy()))
    return net.state_dict()


def images_of(seed, count, size):
    """Coarse random textures: neighbouring pixels belong together."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, size // 4, size // 4, 3))
    fine = coarse.repeat(4, 1).repeat(4, 2) + rng.normal(0, 12 + 8 * seed, (count, size, size, 3))
    return np.clip(fine, 0, 255).astype(np.uint8)
