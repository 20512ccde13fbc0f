"""Python imports this file as `experiments` when a command is run by its path. It says how to run commands."""

import sys
from pathlib import Path

sys.exit(f"error: run it in the repository's root as a module: python -m experiments.{Path(sys.argv[0]).stem}")
