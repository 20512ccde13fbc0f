"""The cells of a sweep on the disk, and which of them belong in one table."""

import logging
import math
from pathlib import Path

from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.files import read_json
from cfg_jax.images import read_png
from cfg_jax.sweep import claims
from cfg_jax.sweep.spec import Setting

log = logging.getLogger(__name__)


def read_row(path: Path) -> dict:
    """Return a cell's row. Raises ValueError or OSError where its file or picture is not what a sweep writes."""
    row = configs.tuples(read_json(path))
    number = lambda value: isinstance(value, int | float) and math.isfinite(value)  # noqa: E731
    scores = row.get("scores") if isinstance(row, dict) else None
    if not (isinstance(scores, dict) and scores and isinstance(row.get("resampled"), dict)):
        raise ValueError("it has no scores")
    if not all(map(number, [*scores.values(), *(row.get(field) for field in ("w", "T", "p_uncond", "seed"))])):
        raise ValueError("what should be a number is none")
    read_png(path.with_suffix(".png"))
    return row


def read(workdir: Path, wanted: dict) -> dict[Path, dict]:
    """Return {path: row} of the cells with the fields `wanted`, in the table's order.

    Raises InputError for damaged cells, and for cells whose networks or reference differ from the others'.
    """
    found, left_out = {}, 0
    for path in sorted((workdir / "cells").glob("*.json")):
        try:
            row = read_row(path)
        except (ValueError, OSError) as error:
            raise InputError(f"{path} is damaged ({error}): remove it and run the sweep again") from error
        if any(row.get(field) != value for field, value in wanted.items()):
            left_out += 1
        else:
            found[path] = row
    if left_out:
        log.info("%s: %d cells of other settings than its config.json are left out", workdir, left_out)
    allowed = any(row.get("other_device") for row in found.values())
    of_all = ("network",) if allowed else ("features", "reference")
    for field in (*of_all, "parameters"):
        seen = {}
        for path, row in found.items():
            of = (row["run"], row.get("weights", "ema")) if field == "parameters" else ""
            if seen.setdefault(of, row.get(field)) != row.get(field):
                raise InputError(f"{path} was made with other {field} than the rest: remove it and run the sweep again")
    fields = ("p_uncond", "run", "T", "w", "seed")
    return dict(sorted(found.items(), key=lambda item: [item[1][field] for field in fields]))


def grouped(found: dict[Path, dict]) -> dict[Setting, dict[Path, dict]]:
    """Return {setting: {path of the first seed: row over all seeds}} of the {path: row} that read() found.

    A setting keeps the seeds that all of its cells have. Raises InputError where there is none.
    """
    groups = {}
    for path, row in found.items():
        groups.setdefault(Setting.of(row), {}).setdefault((row["run"], row["w"]), {})[row["seed"]] = path, row
    merged = {}
    for key, group in groups.items():
        common = set.intersection(*map(set, group.values()))  # one table, the same seeds in each of its cells
        if not common:
            raise InputError(f"no seed has all cells of T={key.num_steps}: run experiments.sweep for one seed first")
        merged[key] = {}
        for of_seeds in group.values():
            paths, rows = zip(*(of_seeds[seed] for seed in sorted(common)), strict=True)
            merged[key][paths[0]] = claims.over_seeds(rows)
    return merged
