"""What a sweep says, for people: results.csv, table.md, curves.png, samples.png, report.html."""

import base64
import csv
import io
import logging
import math
from pathlib import Path

import jinja2
import matplotlib.figure
import numpy as np
from PIL import Image

from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.evaluation import claims
from cfg_jax.evaluation.sweep import settings
from cfg_jax.files import read_json, write_atomic
from cfg_jax.images import read_png, save_png

log = logging.getLogger(__name__)


def write(workdir):
    """Write every file of the report from workdir/cells -> the table and the claims as text."""
    workdir = Path(workdir)
    if not any((workdir / "cells").glob("*.json")):
        raise InputError(f"{workdir} has no finished cells: run experiments.sweep with --workdir={workdir} first")
    config = configs.load(workdir / "config.json")
    cells = read_cells(workdir, settings(config))
    rows = list(cells.values())
    main = {path: row for path, row in cells.items() if row["T"] == config.sampler.num_steps}
    if not main:
        raise InputError(
            f"{workdir} has no cells of T={config.sampler.num_steps}: run experiments.sweep for them first"
        )
    judged = claims.judge(rows, config.sampler.num_steps)

    write_atomic(workdir / "results.csv", results_csv(rows))
    text = table(list(main.values())) + "\n" + claims_text(judged)
    write_atomic(workdir / "table.md", text)
    write_atomic(workdir / "curves.png", curves_png(list(main.values())))
    save_png(workdir / "samples.png", strip(main))
    write_atomic(workdir / "report.html", page(main, rows, judged))
    return text


def read_cells(workdir, wanted):
    """{path: row} of the cells made with these settings, in the table's order; refuse what cannot share a table."""
    cells, left_out = {}, 0
    for path in sorted((workdir / "cells").glob("*.json")):
        try:
            row = read_json(path)
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}): remove it and run the sweep again") from error
        if any(row.get(field) != value for field, value in wanted.items()):
            left_out += 1
        elif not path.with_suffix(".png").exists():
            raise InputError(f"{path} has lost its .png: remove it and run the sweep again")
        else:
            cells[path] = row
    if left_out:
        log.info("%s: %d cells of other settings than its config.json are left out", workdir, left_out)
    for field, of in (
        ("features", lambda row: ""),
        ("reference", lambda row: ""),
        ("parameters", lambda row: row["run"]),
    ):
        seen = {}
        for path, row in cells.items():
            if seen.setdefault(of(row), row.get(field)) != row.get(field):
                raise InputError(f"{path} was made with other {field} than the rest: remove it and run the sweep again")
    return dict(sorted(cells.items(), key=lambda item: [item[1][field] for field in ("p_uncond", "run", "T", "w")]))


def results_csv(rows):
    """One line a cell: what was measured, its bootstrap standard error, and everything it was measured with."""
    lines = []
    for row in rows:
        line = {k: v for k, v in row.items() if k not in ("scores", "resampled")} | row["scores"]
        lines.append(line | {f"{k}_se": f"{np.std(v, ddof=1):.4g}" for k, v in row["resampled"].items()})
    fields = list(dict.fromkeys(field for line in lines for field in line))
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, restval="")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def table(rows):
    """Markdown in the layout of the paper's Table 1: w down, FID then IS across p_uncond; the best in bold."""
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
        line = [f"{w:g}", f"{1 + w:g}"]
        for name in titles:
            for run in runs:
                row = by_cell.get((run, w))
                line.append(cell_text(row, name, best[run, name]) if row else "")
        lines.append(line)
    first = rows[0]
    note = (
        f"N={first['N']} images a cell, T={first['T']}, v={first['v']:g}, threshold {first['threshold']}, "
        f"grid {first['grid']}, labels {first['labels']}, seed {first['seed']}, EMA weights. "
        "± is the bootstrap standard error over images of this one training seed."
    )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\n" + note + "\n"


def cell_text(row, name, best):
    value, error = claims.score(row, name), claims.spread(row, name)
    text = f"{value:.2f}" if math.isnan(error) else f"{value:.2f} ± {error:.2f}"
    return f"**{text}**" if value == best else text


def claims_text(judged):
    lines = [f"{i}. {c.text}: **{c.verdict}**. {c.figure}." for i, c in enumerate(judged, 1)]
    return "The paper's claims, on this run:\n\n" + "\n".join(lines) + "\n"


def curves_png(rows):
    """FID against IS as w grows, a curve for each run: Figure 4 of the paper."""
    figure = matplotlib.figure.Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    for run in dict.fromkeys(row["run"] for row in rows):
        curve = claims.Curve([row for row in rows if row["run"] == run])
        x, y = curve.values("is"), curve.values("fid")
        errors = {f"{axis}err": [claims.spread(r, n) for r in curve.rows] for axis, n in (("x", "is"), ("y", "fid"))}
        axes.errorbar(
            x, y, **errors, marker="o", markersize=3.5, linewidth=1, label=f"p_uncond = {curve.rows[0]['p_uncond']:g}"
        )
    axes.set(xlabel=claims.score_name(rows[0], "is"), ylabel=claims.score_name(rows[0], "fid"))
    axes.set_title(f"w from {min(r['w'] for r in rows):g} to {max(r['w'] for r in rows):g}", fontsize=10)
    axes.legend(frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=150)
    return out.getvalue()


def strip(cells):
    """Samples of the first run at shared seeds, one panel for each w, growing to the right: Figure 1 of the paper."""
    run = next(iter(cells.values()))["run"]
    panels = [read_png(path.with_suffix(".png")) for path, row in cells.items() if row["run"] == run]
    panels = [panel.crop((0, 0, panel.width // 2, panel.height)) for panel in panels]
    gap = 12
    whole = Image.new("RGB", (sum(p.width + gap for p in panels) - gap, panels[0].height), "white")
    for i, panel in enumerate(panels):
        whole.paste(panel, (i * (panel.width + gap), 0))
    return whole


def page(cells, rows, judged):
    """One self-contained page with a slider over w; every string from a config or a run is escaped by jinja2."""
    runs = {}
    for path, row in cells.items():
        picture = base64.b64encode(path.with_suffix(".png").read_bytes()).decode()
        point = {"w": row["w"], "s": row["s"], "fid": claims.score(row, "fid"), "is": claims.score(row, "is")}
        point |= {"fid_se": claims.spread(row, "fid"), "is_se": claims.spread(row, "is")}
        point = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in point.items()}
        runs.setdefault(row["run"], {"p": row["p_uncond"], "points": []})["points"].append(point | {"image": picture})
    environment = jinja2.Environment(loader=jinja2.PackageLoader("cfg_jax.evaluation", "."), autoescape=True)
    first = next(iter(cells.values()))
    used = {k: v for k, v in first.items() if k not in ("scores", "resampled", "run", "p_uncond", "w", "s", "seconds")}
    return environment.get_template("report.html.j2").render(
        runs=[{"name": name, **run} for name, run in runs.items()],
        fid_name=claims.score_name(first, "fid"),
        is_name=claims.score_name(first, "is"),
        claims=judged,
        used=used,
        seconds=sum(row["seconds"] for row in rows),
    )
