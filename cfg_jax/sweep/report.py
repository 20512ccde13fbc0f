"""What a sweep says, for people: results.csv, table.md, curves.png and .svg, samples.png, report.html."""

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
from cfg_jax.errors import InputError
from cfg_jax.files import write_atomic
from cfg_jax.images import GAP, mosaic, read_png, save_png
from cfg_jax.sweep import claims, read, spec
from cfg_jax.text import markdown, short


def write(workdir: str | Path) -> str:
    """Write every file of the report from workdir/cells, and return its main table and the claims as text.

    Raises InputError where there are no finished cells, or cells that cannot share a table.
    """
    workdir = Path(workdir)
    if not any((workdir / "cells").glob("*.json")):
        raise InputError(f"{workdir} has no finished cells: run experiments.sweep with --workdir={workdir} first")
    config = configs.load(workdir / "config.json")
    found = read.read(workdir, spec.settings(config))
    groups = read.grouped(found)
    if not groups:
        raise InputError(f"{workdir} has no cells of its config.json's N and labels: run experiments.sweep again")
    own = spec.Setting.of(spec.drawn_by(config))
    own = own if own in groups else next(iter(groups))
    main = groups.pop(own)
    rows = list(main.values())
    others = [list(group.values()) for group in groups.values()]
    by_steps = [row for group in [rows, *others] if spec.Setting.of(group[0]).rest == own.rest for row in group]
    judged = claims.judge(by_steps, own.num_steps)

    text = table(rows) + unsteady(rows) + "\n" + claims_text(judged)
    write_atomic(workdir / "results.csv", results_csv(list(found.values())))
    write_atomic(workdir / "table.md", "\n".join([text, more_scores(rows), *map(table, others)]))
    plots.save(workdir / "curves", curves(rows, "p_uncond"))
    if steps := curves_of_steps(by_steps):
        plots.save(workdir / "curves_T", curves(steps, "T"))
    save_png(workdir / "samples.png", strip(main))
    write_atomic(workdir / "report.html", page(main, list(found.values()), judged))
    return text


def curves_of_steps(rows: list[dict]) -> list[dict]:
    """Return the rows of the first run that has several w at several T, [] where there is no such run."""
    for run in dict.fromkeys(row["run"] for row in rows):
        of_run = [row for row in rows if row["run"] == run]
        ws = {t: len([row for row in of_run if row["T"] == t]) for t in {row["T"] for row in of_run}}
        if sum(count > 1 for count in ws.values()) > 1:
            return [row for row in of_run if ws[row["T"]] > 1]
    return []


def results_csv(rows: list[dict]) -> str:
    """Write CSV, one line a cell: what was measured, its bootstrap standard error, and what it was measured with."""
    lines = []
    for row in rows:
        line = {k: v for k, v in row.items() if k not in ("scores", "resampled", "spreads")} | row["scores"]
        line |= {f"{k}_std": f"{v:.4g}" for k, v in row["spreads"].items()}
        lines.append(line | {f"{k}_se": f"{np.std(v, ddof=1):.4g}" for k, v in row["resampled"].items()})
    fields = list(dict.fromkeys(field for line in lines for field in line))
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, restval="")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def table(rows: list[dict]) -> str:
    """Write markdown in the layout of the paper's Table 1: w down, FID then IS across p_uncond, the best in bold."""
    runs = list(dict.fromkeys(row["run"] for row in rows))
    ws = sorted({row["w"] for row in rows})
    by_cell = {(row["run"], row["w"]): row for row in rows}
    p = {row["run"]: f"p={row['p_uncond']:g}" for row in rows}
    labels = p if len(set(p.values())) == len(runs) else {run: run for run in runs}
    best = {
        (run, name): pick(claims.score(row, name) for row in rows if row["run"] == run)
        for run in runs
        for name, pick in (("fid", min), ("is", max))
    }
    titles = {name: claims.score_name(rows[0], name) for name in ("fid", "is")}
    head = ["w", "s = 1 + w"] + [f"{titles[name]}, {labels[run]}" for name in titles for run in runs]
    lines = [head, ["---:"] * len(head)]
    for w in ws:
        line = [f"{w:g}", f"{1 + w:g}" if rows[0]["s"] is not None else ""]
        for name in titles:
            for run in runs:
                row = by_cell.get((run, w))
                line.append(cell_text(row, name, best[run, name]) if row else "")
        lines.append(line)
    return markdown(lines) + "\n" + note(rows[0]) + mixed(rows) + "\n"


