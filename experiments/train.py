"""Train one model; the same command again continues it.

python -m experiments.train --config=configs/digits.py --workdir=runs/digits-p0.1 --config.p_uncond=0.1

Ended by Ctrl-C, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 or SIGXCPU it saves first, and its status is 0. experiments/launch/
has it on many machines.
"""

from absl import flags

from cfg_jax.training import trainer
from experiments.helpers import cli

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "run directory: config.json, checkpoints/, metrics.jsonl, samples/")
WANDB = flags.DEFINE_string("wandb", None, "project of Weights & Biases to log to as well, by the extra cfg_jax[wandb]")
cli.define_hosts()
flags.mark_flags_as_required(["config", "workdir"])


def main():
    trainer.train(CONFIG.value, WORKDIR.value, WANDB.value)


if __name__ == "__main__":
    cli.run(main, stopped=0)
