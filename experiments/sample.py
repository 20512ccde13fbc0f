"""Sample images of a run at given labels: a PNG grid, a row for each label in the order given, and an npz if asked.

python -m experiments.sample --run=runs/digits-p0.1 --labels=3,3,7 --w=1.0 --seed=0 --out=grid.png
"""

from typing import Any

import numpy as np
from absl import flags

import cfg_jax
from cfg_jax import checks, images
from cfg_jax.errors import InputError, require
from cfg_jax.files import write_npz
from cfg_jax.models import network
from cfg_jax.sampling.model import Guides, changed, load_classifier, run_and_step
from experiments.helpers import cli

RUN = cli.define_run()
LABELS = cli.define_numbers("labels", None, "classes, with commas between them; default: each class once", int)
UNLABELLED = 8  # images of a model without classes
W = cli.define_numbers("w", "0", "guidance weight of the paper (s = 1 + w); -1: unconditional; several: a column each")
SEED = cli.define_seed("image i is a function of (seed, i), its label and w")
NUM_STEPS = cli.define_count("num_steps", None, "T; default: the run's config.sampler.num_steps", high=checks.MAX_T)
STEP = cli.define_count("step", None, "checkpoint; default: the newest", low=0)
WEIGHTS = flags.DEFINE_enum("weights", "ema", ["ema", "params"], "averaged or raw")
EMA = cli.define_ema()
DTYPE = flags.DEFINE_enum("dtype", None, network.DTYPES, "of the network's body; default: what it was trained in")
GUIDE = cli.define_guide()
CLASSIFIER_RUN = cli.define_path("classifier_run", None, "a noisy-image classifier's run, to guide by its gradient")
SET = flags.DEFINE_multi_string(
    "set", [], "FIELD=VALUE of the sampler or the guidance, such as sampler=ddim, v=0.1, guidance=apg; may be repeated"
)
CLASSIFIER_SCALE = cli.define_float("classifier_scale", 1.0, "how many times the gradient is added")
OUT = cli.define_path("out", "samples.png", "PNG to write", writes=".png")
NPZ = cli.define_path(
    "npz", None, "also write arr_0 (uint8 [N, H, W, C]) and arr_1 (labels) for ADM's evaluator", writes=".npz"
)


def main() -> None:
    ws = W.value
    require(not EMA.value or not flags.FLAGS["weights"].present, "--ema names an average itself: leave out --weights")
    scaled = flags.FLAGS["classifier_scale"].present
    require(CLASSIFIER_RUN.value or not scaled, "--classifier_scale has no effect without --classifier_run: give both")
    model = cfg_jax.load(RUN.value, STEP.value, EMA.value or WEIGHTS.value, DTYPE.value)
    classifier = load_classifier(CLASSIFIER_RUN.value) if CLASSIFIER_RUN.value else None
    num_classes = (classifier or model).config.data.num_classes
    labels = LABELS.value or [*range(num_classes)] or [0] * UNLABELLED
    remedy = f"leave --labels out for {UNLABELLED} images, or give a 0 for each"
    text = f"--labels={cli.listed(labels)}"
    require(num_classes or not any(labels), f"{text}: the model was trained without classes: {remedy}")
    if NPZ.value and len(ws) > 1:
        raise InputError("--npz holds the images of one w: give --w one value")
    uncond = cfg_jax.load(*run_and_step(GUIDE.value), dtype=DTYPE.value) if GUIDE.value else None
    guides = Guides(uncond, classifier, CLASSIFIER_SCALE.value)
    settings = {"num_steps": NUM_STEPS.value} | dict(map(setting, SET.value))
    changed(model.config, settings)  # which knows the names of settings: labels, w and seed are none
    columns = [model.sample(labels, w, seed=SEED.value, guides=guides, **settings) for w in ws]
    rows = np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:])
    images.save_png(OUT.value, images.grid(rows, columns=len(ws)))
    scale = f", classifier scale {CLASSIFIER_SCALE.value:g}" if classifier else ""
    about = f"a row for each of labels {labels}" if num_classes else f"{len(labels)} rows, without labels"
    print(f"{OUT.value}: {about}, columns w = {ws} (s = {[1 + w for w in ws]}){scale}")
    if NPZ.value:
        write_npz(NPZ.value, {"arr_0": columns[0], "arr_1": np.asarray(labels, np.int64)}, mark=True)
        print(f"{NPZ.value}: arr_0 {columns[0].shape}, arr_1 {len(labels)} labels")


def setting(text: str) -> tuple[str, Any]:
    """Read FIELD=VALUE: "v=0.1" -> ("v", 0.1), "sampler=ddim" -> ("sampler", "ddim")."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier() and value):
        raise InputError(f"--set={text}: give FIELD=VALUE, such as sampler=ddim")
    try:
        return name, cli.number(value)
    except ValueError:
        return name, value


if __name__ == "__main__":
    cli.run(main)
