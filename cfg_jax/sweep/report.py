"""The report of a sweep: results.csv, table.md, curves.png and .svg, samples.png, report.html."""

import base64
import csv
import io
import itertools
import math
from pathlib import Path

import jinja2
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from cfg_jax import config as configs
from cfg_jax import plots
from cfg_jax.errors import require
from cfg_jax.files import write_atomic
from cfg_jax.images import GAP, mosaic, read_png, save_png
from cfg_jax.sweep import claims, read, spec
from cfg_jax.text import cell, escaped, markdown, short


def write(workdir: str | Path) -> str:
    """Write every file of the report from workdir/cells, and return its main table and the claims as text.

    Raises InputError if there are no finished cells, or cells that cannot share a table.
    """
    workdir = Path(workdir)
    finished = any((workdir / "cells").glob("*.json"))
    require(finished, f"{workdir} has no finished cells: run experiments.sweep with --workdir={workdir} first")
    config = configs.load(workdir / "config.json")
    cells = read.read(workdir, spec.settings(config))
    groups = read.grouped(cells)
    require(groups, f"{workdir} has no cells of its config.json's N and labels: run experiments.sweep again")
    setting = spec.setting_of(spec.drawn_by(config))
    if setting not in groups:
        setting = next(iter(groups))
    main, (num_steps, same) = groups.pop(setting), setting
    rows, others = list(main.values()), [list(group.values()) for group in groups.values()]
    all_steps = rows + [row for (_, rest), group in groups.items() if rest == same for row in group.values()]
    judged = claims.judge(all_steps, num_steps)

    text = table(rows) + unsteady(rows) + "\n" + claims_text(judged)
    write_atomic(workdir / "results.csv", results_csv(list(cells.values())))
    write_atomic(workdir / "table.md", "\n".join([text, more_scores(rows), *map(table, others)]))
    plots.save(workdir / "curves", curves(rows, "p_uncond"))
    if steps := curves_of_steps(all_steps):
        plots.save(workdir / "curves_T", curves(steps, "T"))
    save_png(workdir / "samples.png", strip(main))
    write_atomic(workdir / "report.html", page(main, judged, seconds=sum(row["seconds"] for row in cells.values())))
    return text


def curves_of_steps(rows: list[dict]) -> list[dict]:
    """Return the rows of the first run that has several w at several T, [] if there is no such run."""
    for of_run in claims.rows_by(rows, "run").values():
        several = [group for group in claims.rows_by(of_run, "T").values() if len(group) > 1]
        if len(several) > 1:
            return [*itertools.chain.from_iterable(several)]
    return []


def results_csv(rows: list[dict]) -> str:
    """Return CSV, one line for each cell: its scores, their bootstrap standard errors, and how they were measured."""
    lines = []
    for row in rows:
        line = {k: v for k, v in row.items() if k not in ("scores", "resampled", "spreads")} | row["scores"]
        line |= {f"{k}_std": f"{v:.4g}" for k, v in row["spreads"].items()}
        lines.append(line | {f"{k}_se": f"{np.std(v, ddof=1):.4g}" for k, v in row["resampled"].items()})
    fields = list(dict.fromkeys(field for line in lines for field in line))
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, restval="")
    writer.writeheader()
    writer.writerows({field: cell(value) for field, value in line.items()} for line in lines)
    return out.getvalue()


