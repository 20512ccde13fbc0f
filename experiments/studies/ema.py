"""How long the average of the parameters should be, at each w: post-hoc EMA (Karras et al. 2024, EDM2).

It needs a run with averages in its checkpoints, which others are made of:

python -m experiments.train --config=configs/digits.py --workdir=runs/digits-ema --config.train.averages="(0.05, 0.1)" \
    --config.train.keep_every=100 --config.train.checkpoint_every=100
python -m experiments.studies.ema --runs=runs/digits-ema --out=runs/studies
"""

import numpy as np
from absl import flags
from matplotlib.figure import Figure

import cfg_jax
from cfg_jax import checks, plots
from cfg_jax.diffusion.guidance import ClassifierFree, Unguided
from cfg_jax.sweep import claims
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

OUT = gallery.define_out("ema")
RUNS = flags.DEFINE_list("runs", None, "training seeds of one model, with config.train.averages")
LENGTHS = flags.DEFINE_string("lengths", "0.035,0.05,0.075,0.1,0.15", "of the averages, as shares of all steps")
W = flags.DEFINE_string("w", "0,0.25,0.5,1,2", "guidance weights")
NUM_IMAGES = flags.DEFINE_integer("num_images", 800, "of each point", lower_bound=20)
NUM_STEPS = flags.DEFINE_integer("num_steps", 32, "T", lower_bound=2)
flags.mark_flag_as_required("runs")


@plots.styled
def main():
    runs: list[str] = RUNS.value  # type: ignore[assignment]
    lengths, ws = gallery.positive(LENGTHS.value, "lengths", 0.01, float), gallery.weights(W.value)
    averaged = {(run, length): cfg_jax.load(run, params=length) for run in runs for length in lengths}
    for model in averaged.values():
        for w in ws:
            checks.guidance_weight(w, model.config, "--w")
    scorer = gallery.scorer(runs[0], OUT.value, NUM_IMAGES.value, NUM_STEPS.value, bootstrap=50)
    found = {}
    for (run, length), model in averaged.items():
        scorer.model = model
        for w in ws:
            row = scorer(ClassifierFree(np.float32(w)) if w else Unguided())
            found[run, length, w] = claims.score(row, "fid"), np.array(claims.resamples(row, "fid"))
    name = claims.score_name(row, "fid")
    mean = lambda length, w: np.mean([found[run, length, w][0] for run in runs])  # noqa: E731
    spread = lambda length, w: np.std(np.mean([found[r, length, w][1] for r in runs], 0), ddof=1)  # noqa: E731
    lines = [["length", *(f"w = {w:g}" for w in ws)], ["---:"] * (len(ws) + 1)]
    least = {w: min(lengths, key=lambda length, w=w: mean(length, w)) for w in ws}
    for length in lengths:
        cells = [f"{mean(length, w):.2f} ± {spread(length, w):.2f}" for w in ws]
        lines.append(
            [f"{length:g}", *(f"**{c}**" if least[w] == length else c for c, w in zip(cells, ws, strict=True))]
        )
    figure = Figure()
    axes = figure.subplots()
    for w in ws:
        axes.plot(lengths, [mean(length, w) for length in lengths], "o-", label=f"w = {w:g}")
    axes.set(xlabel="length of the average", ylabel=name, xscale="log", yscale="log")
    axes.set_xticks(lengths, map(str, lengths), minor=False)
    axes.set_title(
        f"{scorer.config.data.name}: mean of {len(runs)} training seeds, N = {NUM_IMAGES.value:,} images a point, "
        f"T = {NUM_STEPS.value}, seed 0"
    )
    axes.legend()
    gallery.write(
        OUT.value, "ema", figure, markdown(lines), about(name, runs, found, least, ws), scorer.config.data.name
    )


def about(name, runs, found, least, ws):
    """What was measured, and whether the best length at the largest w differs from that at w = 0."""
    gaps = []
    for run in runs:  # at the largest w, the length that is best there against the one that is best at w = 0
        (here, drawn), (there, other) = (found[run, least[w], ws[-1]] for w in (ws[-1], ws[0]))
        gaps.append(f"{here - there:+.2f} ± {np.std(drawn - other, ddof=1):.2f}")
    moved = (
        f"At w = {ws[-1]:g} the length {least[ws[-1]]:g} is best: its distance less that of {least[ws[0]]:g}, best at "
        f"w = {ws[0]:g}, is {', '.join(gaps)}."
    )
    return (
        f"{name} of {len(runs)} training seeds, mean; {NUM_IMAGES.value} images, T = {NUM_STEPS.value}. {moved} "
        "Bold is the least of a column, ± the bootstrap standard error over images."
    )


if __name__ == "__main__":
    cli.run(main)