def note(row: dict) -> str:
    """Say what the numbers of a table were measured with."""
    seeds = "seed " if len(row["seeds"]) == 1 else "seeds "
    seeds += ", ".join(map(str, row["seeds"]))
    v = f"v={row['v']:g}" if "v" in row else row["sampler"] + _written(spec.own(row, "sampler"))
    guidance, of_guidance = row["guidance"], _written(spec.own(row, "guidance"))
    guidance = "" if guidance == spec.PAPER and not of_guidance else f"guidance {guidance}{of_guidance}, "
    if row["s"] is None:
        guidance += "w is the classifier's scale, "
    dtype = spec.other_dtype(row)
    body = f", {dtype} (trained in {row['trained_dtype']})" if dtype else ""
    on = {row.get(field) for field in ("platform", "reference_platform")} - {None}
    body += f", features and reference made on {' and '.join(sorted(on))}" if len(on) > 1 else ""
    if row["bootstrap"]:
        error = "± is the bootstrap standard error over images of this one training seed."
    elif len(row["seeds"]) > 1:
        error = "± is the standard error over the images' seeds of this one training seed."
    else:
        error = "No spread is known: one seed of the images, no bootstrap."
    weights = row.get("weights", "ema").replace("ema", "EMA")
    return (
        f"N={row['N']} images a cell, T={row['T']}, {v}, threshold {row['threshold']}, "
        f"grid {row['grid']}, {guidance}labels {row['labels']}, {seeds}, {weights} weights{body}. {error}"
    )


def _written(fields):
    return " (" + ", ".join(f"{name}={short(value)}" for name, value in fields.items()) + ")" if fields else ""


def mixed(rows: list[dict]) -> str:
    """Return a sentence where cells of different kinds of device share a table, else ""."""
    platforms = sorted({row.get("platform") or "unknown" for row in rows})
    return f" Features of some cells were made on {', of others on '.join(platforms)}." if len(platforms) > 1 else ""


def unsteady(rows: list[dict]) -> str:
    """Return a line for each run that had steps which were not finite."""
    runs = {row["run"]: row for row in rows if row.get("skipped_steps") or row.get("rollbacks")}
    line = (
        "{run}: {skipped_steps} of {step} steps were skipped, their gradient was not finite; rollbacks: {rollbacks}.\n"
    )
    return "".join(line.format(**row) for row in runs.values())


def other_scores(row: dict) -> list[str]:
    """Return the names of all scores but FID and IS."""
    return [name for name in row["scores"] if name not in (claims.score_name(row, n) for n in ("fid", "is"))]


def more_scores(rows: list[dict]) -> str:
    """Write markdown of all scores but FID and IS, a line a cell."""
    names = other_scores(rows[0])
    lines = [["run", "w", *names], ["---", "---:", *["---:"] * len(names)]]
    for row in rows:
        values = [f"{row['scores'][name]:.4g}" for name in names]
        lines.append([row["run"], f"{row['w']:g}", *values])
    return markdown(lines) if names else ""


def cell_text(row: dict, name: str, best: float) -> str:
    """Write a score and its standard error, in bold where the score is `best`."""
    value, error = claims.score(row, name), claims.spread(row, name)
    text = f"{value:.2f}" if math.isnan(error) else f"{value:.2f} ± {error:.2f}"
    return f"**{text}**" if value == best else text


def claims_text(judged: list[claims.Claim]) -> str:
    lines = [f"{i}. {c.text}: **{c.verdict}**. {c.figure}." for i, c in enumerate(judged, 1)]
    return "The paper's claims, on this run:\n\n" + "\n".join(lines) + "\n"