def table(rows: list[dict]) -> str:
    """Return markdown in the layout of the paper's Table 1: w down, FID then IS across p_uncond, the best in bold."""
    p = {row["run"]: f"p={row['p_uncond']:g}" for row in rows}
    labels = p if len(set(p.values())) == len(p) else {run: run for run in p}
    by_cell = {(row["run"], row["w"]): row for row in rows}
    columns = [(name, run) for name in ("fid", "is") for run in p]
    lines = [["w", "s = 1 + w", *(f"{claims.score_name(rows[0], name)}, {labels[run]}" for name, run in columns)]]
    best = {}
    for name, run in columns:
        values = [claims.score(row, name) for row in rows if row["run"] == run]
        best[name, run] = min(values) if name == "fid" else max(values)
    for w in sorted({row["w"] for row in rows}):
        line = [f"{w:g}", f"{1 + w:g}" if rows[0]["s"] is not None else ""]
        for name, run in columns:
            row = by_cell.get((run, w))
            line.append(cell_text(row, name, best[name, run]) if row else "")
        lines.append(line)
    platforms = sorted({row.get("platform") or "unknown" for row in rows})
    mixed = f" Features of some cells were made on {', of others on '.join(platforms)}." if len(platforms) > 1 else ""
    return f"{markdown(lines, ())}\n{escaped(note(rows[0]) + mixed)}\n"


def cell_text(row: dict, name: str, best: float) -> str:
    """Return a score and its standard error, in bold if the score is `best`."""
    return f"**{claims.shown(row, name)}**" if claims.score(row, name) == best else claims.shown(row, name)


def note(row: dict) -> str:
    """Say how the numbers of a table were measured."""
    sampler = f"v={row['v']:g}" if "v" in row else row["sampler"] + _in_brackets(spec.fields_of(row, "sampler"))
    guidance = row["guidance"] + _in_brackets(spec.fields_of(row, "guidance"))
    guidance = "" if guidance == spec.PAPER else f"guidance {guidance}, "
    if row["s"] is None:
        guidance += "w is the scale of the noisy-image classifier that guides, "
    dtype = spec.other_dtype(row)
    network = f", {dtype} (trained in {row.get('trained_dtype')})" if dtype else ""
    platforms = sorted({row.get(field) for field in ("platform", "reference_platform")} - {None})
    network += f", features and reference made on {' and '.join(platforms)}" if len(platforms) > 1 else ""
    if row["bootstrap"]:
        error = "± is the bootstrap standard error over images of this one training seed."
    elif len(row["seeds"]) > 1:
        error = "± is the standard error over the image seeds of this one training seed."
    else:
        error = "No standard error is known: one image seed, no bootstrap."
    weights = row.get("weights", "ema").replace("ema", "EMA")
    return (
        f"N={row['N']} images a cell, T={row['T']}, {sampler}, threshold {row['threshold']}, grid {row['grid']}, "
        f"{guidance}labels {row['labels']}, {seeds(row)}, {weights} weights{network}. {error}"
    )


def seeds(row: dict) -> str:
    return ("seed " if len(row["seeds"]) == 1 else "seeds ") + ", ".join(map(str, row["seeds"]))


def _in_brackets(fields):
    return " (" + ", ".join(f"{name}={short(value)}" for name, value in fields.items()) + ")" if fields else ""


def unsteady(rows: list[dict]) -> str:
    """Return a line for each run that had steps with a gradient that was not finite."""
    runs = {row["run"]: row for row in rows if row.get("skipped_steps") or row.get("rollbacks")}
    line = "{run}: {skipped_steps} of {step} steps were skipped, their gradient was not finite; rollbacks: {rollbacks}."
    return "".join(escaped(line.format(**row)) + "\n" for row in runs.values())


def other_scores(row: dict) -> list[str]:
    """Return the names of all scores but FID and IS."""
    return [name for name in row["scores"] if name not in (claims.score_name(row, n) for n in ("fid", "is"))]


def more_scores(rows: list[dict]) -> str:
    """Return markdown of all scores but FID and IS, one line for each cell."""
    names = other_scores(rows[0])
    lines = [["run", "w", *names]]
    lines += [
        [row["run"], f"{row['w']:g}", *(f"{row['scores'].get(name, math.nan):.4g}" for name in names)] for row in rows
    ]
    return markdown(lines) if names else ""


def claims_text(judged: list[claims.Claim]) -> str:
    lines = [f"{i}. {c.text}: **{c.verdict}**. {escaped(c.figure)}." for i, c in enumerate(judged, 1)]
    return "The paper's claims, on this run:\n\n" + "\n".join(lines) + "\n"


