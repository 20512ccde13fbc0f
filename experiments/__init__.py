"""Commands, each a module: python -m experiments.sample. Ctrl-C ends one in one line, also while it still imports."""

import os
import signal
import sys
from types import FrameType


def stopped(number: int, frame: FrameType | None) -> None:
    """End the process at once: nothing is begun, and Python would print a traceback, or lose it in an import."""
    os.write(2, b"stopped; the same command goes on from here\n")
    os._exit(130)


if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # python -m is looking us up
    signal.signal(signal.SIGINT, stopped)
