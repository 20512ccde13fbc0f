"""Train one model; the same command again continues it.

python -m experiments.train --config=configs/digits.py --workdir=runs/digits-p0.1 --config.p_uncond=0.1

It saves when Ctrl-C, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 or SIGXCPU ends it, and its status is 0. experiments/launch/
starts it on many machines.
"""

from absl import flags

from cfg_jax.training import trainer
from experiments.helpers import cli

CONFIG = cli.define_config(required=True)
WORKDIR = cli.define_path(
    "workdir", None, "run directory, with checkpoints/, metrics.jsonl", writes="run", required=True
)
WANDB = flags.DEFINE_string("wandb", None, "project of Weights & Biases to log to as well, by the extra cfg_jax[wandb]")
cli.define_hosts()


def main() -> None:
    trainer.train(CONFIG.value, WORKDIR.value, WANDB.value)


if __name__ == "__main__":
    cli.run(main, stopped=0)
