"""What Python takes for this package in `python experiments/sample.py`. It says how a command is run."""

import sys
from pathlib import Path

sys.exit(f"error: run it in the repository's root as a module: python -m experiments.{Path(sys.argv[0]).stem}")
