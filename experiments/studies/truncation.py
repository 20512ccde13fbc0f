"""Compute how much variance Algorithm 2 loses by few steps: over T, v and w, where eps is exact.

Two Gaussians, p(x | c) = N(0, 1) and p(x) = N(0, 2); no sample is drawn (cfg_jax/diffusion/exact.py). The distance is
Wasserstein-1 between Gaussians, in standard deviations of p(x | c).

python -m experiments.studies.truncation --out=runs/studies
"""

import itertools

import numpy as np

from cfg_jax import plots
from cfg_jax.diffusion import exact, samplers, schedule
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

OUT = gallery.define_out("truncation")
T = cli.define_numbers("T", "4,8,16,32,64,128,256,1024", "numbers of steps", int, 2)
W = cli.define_numbers("w", "0,1,4", "guidance weights", low=-1)
V = cli.define_numbers("variance_interp", "0,0.3,1", "v", low=0, high=1)


@plots.styled
def main() -> None:
    rows = [["T", *(f"{steps:,}" for steps in T.value), "many"]]
    figure, [axes] = gallery.subplots()
    for (i, w), (j, v) in itertools.product(enumerate(W.value), enumerate(V.value)):
        law, name = exact.sde_variance(w), f"w = {w:g}, v = {v:g}"
        sampled = [exact.sampled_variance(samplers.Ancestral(v), schedule.grid(steps), w) for steps in T.value]
        axes.plot(T.value, np.array(sampled) / law, ("-", "--", ":", "-.")[j % 4], color=f"C{i}", label=name)
        rows.append([name, *(f"{variance:.3f} ({distance(variance, law):.3f})" for variance in sampled), f"{law:.3f}"])
    axes.set(xscale="log", xlabel="T", ylabel="variance, share of what many steps leave")
    axes.set_title("p(x | c) = N(0, 1), p(x) = N(0, 2): Algorithm 2 by its law, nothing is drawn")
    axes.legend()
    table = markdown([*zip(*rows, strict=True)], ())
    gallery.write(
        OUT.value,
        "truncation",
        figure,
        table,
        "The variance of samples, and in brackets the Wasserstein-1 distance to many steps.",
    )


def distance(variance: float, law: float) -> float:
    """Return E |a - b| of the two Gaussians' quantiles."""
    return abs(variance**0.5 - law**0.5) * (2 / np.pi) ** 0.5


if __name__ == "__main__":
    cli.run(main)
