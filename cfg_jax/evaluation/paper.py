"""The paper's own numbers, and a sweep's beside them."""

import csv
from dataclasses import dataclass
from pathlib import Path

from cfg_jax.evaluation import claims
from cfg_jax.evaluation.report import markdown

P_UNCOND = (0.1, 0.2, 0.5)
PAPER_T = (128, 256, 1024)
ALL_W = tuple(i / 10 for i in range(41))
FILES = {1: "table1_imagenet64.csv", 2: "table2_imagenet128.csv"}


@dataclass(frozen=True)
class Sheet:
    """A figure of samples: a panel for each w, all of one noise; ws None is every w of the config."""

    ws: tuple[float, ...] | None
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


def published(table):
    """{(score, column): {w: value}}: score FID or IS, column p0.1, p0.2, p0.5 of Table 1, T128, T256, T1024 of 2."""
    with open(Path(__file__).parent / FILES[table]) as file:
        rows = list(csv.DictReader(file))
    columns = [tuple(name.split("_")) for name in rows[0] if name != "w"]
    return {(s, c): {float(row["w"]): float(row[f"{s}_{c}"]) for row in rows} for s, c in columns}


def fewer_and_more(num_steps):
    """T of Table 2 for a config whose own T stands for the paper's 256: half of it, and four times."""
    return [max(1, num_steps // 2), num_steps, 4 * num_steps]


def comparable(row, table):
    """Whether a row's FID is the paper's: 50,000 samples against the area-resized ImageNet of that size."""
    imagenet = (row["data"] or "").startswith(f"imagenet{64 * table}") and row["resize"] == "area"
    return imagenet and "fid_inception@50000" in row["scores"] and (table == 1 or row["T"] in PAPER_T)


def beside(rows, table, num_steps):
    """Markdown: FID and IS of a sweep's rows over all seeds, the paper's, and the difference where there can be one.

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
        + ("After the comma ours less the paper's." if comparable(rows[0], table) else not_comparable(rows[0]))
    )
    shapes = "; ".join(shape)
    return f"{markdown(lines)}\n{about}\nLeast distance: {shapes}.\n"


def not_comparable(row):
    what = f"{row['data'] or 'a reference that does not say'} ({'x'.join(map(str, row['image_shape']))})"
    return (
        f"Ours are {claims.score_name(row, 'fid')} and {claims.score_name(row, 'is')} on {what}: the shape along w may "
        "be compared, the numbers may not, and no difference is taken."
    )


def cell(row, name, theirs, table):
    if not row:
        return ""
    ours = claims.score(row, name)
    if theirs is None:
        return f"{ours:.2f}"
    return f"{ours:.2f} ({theirs:g}" + (f", {ours - theirs:+.2f})" if comparable(row, table) else ")")
