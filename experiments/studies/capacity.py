"""Measure what label dropout costs: p_uncond against the network's width, and fine-tuning against training with it.

It trains every model, or goes on from what is there.

python -m experiments.studies.capacity --config=configs/digits.py --out=runs/studies
"""

from pathlib import Path

from cfg_jax import checks, plots
from cfg_jax.errors import require
from cfg_jax.models.unet import check_name
from cfg_jax.sweep import claims, spec
from cfg_jax.sweep.run import sweep
from cfg_jax.text import markdown
from cfg_jax.training import trainer
from experiments.helpers import cli, gallery

CONFIG = cli.define_config(required=True)
OUT = gallery.define_out("capacity")
CHANNELS = cli.define_numbers("channels", "32,64", "config.model.channels", int, 1)
P_UNCOND = cli.define_numbers("p_uncond", "0.1,0.2,0.5", "above 0; 0 is trained as well", low=1e-3, high=0.99)
W = cli.define_numbers("w", "0,0.25,0.5,1,2", "guidance weights, 0 among them", low=-1)
TUNED = cli.define_count("tuned", 200, "steps of p_uncond = 0.1 that a model of p_uncond = 0 is tuned with")


@plots.styled
def main() -> None:
    widths, ps, ws, config = CHANNELS.value, P_UNCOND.value, W.value, CONFIG.value
    check_name(config)
    for width in widths:
        checks.everything(spec.changed(config, {"model.channels": width}))
    require(config.data.num_classes > 0, "config.data.num_classes=0 leaves no labels to drop: set those of the data")
    require(0 in ws, f"--w={cli.listed(ws)} leaves out w = 0, which the table shows: add 0")
    out, num_steps = Path(OUT.value) / f"capacity-{config.data.name}", config.train.num_steps

    def trained(width: int, p: float, name: str = "trained", steps: int = num_steps, start: str | None = None) -> Path:
        run = out / f"{name}-c{width}-p{p:g}"
        fields = {"model.channels": width, "p_uncond": p, "train.num_steps": steps, "init_from": start}
        trainer.train(spec.changed(config, fields), run)
        return run

    rows = []
    for width in widths:
        conditional = trained(width, 0.0)
        runs = [(f"{width} channels, p = 0", conditional)]
        runs += [(f"{width} channels, p = {p:g}", trained(width, p)) for p in ps]
        tuned = trained(width, 0.1, "tuned", TUNED.value, str(conditional))
        longer = trained(width, 0.1, "longer", num_steps + TUNED.value)
        runs += [(f"{width} channels, p = 0, {TUNED.value} steps more with p = 0.1", tuned)]
        runs += [(f"{width} channels, p = 0.1, {TUNED.value} steps more", longer)]
        for name, run in runs:
            cells = sweep(config, [run], [0.0] if run == conditional else [-1.0, *ws], out)
            rows.append((width, name, {row["w"]: row for row in cells}))
    lines = [["model", "distance at w = 0", "unconditional (w = -1)", "least", "at w", "IS there"]]
    figure, [axes] = gallery.subplots(1, (9, 4.4))
    names = {}
    for i, (width, name, cells) in enumerate(rows):
        curve = claims.Curve([row for w, row in cells.items() if w >= 0])
        least = min(curve.rows, key=lambda row: claims.score(row, "fid"))
        fids = [claims.shown(row) if row else "" for row in (cells[0.0], cells.get(-1.0), least)]
        lines.append([name, *fids, f"{least['w']:g}", f"{claims.score(least, 'is'):.3f}"])
        style = {"linestyle": "-" if width == widths[0] else "--", "marker": "o"}
        style["color"] = f"C{i % (len(rows) // len(widths))}"  # the same of a model at either width
        [line] = axes.plot(curve.values("is"), curve.values("fid"), **style, label=name)
        names[line] = [f"{w:g}" for w in curve.along]
    first = rows[0][2][0.0]
    axes.set(xlabel=claims.score_name(first, "is"), ylabel=claims.score_name(first, "fid"), yscale="log")
    num_images, T = config.eval.num_images, config.sampler.num_steps
    axes.set_title(
        f"{config.data.name}: N = {num_images:,} images a point, T = {T}, "
        f"training seed {config.seed}; w is beside its point"
    )
    figure.legend(loc="outside right center")
    plots.name_points(names)
    about = (
        f"{config.data.name}, {num_steps} steps, one training seed, N = {num_images}, T = {T}, "
        "± the bootstrap standard error over images."
    )
    gallery.write(OUT.value, "capacity", figure, markdown(lines), about, config.data.name)


if __name__ == "__main__":
    cli.run(main)
