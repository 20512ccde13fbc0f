"""Make a table or figure of the paper, at the paper's size or on a smaller data set. `make digits` runs it.

python -m experiments.paper --table=1                    # and Figure 4: ImageNet 64x64, p_uncond 0.1, 0.2, 0.5
python -m experiments.paper --table=2                    # and Figure 5: ImageNet 128x128, three T
python -m experiments.paper --figure=6 --scale=digits    # samples over w; 2 is the mixture of Gaussians
python -m experiments.paper --table=1 --scale=tiny_imagenet --plan

It prints what it needs and costs, trains the models that are missing, and continues where it stopped.
"""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
from absl import flags

import cfg_jax
from cfg_jax import checks, images
from cfg_jax.data import sources
from cfg_jax.errors import InputError, require
from cfg_jax.fields import effective
from cfg_jax.files import check_output
from cfg_jax.models import inception
from cfg_jax.perf import cost
from cfg_jax.sampling import asked
from cfg_jax.sampling.draw import labels_by_rule
from cfg_jax.store import checkpoint
from cfg_jax.sweep import published, report, spec
from cfg_jax.sweep.run import sweep
from cfg_jax.training import trainer
from experiments.helpers import cli

SCALES = ("digits", "fashion_mnist_16", "fashion_mnist", "tiny_imagenet", "imagenet64", "imagenet128")
AT_128 = cli.given("table") == "2" or cli.given("figure") in ("3", "5", "7", "8")
# --scale, or the size of the paper's table or figure: it gives the default of --config
RUNG = cli.given("scale") or ("imagenet128" if AT_128 else "imagenet64")
RUNG = RUNG if RUNG in SCALES else SCALES[0]  # the flag itself refuses other values

TABLE = cli.define_count("table", None, "1 or 2", high=2)
FIGURE = cli.define_count("figure", None, "1 to 8", high=8)
SCALE = flags.DEFINE_enum("scale", None, SCALES, "a file of configs/; default: the paper's size")
CONFIG = cli.define_config(f"configs/{RUNG}.py")
FULL = flags.DEFINE_bool("full", False, "all 41 w of the paper, 0 to 4 by 0.1, instead of config.eval.w")
SEEDS = cli.define_seeds(None, "to average over, such as 0,1; default: config.eval.seed")
PLAN = flags.DEFINE_bool("plan", False, "only print what it needs and costs")
RUNS = cli.define_path("runs", "runs", "directory for SCALE-p0.1 ..., SCALE-sweep and the figures", writes="directory")
SWEEP = cli.define_path(
    "sweep", None, "directory for the table's cells; default: SCALE-sweep in --runs", writes="sweep"
)
cli.define_hosts()
LABEL = cli.define_count("label", None, "class of the single-class panels; default: the malamute, or 0", low=0)


def main():
    require((TABLE.value is None) != (FIGURE.value is None), "give either --table or --figure")
    if FIGURE.value == 2:
        if PLAN.value:
            return print("Figure 2 needs no data and no model: three exact Gaussians, by experiments.studies.gaussians")
        out = f"--out={Path(RUNS.value) / 'gaussians'}"
        sys.exit(subprocess.run([sys.executable, "-m", "experiments.studies.gaussians", out]).returncode)
    table = TABLE.value or {4: 1, 5: 2}.get(FIGURE.value)
    config, first = CONFIG.value, jax.process_index() == 0  # the first of several processes prints and draws
    effective([config], cli.overrides())
    ps = published.P_UNCOND if table == 1 else (config.p_uncond,)
    ws = published.ALL_W if FULL.value else config.eval.w
    steps = published.fewer_and_more(config.sampler.num_steps) if table == 2 else [config.sampler.num_steps]
    seeds = list(dict.fromkeys(SEEDS.value or [config.eval.seed]))
    runs = {Path(RUNS.value) / f"{RUNG}-p{p:g}": spec.changed(config, {"p_uncond": p}) for p in ps}
    for model in runs.values():
        checks.everything(model)
        for w in ws:
            asked.guidance_weight(w, model, "config.eval.w")
    last = config.data.num_classes - 1
    if not table:
        require(not SEEDS.value, "--seeds goes with a table: the figures of samples show config.eval.seed")
        require(last >= 0, f"--figure={FIGURE.value} shows classes: set config.data.num_classes to those of the data")
    require(LABEL.value is None or 0 <= LABEL.value <= last, f"--label={LABEL.value} is no class: give 0 to {last}")
    needed = plan(config, runs, ws, steps, seeds, table)
    if first:
        print(needed)
    if PLAN.value:
        return
    if first and not table:
        check_output(sheet_path(), ".png", flag="--runs")
    workdir = Path(SWEEP.value or Path(RUNS.value) / f"{RUNG}-sweep")
    for run, model in runs.items():
        trainer.train(model, run)
        if table and len(runs) > 1:  # score each model at once: its curve need not wait for the others
            sweep(config, [run], ws, workdir, vary={"sampler.num_steps": steps, "eval.seed": seeds[:1]})
    if table:
        rows = sweep(config, list(runs), ws, workdir, vary={"sampler.num_steps": steps, "eval.seed": seeds})
        if first:
            print(report.write(workdir))
            print(published.beside(rows, table, config.sampler.num_steps))
            print(f"{workdir}/report.html has the slider over w, table.md every score")
    elif first:
        sheet(config, next(iter(runs)), ws)


