"""Guidance in one pass: a student of w, students of few steps, and model guidance, against the run they come from.

It trains them from every run, as experiments.distill does, or goes on from what is there.

python -m experiments.studies.onepass --runs=runs/digits-flow,runs/digits-flow-seed1 --out=runs/studies
"""

from pathlib import Path

from cfg_jax import plots
from cfg_jax.diffusion import distill
from cfg_jax.errors import require
from cfg_jax.sampling.model import Model
from cfg_jax.sweep import claims
from cfg_jax.text import markdown
from cfg_jax.training import students
from experiments.helpers import cli, gallery

RUNS = gallery.define_runs("flow, see configs/digits_flow.py")
OUT = gallery.define_out("onepass")
W = cli.define_numbers("w", "0,0.5,1,2", "guidance weights, within 0 and 4", low=0, high=4)
T = cli.define_numbers("T", "4,8,16", "Euler's steps of the run and of its student", int, 1)
STEPS = cli.define_numbers("steps", "8,4,2,1", "of the halved students, each half of the one before", int, 1)
HALVING = cli.define_count("halving_steps", 300, "training steps of each halved student")
OMEGA = cli.define_float("omega", 0.5, "of model guidance", low=0.0, high=0.8)
NUM_IMAGES = cli.define_count("num_images", 800, "of each point", low=20)
cli.define_training()


@plots.styled
def main() -> None:
    runs, ws, steps, halved = RUNS.value, W.value, T.value, STEPS.value
    students.check_halvings(halved)
    shown = [w for w in ws if OMEGA.value and abs(w - distill.fixed_point(OMEGA.value)) < 1e-4]
    need = f"--omega={OMEGA.value:g} is guidance at w = {distill.fixed_point(OMEGA.value):g}"
    require(shown or not OMEGA.value, f"{need}: put that in --w, or set --omega=0")
    families = [family(run, gallery.load(run, ws), halved) for run in runs]
    scorer = gallery.scorer(runs[0], OUT.value, NUM_IMAGES.value)

    def scores(member: str | int, w: float, num_steps: int, grid: str = "t") -> dict:
        models = [models[member] for models in families]
        return gallery.over_runs(scorer, models, w, num_steps=num_steps, name="ddim", eta=0.0, grid=grid)

    curves = {(name, n): [scores(name, w, n) for w in ws] for n in steps for name in ("teacher", "student")}
    curves |= {("halved", n): [scores(n, w, n, "shifted") for w in ws] for n in halved}
    lines = [["", "T", "passes", *(f"w = {w:g}" for w in ws)]]
    for (name, n), rows in curves.items():
        lines.append([name, str(n), str(rows[-1]["passes"]), *map(claims.shown, rows)])
    if OMEGA.value:
        row = scores("omega", 0.0, steps[-1])
        cells = [claims.shown(row) if w in shown else "" for w in ws]
        lines.append([f"model guidance, omega = {OMEGA.value:g}", str(steps[-1]), str(row["passes"]), *cells])
    baseline = curves["teacher", steps[-1]]
    fid = claims.score_name(baseline[0], "fid")
    figure, axes = gallery.subplots(len(ws), (2.6 * len(ws), 3.2), sharey=True)
    for i, (ax, w) in enumerate(zip(axes, ws, strict=True)):
        for name in ("teacher", "student", "halved"):
            cells = [rows[i] for (member, _), rows in curves.items() if member == name]
            points = sorted((row["passes"], claims.score(row, "fid")) for row in cells)
            ax.plot(*zip(*points, strict=True), "o-", label=name)
        ax.set(title=f"w = {w:g}", xlabel="passes", xscale="log", yscale="log")
        ax.set_xticks([1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 32])
    axes[0].set_ylabel(fid)
    axes[0].legend()
    data = scorer.config.data.name
    figure.suptitle(f"{data}: mean of {len(runs)} training seeds, N = {NUM_IMAGES.value:,} a point, seed 0")
    lines.append([f"less the teacher's at T = {steps[-1]}", "", "", *[""] * len(ws)])
    for (name, n), rows in curves.items():
        if name == "halved" or (name, n) == ("student", steps[-1]):
            gaps = map(gallery.gap, rows, baseline)
            lines.append([name, str(n), str(rows[-1]["passes"]), *gaps])
    about = (
        f"{fid}, means of {len(runs)} training seeds; {NUM_IMAGES.value} images, ± the "
        "bootstrap standard error over images, of a difference over the same images. Halved students are drawn by DDIM "
        "on the grid shifted, the others by Euler's steps; passes are those of w above 0."
    )
    gallery.write(OUT.value, "onepass", figure, markdown(lines), about, data)


def family(run: str, teacher: Model, steps: list[int]) -> dict[str | int, Model]:
    """Return a run's models: "teacher", its "student", halved ones by their number of steps, and "omega"."""
    start = Path(OUT.value, f"onepass-{teacher.config.data.name}", Path(run).name)
    workdir = f"{start}-student"
    model = gallery.trained(cli.training(students.distilled(teacher.config, run, 0, 4)), workdir)
    models: dict[str | int, Model] = {"teacher": teacher, "student": model}
    for n in steps:
        config = students.halved(model.config, workdir, n)
        config.train.num_steps = HALVING.value
        workdir = f"{start}-{n}"
        models[n] = model = gallery.trained(config, workdir)
    if OMEGA.value:
        config = cli.training(teacher.config.copy_and_resolve_references())
        config.objective.omega = OMEGA.value
        models["omega"] = gallery.trained(config, f"{start}-omega")
    return models


if __name__ == "__main__":
    cli.run(main)
