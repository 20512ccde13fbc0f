"""Rectify trained models: straightness and distance against passes, before and after, guided or on guided pairs.

It makes a rectified run and one rectified at w from every run, as experiments.reflow does, or goes on from what is
there.

python -m experiments.studies.rectified --runs=runs/digits-flow,runs/digits-flow-seed1 --out=runs/studies
"""

from functools import cache
from pathlib import Path

import numpy as np

from cfg_jax import plots
from cfg_jax.sampling import draw, pairs
from cfg_jax.sampling.model import Model
from cfg_jax.sweep import claims
from cfg_jax.text import markdown
from cfg_jax.training import students
from experiments.helpers import cli, gallery

RUNS = gallery.define_runs("flow, see configs/digits_flow.py")
OUT = gallery.define_out("rectified")
W = cli.define_float("w", 1.0, "of the guided flow and of the one rectified to it", low=0.01)
T = cli.define_numbers("T", "1,2,4,8,16", "Euler's steps", int, 1)
PAIRS = cli.define_count("pairs", 4000, "of each rectified run", low=8)
NUM_STEPS = cli.define_count("num_steps", 16, "Heun's steps that make the pairs")
NUM_IMAGES = cli.define_count("num_images", 800, "of each point", low=20)
cli.define_training()


@plots.styled
def main() -> None:
    runs, w, steps = RUNS.value, W.value, T.value
    flows = [gallery.load(run, [w]) for run in runs]
    plain, guided = ([reflowed(run, model, at) for run, model in zip(runs, flows, strict=True)] for at in (0.0, w))
    last = f"rectified at w = {w:g}"
    families = {"flow": flows, "rectified": plain, last: guided}
    scorer = gallery.scorer(runs[0], OUT.value, NUM_IMAGES.value)

    @cache  # for the table and the figure
    def straightness(name: str, at: float) -> float:
        """Return the mean over training seeds and 200 paths."""
        labels = draw.labels_by_rule("balanced", 200, flows[0].config.data.num_classes, 0)
        return float(np.mean([pairs.straightness(model, labels, at) for model in families[name]]))

    curves = {
        "flow": ("flow", 0.0), "rectified": ("rectified", 0.0), f"flow, w = {w:g}": ("flow", w),
        f"rectified, w = {w:g}": ("rectified", w), last: (last, 0.0),
    }  # fmt: skip
    lines = [["", "straightness", *(f"T = {n}" for n in steps)]]
    figure, (left, right) = gallery.subplots(2, (9, 3.8))
    for label, (name, at) in curves.items():
        rows = [gallery.over_runs(scorer, families[name], at, name="ddim", grid="t", num_steps=n) for n in steps]
        lines.append([label, f"{straightness(name, at):.3f}", *map(claims.shown, rows)])
        left.plot(steps, gallery.fids(rows), "--" if "w =" in label else "-", marker="o", label=label)
    fid = claims.score_name(rows[0], "fid")
    left.set(xlabel="T, Euler's steps", ylabel=fid, xscale="log", yscale="log")
    left.set_xticks(steps, steps)
    left.legend()
    ws = [0.0, 0.5, 1.0, 2.0, 4.0]
    for name in ("flow", "rectified"):
        right.plot(ws, [straightness(name, at) for at in ws], "o-", label=name)
    right.set(xlabel="w", ylabel="straightness (0: a line)", yscale="log")
    right.legend()
    data = scorer.config.data.name
    figure.suptitle(f"{data}: mean of {len(runs)} training seeds, N = {NUM_IMAGES.value:,} a point, seed 0")
    about = (
        f"{fid} by Euler's steps, and straightness of 200 paths, 0 of a line; means of "
        f"{len(runs)} training seeds, {NUM_IMAGES.value} images, ± the bootstrap standard error over images. "
        f"{PAIRS.value} pairs by {NUM_STEPS.value} steps of Heun."
    )
    gallery.write(OUT.value, "rectified", figure, markdown(lines), about, data)


def reflowed(run: str, model: Model, w: float) -> Model:
    """Return the model of a run rectified at w."""
    workdir = Path(OUT.value, f"rectified-{model.config.data.name}", f"{Path(run).name}-w{w:g}")
    asked = PAIRS.value, w, NUM_STEPS.value
    path = pairs.path_of(workdir, model, *asked)
    if not path.exists():
        pairs.write(path, pairs.make(model, *asked))
    return gallery.trained(cli.training(students.rectified(model.config, run, str(path), w)), workdir)


if __name__ == "__main__":
    cli.run(main)