@plots.styled
def curves(rows: list[dict], key: str) -> Figure:
    """Plot FID against IS as w grows, with w written at each point.

    There is a curve for each value of the key: p_uncond as in the paper's Figure 4, or T as in its Figure 5.
    """
    figure = Figure(figsize=(6.4, 4.4))
    axes = figure.subplots()
    groups, names = sorted(claims.rows_by(rows, key, "run").items()), {}
    several = len(groups) > len({value for (value, _), _ in groups})
    for ((value, run), group), marker in zip(groups, itertools.cycle(plots.MARKERS), strict=False):
        label = f"{key} = {value:g}" + (f", {run}" if several else "")
        curve = claims.Curve(group)
        x, y = curve.values("is"), curve.values("fid")
        errors = {f"{axis}err": [claims.spread(r, n) for r in curve.rows] for axis, n in (("x", "is"), ("y", "fid"))}
        line, *_ = axes.errorbar(x, y, **errors, marker=marker, elinewidth=0.7, label=label)
        names[line] = [f"{w:g}" for w in curve.along]
    inception, distance = (claims.score_name(rows[0], name) for name in ("is", "fid"))
    axes.set(xlabel=f"IS ({inception})", ylabel=f"FID ({distance})", title=title(rows[0], key))
    axes.legend()
    axes.margins(0.08)
    plots.name_points(names)
    return figure


def title(row: dict, key: str) -> str:
    """Say how a plot of curves over w was measured, except for the key, and how to read it."""
    fixed = "".join(f"{name} = {row[name]:g}, " for name in ("p_uncond", "T") if name != key)
    bars = ", bars are ± one standard error" if math.isfinite(claims.spread(row, "fid")) else ""
    data = f"{row['data']}: " if row["data"] else ""  # another project's reference does not say it
    return f"{data}N = {row['N']:,} images a point, {fixed}{seeds(row)}\nw is beside its point{bars}"


def strip(cells: dict[Path, dict]) -> Image.Image:
    """Return samples of the first run, a panel for each w from left to right, as in the paper's Figure 1.

    The panels share their noise. Each is the left half of a cell's grid.
    """
    run = next(iter(cells.values()))["run"]
    panels = [read_png(path.with_suffix(".png")) for path, row in cells.items() if row["run"] == run]
    panels = [panel.crop((0, 0, (panel.width - GAP) // 2, panel.height)) for panel in panels]
    return mosaic([panels])


def page(cells: dict[Path, dict], judged: list[claims.Claim], seconds: float) -> str:
    """Return one self-contained HTML page with a slider over w."""
    first = next(iter(cells.values()))
    runs, others = {}, other_scores(first)
    for path, row in cells.items():
        run = runs.setdefault(row["run"], {"name": row["run"], "p": row["p_uncond"], "points": []})
        run["points"].append(point(path, row) | {"others": [row["scores"].get(name, math.nan) for name in others]})
    shown = ("scores", "resampled", "spreads", "run", "p_uncond", "w", "s", "seconds")
    return render(
        "report.html.j2", runs=list(runs.values()), fid_name=claims.score_name(first, "fid"),
        is_name=claims.score_name(first, "is"), others=others, claims=judged,
        used={name: value for name, value in first.items() if name not in shown}, seconds=seconds,
    )  # fmt: skip


def point(path: Path, row: dict) -> dict:
    """Return a cell as pages show it: w, s, passes, FID, IS, their standard errors (None if unknown), its picture."""
    scores = {name: claims.score(row, name) for name in ("fid", "is")}
    errors = {f"{name}_se": None if math.isnan(se := claims.spread(row, name)) else se for name in scores}
    picture = base64.b64encode(path.with_suffix(".png").read_bytes()).decode()
    return {"w": row["w"], "s": row["s"], "passes": row.get("passes"), **scores, **errors, "image": picture}


def render(template: str, **values) -> str:
    """Return a page of this directory's templates. jinja2 escapes every string: some are from a config or a run."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("cfg_jax.sweep", "."), autoescape=True)
    return environment.get_template(template).render(values)
