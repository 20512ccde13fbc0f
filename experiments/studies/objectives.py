"""The paper's objective, v-prediction and flow matching, of one network at equal steps, seeds and passes.

It trains every model, and goes on from what is there.

python -m experiments.studies.objectives --config=configs/digits.py --out=runs/studies
"""

from pathlib import Path

from absl import flags
from matplotlib.figure import Figure

import cfg_jax
from cfg_jax import checks, plots
from cfg_jax.sweep import claims
from cfg_jax.text import markdown
from cfg_jax.training import trainer
from experiments.helpers import cli, gallery

CONFIG = cli.define_config()
OUT = gallery.define_out("objectives")
SEEDS = flags.DEFINE_string("seeds", "0,1", "of the training, a model each")
W = flags.DEFINE_string("w", "0,0.5,1", "guidance weights")
PASSES = flags.DEFINE_integer("passes", 32, "through one half of the network, for an image", lower_bound=4)
NUM_IMAGES = flags.DEFINE_integer("num_images", 800, "of each point", lower_bound=20)
flags.mark_flag_as_required("config")

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
def main():
    config, ws = CONFIG.value, gallery.weights(W.value)
    for w in ws:
        checks.guidance_weight(w, config, "--w")
    runs = {
        name: [trained(config, name, seed) for seed in cli.numbers(SEEDS.value, int, "seeds")] for name in OBJECTIVES
    }
    scorer = gallery.scorer(runs["paper"][0], OUT.value, NUM_IMAGES.value)
    lines = [["objective", "drawn by", *(f"w = {w:g}" for w in ws)], ["---", "---", *["---:"] * len(ws)]]
    figure = Figure(figsize=(3 * len(WALKS), 3.2))
    axes = dict(zip(WALKS, figure.subplots(1, len(WALKS), sharey=True), strict=True))
    rows = {}
    for name, of in runs.items():
        models = [cfg_jax.load(run) for run in of]
        for walk, (each, fields) in WALKS.items():
            num_steps = PASSES.value // each
            found = [gallery.over_runs(scorer, models, w, num_steps=num_steps, **fields) for w in ws]
            rows[name, walk] = found
            lines.append([name, walk, *map(gallery.said, found)])
            axes[walk].plot(ws, [claims.score(row, "fid") for row in found], "o-", label=name)
            axes[walk].set(title=walk, xlabel="w", yscale="log")
    axes["Algorithm 2"].set_ylabel(claims.score_name(found[0], "fid"))
    axes["Algorithm 2"].legend()
    figure.suptitle(
        f"{config.data.name}: mean of training seeds {SEEDS.value}, N = {NUM_IMAGES.value:,} images a point, "
        f"{PASSES.value} passes, seed 0"
    )
    best = {
        name: min((row for walk in WALKS for row in rows[name, walk]), key=lambda r: claims.score(r, "fid"))
        for name in runs
    }
    others = ", ".join(f"{gallery.gap(best[name], best['paper'])} of {name}" for name in ("v", "flow"))
    about = (
        f"{claims.score_name(found[0], 'fid')}, {config.train.num_steps} steps, training seeds {SEEDS.value}, mean; "
        f"{NUM_IMAGES.value} images, {PASSES.value} passes through each half, ± the bootstrap standard error over "
        f"images. Each objective's least distance, less the paper's: {others}; that each is "
        "the least of its rows is not in the error."
    )
    gallery.write(OUT.value, "objectives", figure, markdown(lines), about, config.data.name)


def trained(config, name, seed):
    own = config.copy_and_resolve_references()
    own.objective.update(OBJECTIVES[name])
    own.seed = seed
    run = Path(OUT.value) / f"objectives-{config.data.name}" / f"{name}-seed{seed}"
    trainer.train(own, run)
    return run


if __name__ == "__main__":
    cli.run(main)
