"""Classifier-free diffusion guidance (Ho & Salimans, arXiv 2207.12598) in JAX/Flax."""

__version__ = "0.1.0"


def __getattr__(name):
    """`cfg_jax.load`, imported when first used: the math alone needs neither orbax nor the data tools."""
    if name == "load":
        from cfg_jax.sampling.model import load

        return load
    raise AttributeError(f"module 'cfg_jax' has no attribute {name!r}")
