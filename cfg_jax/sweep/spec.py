"""What decides a cell's numbers: for its row, its file's name, what may share a table with it, and what may vary.

The fields of a sampler and of a rule of guidance go into a row under their own names (sampler.eta, guidance.momentum);
those of the paper's under its letters.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from cfg_jax import config as configs
from cfg_jax.diffusion import samplers
from cfg_jax.errors import InputError, did_you_mean
from cfg_jax.models import build
from cfg_jax.text import short

if TYPE_CHECKING:  # a report needs neither orbax nor a network
    from cfg_jax.evaluation.features import Features
    from cfg_jax.evaluation.references import Reference
    from cfg_jax.sampling.model import Guides, Model

LETTERS = {"sampler.variance_interp": "v"}
PAPER = "classifier-free"
ONE_PASS = "w as an input"  # of a student
# guidance whose images are others than in earlier versions; a cell that does not say this number is made anew
REDRAWN, DRAWN_AS = {"guidance.uncond", "guidance.rounds", "guidance.zero_below"}, 2
# {field of a row: field of Reference.about}; None where the reference is another project's file
REFERENCE_FIELDS = {
    "scored_on": "card", "data": "data", "source": "source", "complete": "complete", "resize": "resize",
    "split": "split", "split_N": "split_N", "reference_N": "N", "reference_platform": "platform",
    "reference_precision": "precision",
}  # fmt: skip
# fields of a row that change with the kind of device
DEVICE_FIELDS = ("features", "platform", "precision", "reference", "reference_platform", "reference_precision")


def drawn_by(config: ConfigDict, guides_name: str = "") -> dict:
    """Return the fields of a row that say how its images are drawn, without w and the seed."""
    sampler, rule = config.sampler, config.guidance
    names = [rule.name] if rule.name != PAPER or not guides_name else []
    own = {f"sampler.{k}": v for k, v in configs.set_fields(sampler, samplers.SAMPLERS[sampler.name]).items()}
    own |= {f"guidance.{k}": v for k, v in build.guidance_fields(rule).items()}
    return {
        "T": sampler.num_steps,
        "sampler": sampler.name,
        "threshold": sampler.threshold,
        "grid": sampler.grid,
        "guidance": ", ".join([*names, *([guides_name] if guides_name else [])]),
        **{LETTERS.get(field, field): value for field, value in own.items()},
    }


def own(row: dict, family: str) -> dict:
    """Return {name: value} of a row's fields of one family, "sampler" or "guidance"."""
    return {field.partition(".")[2]: value for field, value in row.items() if field.startswith(f"{family}.")}


@dataclass(frozen=True)
class Setting:
    """What the cells of one table share. They may differ in the seed, which is averaged over."""

    num_steps: int
    rest: tuple[tuple[str, object], ...]

    @classmethod
    def of(cls, fields: dict) -> "Setting":
        """Take the fields of a row, or of drawn_by(config)."""
        shared = ("sampler", "v", "threshold", "grid", "guidance")
        rest = {"weights": fields.get("weights", "ema")}
        rest |= {k: v for k, v in fields.items() if k in shared or k.startswith(("sampler.", "guidance."))}
        return cls(fields["T"], tuple(sorted((rest | {"dtype": other_dtype(fields)}).items())))


def other_dtype(row: dict) -> str | None:
    """Return the dtype of the network's body, None where it is the one that it was trained in."""
    return row.get("dtype") if row.get("dtype") != row.get("trained_dtype") else None


def identity(
    config: ConfigDict,
    name: str,
    model: "Model",
    w: float,
    guides: "Guides",
    features: "Features",
    reference: "Reference",
    ema: float | None = None,
) -> dict:
    """Return the fields that decide a cell's numbers. w is the paper's scale, s = 1 + w that of other papers."""
    return {
        "run": name,
        "p_uncond": model.config.p_uncond,
        "w": w,
        "s": None if guides.classifier else 1 + w,
        **drawn_by(config, guides.name),
        **({"guidance": ONE_PASS} if build.takes_w(model.config) and not guides.classifier else {}),
        **({"drawn_as": DRAWN_AS} if REDRAWN & drawn_by(config).keys() else {}),
        "seed": config.eval.seed,
        **settings(config),
        "step": model.step,
        "weights": f"ema {ema:g}" if ema else "ema",
        "dtype": model.dtype,
        "trained_dtype": model.config.model.dtype,
        "config": configs.digest(model.config),
        "trained_on": model.config.data.get("card"),
        "image_shape": model.image_shape,
        **{field: (reference.about or {}).get(of) for field, of in REFERENCE_FIELDS.items()},
        "parameters": model.digest,
        "network": features.network,
        "features": features.digest,
        **features.made_on,
        "reference": reference.digest,
    }


def settings(config: ConfigDict) -> dict:
    """Return the fields that are the same in all cells of one sweep."""
    evaluation = config.eval
    return {
        "N": evaluation.num_images,
        "labels": evaluation.labels,
        "splits": evaluation.splits,
        "bootstrap": evaluation.bootstrap,
        "neighbours": evaluation.neighbours,
        "quantize": evaluation.quantize,
    }


def cell_path(workdir: Path, row: dict) -> Path:
    """Return the file of the cell with this identity."""
    sampler = (f"v{row['v']:g}" if "v" in row else row["sampler"]) + _written(own(row, "sampler"))
    rule = "" if row["guidance"] == PAPER else "_" + row["guidance"].replace(", ", "_").replace(" ", "-")
    if fields := own(row, "guidance"):
        rule = (rule or f"_{PAPER}") + _written(fields)
    network = f"_{row['dtype']}" if other_dtype(row) else ""
    network += "" if row.get("weights", "ema") == "ema" else "_" + row["weights"].replace(" ", "")
    settings = f"T{row['T']}_{sampler}_{row['threshold']}_{row['grid']}_seed{row['seed']}"
    return workdir / "cells" / f"{row['run']}_{settings}{rule}{network}_w{row['w']:.12g}.json"


def _written(fields):
    return "".join(f"-{name}{short(value).replace(':', '_')}" for name, value in fields.items())


def variants(config: ConfigDict, vary: dict) -> list[ConfigDict]:
    """Return a config for every combination of the values in {field: values}. Raises InputError as check_varied."""
    for field in vary:
        check_varied(config, field)
    combined = itertools.product(*vary.values())
    return [changed(config, dict(zip(vary, values, strict=True))) for values in combined]


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
