"""Status 0 where a run has taken all its steps, 75 (try again) where it has not.

python -m experiments.launch.finished runs/imagenet64-p0.1
"""

import sys
from pathlib import Path

from cfg_jax import config as configs
from cfg_jax.training.checkpoint import latest

if __name__ == "__main__":
    run = Path(sys.argv[1])
    num_steps = configs.load(run / "config.json").train.num_steps
    print(f"{run}: step {latest(run)} of {num_steps}")
    sys.exit(0 if latest(run) >= num_steps else 75)
