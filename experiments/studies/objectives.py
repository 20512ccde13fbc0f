"""Compare the paper's objective, v-prediction and flow matching for one network at equal steps, seeds and passes.

It trains every model, or goes on from what is there.

python -m experiments.studies.objectives --config=configs/digits.py --out=runs/studies
"""

from cfg_jax import plots
from cfg_jax.sweep import claims
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

CONFIG = cli.define_config(required=True)
OUT = gallery.define_out("objectives")
SEEDS = cli.define_numbers("seeds", "0,1", "of the training, a model each", int, 0, 2**31 - 1)
W = cli.define_numbers("w", "0,0.5,1", "guidance weights", low=-1)
PASSES = cli.define_count("passes", 32, "through one half of the network, for an image", low=4)
NUM_IMAGES = cli.define_count("num_images", 800, "of each point", low=20)

OBJECTIVES = {
    "paper": {"predicts": "eps", "error": "eps", "density": "sech"},
    "v": {"predicts": "v", "error": "v", "density": "sech"},
    "flow": {"predicts": "velocity", "error": "velocity", "density": "uniform_t"},
}
# name: passes a step, and fields of config.sampler
WALKS = {
    "Algorithm 2": (1, {"name": "ancestral", "grid": "paper"}),
    "DDIM": (1, {"name": "ddim", "grid": "paper"}),
    "Euler in t": (1, {"name": "ddim", "grid": "t"}),
    "Heun in t": (2, {"name": "flow_heun", "grid": "t"}),
}


@plots.styled
def main() -> None:
    config, ws, num_images = CONFIG.value, W.value, NUM_IMAGES.value
    how = OBJECTIVES, SEEDS.value, ws, num_images
    models, scorer = gallery.trained_seeds(OUT.value, "objectives", config, *how)
    lines = [["objective", "drawn by", *(f"w = {w:g}" for w in ws)]]
    figure, axes = gallery.subplots(len(WALKS), (3 * len(WALKS), 3.2), sharey=True)
    best = {}
    for name in OBJECTIVES:
        rows = []
        for ax, (walk, (each, fields)) in zip(axes, WALKS.items(), strict=True):
            num_steps = PASSES.value // each
            cells = [gallery.over_runs(scorer, models[name], w, num_steps=num_steps, **fields) for w in ws]
            lines.append([name, walk, *map(claims.shown, cells)])
            ax.plot(ws, gallery.fids(cells), "o-", label=name)
            ax.set(title=walk, xlabel="w", yscale="log")
            rows += cells
        best[name] = min(rows, key=lambda row: claims.score(row, "fid"))
    fid, seeds = claims.score_name(best["paper"], "fid"), ",".join(map(str, SEEDS.value))
    axes[0].set_ylabel(fid)
    axes[0].legend()
    figure.suptitle(
        f"{config.data.name}: mean of training seeds {seeds}, N = {num_images:,} images a point, "
        f"{PASSES.value} passes, seed 0"
    )
    others = ", ".join(f"{gallery.gap(best[name], best['paper'])} of {name}" for name in ("v", "flow"))
    about = (
        f"{fid}, {config.train.num_steps} steps, training seeds {seeds}, mean; "
        f"{num_images} images, {PASSES.value} conditional and as many unconditional passes, ± the bootstrap standard "
        f"error over images. Each objective's lowest distance minus the paper's: {others}. The errors ignore that "
        "each is the lowest of several rows."
    )
    gallery.write(OUT.value, "objectives", figure, markdown(lines, (0, 1)), about, config.data.name)


if __name__ == "__main__":
    cli.run(main)
