"""Rules of guidance against each other on one data set: distance, IS, recall, variety over each one's strength.

python -m experiments.frontier --config=configs/digits.py --runs=runs/digits-p0.1,runs/digits-s1 --out=runs/frontier \
    --guides=runs/digits-p0.1@300,runs/digits-s1@300 --classifiers=runs/digits-classifier

--runs are training seeds of one model. --guides has one for each run, and --classifiers one for all or one for each;
without them their curves are left out. A curve of your own: --curve="NAME: guidance.rescale=0.5 sampler.num_steps=64",
with guide=RUN or classifier=RUN among the fields for one that another model guides.
Cells are those of experiments.sweep, and are kept. It writes frontier.html, .md, .png, .svg and .json.
"""

import base64
import itertools
from pathlib import Path

import jinja2
from absl import flags

from cfg_jax import plots
from cfg_jax.diffusion.guidance import Unguided
from cfg_jax.errors import InputError, did_you_mean
from cfg_jax.files import write_atomic, write_json
from cfg_jax.models import build
from cfg_jax.sweep import claims, frontier, spec
from cfg_jax.sweep.run import sweep
from experiments.helpers import cli

CONFIG = cli.define_config()
RUNS = flags.DEFINE_list("runs", None, "run directories: training seeds of one model")
GUIDES = flags.DEFINE_list("guides", [], "for autoguidance, a weaker RUN or RUN@STEP for each run")
CLASSIFIERS = flags.DEFINE_list("classifiers", [], "of experiments.train_classifier, one for all runs or for each")
SEEDS = flags.DEFINE_string("seeds", "0", "of the images; each run is drawn with each of them")
W = flags.DEFINE_string("w", "0,0.25,0.5,1,2,4", "strengths, 0 among them")
ONLY = flags.DEFINE_list("rules", None, "curves to make; default: all that can be")
CURVE = flags.DEFINE_multi_string("curve", [], "NAME: FIELD=VALUE ... of the sampler and the guidance; may be repeated")
OUT = flags.DEFINE_string("out", "runs/frontier", "directory for the cells and the page")
flags.mark_flags_as_required(["config", "runs"])

BASELINE, LEVELS = "CFG", 7
# each with the numbers of its paper where that gives some; none is tuned here
CURVES = {
    BASELINE: {},
    "interval": {"guidance.logsnr_low": -2.13, "guidance.logsnr_high": 2.55},
    "rising w": {"guidance.schedule_logsnr": (-6.0, 6.0), "guidance.schedule_w": (0.0, 2.0)},
    "rescale": {"guidance.rescale": 0.7},
    "dynamic threshold": {"sampler.threshold": "dynamic"},
    "power law": {"guidance.name": "power_law"},
    "APG": {"guidance.name": "apg", "guidance.momentum": -0.5},
    "CFG-Zero*": {"guidance.name": "cfg_zero", "guidance.zero_below": -6.36},
    "rounds": {"guidance.rounds": 1, "guidance.renoise_logsnr": -1.4},
    "other label": {"guidance.uncond": "other_label"},
    "autoguidance": {},
    "classifier": {},
    "classifier, mean": {"guidance.classifier": "mean"},
    "classifier alone": {"guidance.name": "unconditional"},
    "CFG, DDIM": {"sampler.name": "ddim"},
    "CFG++": {"guidance.name": "cfg_pp", "sampler.name": "ddim"},
}
STRENGTHS = {"CFG++": (0.2, 0.4, 0.6, 0.8, 1.0)}


def main():
    curves, config = dict(CURVES) | dict(map(curve_of, CURVE.value)), CONFIG.value
    for name in ONLY.value or ():
        if name not in curves:
            raise InputError(f"--rules={name} is unknown: {did_you_mean(name, curves)}choose {', '.join(curves)}")
    for flag, given in (("guides", GUIDES.value), ("classifiers", CLASSIFIERS.value)):
        if len(given) not in (0, len(RUNS.value)) and (flag == "guides" or len(given) != 1):
            raise InputError(f"--{flag} names {len(given)} for {len(RUNS.value)} --runs: give one for each")
    ws = cli.numbers(W.value, float, "w")
    if 0 not in ws or len(set(ws)) < 3:
        raise InputError(f"--w={W.value} makes no curve: give three strengths or more, and 0 among them")
    wanted = {BASELINE: {}} | {name: dict(fields) for name, fields in curves.items() if name in (ONLY.value or curves)}
    found = {}
    for name, fields in wanted.items():
        beside = {kind: fields.pop(kind) for kind in ("guide", "classifier") if kind in fields}
        if rows := rows_of(name, beside, spec.changed(config, fields), ws, found):
            found[name] = rows
    judged = frontier.judge(found, BASELINE)
    num_images, out = config.eval.num_images, Path(OUT.value)
    of = next(iter(found[BASELINE].values()))[0]
    runs = ", ".join(Path(run).name for run in RUNS.value or ())
    about = (
        f"{config.data.name}, runs {runs}, image seeds {SEEDS.value}, N = {num_images:,} images a point, "
        f"T = {of['T']}, {of['sampler']}"
    )
    errors = "± is the bootstrap standard error over images, a gap's for each seed alone."
    table = frontier.table(found, BASELINE)
    head = f"# Rules of guidance on {config.data.name}\n\n    {cli.command_line('frontier')}"
    text = f"{head}\n\n{about}. {errors}\n\n{table}\n"
    text += frontier.claims_text(judged)
    plots.save(out / "frontier", frontier.plot(found, about))
    write_atomic(out / "frontier.md", text)
    write_json(out / "frontier.json", found)
    write_atomic(out / "frontier.html", page(found, judged, table, about, out))
    print(text)
    print(f"{out}/frontier.html")