@plots.styled
def curves(rows: list[dict], key: str) -> Figure:
    """Draw FID against IS as w grows, w beside its point.

    There is a curve for each value of the key: p_uncond as in the paper's Figure 4, or T as in its Figure 5.
    """
    figure = Figure(figsize=(6.4, 4.4))
    axes = figure.subplots()
    of, named = {}, {}
    for row in rows:
        of.setdefault((row[key], row["run"]), []).append(row)
    for ((value, _), of_curve), marker in zip(sorted(of.items()), itertools.cycle(plots.MARKERS), strict=False):
        curve = claims.Curve(of_curve)
        x, y = curve.values("is"), curve.values("fid")
        errors = {f"{axis}err": [claims.spread(r, n) for r in curve.rows] for axis, n in (("x", "is"), ("y", "fid"))}
        line, *_ = axes.errorbar(x, y, **errors, marker=marker, elinewidth=0.7, label=f"{key} = {value:g}")
        named[line] = [f"{w:g}" for w in curve.along]
    inception, distance = (claims.score_name(rows[0], name) for name in ("is", "fid"))
    axes.set(xlabel=f"IS ({inception})", ylabel=f"FID ({distance})", title=title(rows[0], key))
    axes.legend()
    axes.margins(0.08)
    plots.name_points(named)
    return figure


def title(row: dict, key: str) -> str:
    """Say what a plot of curves over w was measured on and with, but for the key, and how to read it."""
    seeds = ("seed " if len(row["seeds"]) == 1 else "seeds ") + ", ".join(map(str, row["seeds"]))
    fixed = "".join(f"{name} = {row[name]:g}, " for name in ("p_uncond", "T") if name != key)
    measured = f"{row['data']}: N = {row['N']:,} images a point, {fixed}{seeds}"
    bars = ", bars are ± one standard error" if math.isfinite(claims.spread(row, "fid")) else ""
    return f"{measured}\nw is beside its point{bars}"


def strip(cells: dict[Path, dict]) -> Image.Image:
    """Draw samples of the first run, a panel for each w from left to right, as the paper's Figure 1.

    The panels share their noise, and each is the left half of a cell's grid.
    """
    run = next(iter(cells.values()))["run"]
    panels = [read_png(path.with_suffix(".png")) for path, row in cells.items() if row["run"] == run]
    panels = [panel.crop((0, 0, (panel.width - GAP) // 2, panel.height)) for panel in panels]
    return mosaic([panels])


def page(cells: dict[Path, dict], rows: list[dict], judged: list[claims.Claim]) -> str:
    """Write one self-contained HTML page with a slider over w.

    jinja2 escapes every string, since some are from a config or a run.
    """
    runs, others = {}, other_scores(next(iter(cells.values())))
    for path, row in cells.items():
        picture = base64.b64encode(path.with_suffix(".png").read_bytes()).decode()
        point = {"w": row["w"], "s": row["s"], "fid": claims.score(row, "fid"), "is": claims.score(row, "is")}
        point |= {"fid_se": claims.spread(row, "fid"), "is_se": claims.spread(row, "is")}
        point = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in point.items()}
        point["others"] = [row["scores"][name] for name in others]
        runs.setdefault(row["run"], {"p": row["p_uncond"], "points": []})["points"].append(point | {"image": picture})
    environment = jinja2.Environment(loader=jinja2.PackageLoader("cfg_jax.sweep", "."), autoescape=True)
    first = next(iter(cells.values()))
    own = ("scores", "resampled", "spreads", "run", "p_uncond", "w", "s", "seconds")
    used = {k: v for k, v in first.items() if k not in own}
    return environment.get_template("report.html.j2").render(
        runs=[{"name": name, **run} for name, run in runs.items()],
        fid_name=claims.score_name(first, "fid"),
        is_name=claims.score_name(first, "is"),
        others=others,
        claims=judged,
        used=used,
        seconds=sum(row["seconds"] for row in rows),
    )
