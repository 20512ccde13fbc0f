"""Rectified flow of a trained model: straightness and distance against passes, before and after; guided, and of guided.

It makes of every run a rectified one and one rectified at w, by experiments.reflow's recipe, and goes on from what is
there.

python -m experiments.studies.rectified --runs=runs/digits-flow,runs/digits-flow-seed1 --out=runs/studies
"""

from functools import cache
from pathlib import Path

import numpy as np
from absl import flags
from matplotlib.figure import Figure

import cfg_jax
from cfg_jax import checks, plots
from cfg_jax.data import pairs
from cfg_jax.sampling import draw, ode
from cfg_jax.sweep import claims
from cfg_jax.text import markdown
from cfg_jax.training import students, trainer
from experiments.helpers import cli, gallery

RUNS = flags.DEFINE_list("runs", None, "training seeds of one flow, see configs/digits_flow.py")
OUT = gallery.define_out("rectified")
W = flags.DEFINE_float("w", 1.0, "of the guided flow and of the one rectified to it", lower_bound=0.01)
T = flags.DEFINE_string("T", "1,2,4,8,16", "Euler's steps")
PAIRS = flags.DEFINE_integer("pairs", 4000, "of each rectified run", lower_bound=8)
NUM_STEPS = flags.DEFINE_integer("num_steps", 16, "Heun's steps that make them", lower_bound=1)
NUM_IMAGES = flags.DEFINE_integer("num_images", 800, "of each point", lower_bound=20)
TRAINING = cli.define_training()
flags.mark_flag_as_required("runs")


@plots.styled
def main():
    runs: list[str] = RUNS.value  # type: ignore[assignment]
    w, steps = W.value, gallery.positive(T.value, "T")
    flows = [cfg_jax.load(run) for run in runs]
    for model in flows:
        checks.guidance_weight(w, model.config, "--w")
    plain, folded = ([reflowed(run, model, of) for run, model in zip(runs, flows, strict=True)] for of in (0.0, w))
    last = f"rectified at w = {w:g}"
    families = {"flow": flows, "rectified": plain, last: folded}
    straight = cache(lambda name, at: straightness(families[name], at))  # for the table and the figure
    scorer = gallery.scorer(runs[0], OUT.value, NUM_IMAGES.value)
    curves = {
        "flow": ("flow", 0.0), "rectified": ("rectified", 0.0), f"flow, w = {w:g}": ("flow", w),
        f"rectified, w = {w:g}": ("rectified", w), last: (last, 0.0),
    }  # fmt: skip
    lines = [["", "straightness", *(f"T = {n}" for n in steps)], ["---", *["---:"] * (len(steps) + 1)]]
    figure = Figure(figsize=(9, 3.8))
    left, right = figure.subplots(1, 2)
    for label, (name, at) in curves.items():
        rows = [gallery.over_runs(scorer, families[name], at, name="ddim", grid="t", num_steps=n) for n in steps]
        lines.append([label, f"{straight(name, at):.3f}", *map(gallery.said, rows)])
        style = "--" if "w =" in label else "-"
        left.plot(steps, [claims.score(row, "fid") for row in rows], style, marker="o", label=label)
    left.set(xlabel="T, Euler's steps", ylabel=claims.score_name(rows[0], "fid"), xscale="log", yscale="log")
    left.set_xticks(steps, steps)
    left.legend()
    ws = [0.0, 0.5, 1.0, 2.0, 4.0]
    for name in ("flow", "rectified"):
        right.plot(ws, [straight(name, at) for at in ws], "o-", label=name)
    right.set(xlabel="w", ylabel="straightness (0: a line)", yscale="log")
    right.legend()
    figure.suptitle(
        f"{scorer.config.data.name}: mean of {len(runs)} training seeds, N = {NUM_IMAGES.value:,} a point, seed 0"
    )
    about = (
        f"{claims.score_name(rows[0], 'fid')} by Euler's steps, and straightness of 200 paths, 0 of a line; means of "
        f"{len(runs)} training seeds, {NUM_IMAGES.value} images, ± the bootstrap standard error over images. "
        f"{PAIRS.value} pairs by {NUM_STEPS.value} steps of Heun."
    )
    gallery.write(OUT.value, "rectified", figure, markdown(lines), about, scorer.config.data.name)


def straightness(models, w):
    """The mean over training seeds and 200 paths."""
    labels = draw.labels_by_rule("balanced", 200, models[0].config.data.num_classes, 0)
    return np.mean([ode.straightness(model, labels, w) for model in models])


def reflowed(run, model, w):
    """The rectified model of a run, at w."""
    workdir = Path(OUT.value) / f"rectified-{model.config.data.name}" / f"{Path(run).name}-w{w:g}"
    asked = PAIRS.value, w, NUM_STEPS.value
    path = ode.path_of_pairs(workdir, model, *asked)
    if not path.exists():
        pairs.write(path, ode.pairs(model, *asked))
    config = cli.training(students.rectified(model.config, run, str(path), w), TRAINING)
    trainer.train(config, workdir)
    return cfg_jax.load(workdir)


if __name__ == "__main__":
    cli.run(main)
