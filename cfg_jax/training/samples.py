"""Grids of pictures that a run draws as it trains."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cfg_jax import config as configs
from cfg_jax import images
from cfg_jax.diffusion import samplers, schedule
from cfg_jax.models import unet
from cfg_jax.training import mesh as meshes
from cfg_jax.training import state as states
from cfg_jax.training.records import Writer
from cfg_jax.training.state import TrainState

GRID_COLUMNS = 8


def sample_grid(params: Any, *, config: ConfigDict, mesh: Mesh | None = None) -> jax.Array:
    """Draw GRID_COLUMNS images of each of the first ten classes, unguided: float32 [N, H, W, C] on the scale -1..1.

    The noise and the labels are the same at every step of training, so that the grids of two steps compare.
    """
    data, sampler = config.data, config.sampler
    c = jnp.repeat(jnp.arange(min(data.num_classes, 10)), GRID_COLUMNS)
    keys, z = samplers.start(config.seed, jnp.arange(len(c)), (data.image_size, data.image_size, data.channels))
    logsnrs = schedule.grid(sampler.num_steps, config.logsnr_min, config.logsnr_max, sampler.grid)
    eps_fn = unet.eps_of(states.network(config), meshes.whole(params, mesh))
    threshold = configs.THRESHOLDS[sampler.threshold]
    return samplers.ancestral(keys, eps_fn, z, c, logsnrs, v=sampler.variance_interp, threshold=threshold)


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
