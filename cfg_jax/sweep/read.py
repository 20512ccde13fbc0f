"""Read the cells of a sweep, and choose which of them belong in one table."""

import logging
from pathlib import Path

import numpy as np

from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.images import read_png
from cfg_jax.inputs import read_json, reading, reason
from cfg_jax.sweep import claims, spec

log = logging.getLogger(__name__)
# of a cell's row, what the report reads; see spec.identity and score.score
SCHEMA = {
    "run": str, "p_uncond": float, "w": float, "s": float | None, "T": int, "sampler": str, "v?": float,
    "threshold": str, "grid": str, "guidance": str, "seed": int, "N": int, "labels": str, "bootstrap": int,
    "step?": int, "weights?": str, "dtype?": str | None, "trained_dtype?": str | None, "data": str | None,
    "parameters?": str | None, "platform?": str | None, "reference_platform?": str | None, "skipped_steps?": int | None,
    "rollbacks?": int | None,
    "passes?": int | None, "scores": {str: float}, "resampled": {str: list}, "spreads": {str: float}, "seconds": float,
    "device?": str,
}  # fmt: skip


def read_row(path: Path) -> dict:
    """Return a cell's row. Raises InputError if its file or picture is not what a sweep writes."""
    again = "remove it and run the sweep again"
    row = configs.tuples(read_json(path, SCHEMA, "is damaged", again))
    with reading(path, "is damaged", again):
        if None in [claims.score_name(row, name) for name in ("fid", "is")]:
            raise ValueError("it has no FID or no IS")
        for name, values in row["resampled"].items():  # NaN is allowed
            row["resampled"][name] = np.array(values, float).reshape(row["bootstrap"]).tolist()
        try:
            read_png(picture := path.with_suffix(".png"))
        except Exception as error:  # Pillow has a dozen types
            raise ValueError(f"{picture}: {reason(error)}") from error
    return row


def read(workdir: Path, wanted: dict) -> dict[Path, dict]:
    """Return {path: row} of the cells with the fields `wanted`, in the table's order.

    Raises InputError for damaged cells, and for cells whose networks or reference differ from the others'.
    """
    found = {path: read_row(path) for path in sorted((workdir / "cells").glob("*.json"))}
    cells = {path: row for path, row in found.items() if all(row.get(field) == wanted[field] for field in wanted)}
    if left_out := len(found) - len(cells):
        log.info("%s: left out %d cells, whose settings differ from those in its config.json", workdir, left_out)
    mixed_devices = any(row.get("other_device") for row in cells.values())
    for field in (*(("network",) if mixed_devices else ("features", "reference")), "parameters"):
        first = {}
        for path, row in cells.items():
            group = (row["run"], row.get("weights", "ema")) if field == "parameters" else ""
            if first.setdefault(group, row.get(field)) != row.get(field):
                raise InputError(f"{path} was made with other {field} than the rest: remove it and run the sweep again")
    fields = ("p_uncond", "run", "T", "w", "seed")
    return dict(sorted(cells.items(), key=lambda item: [item[1][field] for field in fields]))


def grouped(cells: dict[Path, dict]) -> dict[tuple, dict[Path, dict]]:
    """Return {spec.setting_of(row): {path of the first seed: row over all seeds}} of the {path: row} from read().

    A setting keeps the seeds that all of its cells have. Raises InputError if there is none.
    """
    groups = {}
    for path, row in cells.items():
        groups.setdefault(spec.setting_of(row), {}).setdefault((row["run"], row["w"]), {})[row["seed"]] = path, row
    merged = {}
    for setting, group in groups.items():
        common = set.intersection(*map(set, group.values()))
        if not common:
            raise InputError(f"no seed has all cells of T={setting[0]}: run experiments.sweep for one seed first")
        merged[setting] = {}
        for by_seed in group.values():
            paths, rows = zip(*(by_seed[seed] for seed in sorted(common)), strict=True)
            merged[setting][paths[0]] = claims.over_seeds(rows)
    return merged
