"""What label dropout costs: p_uncond against the network's width, and fine-tuning with it against training with it.

It trains every model, and goes on from what is there.

python -m experiments.studies.capacity --config=configs/digits.py --out=runs/studies
"""

from pathlib import Path

from absl import flags
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.sweep import claims
from cfg_jax.sweep.run import sweep
from cfg_jax.text import markdown
from cfg_jax.training import trainer
from experiments.helpers import cli, gallery

CONFIG = cli.define_config()
OUT = gallery.define_out("capacity")
CHANNELS = flags.DEFINE_string("channels", "32,64", "config.model.channels")
P_UNCOND = flags.DEFINE_string("p_uncond", "0.1,0.2,0.5", "above 0; p_uncond = 0 is trained as well")
W = flags.DEFINE_string("w", "0,0.25,0.5,1,2", "guidance weights, 0 among them")
TUNED = flags.DEFINE_integer("tuned", 200, "steps of p_uncond = 0.1 that a model of p_uncond = 0 is tuned with")
flags.mark_flag_as_required("config")


@plots.styled
def main():
    widths, ps = gallery.positive(CHANNELS.value, "channels"), gallery.positive(P_UNCOND.value, "p_uncond", 1e-3, float)
    ws, config = gallery.weights(W.value), CONFIG.value
    out = Path(OUT.value) / f"capacity-{config.data.name}"

    def trained(width, p, name="", **train):
        own = config.copy_and_resolve_references()
        own.model.channels, own.p_uncond = width, p
        own.init_from = train.pop("init_from", None)
        own.train.update(train)
        run = out / f"{name or 'trained'}-c{width}-p{p:g}"
        trainer.train(own, run)
        return run

    num_steps, rows = config.train.num_steps, []
    for width in widths:
        conditional = trained(width, 0.0)
        runs = [(f"{width} channels, p = 0", conditional)]
        runs += [(f"{width} channels, p = {p:g}", trained(width, p)) for p in ps]
        tuned = trained(width, 0.1, "tuned", init_from=str(conditional), num_steps=TUNED.value)
        longer = trained(width, 0.1, "longer", num_steps=num_steps + TUNED.value)
        runs += [(f"{width} channels, p = 0, {TUNED.value} steps more with p = 0.1", tuned)]
        runs += [(f"{width} channels, p = 0.1, {TUNED.value} steps more", longer)]
        for name, run in runs:
            cells = sweep(config, [run], [0.0] if run == conditional else [-1.0, *ws], out)
            rows.append((width, name, {row["w"]: row for row in cells}))
    said = [
        ["model", "distance at w = 0", "unconditional (w = -1)", "least", "at w", "IS there"],
        ["---", *["---:"] * 5],
    ]
    figure = Figure(figsize=(9, 4.4))
    axes, named = figure.subplots(), {}
    for i, (width, name, cells) in enumerate(rows):
        curve = claims.Curve([row for w, row in cells.items() if w >= 0])
        least = min(curve.rows, key=lambda row: claims.score(row, "fid"))
        there = lambda row: gallery.said(row) if row else ""  # noqa: E731
        inception = f"{claims.score(least, 'is'):.3f}"
        said.append([name, there(cells[0.0]), there(cells.get(-1.0)), there(least), f"{least['w']:g}", inception])
        style = {"linestyle": "-" if width == widths[0] else "--", "marker": "o"}
        style["color"] = f"C{i % (len(rows) // len(widths))}"  # the same of a model at either width
        [line] = axes.plot(curve.values("is"), curve.values("fid"), **style, label=name)
        named[line] = [f"{w:g}" for w in curve.along]
    first = rows[0][2][0.0]
    axes.set(xlabel=claims.score_name(first, "is"), ylabel=claims.score_name(first, "fid"), yscale="log")
    evaluation = config.eval
    axes.set_title(
        f"{config.data.name}: N = {evaluation.num_images:,} images a point, T = {config.sampler.num_steps}, "
        f"training seed {config.seed}; w is beside its point"
    )
    figure.legend(loc="outside right center")
    plots.name_points(named)
    about = (
        f"{config.data.name}, {num_steps} steps, one training seed, N = {evaluation.num_images}, "
        f"T = {config.sampler.num_steps}, ± the bootstrap standard error over images."
    )
    gallery.write(OUT.value, "capacity", figure, markdown(said), about, config.data.name)


if __name__ == "__main__":
    cli.run(main)
