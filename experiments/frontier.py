"""Compare rules of guidance on one data set: distance, IS, recall and variety over each rule's strength.

python -m experiments.frontier --config=configs/digits.py --runs=runs/digits-p0.1,runs/digits-s1 --out=runs/frontier \
    --guides=runs/digits-p0.1@300,runs/digits-s1@300 --classifiers=runs/digits-classifier

--runs are training seeds of one model. --guides has one guide for each run; --classifiers one for all or one for each.
Without them their curves are left out. Add a curve by --curve="NAME: guidance.rescale=0.5 sampler.num_steps=64". Its
fields may include guide=RUN or classifier=RUN, for a second model that guides. A curve "smaller guide", by runs of a
smaller network, is compared with autoguidance, whose --guides are earlier checkpoints.
It writes frontier.html, .md and .json, and the pictures frontier and frontier_curves as .png and .svg. It keeps its
cells, which are those of experiments.sweep.
"""

import base64
from pathlib import Path

from absl import flags

from cfg_jax import checks, plots
from cfg_jax.diffusion.directions import Feedback
from cfg_jax.diffusion.guidance import Unguided
from cfg_jax.errors import InputError, choice, require
from cfg_jax.fields import effective
from cfg_jax.files import write_atomic, write_json
from cfg_jax.models import build
from cfg_jax.sweep import claims, frontier, report, spec
from cfg_jax.sweep.run import check_classifier_guides, sweep
from cfg_jax.text import escaped
from experiments.helpers import cli

CONFIG = cli.define_config(required=True)
RUNS = cli.define_path("runs", None, "run directories: training seeds of one model", hub=True, many=True, required=True)
GUIDES = cli.define_path("guides", [], "for autoguidance, a weaker RUN or RUN@STEP for each run", hub=True, many=True)
CLASSIFIERS = cli.define_path(
    "classifiers", [], "of experiments.train_classifier, one for all runs or for each", many=True
)
SEEDS = cli.define_seeds("0", "each run is sampled with each of them")
W = cli.define_numbers("w", "0,0.25,0.5,1,2,4", "strengths, three or more, 0 among them; CFG++ has its own")
ONLY = flags.DEFINE_list("rules", None, "curves to make; default: all that can be")
CURVE = flags.DEFINE_multi_string("curve", [], "NAME: FIELD=VALUE ... of the sampler and the guidance; may be repeated")
OUT = cli.define_path("out", "runs/frontier", "directory for the cells and the page", writes="sweep")

BASELINE = "CFG"
INTERVAL = {"guidance.logsnr_low": -2.13, "guidance.logsnr_high": 2.55}
SECOND_MODEL = {"guide": "guide", "classifier": "classifier_run"}  # {field of a curve: argument of sweep}


def known_curves():
    """Return {name: fields} of all curves. The numbers are those of each rule's paper; none is tuned here."""
    num_steps = CONFIG.value.sampler.num_steps
    offset, temperature = Feedback.published(num_steps)
    return {
        BASELINE: {},
        "interval": INTERVAL,
        "rising w": {"guidance.schedule_logsnr": (-6.0, 6.0), "guidance.schedule_w": (0.0, 2.0)},
        "cosine w": {"guidance.schedule": "cosine"},
        "C2FG": {"guidance.schedule": "c2fg"},
        "DG-CFG": {"guidance.schedule": "dg"},
        "rescale": {"guidance.rescale": 0.7},
        "dynamic threshold": {"sampler.threshold": "dynamic"},
        "power law": {"guidance.name": "power_law"},
        "APG": {"guidance.name": "apg", "guidance.momentum": -0.5},
        "CFG-Zero*": {"guidance.name": "cfg_zero", "guidance.zero_below": -6.36},
        "FDG": {"guidance.name": "fdg"},
        "MAMBO-G": {"guidance.name": "mambo_g"},
        "TCFG": {"guidance.name": "tcfg"},
        "REG": {"guidance.name": "reg"},
        "Rectified-CFG++": {"guidance.name": "rectified_cfg_pp", "guidance.ahead": 1 / num_steps},
        "feedback": {"guidance.name": "feedback", "guidance.offset": offset, "guidance.temperature": temperature},
        "rounds": {"guidance.rounds": 1, "guidance.renoise_logsnr": -1.4},
        "other label": {"guidance.uncond": "other_label"},
        "PAG": {"guidance.uncond": "pag"},
        "SEG": {"guidance.uncond": "seg"},
        "TPG": {"guidance.uncond": "tpg"},
        "CFG and PAG": {"guidance.name": "beside_perturbed"},
        "autoguidance": {"guide": GUIDES.value},
        "autoguidance, interval": {"guide": GUIDES.value, **INTERVAL},
        "classifier": {"classifier": CLASSIFIERS.value},
        "classifier, mean": {"classifier": CLASSIFIERS.value, "guidance.classifier": "mean"},
        "classifier alone": {"classifier": CLASSIFIERS.value, "guidance.name": "unconditional"},
        "CFG, DDIM": {"sampler.name": "ddim"},
        "CFG++": {"guidance.name": "cfg_pp", "sampler.name": "ddim"},
    } | dict(map(curve_of, CURVE.value))


