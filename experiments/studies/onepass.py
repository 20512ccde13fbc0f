"""Guidance in one pass: a student of w, students of few steps, and model guidance, against the run they come from.

It trains them of every run, by experiments.distill's recipe, and goes on from what is there.

python -m experiments.studies.onepass --runs=runs/digits-flow,runs/digits-flow-seed1 --out=runs/studies
"""

from pathlib import Path

from absl import flags
from matplotlib.figure import Figure

import cfg_jax
from cfg_jax import checks, plots
from cfg_jax.diffusion import distill
from cfg_jax.errors import require
from cfg_jax.sweep import claims
from cfg_jax.text import markdown
from cfg_jax.training import students, trainer
from experiments.helpers import cli, gallery

RUNS = flags.DEFINE_list("runs", None, "training seeds of one flow, see configs/digits_flow.py")
OUT = gallery.define_out("onepass")
W = flags.DEFINE_string("w", "0,0.5,1,2", "guidance weights, within 0 and 4")
T = flags.DEFINE_string("T", "4,8,16", "Euler's steps of the run and of its student")
STEPS = flags.DEFINE_string("steps", "8,4,2,1", "of the halved students, each half of the one before")
HALVING = flags.DEFINE_integer("halving_steps", 300, "training steps of each of them", lower_bound=1)
OMEGA = flags.DEFINE_float("omega", 0.5, "of model guidance", lower_bound=0.0, upper_bound=0.99)
NUM_IMAGES = flags.DEFINE_integer("num_images", 800, "of each point", lower_bound=20)
TRAINING = cli.define_training()
flags.mark_flag_as_required("runs")


@plots.styled
def main():
    runs: list[str] = RUNS.value  # type: ignore[assignment]
    ws, steps, halved = gallery.weights(W.value), gallery.positive(T.value, "T"), gallery.positive(STEPS.value, "steps")
    require(all(0 <= w <= 4 for w in ws), f"--w={W.value}: students are trained for 0 to 4")
    students.check_halvings(halved)
    teachers = [cfg_jax.load(run) for run in runs]
    for w in ws:
        checks.guidance_weight(w, teachers[0].config, "--w")
    taught = [family(run, model, halved) for run, model in zip(runs, teachers, strict=True)]
    scorer = gallery.scorer(runs[0], OUT.value, NUM_IMAGES.value)
    euler = {"name": "ddim", "eta": 0.0, "grid": "t"}
    found = {}  # (name, T): a row of each w
    for n in steps:
        for name, models in (("teacher", teachers), ("student", [of["student"] for of in taught])):
            found[name, n] = [gallery.over_runs(scorer, models, w, num_steps=n, **euler) for w in ws]
    for n in halved:
        models = [of[n] for of in taught]
        found["halved", n] = [
            gallery.over_runs(scorer, models, w, num_steps=n, **euler | {"grid": "shifted"}) for w in ws
        ]
    lines = [["", "T", "passes", *(f"w = {w:g}" for w in ws)], ["---", *["---:"] * (len(ws) + 2)]]
    for (name, n), rows in found.items():
        lines.append([name, str(n), str(rows[-1]["passes"]), *map(gallery.said, rows)])
    if OMEGA.value:
        row = gallery.over_runs(scorer, [of["omega"] for of in taught], 0.0, num_steps=steps[-1], **euler)
        cells = [gallery.said(row) if abs(w - distill.fixed_point(OMEGA.value)) < 1e-6 else "" for w in ws]
        lines.append([f"model guidance, omega = {OMEGA.value:g}", str(steps[-1]), str(row["passes"]), *cells])
    figure = Figure(figsize=(2.6 * len(ws), 3.2))
    for i, (ax, w) in enumerate(zip(figure.subplots(1, len(ws), sharey=True, squeeze=False)[0], ws, strict=True)):
        for name in ("teacher", "student", "halved"):
            points = sorted(
                (rows[i]["passes"], claims.score(rows[i], "fid")) for (of, _), rows in found.items() if of == name
            )
            ax.plot(*zip(*points, strict=True), "o-", label=name)
        ax.set(title=f"w = {w:g}", xlabel="passes", xscale="log", yscale="log")
        ax.set_xticks([1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 32])
        if not i:
            ax.set_ylabel(claims.score_name(rows[0], "fid"))
            ax.legend()
    figure.suptitle(
        f"{scorer.config.data.name}: mean of {len(runs)} training seeds, N = {NUM_IMAGES.value:,} a point, seed 0"
    )
    lines.append([f"less the teacher's at T = {steps[-1]}", "", "", *[""] * len(ws)])
    for (name, n), rows in found.items():
        if name == "halved" or (name, n) == ("student", steps[-1]):
            gaps = [gallery.gap(a, b) for a, b in zip(rows, found["teacher", steps[-1]], strict=True)]
            lines.append([name, str(n), str(rows[-1]["passes"]), *gaps])
    about = (
        f"{claims.score_name(rows[0], 'fid')}, means of {len(runs)} training seeds; {NUM_IMAGES.value} images, ± the "
        "bootstrap standard error over images, of a difference over the same images. Halved students are drawn by DDIM "
        "on the grid shifted, the others by Euler's steps; passes are those of w above 0."
    )
    gallery.write(OUT.value, "onepass", figure, markdown(lines), about, scorer.config.data.name)


def family(run, model, steps):
    """{"student": a model, N: a halved one, "omega": one by model guidance} of a run."""
    out = Path(OUT.value) / f"onepass-{model.config.data.name}"
    found, last = {}, str(out / f"{Path(run).name}-student")
    config = cli.training(students.distilled(model.config, run, 0, 4), TRAINING)
    trainer.train(config, last)
    found["student"] = cfg_jax.load(last)
    for n in steps:
        config = students.halved(cfg_jax.load(last).config, last, n)
        config.train.num_steps = HALVING.value
        last = str(out / f"{Path(run).name}-{n}")
        trainer.train(config, last)
        found[n] = cfg_jax.load(last)
    if OMEGA.value:
        config = cli.training(model.config.copy_and_resolve_references(), TRAINING)
        config.objective.omega = OMEGA.value
        trainer.train(config, out / f"{Path(run).name}-omega")
        found["omega"] = cfg_jax.load(out / f"{Path(run).name}-omega")
    return found


if __name__ == "__main__":
    cli.run(main)