def curve_of(text):
    """ "NAME: guidance.rescale=0.5" -> (NAME, {"guidance.rescale": 0.5})."""
    name, colon, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split()]
    if not (colon and pairs and all(equals for _, equals, _ in pairs)):
        raise InputError(f'--curve={text}: give "NAME: FIELD=VALUE ...", such as "half: guidance.rescale=0.5"')
    fields = {}
    for field, _, value in pairs:
        if field in ("guide", "classifier"):
            fields[field] = value.split(",")
            continue
        spec.check_varied(CONFIG.value, field)
        group, _, last = field.partition(".")
        fields[field] = cli.numbers(value, CONFIG.value[group].get_type(last), "curve")[0]
    return name.strip(), fields


def rows_of(name, given, config, ws, found):
    """{run and seed: rows} of a curve, {} where what it needs was not given. w = 0 is the baseline's where it can."""
    if not given and name == "autoguidance":
        given = {"guide": GUIDES.value}
    if not given and name.startswith("classifier"):
        given = {"classifier": CLASSIFIERS.value}
    kind, beside = next(iter(given.items()), (None, [None]))
    if not beside:
        return {}
    if len(beside) not in (1, len(RUNS.value)):
        raise InputError(
            f"--curve={name} names {len(beside)} of {kind} for {len(RUNS.value)} --runs: give one for each"
        )
    strengths = STRENGTHS.get(name, [1 + w for w in ws] if name == "classifier alone" else ws)
    own = {k: v for k, v in spec.drawn_by(config).items() if k in ("sampler", "threshold", "T", "grid", "v")}
    unguided = {key: next(row for row in rows if not row["w"]) for key, rows in found.get(BASELINE, {}).items()}
    plain = isinstance(build.rule(config.guidance, 0.0), Unguided)
    shared = plain and 0 in strengths and any(all(row.get(k) == v for k, v in own.items()) for row in unguided.values())
    asked = [w for w in strengths if w or not shared]
    # of all runs at once where they have one guide, or none
    groups = (
        [(RUNS.value, *beside)]
        if len(beside) == 1
        else [([run], of) for run, of in zip(RUNS.value, beside, strict=True)]
    )
    rows = {}
    for seed, (runs, other) in itertools.product(cli.numbers(SEEDS.value, int, "seeds"), groups):
        by = {None: {}, "guide": {"guide": other}, "classifier": {"classifier_run": other}}[kind]
        for row in sweep(spec.changed(config, {"eval.seed": seed}), runs, asked, OUT.value, **by):
            key = f"{row['run']}, seed {seed}"
            rows.setdefault(key, [unguided[key]] if shared else []).append(row)
    return rows


def page(found, judged, table, about, out):
    """One self-contained HTML page: at each level of IS the nearest pictures of every rule, of one noise."""
    run = next(iter(found[BASELINE]))
    inception = [claims.score(row, "is") for row in found[BASELINE][run]]
    low, high = min(inception), max(inception)
    levels = [low + (high - low) * i / (LEVELS - 1) for i in range(LEVELS)]
    pictures, rules = {}, []
    for name, runs in found.items():
        near = []
        for level in levels:
            row = min(runs[run], key=lambda row: abs(claims.score(row, "is") - level))
            path = spec.cell_path(out, row).with_suffix(".png")
            pictures[path.stem] = base64.b64encode(path.read_bytes()).decode()
            score = {kind: claims.score(row, kind) for kind in ("is", "fid")}
            near.append({"picture": path.stem, "w": row["w"], "passes": row["passes"], **score})
        rules.append({"name": name, "near": near})
    environment = jinja2.Environment(loader=jinja2.PackageLoader("cfg_jax.sweep", "."), autoescape=True)
    row = found[BASELINE][run][0]
    return environment.get_template("frontier.html.j2").render(
        about=about, levels=levels, pictures=pictures, rules=rules, claims=judged, run=run,
        fid_name=claims.score_name(row, "fid"), is_name=claims.score_name(row, "is"),
        plot=base64.b64encode((out / "frontier.svg").read_bytes()).decode(),
        table=[line.strip("| ").split(" | ") for line in table.splitlines() if "---" not in line],
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
