"""Train every prediction with every loss, and order the losses: x, eps and the velocity, three by three.

JiT's Table 2b (arXiv 2511.13720) does so on ImageNet at 64x64: the loss of x is the worst for every prediction, that of
the velocity the best. Here the models have equal steps, seeds and passes. What is trained already is not trained again.

python -m experiments.studies.losses --config=configs/digits.py --out=runs/studies
"""

import itertools

import numpy as np

from cfg_jax import plots
from cfg_jax.sweep import claims
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

CONFIG = cli.define_config(required=True)
OUT = gallery.define_out("losses")
SEEDS = cli.define_numbers("seeds", "0,1", "of the training, a model each", int, 0, 2**31 - 1)
W = cli.define_float("w", 0, "guidance weight of the samples", low=-1)
NUM_STEPS = cli.define_count("num_steps", 16, "of Heun in t, two passes each", low=2)
NUM_IMAGES = cli.define_count("num_images", 800, "of each model", low=20)

KINDS = ("x", "eps", "velocity")
OBJECTIVES = {
    f"{predicts}-{error}": {"predicts": predicts, "error": error, "density": "uniform_t"}
    for predicts, error in itertools.product(KINDS, KINDS)
}


@plots.styled
def main() -> None:
    config, w, num = CONFIG.value, W.value, NUM_IMAGES.value
    models, scorer = gallery.trained_seeds(OUT.value, "losses", config, OBJECTIVES, SEEDS.value, [w], num)
    walk = {"name": "flow_heun", "grid": "t", "num_steps": NUM_STEPS.value}
    rows = {name: gallery.over_runs(scorer, group, w, **walk) for name, group in models.items()}
    lines = [["predicts", *(f"loss of {error}" for error in KINDS)]]
    lines += [[predicts, *(claims.shown(rows[f"{predicts}-{error}"]) for error in KINDS)] for predicts in KINDS]
    about = (
        f"{claims.score_name(rows['x-x'], 'fid')}, {config.train.num_steps} steps, training seeds "
        f"{','.join(map(str, SEEDS.value))}, mean; {num} images, w = {w:g}, T = {NUM_STEPS.value} of Heun in t, ± the "
        f"bootstrap standard error over images. {verdict(rows)}"
    )
    gallery.write(OUT.value, "losses", None, markdown(lines), about, config.data.name)


def verdict(rows: dict[str, dict]) -> str:
    """Judge JiT's order of the losses by the mean over predictions, with errors over the same resamples."""

    def mean(error: str) -> tuple[float, np.ndarray]:
        of = [rows[f"{predicts}-{error}"] for predicts in KINDS]
        scores = [claims.score(row, "fid") for row in of]
        return float(np.mean(scores)), np.mean([claims.resamples(row, "fid") for row in of], 0)

    gaps = [claims.difference(*mean("velocity"), *mean("eps")), claims.difference(*mean("eps"), *mean("x"))]
    word = claims.weakest([gap.verdict(-1) for gap in gaps])
    return (
        f"JiT's order, x worst and the velocity best, is {word}: the mean of the velocity's column less that of eps is "
        f"{gaps[0].text(2)}, that of eps less that of x {gaps[1].text(2)}."
    )


if __name__ == "__main__":
    cli.run(main)
