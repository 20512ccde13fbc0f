"""What Algorithm 2's own steps take away: its variance over T, v and w where eps is exact, against many steps.

Two Gaussians, p(x | c) = N(0, 1) and p(x) = N(0, 2); no sample is drawn (cfg_jax/diffusion/exact.py). The distance is
Wasserstein-1 between Gaussians, in standard deviations of p(x | c).

python -m experiments.studies.truncation --out=runs/studies
"""

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.diffusion import exact, samplers, schedule
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

OUT = gallery.define_out("truncation")
T = flags.DEFINE_string("T", "4,8,16,32,64,128,256,1024", "numbers of steps")
W = flags.DEFINE_string("w", "0,1,4", "guidance weights")
V = flags.DEFINE_string("variance_interp", "0,0.3,1", "v")


@plots.styled
def main():
    ws, vs = gallery.weights(W.value), gallery.positive(V.value, "variance_interp", 0, float)
    num_steps = gallery.positive(T.value, "T", 2)
    columns = [(w, v) for w in ws for v in vs]
    rows = [["T", *(f"w = {w:g}, v = {v:g}" for w, v in columns)], ["---:"] * (1 + len(columns))]
    found = {at: [] for at in columns}
    for steps in num_steps:
        for w, v in columns:
            found[w, v].append(exact.sampled_variance(samplers.Ancestral(v), schedule.grid(steps), w))
        distances = [distance(found[w, v][-1], exact.sde_variance(w)) for w, v in columns]
        shown = zip((found[at][-1] for at in columns), distances, strict=True)
        rows.append([f"{steps:,}", *(f"{variance:.3f} ({d:.3f})" for variance, d in shown)])
    rows.append(["many", *(f"{exact.sde_variance(w):.3f}" for w, _ in columns)])
    figure = Figure()
    axes = figure.subplots()
    for i, w in enumerate(ws):
        for v, style in zip(vs, ("-", "--", ":", "-.") * len(vs), strict=False):
            share = np.array(found[w, v]) / exact.sde_variance(w)
            axes.plot(num_steps, share, style, color=f"C{i}", label=f"w = {w:g}, v = {v:g}")
    axes.set(xscale="log", xlabel="T", ylabel="variance, share of what many steps leave")
    axes.set_title("p(x | c) = N(0, 1), p(x) = N(0, 2): Algorithm 2 by its law, nothing is drawn")
    axes.legend()
    gallery.write(OUT.value, "truncation", figure, markdown(rows), "Variance, and the distance in brackets.")


def distance(variance, law):
    """E |a - b| of the two Gaussians' quantiles."""
    return abs(variance**0.5 - law**0.5) * (2 / np.pi) ** 0.5


if __name__ == "__main__":
    cli.run(main)
