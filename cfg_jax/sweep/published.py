"""The numbers of the paper's tables, and a comparison of a sweep with them."""

import csv
import itertools
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
    """A figure of samples with one panel for each w. All panels share their noise."""

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
    """Return the three T of Table 2 for a config whose T, num_steps, stands for the paper's 256."""
    return [max(1, num_steps // 2), num_steps, 4 * num_steps]


def protocol(table: int) -> dict[str, list]:
    """Return {field of a row: allowed values} for FID and IS that compare with the paper's Table 1 or 2.

    The paper states the data, v, the number of samples, and T in Table 2 alone. Elsewhere ADM's protocol is used:
    random labels, and IS over 10 parts. x may be clipped or not. T is at least the smallest that the paper names.
    """
    side, v = SIDE_AND_V[table]
    recipe = cards.RECIPES[f"imagenet{side}"]
    count = recipe.counts["train"]
    return {
        "source": [recipe.source], "complete": [True], "split_N": [count], "resize": ["area"],
        "image_shape": [(side, side, 3)], "split": ["train"], "reference_N": [count],
        "precision": [PRECISION], "reference_precision": [PRECISION],
        "N": [50_000], "labels": ["random"], "splits": [10], "weights": ["ema"], "guidance": ["classifier-free"],
        "sampler": ["ancestral"], "v": [v], "grid": ["paper"], "threshold": ["static", "none"],
    } | ({"T": [*PAPER_T]} if table == 2 else {})  # fmt: skip


def unmet(row: dict, table: int) -> list[str]:
    """Return each way in which a row was measured unlike the paper's table: "resize is adm, not area"."""
    points = [
        f"{field} is {'unknown' if row.get(field) is None else row[field]}, not {' or '.join(map(str, allowed))}"
        for field, allowed in protocol(table).items()
        if row.get(field) not in allowed
    ]
    points += [
        f"guidance.{name} is {value}, and not in the paper" for name, value in spec.fields_of(row, "guidance").items()
    ]
    if table == 1 and row["T"] < PAPER_T[0]:
        points.append(f"T is {row['T']}, less than {PAPER_T[0]}")
    if row.get("trained_on") is None or row["trained_on"] != row.get("scored_on"):
        points.append("the run was trained on another set than it is scored on")
    if "fid_inception@50000" not in row["scores"]:
        points.append(f"{claims.score_name(row, 'fid')} is not fid_inception@50000")
    return points


def beside(rows: list[dict], table: int, num_steps: int) -> str:
    """Return markdown of a sweep's FID and IS over all seeds, with the paper's in brackets.

    The difference is added where both are comparable. In Table 2, a T with comparable rows stands for itself. Any other
    stands for one of the paper's by its place: num_steps for 256.
    """
    paper = published(table)
    key = "p_uncond" if table == 1 else "T"
    cells = {at: claims.over_seeds(seeds) for at, seeds in claims.rows_by(rows, key, "w").items()}
    stands_for = dict(zip(fewer_and_more(num_steps), PAPER_T, strict=True))
    stands_for |= {row["T"]: row["T"] for row in rows if not unmet(row, table)}
    names = {
        value: f"p{value:g}" if table == 1 else f"T{stands_for.get(value, value)}"
        for value in sorted({row[key] for row in rows})
    }
    columns = [(title, name, value) for title, name in (("FID", "fid"), ("IS", "is")) for value in names]
    head = ["w", "s = 1 + w"]
    for _, name, value in columns:
        column = f"p={value:g}" if table == 1 else f"T={value:g} ({names[value]})"
        head.append(f"{claims.score_name(rows[0], name)}, {column}")
    lines = [head]
    for w in sorted({row["w"] for row in rows}):
        line = [f"{w:g}", f"{1 + w:g}"]
        for title, name, value in columns:
            theirs = paper.get((title, names[value]), {}).get(w)
            line.append(cell(cells.get((value, w)), name, theirs, table))
        lines.append(line)
    best = []
    for value, column in names.items():
        theirs = paper.get(("FID", column))
        ours = min((row for at, row in cells.items() if at[0] == value), key=lambda row: claims.score(row, "fid"))
        in_paper = f" (paper {min(theirs, key=theirs.__getitem__):g})" if theirs else ""
        best.append(f"{key}={value:g} at w={ours['w']:g}{in_paper}")
    side, _ = SIDE_AND_V[table]
    return (
        f"{markdown(lines, ())}\nIn brackets the paper's Table {table}: 50,000 samples a cell, ImageNet {side}x{side}, "
        f"Inception's FID and IS. {differences(rows, table)}\nLeast distance: {'; '.join(best)}.\n"
    )


def differences(rows: list[dict], table: int) -> str:
    """Say for which cells a difference is taken, and why for no others."""
    points = [unmet(row, table) for row in rows]
    reasons = "; ".join(dict.fromkeys(itertools.chain.from_iterable(points)))
    if all(points):
        return f"Compare the shape along w, not the numbers; no difference is taken: {reasons}."
    others = f" Of the other cells no difference is taken: {reasons}." if reasons else ""
    return f"After the comma ours less the paper's.{others}"


def cell(row: dict | None, name: str, theirs: float | None, table: int) -> str:
    """Return one cell of the table: "2.05 (1.8, +0.25)"."""
    if not row:
        return ""
    ours = claims.score(row, name)
    if theirs is None:
        return f"{ours:.2f}"
    return f"{ours:.2f} ({theirs:g}" + (f", {ours - theirs:+.2f})" if not unmet(row, table) else ")")
