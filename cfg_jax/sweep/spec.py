"""The fields of a cell's row that decide its numbers, and what follows from them.

They name the cell's file, decide which cells share a table, and say what may vary within a sweep. A row has the fields
of a sampler and of a guidance rule under their config names (sampler.eta, guidance.momentum), except the paper's v.
"""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from cfg_jax import config as configs
from cfg_jax.diffusion import samplers
from cfg_jax.errors import InputError, did_you_mean
from cfg_jax.fields import effective
from cfg_jax.files import digest
from cfg_jax.models import build, network
from cfg_jax.text import short

if TYPE_CHECKING:  # a report needs neither orbax nor a network
    from cfg_jax.evaluation.features import Features
    from cfg_jax.evaluation.references import Reference
    from cfg_jax.sampling.model import Guides, Model

LETTERS = {"sampler.variance_interp": "v"}
PAPER = "classifier-free"
ONE_PASS = "w as an input"  # the guidance of a student
# guidance that earlier versions drew otherwise; a cell without "drawn_as": DRAWN_AS is made again
REDRAWN, DRAWN_AS = {"guidance.uncond", "guidance.rounds", "guidance.zero_below"}, 2
# {field of a row: field of Reference.about}; None if the reference is another project's file
REFERENCE_FIELDS = {
    "scored_on": "card", "data": "data", "source": "source", "complete": "complete", "resize": "resize",
    "split": "split", "split_N": "split_N", "reference_N": "N", "reference_platform": "platform",
    "reference_precision": "precision",
}  # fmt: skip
# fields of a row that depend on the kind of device
DEVICE_FIELDS = ("features", "platform", "precision", "reference", "reference_platform", "reference_precision")
LONGEST = 236  # bytes of a cell's name: file systems take 255, with .json and what a temporary file has
EVAL_FIELDS = ("labels", "splits", "bootstrap", "neighbours", "quantize")


def drawn_by(config: ConfigDict, guides_name: str = "") -> dict:
    """Return the fields of a row that say how its images are drawn, without w and the seed.

    guides_name: of the second model that guides, "" for the null label.
    """
    sampler, rule = config.sampler, config.guidance
    names = [rule.name] if rule.name != PAPER or not guides_name else []
    fields = {f"sampler.{k}": v for k, v in configs.set_fields(sampler, samplers.SAMPLERS[sampler.name]).items()}
    fields |= {f"guidance.{k}": v for k, v in build.guidance_fields(rule).items()}
    return {
        "T": sampler.num_steps,
        "sampler": sampler.name,
        "threshold": sampler.threshold,
        "grid": sampler.grid,
        "guidance": ", ".join([*names, *([guides_name] if guides_name else [])]),
        **{LETTERS.get(field, field): value for field, value in fields.items()},
    }


def fields_of(row: dict, family: str) -> dict:
    """Return {name: value} of a row's fields of one family, "sampler" or "guidance"."""
    return {field.partition(".")[2]: value for field, value in row.items() if field.startswith(f"{family}.")}


def setting_of(fields: dict) -> tuple[int, tuple]:
    """Return what the cells of one table share, T and (the other fields), of a row or of drawn_by(config).

    The cells may differ in the seed, over which scores are averaged.
    """
    shared = ("sampler", "v", "threshold", "grid", "guidance")
    rest = {k: v for k, v in fields.items() if k in shared or k.startswith(("sampler.", "guidance."))}
    rest |= {"weights": fields.get("weights", "ema"), "dtype": other_dtype(fields)}
    return fields["T"], tuple(sorted(rest.items()))


def other_dtype(row: dict) -> str | None:
    """Return the dtype of the network's body, None if it is the one that it was trained in."""
    return row.get("dtype") if row.get("dtype") != row.get("trained_dtype") else None


def identity(
    config: ConfigDict, name: str, model: "Model", w: float, guides: "Guides", features: "Features",
    reference: "Reference", ema: float | None = None,
) -> dict:  # fmt: skip
    """Return the fields that decide a cell's numbers. w is the paper's scale, s = 1 + w that of other papers."""
    row = {
        "run": name,
        "p_uncond": model.config.p_uncond,
        "w": w,
        "s": None if guides.classifier else 1 + w,
        **drawn_by(config, guides.name),
    }
    if network.takes_w(model.config) and not guides.classifier:
        row["guidance"] = ONE_PASS
    if REDRAWN & row.keys():
        row["drawn_as"] = DRAWN_AS
    return row | {
        "seed": config.eval.seed,
        **settings(config),
        "step": model.step,
        "weights": f"ema {ema:g}" if ema else "ema",
        "dtype": model.dtype,
        "trained_dtype": model.config.model.dtype,
        "config": configs.digest(model.config),
        "trained_on": model.config.data.get("card"),
        "image_shape": model.image_shape,
        **{field: (reference.about or {}).get(name) for field, name in REFERENCE_FIELDS.items()},
        "parameters": model.digest,
        "network": features.network,
        "features": features.digest,
        **features.made_on,
        "reference": reference.digest,
    }


def settings(config: ConfigDict) -> dict:
    """Return the fields that are the same in all cells of one sweep."""
    return {"N": config.eval.num_images, **{field: config.eval[field] for field in EVAL_FIELDS}}


def cell_path(workdir: Path, row: dict) -> Path:
    """Return the file of the cell with this identity."""
    sampler = (f"v{row['v']:g}" if "v" in row else row["sampler"]) + _in_name(fields_of(row, "sampler"))
    rule = row["guidance"].replace(", ", "_").replace(" ", "-") + _in_name(fields_of(row, "guidance"))
    parts = [row["run"], f"T{row['T']}", sampler, row["threshold"], row["grid"], f"seed{row['seed']}"]
    parts += [rule] if rule != PAPER else []
    parts += [row["dtype"]] if other_dtype(row) else []
    parts += [row["weights"].replace(" ", "")] if row.get("weights", "ema") != "ema" else []
    name = f"{'_'.join(parts)}_w{row['w']:.12g}"
    if len(name.encode()) > LONGEST:  # more than a file system takes; the digest tells such names apart
        name = f"{name.encode()[: LONGEST - 13].decode(errors='ignore')}-{digest(name)}"
    return workdir / "cells" / f"{name}.json"


def _in_name(fields):
    return "".join(f"-{name}{short(value).replace(':', '_')}" for name, value in fields.items())


def variants(config: ConfigDict, vary: dict) -> list[ConfigDict]:
    """Return a config for every combination of the values in {field: values}.

    Raises InputError for a field that cannot be varied, and for one that has no effect.
    """
    for field in vary:
        check_varied(config, field)
    found = [changed(config, dict(zip(vary, values, strict=True))) for values in itertools.product(*vary.values())]
    effective(found, vary)
    return found


def check_varied(config: ConfigDict, field: str) -> None:
    """Raise InputError for a field that is neither of the sampler nor of the guidance, nor eval.seed."""
    varied = [f"{group}.{name}" for group in ("sampler", "guidance") for name in getattr(config, group)] + ["eval.seed"]
    if field not in varied:
        meant = did_you_mean(field, varied)
        raise InputError(f"--vary={field} is not varied within a sweep: {meant}choose from {', '.join(varied)}")


def changed(config: ConfigDict, fields: dict) -> ConfigDict:
    """Return a copy of the config with {field: value} set."""
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(fields)
    return config
