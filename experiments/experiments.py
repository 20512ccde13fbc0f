"""Python imports this file as `experiments` when a command is run by its path. It says how to run commands.

bench and studies have a link to it.
"""

import sys
from pathlib import Path

command = Path(sys.argv[0]).resolve().relative_to(Path(__file__).resolve().parents[1]).with_suffix("")
sys.exit(f"error: run it in the repository's root as a module: python -m {'.'.join(command.parts)}")
