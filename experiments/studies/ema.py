"""Measure how long the average of the parameters should be, at each w: post-hoc EMA (Karras et al. 2024, EDM2).

It needs a run with averages in its checkpoints, from which averages of other lengths are made:

python -m experiments.train --config=configs/digits.py --workdir=runs/digits-ema --config.train.averages="(0.05, 0.1)" \
    --config.train.keep_every=100 --config.train.checkpoint_every=100
python -m experiments.studies.ema --runs=runs/digits-ema --out=runs/studies
"""

from cfg_jax import plots
from cfg_jax.sweep import claims
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

OUT = gallery.define_out("ema")
RUNS = gallery.define_runs("model, with config.train.averages")
LENGTHS = cli.define_numbers("lengths", "0.035,0.05,0.075,0.1,0.15", "of the averages, shares of all steps", low=0.01)
W = cli.define_numbers("w", "0,0.25,0.5,1,2", "guidance weights", low=-1)
NUM_IMAGES = cli.define_count("num_images", 800, "of each point", low=20)
NUM_STEPS = cli.define_count("num_steps", 32, "T", low=2)


@plots.styled
def main() -> None:
    runs, lengths, ws = RUNS.value, LENGTHS.value, W.value
    averaged = {(run, length): gallery.load(run, ws, length) for run in runs for length in lengths}
    scorer = gallery.scorer(runs[0], OUT.value, NUM_IMAGES.value, NUM_STEPS.value, bootstrap=50)
    rows = {(*of, w): gallery.over_runs(scorer, [model], w) for of, model in averaged.items() for w in ws}
    means = {(length, w): claims.over_seeds([rows[run, length, w] for run in runs]) for length in lengths for w in ws}
    least = {w: min(lengths, key=lambda length, w=w: claims.score(means[length, w], "fid")) for w in ws}
    lines = [["length", *(f"w = {w:g}" for w in ws)]]
    for length in lengths:
        cells = {w: claims.shown(means[length, w]) for w in ws}
        lines.append([f"{length:g}", *(f"**{cell}**" if least[w] == length else cell for w, cell in cells.items())])
    name, data = claims.score_name(means[lengths[0], ws[0]], "fid"), scorer.config.data.name
    title = (
        f"{data}: mean of {len(runs)} training seeds, N = {NUM_IMAGES.value:,} images a point, T = {NUM_STEPS.value}, "
        "seed 0"
    )
    fids = {f"w = {w:g}": gallery.fids(means[length, w] for length in lengths) for w in ws}
    labels = {"xlabel": "length of the average", "ylabel": name, "xscale": "log", "yscale": "log"}
    figure = gallery.curves(lengths, fids, title, **labels)
    figure.axes[0].set_xticks(lengths, map(str, lengths), minor=False)
    first, last = ws[0], ws[-1]  # of the w; at the last, the best length there against the best one at the first
    gaps = [gallery.gap(*(rows[run, least[w], last] for w in (last, first))) for run in runs]
    about = (
        f"{name} of {len(runs)} training seeds, mean; {NUM_IMAGES.value} images, T = {NUM_STEPS.value}. "
        f"At w = {last:g} the length {least[last]:g} is best: its distance less that of {least[first]:g}, best at "
        f"w = {first:g}, is {', '.join(gaps)}. "
        "Bold is the least of a column, ± the bootstrap standard error over images."
    )
    gallery.write(OUT.value, "ema", figure, markdown(lines, ()), about, data)


if __name__ == "__main__":
    cli.run(main)
