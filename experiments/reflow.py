"""Rectified flow: train a run's network anew on pairs of noise and what the run's own ODE makes of it.

python -m experiments.reflow --run=runs/digits-flow --workdir=runs/digits-reflow
python -m experiments.reflow --run=runs/digits-flow --workdir=runs/digits-reflow-w1 --w=1

Its paths are straighter, so that few steps do (Liu et al. 2023). At w = 0 the new run can be guided as the old one.
With --w the guided ODE is what it learns, and w = 0 of the new run draws that in one pass a step. Any run will do but a
halved student; one that does not predict a velocity lends no weights to start from. Pairs are made by one process.
"""

from pathlib import Path

from absl import flags

import cfg_jax
from cfg_jax import checks
from cfg_jax.data import pairs
from cfg_jax.errors import InputError
from cfg_jax.files import check_directory
from cfg_jax.sampling import ode
from cfg_jax.training import students, trainer
from experiments.helpers import cli

RUN = flags.DEFINE_string("run", None, "run directory or export whose ODE makes the pairs")
WORKDIR = flags.DEFINE_string("workdir", None, "directory of the new run, with its pairs")
W = flags.DEFINE_float("w", 0.0, "guidance weight of the pairs")
PAIRS = flags.DEFINE_integer("pairs", 4000, "how many", lower_bound=2)
NUM_STEPS = flags.DEFINE_integer("num_steps", 16, "Heun's steps of the ODE", lower_bound=1, upper_bound=checks.MAX_T)
SEED = flags.DEFINE_integer("seed", 0, "of the pairs and of the training", lower_bound=0, upper_bound=2**31 - 1)
TRAINING = cli.define_training()
flags.mark_flags_as_required(["run", "workdir"])


def main():
    check_directory(WORKDIR.value, "run")
    model = cfg_jax.load(RUN.value)
    ode.check(model, W.value)
    asked = PAIRS.value, W.value, NUM_STEPS.value, SEED.value
    path = ode.path_of_pairs(WORKDIR.value, model, *asked)
    config = cli.training(students.rectified(model.config, RUN.value, str(path), W.value), TRAINING)
    config.seed = SEED.value
    checks.everything(config)
    saved = Path(WORKDIR.value) / "config.json"
    if not path.exists() and saved.exists():
        raise InputError(f"{WORKDIR.value} holds another run: choose another --workdir, or the flags it was made with")
    if not path.exists():
        pairs.write(path, ode.pairs(model, *asked))
    trainer.train(config, WORKDIR.value)
    print(f"{WORKDIR.value} is rectified: its w = 0 draws what w = {W.value:g} of {RUN.value} does")


if __name__ == "__main__":
    cli.run(main)
