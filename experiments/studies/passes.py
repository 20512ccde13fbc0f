"""Measure what fewer passes cost: each sampler's error over T, on laws whose eps is exact, as tables.

python -m experiments.studies.passes --out=runs/passes.md

The error is the Wasserstein-1 distance between the samples and the law that more and more steps lead to, in one
dimension where the data have a spread of about 1. Gaussians of equal spread have a guided law that is known; the
mixture's is taken from 4096 steps of the same kind, with noise (ancestral) or without.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from cfg_jax.diffusion import guidance, samplers, schedule
from cfg_jax.files import write_atomic
from cfg_jax.models.mixture import Mixture
from cfg_jax.text import markdown
from experiments.helpers import cli

T = cli.define_numbers("T", "4,8,16,32,64,128,256,512,1024", "numbers of steps, a row each", int, 1)
W = cli.define_numbers("w", "0,1,4", "guidance weights, a table each", low=-1)
NUM_SAMPLES = cli.define_count("num_samples", 20_000, "of each cell", low=2)
OUT = cli.define_path("out", None, "also write what is printed", writes=".md")

LIMIT = 4096
MEAN, STD = 0.8, 0.5
SAMPLERS = {"ancestral": samplers.Ancestral(0.3), "ddim": samplers.DDIM(0.0), "dpmpp_2m": samplers.DPMpp2M()}
GRIDS = {"": "paper", ", logsnr": "logsnr"}
COLUMNS = {f"{name}{end}": (sampler, grid) for end, grid in GRIDS.items() for name, sampler in SAMPLERS.items()}


def gaussians(z: jax.Array, logsnr: jax.Array, c: jax.Array) -> jax.Array:
    """Return the exact eps of N(MEAN, STD^2) at label 0, and of N(0, STD^2) at the null label 1. Guided, a Gaussian."""
    mean = MEAN * (c == 0)[:, None]
    alpha2 = jax.nn.sigmoid(logsnr)[:, None]
    return jnp.sqrt(1 - alpha2) * (z - jnp.sqrt(alpha2) * mean) / (alpha2 * STD**2 + 1 - alpha2)


def drawn(eps_fn: Callable, null: int, w: float, sampler: Any, grid: str, num_steps: int) -> np.ndarray:
    """Return sorted samples [N] of class 0."""
    walk = samplers.Walk(sampler, schedule.grid(num_steps, spacing=grid))
    guided = samplers.plain(guidance.guided(eps_fn, w, null))
    index = jnp.arange(NUM_SAMPLES.value)
    keys, z = samplers.start(0, index, (1,))
    return np.sort(np.asarray(jax.jit(lambda keys, z, c: walk(keys, guided, z, c))(keys, z, 0 * index)[:, 0]))


def main() -> None:
    mixture = Mixture(jnp.float32([[-1.0], [0.5]]), jnp.float32([0.1, 0.3]), jnp.float32([0.25, 0.75]))
    normal = stats.norm.ppf((np.arange(NUM_SAMPLES.value) + 0.5) / NUM_SAMPLES.value)
    floor = np.abs(np.sort(np.random.default_rng(0).normal(0, STD, NUM_SAMPLES.value)) - normal * STD).mean()
    text = (
        f"# Error over T\n\n    {cli.command_line('studies.passes')}\n\n"
        f"Each cell is the Wasserstein-1 distance of {NUM_SAMPLES.value:,} samples to their law: the exact one for "
        "Gaussians, the limit of many steps for the mixture. Samples that are drawn exactly from the Gaussian have a "
        f"distance of {floor:.4f}. A column without a grid's name has the paper's grid.\n"
    )
    for w in W.value:
        text += f"\nGaussians, w = {w:g}\n\n{table(partial(drawn, gaussians, 1, w), (1 + w) * MEAN + STD * normal)}"
        text += f"\nA mixture, w = {w:g}\n\n{table(partial(drawn, mixture.eps_fn, mixture.null, w))}"
    print(text)
    if OUT.value:
        write_atomic(OUT.value, text)


def table(draw: Callable, law: np.ndarray | None = None) -> str:
    """Return each sampler's errors over T. law: sorted; by default the limit of many steps, with noise or without."""
    kinds = SAMPLERS["ancestral"], SAMPLERS["ddim"]
    with_noise, without = (draw(sampler, "paper", LIMIT) if law is None else law for sampler in kinds)
    rows = [["T", *COLUMNS]]
    for steps in T.value:
        row = [f"{steps:,}"]
        for name, (sampler, grid) in COLUMNS.items():
            limit = with_noise if name.startswith("ancestral") else without
            row.append(f"{np.abs(draw(sampler, grid, steps) - limit).mean():.4f}")
        rows.append(row)
    return markdown(rows, ())


if __name__ == "__main__":
    cli.run(main)
