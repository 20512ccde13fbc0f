"""Train a classifier of noisy images to guide by: the encoder half of a config's network, as experiments.train a model.

python -m experiments.train_classifier --config=configs/digits.py --workdir=runs/digits-classifier

It has the same promises. --config.logsnr_min=15 trains it on images as good as clean: a noise-free classifier.
"""

from absl import flags

from cfg_jax.models.unet import Encoder
from cfg_jax.training import trainer
from experiments.helpers import cli

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "run directory: config.json, checkpoints/, metrics.jsonl")
cli.define_hosts()
flags.mark_flags_as_required(["config", "workdir"])


def main():
    trainer.train(Encoder.config_of(CONFIG.value), WORKDIR.value)


if __name__ == "__main__":
    cli.run(main, stopped=0)
