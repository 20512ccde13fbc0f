"""The paper's own numbers, and a sweep's beside them."""

import csv
from dataclasses import dataclass
from pathlib import Path

from cfg_jax.data import cards
from cfg_jax.models.precision import PRECISION
from cfg_jax.sweep import claims, spec
from cfg_jax.text import markdown

P_UNCOND = (0.1, 0.2, 0.5)
PAPER_T = (128, 256, 1024)
SIDE_AND_V = {1: (64, 0.3), 2: (128, 0.2)}
ALL_W = tuple(i / 10 for i in range(41))
FILES = {1: "table1_imagenet64.csv", 2: "table2_imagenet128.csv"}


@dataclass(frozen=True)
class Sheet:
    """A figure of samples: a panel for each w, all of one noise."""

    ws: tuple[float, ...] | None  # None: every w of the config
    kinds: tuple[str, ...]  # a row of panels each: random classes, or one class alone
    num_images: int
    columns: int


SHEETS = {
    1: Sheet(None, ("single",), 4, 1),
    3: Sheet((0.0, 3.0), ("random",), 16, 4),
    6: Sheet((0.0, 1.0, 3.0), ("random", "single"), 16, 4),
    7: Sheet((0.0, 1.0, 4.0), ("random", "single"), 16, 4),
    8: Sheet((0.0, 3.0), ("random",), 32, 4),
}


def published(table: int) -> dict[tuple[str, ...], dict[float, float]]:
    """Return the paper's table 1 or 2 as {(score, column): {w: value}}.

    A score is FID or IS. Columns are p0.1, p0.2 and p0.5 of Table 1, and T128, T256 and T1024 of Table 2.
    """
    with open(Path(__file__).parent / FILES[table]) as file:
        rows = list(csv.DictReader(file))
    columns = [tuple(name.split("_")) for name in rows[0] if name != "w"]
    return {(s, c): {float(row["w"]): float(row[f"{s}_{c}"]) for row in rows} for s, c in columns}


def fewer_and_more(num_steps: int) -> list[int]:
    """Return the three T of Table 2 for a config whose own T, num_steps, stands for the paper's 256."""
    return [max(1, num_steps // 2), num_steps, 4 * num_steps]


def comparable(row: dict, table: int) -> bool:
    """Whether a row's FID and IS were measured as the paper's table was, so that a difference says something."""
    return not unmet(row, table)


def protocol(table: int) -> dict[str, list]:
    """Return {field of a row: the values it may have} for FID and IS that compare with the paper's Table 1 or 2.

    The paper states data, v, the number of samples, and T in Table 2 alone. Where it is silent, ADM's way is taken:
    random labels, and IS over 10 parts. x may be clipped or not, and T is at least the least that the paper names.
    """
    side, v = SIDE_AND_V[table]
    recipe = cards.recipe(f"imagenet{side}")
    count = recipe.counts["train"]
    return {
        "source": [recipe.source], "complete": [True], "split_N": [count], "resize": ["area"],
        "image_shape": [[side, side, 3]], "split": ["train"], "reference_N": [count],
        "precision": [PRECISION], "reference_precision": [PRECISION],
        "N": [50_000], "labels": ["random"], "splits": [10], "weights": ["ema"], "guidance": ["classifier-free"],
        "sampler": ["ancestral"], "v": [v], "grid": ["paper"], "threshold": ["static", "none"],
    } | ({"T": [*PAPER_T]} if table == 2 else {})  # fmt: skip


def unmet(row: dict, table: int) -> list[str]:
    """Return each point in which a row was not measured as the paper's table was: "resize is adm, not area"."""
    points = [
        f"{field} is {'unknown' if row.get(field) is None else row[field]}, not {' or '.join(map(str, allowed))}"
        for field, allowed in protocol(table).items()
        if row.get(field) not in allowed
    ]
    points += [f"guidance.{name} is {value}, and not in the paper" for name, value in spec.own(row, "guidance").items()]
    if table == 1 and row["T"] < PAPER_T[0]:
        points.append(f"T is {row['T']}, less than {PAPER_T[0]}")
    if row.get("trained_on") is None or row["trained_on"] != row.get("scored_on"):
        points.append("the run was trained on another set than it is scored on")
    if "fid_inception@50000" not in row["scores"]:
        points.append(f"{claims.score_name(row, 'fid')} is not fid_inception@50000")
    return points


def beside(rows: list[dict], table: int, num_steps: int) -> str:
    """Write markdown of a sweep's FID and IS over all seeds, the paper's in brackets, and the difference if comparable.

    num_steps is the T that stands for the paper's 256 in Table 2.
    """
    paper = published(table)
    key = "p_uncond" if table == 1 else "T"
    columns = sorted({row[key] for row in rows})
    names = {column: f"p{column:g}" for column in columns}
    if table == 2:
        stands_for = dict(zip(fewer_and_more(num_steps), PAPER_T, strict=True))
        names = {t: f"T{t if t in PAPER_T else stands_for.get(t, t)}" for t in columns}
    seeds = {}
    for row in rows:
        seeds.setdefault((row[key], row["w"]), []).append(row)
    by_cell = {at: claims.over_seeds(group) for at, group in seeds.items()}
    scores = {"FID": "fid", "IS": "is"}
    titles = {column: f"T={column:g} ({names[column]})" if table == 2 else f"p={column:g}" for column in columns}
    measured = [
        f"{claims.score_name(rows[0], name)}, {titles[column]}" for name in scores.values() for column in columns
    ]
    head = ["w", "s = 1 + w", *measured]
    lines = [head, ["---:"] * len(head)]
    for w in sorted({row["w"] for row in rows}):
        line = [f"{w:g}", f"{1 + w:g}"]
        for s in scores:
            for column in columns:
                theirs = paper.get((s, names[column]), {}).get(w)
                line.append(cell(by_cell.get((column, w)), scores[s], theirs, table))
        lines.append(line)
    shape = []
    for column in columns:
        theirs = paper.get(("FID", names[column]))
        best = min((by_cell[at] for at in by_cell if at[0] == column), key=lambda row: claims.score(row, "fid"))
        said = f" (paper {min(theirs, key=theirs.__getitem__):g})" if theirs else ""
        shape.append(f"{key}={column:g} at w={best['w']:g}{said}")
    size = {1: "64x64", 2: "128x128"}[table]
    about = (
        f"In brackets the paper's Table {table}: 50,000 samples a cell, ImageNet {size}, Inception's FID and IS. "
        + differences(rows, table)
    )
    shapes = "; ".join(shape)
    return f"{markdown(lines)}\n{about}\nLeast distance: {shapes}.\n"


def differences(rows: list[dict], table: int) -> str:
    """Say for which cells a difference is taken, and why for no others."""
    points = dict.fromkeys(point for row in rows for point in unmet(row, table))
    if not points:
        return "After the comma ours less the paper's."
    if any(comparable(row, table) for row in rows):
        return f"After the comma ours less the paper's. Of the other cells no difference is taken: {'; '.join(points)}."
    return (
        "The shape along w may be compared, the numbers may not, and no difference is taken: " + "; ".join(points) + "."
    )


def cell(row: dict | None, name: str, theirs: float | None, table: int) -> str:
    """Write one cell of the table: "2.05 (1.8, +0.25)"."""
    if not row:
        return ""
    ours = claims.score(row, name)
    if theirs is None:
        return f"{ours:.2f}"
    return f"{ours:.2f} ({theirs:g}" + (f", {ours - theirs:+.2f})" if comparable(row, table) else ")")
