"""Score runs over w; finished cells are kept, the report is written at the end.

python -m experiments.sweep --config=configs/digits.py --runs=runs/digits-p0.1,runs/digits-p0.5 --w=0,0.1,1,4 \
    --workdir=runs/digits-sweep
"""

from absl import flags

from cfg_jax.evaluation import report, sweep
from experiments import cli

CONFIG = cli.define_config()
RUNS = flags.DEFINE_list("runs", None, "run directories, with commas between them")
W = flags.DEFINE_string("w", None, "guidance weights of the paper (s = 1 + w); default: config.eval.w")
WORKDIR = flags.DEFINE_string("workdir", None, "where cells/ and the report go")
OTHER = flags.DEFINE_bool("other_reference", False, "score runs against config.data though trained on another set")
flags.mark_flags_as_required(["config", "runs", "workdir"])


def main():
    config = CONFIG.value
    ws = cli.numbers(W.value, float, "w") if W.value else config.eval.w
    sweep.sweep(config, RUNS.value, ws, WORKDIR.value, OTHER.value)
    print(report.write(WORKDIR.value))


if __name__ == "__main__":
    cli.run(main)
