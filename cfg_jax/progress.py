"""Progress: a bar on a terminal, log lines elsewhere."""

import logging
import sys

from tqdm import tqdm

log = logging.getLogger(__name__)


class progress(tqdm):
    """A tqdm that logs its line every ten seconds if stderr is no terminal."""

    def __init__(self, *args, **kwargs):
        self.terminal = sys.stderr.isatty()
        kwargs = {"dynamic_ncols": True, "mininterval": 0.2 if self.terminal else 10, **kwargs}
        super().__init__(*args, file=sys.stderr, **kwargs)

    def display(self, msg: str | None = None, pos: int | None = None):
        """Draw the bar on a terminal, or else log it after the first step."""
        if self.terminal:
            return super().display(msg, pos)
        if self.n:
            log.info("%s", self)
