"""Grids of pictures that a run draws as it trains."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cfg_jax import images, meshes
from cfg_jax.config import image_shape
from cfg_jax.diffusion import samplers
from cfg_jax.diffusion.guidance import Guidance, Unguided
from cfg_jax.models import build
from cfg_jax.store.checkpoint import TrainState
from cfg_jax.training.writers import Writer

GRID_COLUMNS = 8


def sample_grid(params: Any, *, config: ConfigDict, mesh: Mesh | None = None) -> jax.Array:
    """Draw GRID_COLUMNS images of each of the first ten classes, unguided: float32 [N, H, W, C] on the scale -1..1.

    Without classes it is one such row. The noise and the labels are the same at every step of training, so that the
    grids of two steps compare.
    """
    c = jnp.repeat(jnp.arange(max(1, min(config.data.num_classes, 10))), GRID_COLUMNS)
    keys, z = samplers.start(config.seed, jnp.arange(len(c)), image_shape(config.data))
    denoiser = build.denoiser(config, meshes.whole(params, mesh))
    alone = config.sampler.copy_and_resolve_references()
    alone.particles = None  # unguided, all weigh the same
    return build.walk(config, alone)(keys, Guidance(Unguided()).on(denoiser), z, c)


def save_grids(
    workdir: Path, step: int, state: TrainState, draw: Callable[[Any], jax.Array], writer: Writer | None
) -> None:
    """Draw a grid by the parameters and one by their average; with a writer, save each as a PNG and as an event.

    `draw` is sample_grid compiled for the run. All processes call this, and the one that has the writer saves.
    Raises InputError where a picture is not finite.
    """
    for which in ("params", "ema"):
        image = images.grid(images.to_uint8(draw(getattr(state, which))), columns=GRID_COLUMNS)
        if writer:
            images.save_png(workdir / "samples" / f"{step:07d}_{which}.png", image)
            writer.image(step, which, np.asarray(image))
