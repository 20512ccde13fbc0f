"""What fewer passes cost: each sampler's error over T, on laws whose eps is exact, as tables.

python -m experiments.studies.passes --out=runs/passes.md

The error is the Wasserstein-1 distance between the samples and the law that more and more steps lead to, in one
dimension where the data have a spread of about 1. Gaussians of equal spread have a guided law that is known; the
mixture's is taken from 4096 steps of the same kind, with noise (ancestral) or without.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from scipy import stats

from cfg_jax.diffusion import guidance, samplers, schedule
from cfg_jax.files import check_output, write_atomic
from cfg_jax.models.mixture import Mixture
from cfg_jax.text import markdown
from experiments.helpers import cli

T = flags.DEFINE_string("T", "4,8,16,32,64,128,256,512,1024", "numbers of steps, a row each")
W = flags.DEFINE_string("w", "0,1,4", "guidance weights, a table each")
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 20_000, "of each cell", lower_bound=2)
OUT = flags.DEFINE_string("out", None, "also write what is printed")

LIMIT = 4096
MEAN, STD = 0.8, 0.5
COLUMNS = {
    "ancestral": (samplers.Ancestral(0.3), "paper"),
    "ddim": (samplers.DDIM(0.0), "paper"),
    "dpmpp_2m": (samplers.DPMpp2M(), "paper"),
    "ancestral, logsnr": (samplers.Ancestral(0.3), "logsnr"),
    "ddim, logsnr": (samplers.DDIM(0.0), "logsnr"),
    "dpmpp_2m, logsnr": (samplers.DPMpp2M(), "logsnr"),
}


def gaussians(z, logsnr, c):
    """Exact eps of N(MEAN, STD^2) at label 0, and of N(0, STD^2) at the null label, 1: guided, a Gaussian again."""
    mean = MEAN * (c == 0)[:, None]
    alpha2 = jax.nn.sigmoid(logsnr)[:, None]
    return jnp.sqrt(1 - alpha2) * (z - jnp.sqrt(alpha2) * mean) / (alpha2 * STD**2 + 1 - alpha2)


def two_gaussians():
    return Mixture(jnp.float32([[-1.0], [0.5]]), jnp.float32([0.1, 0.3]), jnp.float32([0.25, 0.75]))


def drawn(eps_fn, null, w, sampler, grid, num_steps):
    """Sorted samples [N] of class 0."""
    walk = samplers.Walk(sampler, schedule.grid(num_steps, spacing=grid))
    guided = samplers.plain(guidance.guided(eps_fn, w, null))
    index = jnp.arange(NUM_SAMPLES.value)
    keys, z = samplers.start(0, index, (1,))
    return np.sort(np.asarray(jax.jit(lambda keys, z, c: walk(keys, guided, z, c))(keys, z, 0 * index)[:, 0]))


def main():
    if OUT.value:
        check_output(OUT.value, ".md")
    num_steps, mixture = cli.numbers(T.value, int, "T"), two_gaussians()
    quantiles = (np.arange(NUM_SAMPLES.value) + 0.5) / NUM_SAMPLES.value
    floor = np.abs(
        np.sort(np.random.default_rng(0).normal(0, STD, NUM_SAMPLES.value)) - stats.norm.ppf(quantiles) * STD
    )
    command = cli.command_line("studies.passes")
    text = (
        f"# Error over T\n\n    {command}\n\n"
        f"{NUM_SAMPLES.value:,} samples of one seed a cell; as many exact draws of the Gaussian are "
    )
    text += f"{floor.mean():.4f} from their law. The columns without a grid's name are on the paper's.\n"
    for w in cli.numbers(W.value, float, "w"):
        law = (1 + w) * MEAN + STD * stats.norm.ppf(quantiles)
        text += f"\nGaussians, w = {w:g}\n\n{table(num_steps, lambda *at: drawn(gaussians, 1, w, *at), law)}"  # noqa: B023
        of_mixture = lambda *at: drawn(mixture.eps_fn, mixture.null, w, *at)  # noqa: B023, E731
        text += f"\nA mixture, w = {w:g}\n\n{table(num_steps, of_mixture, None)}"
    print(text)
    if OUT.value:
        write_atomic(OUT.value, text)


def table(num_steps, of, law):
    """Errors of each sampler over T. law: sorted, or None for each kind's own limit."""
    limits = {}
    for sampler, _ in COLUMNS.values():
        kind = isinstance(sampler, samplers.Ancestral)
        if kind not in limits:
            limits[kind] = law if law is not None else of(sampler if kind else samplers.DDIM(0.0), "paper", LIMIT)
    rows = [["T", *COLUMNS], ["---:"] * (1 + len(COLUMNS))]
    for steps in num_steps:
        errors = [
            np.abs(of(*at, steps) - limits[isinstance(at[0], samplers.Ancestral)]).mean() for at in COLUMNS.values()
        ]
        rows.append([f"{steps:,}", *(f"{error:.4f}" for error in errors)])
    return markdown(rows)


if __name__ == "__main__":
    cli.run(main)
