"""Says how far a run is; status 0 where it has taken all its steps, 75 (try again) where it has not.

python -m experiments.launch.finished --workdir=runs/imagenet64-p0.1    # other flags of experiments.train are ignored
"""

import sys
from pathlib import Path

from cfg_jax import config as configs
from cfg_jax.store.checkpoint import latest
from experiments.helpers import cli

if __name__ == "__main__":
    if not cli.given("workdir"):
        cli.fail("--workdir is missing: name the run directory")
    run = Path(cli.local_path(cli.given("workdir")))
    step = latest(run)
    num_steps = configs.load(run / "config.json").train.num_steps if (run / "config.json").exists() else None
    print(f"{run}: step {step} of {num_steps}")
    sys.exit(0 if num_steps and step >= num_steps else 75)
