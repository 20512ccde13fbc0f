"""Rectified flow: train a run's network again, on pairs of noise and the image that the run's ODE makes of it.

python -m experiments.reflow --run=runs/digits-flow --workdir=runs/digits-reflow
python -m experiments.reflow --run=runs/digits-flow --workdir=runs/digits-reflow-w1 --w=1

Its paths are straighter, so that few steps suffice (Liu et al. 2023). At w = 0 the new run can be guided as the old
one. With --w it learns the guided ODE, and w = 0 of the new run draws from that in one pass a step. Any run will do but
a halved student. Training starts from the run's weights only where it predicts a velocity. One process makes the pairs.
"""

from pathlib import Path

import cfg_jax
from cfg_jax import checks
from cfg_jax.errors import require
from cfg_jax.sampling import pairs
from cfg_jax.training import students, trainer
from experiments.helpers import cli

RUN = cli.define_path("run", None, "run directory or export whose ODE makes the pairs", hub=True, required=True)
WORKDIR = cli.define_path("workdir", None, "directory of the new run, with its pairs", writes="run", required=True)
W = cli.define_float("w", 0.0, "guidance weight of the pairs")
PAIRS = cli.define_count("pairs", 4000, "number of pairs", low=2)
NUM_STEPS = cli.define_count("num_steps", 16, "Heun's steps of the ODE", high=checks.MAX_T)
SEED = cli.define_seed("of the pairs and of the training")
cli.define_training()


def main() -> None:
    model = cfg_jax.load(RUN.value)
    pairs.check(model, W.value)
    asked = PAIRS.value, W.value, NUM_STEPS.value, SEED.value
    path = pairs.path_of(WORKDIR.value, model, *asked)
    config = cli.training(students.rectified(model.config, RUN.value, str(path), W.value))
    config.seed = SEED.value
    checks.everything(config)
    if not path.exists():
        another = f"{WORKDIR.value} holds another run: choose another --workdir, or the flags it was made with"
        require(not Path(WORKDIR.value, "config.json").exists(), another)
        pairs.write(path, pairs.make(model, *asked))
    trainer.train(config, WORKDIR.value)
    print(f"{WORKDIR.value} is rectified: its w = 0 draws what w = {W.value:g} of {RUN.value} does")


if __name__ == "__main__":
    cli.run(main)
