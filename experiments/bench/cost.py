"""Print what a config will cost: parameters and FLOP, and device-hours by the estimates of experiments.bench.compile.

python -m experiments.bench.cost --config=configs/imagenet64.py --compiled=runs/compile.json

--parameters prints the name, shape and number of each array of the network instead.
"""

from absl import flags
from clu import parameter_overview

from cfg_jax import checks
from cfg_jax.errors import require
from cfg_jax.perf import cost, estimate
from cfg_jax.text import markdown
from experiments.helpers import cli

CONFIG = cli.define_config(required=True)
COMPILED = flags.DEFINE_multi(
    cli.Paths(hub=False, many=False), flags.ArgumentSerializer(), "compiled", [],
    "JSON of experiments.bench.compile; may be repeated",
)  # fmt: skip
MODELS = cli.define_count("models", 3, "number of models in the table, one for each p_uncond")
PARAMETERS = flags.DEFINE_bool("parameters", False, "print the table of parameters and nothing else")


def main() -> None:
    config = CONFIG.value
    checks.everything(config)
    if PARAMETERS.value:
        return print(parameter_overview.get_parameter_overview(cost.abstract(config, 1)[1], include_stats=False))
    rates = estimate.fastest([row for path in COMPILED.value for row in estimate.rows_of(path)])

    forward, num_images, ws = cost.forward_flops(config), config.eval.num_images, config.eval.w
    training = cost.training_flops(config, forward, config.train.num_steps)
    cell = cost.sampling_flops(config, forward, [1.0], num_images)
    table = MODELS.value * cost.sampling_flops(config, forward, ws, num_images)
    of_cell = f"{num_images:,} images, T = {config.sampler.num_steps}, w = 1"
    rows = {
        "parameters": f"{cost.num_parameters(config):,}",
        "forward pass": f"{forward / 1e9:,.1f} GFLOP an image; a trained image {3 * forward / 1e9:,.1f} GFLOP",
        "training": f"{training:.3g} FLOP: {config.train.num_steps:,} steps of {config.train.batch_size:,}",
        "one cell": f"{cell:.3g} FLOP: {of_cell}",
        "the table": f"{table:.3g} FLOP: {len(ws)} values of w, {MODELS.value} models",
    }
    for name, value in rows.items():
        print(f"{name:16} {value}")
    if not rates:
        return
    omitted = "without what is sent between devices and without FID's network"
    print(f"\ndevice-hours by the compilers' estimates, {omitted}\n")
    lines = [["", "share of the peak", "training a model", "one cell", "the table", "models and table"]]
    for target, parts in rates.items():
        both = {"training", "sampling"} <= parts.keys()
        require(both, f"--compiled has no training or no sampling for {target}: compile both")
        fit, draw = parts["training"], parts["sampling"]
        hours = [f / part["flops_per_s"] / 3600 for f, part in ((training, fit), (cell, draw), (table, draw))]
        hours.append(MODELS.value * hours[0] + hours[2])
        lines.append([target, f"{fit['share']:.0%}, {draw['share']:.0%}", *map(cost.written, hours)])
    print(markdown(lines, range(6)))


if __name__ == "__main__":
    cli.run(main)
