"""Train a noisy-image classifier that guides: the encoder half of a config's network.

python -m experiments.train_classifier --config=configs/digits.py --workdir=runs/digits-classifier

It stops, saves and continues as experiments.train does. --config.logsnr_min=15 trains it on nearly noise-free images.
"""

from cfg_jax import checks
from cfg_jax.models.unet import Encoder
from cfg_jax.training import trainer
from experiments.helpers import cli

CONFIG = cli.define_config(required=True)
WORKDIR = cli.define_path(
    "workdir", None, "run directory: config.json, checkpoints/, metrics.jsonl", writes="run", required=True
)
cli.define_hosts()


def main() -> None:
    checks.everything(CONFIG.value)
    trainer.train(Encoder.config_of(CONFIG.value), WORKDIR.value)


if __name__ == "__main__":
    cli.run(main, stopped=0)