def curve_of(text):
    """ "NAME: guidance.rescale=0.5" -> (NAME, {"guidance.rescale": 0.5})."""
    name, colon, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split()]
    if not (colon and pairs and all(equals for _, equals, _ in pairs)):
        raise InputError(f'--curve={text}: give "NAME: FIELD=VALUE ...", such as "half: guidance.rescale=0.5"')
    fields = {}
    for field, _, value in pairs:
        if field in SECOND_MODEL:
            fields[field] = [cli.local_path(path, hub=True) for path in value.split(",")]
            continue
        spec.check_varied(CONFIG.value, field)
        group, _, last = field.partition(".")
        fields[field] = cli.numbers(value, CONFIG.value[group].get_type(last), "curve")[0]
    return name.strip(), fields


def main():
    runs, known = RUNS.value, known_curves()
    for name in ONLY.value or ():
        choice(name, known, "--rules")
    ws = W.value
    if 0 not in ws or len(set(ws)) < 3:
        raise InputError(f"--w={cli.listed(ws)} makes no curve: give three strengths or more, and 0 among them")
    configured = {name: curve_config(fields) for name, fields in known.items()}
    effective([*configured.values()], cli.overrides())
    for name, fields in known.items():
        checks.sampling(configured[name])  # of every curve, before the first of them is drawn
        effective([configured[name]], fields)
        if fields.get("classifier"):
            check_classifier_guides(configured[name].guidance)
        for kind in SECOND_MODEL.keys() & fields.keys():
            count = len(fields[kind])
            if count not in (0, len(runs)) and (count > 1 or name == "autoguidance"):
                raise InputError(f"the curve {name} has {count} of {kind} for {len(runs)} --runs: give one for each")
    names = [name for name in known if name in (BASELINE, *(ONLY.value or known))]
    given = [name for name in names if all(known[name][kind] for kind in SECOND_MODEL.keys() & known[name].keys())]
    remedy = "name another rule; autoguidance needs --guides, a classifier --classifiers"
    require(len(given) > 1, f"--rules={','.join(ONLY.value or [])} leaves nothing to compare with {BASELINE}: {remedy}")
    curves = {}
    for name in given:
        curves[name] = rows_of(name, known[name], ws, curves.get(BASELINE, {}))
    write(curves, Path(OUT.value))


def curve_config(fields):
    """Return the config of a curve."""
    return spec.changed(CONFIG.value, {field: value for field, value in fields.items() if field not in SECOND_MODEL})


def rows_of(name, fields, ws, baseline):
    """Return {"RUN, seed SEED": rows} of a curve.

    The row at w = 0 is the baseline's, where that is drawn in the same way.
    """
    runs, seeds = RUNS.value, list(dict.fromkeys(SEEDS.value))
    second = {argument: fields[kind] for kind, argument in SECOND_MODEL.items() if kind in fields}
    config = curve_config(fields)
    strengths = {"CFG++": (0.2, 0.4, 0.6, 0.8, 1.0), "classifier alone": [1 + w for w in ws]}.get(name, ws)
    unguided = {key: next(row for row in rows if not row["w"]) for key, rows in baseline.items()}
    walk = {field: value for field, value in spec.drawn_by(config).items() if not field.startswith("guidance")}
    shared = (
        0 in strengths
        and isinstance(build.rule(config.guidance, 0.0), Unguided)
        and any(all(row.get(field) == value for field, value in walk.items()) for row in unguided.values())
    )
    asked = [w for w in strengths if w or not shared]
    several = any(len(models) > 1 for models in second.values())
    rows = {}
    for i, group in enumerate([[run] for run in runs] if several else [runs]):
        given = {argument: models[i] if len(models) > 1 else models[0] for argument, models in second.items()}
        for row in sweep(config, group, asked, OUT.value, vary={"eval.seed": seeds}, **given):
            key = f"{row['run']}, seed {row['seed']}"
            rows.setdefault(key, [unguided[key]] if shared else []).append(row)
    return rows


def write(curves, out):
    """Write and print the comparison of {name: rows}."""
    data, (run, (first, *_)) = CONFIG.value.data.name, next(iter(curves[BASELINE].items()))
    judged, (head, lines) = frontier.judge(curves, BASELINE), frontier.summary(curves, BASELINE)
    names = ", ".join(Path(run).name for run in RUNS.value)
    about = (
        f"{data}, runs {names}, image seeds {cli.listed(SEEDS.value)}, "
        f"N = {first['N']:,} images a point, T = {first['T']}, {first['sampler']}"
    )
    text = (
        f"# Rules of guidance on {escaped(data)}\n\n    {cli.command_line('frontier')}\n\n{escaped(about)}. "
        "± is the bootstrap standard "
        f"error over images. Differences are taken in each run.\n\n{frontier.table(curves, BASELINE)}\n"
        + frontier.claims_text(judged)
    )
    rules = [
        {"name": name, "points": [report.point(spec.cell_path(out, row), row) for row in rows[run]]}
        for name, rows in curves.items()
    ]
    plots.save(out / "frontier", frontier.plot(curves, about))
    plots.save(out / "frontier_curves", frontier.panels(curves, about))
    write_atomic(out / "frontier.md", text)
    write_json(out / "frontier.json", curves)
    page = report.render(
        "frontier.html.j2", about=about, run=run, head=head, lines=lines, claims=judged,
        is_name=claims.score_name(first, "is"), rules=rules,
        plots=[base64.b64encode((out / f"frontier{name}.svg").read_bytes()).decode() for name in ("", "_curves")],
    )  # fmt: skip
    write_atomic(out / "frontier.html", page)
    print(text)
    print(f"{out}/frontier.html")


if __name__ == "__main__":
    cli.run(main)
