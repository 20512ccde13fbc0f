"""Classifier-free diffusion guidance (Ho & Salimans, arXiv 2207.12598) in JAX/Flax."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load` and `pretrained`, imported when first used: the math alone needs neither orbax nor the data tools."""
    if name == "load":
        from cfg_jax.sampling.model import load

        return load
    if name == "pretrained":
        from cfg_jax.store.weights import pretrained

        return pretrained
    raise AttributeError(f"module 'cfg_jax' has no attribute {name!r}")