def plan(config, runs, ws, steps, seeds, table):
    """Return what is needed and whether it is there, and the FLOP and hours of the missing steps and of all cells."""
    needs = {"data": lambda: sources.load(config)}
    if table and config.eval.features == "inception":
        needs["features"] = lambda: inception.load(config.eval.inception)
    lines = []
    for name, load in needs.items():
        try:
            load()
            lines.append(f"{name:10} there")
        except InputError as error:
            require(PLAN.value, str(error))
            lines.append(f"{name:10} missing: {error}")
    left = {run: max(0, config.train.num_steps - checkpoint.latest(run)) for run in runs}
    for run, num_steps in left.items():
        lines.append(f"{'model':10} {run}: {num_steps:,} of {config.train.num_steps:,} steps to train")
    count = config.eval.num_images
    if not table:
        panels = published.SHEETS[FIGURE.value]
        ws, count = panels.ws or ws, panels.num_images * len(panels.kinds)
    forward = cost.forward_flops(config)
    training = cost.training_flops(config, forward, sum(left.values()))
    by_steps = [spec.changed(config, {"sampler.num_steps": t}) for t in steps]
    sampling = len(runs) * len(seeds) * sum(cost.sampling_flops(c, forward, ws, count) for c in by_steps)
    num_cells = len(runs) * len(ws) * len(steps) * len(seeds)
    lines += [
        f"{'cells':10} {num_cells} of {count:,} images: T = {steps}, w = {list(ws)}",
        f"{'cost':10} {training:.3g} FLOP of training left, {sampling:.3g} FLOP for all cells",
        f"{'':10} hours on a kind of device, by its compiler: experiments.bench.compile, then experiments.bench.cost",
    ]
    return "\n".join(lines) + "\n"


def sheet_path():
    return Path(RUNS.value) / f"{RUNG}-figure{FIGURE.value}.png"


def sheet(config, run, ws):
    """Write a PNG of samples over w, all of one noise."""
    panels, model, num_steps = published.SHEETS[FIGURE.value], cfg_jax.load(run), config.sampler.num_steps
    names = sources.load(config)[0].card.class_names
    malamute = next((k for k, name in enumerate(names) if "malamute" in name), 0)
    single = malamute if LABEL.value is None else LABEL.value
    labels = {
        "single": np.full(panels.num_images, single),
        "random": labels_by_rule("random", panels.num_images, len(names), config.eval.seed),
    }
    ws, rows = list(panels.ws or ws), []
    for kind in panels.kinds:
        sampled = [model.sample(labels[kind], w, num_steps, config.eval.seed) for w in ws]
        rows.append([images.grid(panel, panels.columns) for panel in sampled])
    out = sheet_path()
    images.save_png(out, images.mosaic(rows))
    print(f"{out}: w = {ws} from left to right, T = {num_steps}, all of one noise; rows {panels.kinds}")
    if "single" in panels.kinds:
        print(f"the single class is {single}, {names[single]}")


if __name__ == "__main__":
    cli.run(main)
