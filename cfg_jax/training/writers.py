"""Where a run's records go: metrics.jsonl, TensorBoard's events and, where one is asked for, a run of Weights & Biases.

clu has writers too, but its package imports TensorFlow.
"""

import json
import uuid
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter

from cfg_jax import config as configs
from cfg_jax.errors import InputError, first_line, installed
from cfg_jax.files import write_atomic
from cfg_jax.training import records


class Writer:
    """Writes to all of them."""

    def __init__(self, workdir: Path, step: int, config: ConfigDict, project: str | None = None) -> None:
        """Go on from `step`; `project` is of Weights & Biases. Raises InputError where no run of it can be had.

        Records past the step, and a last line that was cut short, are dropped first: a killed run has written them.
        """
        self.run = weights_and_biases(workdir, config, project) if project else None
        self.path = workdir / "metrics.jsonl"
        if self.path.exists():
            write_atomic(self.path, "".join(line for line, row in records.read(self.path) if row["step"] <= step))
        self.events = SummaryWriter(str(workdir), purge_step=step + 1)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Write one record; a value is a number, None, or {name: number}."""
        with open(self.path, "a") as f:
            f.write(json.dumps({"step": step, **values}) + "\n")
        for name, scalar in scalars(values).items():
            self.events.add_scalar(name, scalar, step)
        if self.run:
            self.run.log(scalars(values), step=step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Write a picture, uint8 [H, W] or [H, W, C]."""
        self.events.add_image(name, image, step, dataformats="HW" if image.ndim == 2 else "HWC")
        if self.run:
            self.run.log({name: installed("wandb", extra="wandb").Image(image)}, step=step)

    def close(self) -> None:
        self.events.close()
        if self.run:
            self.run.finish()


def weights_and_biases(workdir: Path, config: ConfigDict, project: str) -> Any:
    """Return the run there that the file wandb_id of a run directory names. It keeps what it has of a step already."""
    wandb: Any = installed("wandb", extra="wandb")
    path = workdir / "wandb_id"
    if not path.exists():
        write_atomic(path, uuid.uuid4().hex)
    about = {"project": project, "name": workdir.name, "dir": str(workdir), "config": configs.to_json(config)}
    try:
        return wandb.init(id=path.read_text(), resume="allow", **about)
    except wandb.Error as error:
        raise InputError(
            f"Weights & Biases gives no run ({first_line(error)}): log in with wandb login, or set "
            "WANDB_MODE=offline and send it later with wandb sync"
        ) from error


def scalars(values: dict[str, Any]) -> dict[str, float]:
    """{"a": 1, "b": {"c": 2}, "d": None} -> {"a": 1, "b/c": 2}."""
    flat: dict = flax.traverse_util.flatten_dict(values, sep="/")
    return {name: value for name, value in flat.items() if value is not None}
