"""A run's config: checked before anything compiles, saved beside the weights, compared on resume."""

import difflib
import math

import ml_collections

from cfg_jax.diffusion import guidance, loss, samplers
from cfg_jax.errors import InputError
from cfg_jax.files import digest_json, read_json, write_json

GRIDS = ("paper", "shifted")
DTYPES = ("float32", "bfloat16")
TIMES = ("logsnr", "adm_cosine", "adm_linear")
FEATURES = ("classifier", "inception")
LABEL_RULES = ("random", "balanced")
QUANTIZE = ("round", "truncate")
MAX_T = 100_000
VERSION = 3  # of the fields
# a config of an earlier version gets what it then had, by the version that brought the field or the group
ADDED = {
    2: {"eval.quantize": "round"},
    3: {
        "objective": {"predicts": "eps", "error": "eps", "density": "sech"},
        "guidance": {
            "name": "classifier-free", "logsnr_low": None, "logsnr_high": None, "momentum": -0.5, "radius": 2.5,
            "parallel": 0.0,
        },
        "model.name": "unet", "sampler.name": "ancestral", "sampler.eta": 0.0,
    },
}  # fmt: skip
# a run may be continued with these changed: none touches the parameters of a given step, but for sums in another order
FREE = (
    "data.root",
    "sampler.",
    "guidance.",
    "eval.",
    "train.num_steps",
    "train.log_every",
    "train.checkpoint_every",
    "train.sample_every",
    "train.keep_every",
    "train.max_skipped",
    "train.fsdp",
    "train.accumulate",
)


def check_saved(path, config):
    """Raise InputError where the config of a run or an export is not whole, or not one that could have been trained."""
    try:
        check(config)
    except InputError as error:
        raise InputError(f"{path} cannot have been trained: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the config of {path} is not whole ({reason}): it is damaged, or another version of this code wrote it"
        ) from error


def check(config):
    """Raise InputError, naming the field and the remedy, for what could only fail later or silently."""
    require(0 <= config.p_uncond <= 1, f"config.p_uncond={config.p_uncond} is no probability: set 0 to 1")
    require(
        config.logsnr_min < config.logsnr_max,
        f"config.logsnr_min={config.logsnr_min} must be below config.logsnr_max={config.logsnr_max}",
    )
    require(
        max(abs(config.logsnr_min), abs(config.logsnr_max)) <= 40,
        f"config.logsnr_min={config.logsnr_min} and logsnr_max={config.logsnr_max} must lie in [-40, 40] for float32",
    )
    require(
        config.model.null_label or config.p_uncond == 0,
        f"config.model.null_label=False leaves no label to drop to: set config.p_uncond=0, not {config.p_uncond}",
    )
    data = config.data
    for field in ("image_size", "channels"):
        require(data[field] >= 1, f"config.data.{field}={data[field]} must be at least 1")
    require(data.num_classes >= 0, f"config.data.num_classes={data.num_classes} must be 0, for no classes, or more")
    check_network(config.model, data.image_size)
    require(
        config.model.time in TIMES, f"config.model.time={config.model.time!r} is unknown: choose {', '.join(TIMES)}"
    )
    check_objective(config.objective)
    check_sampler(config.sampler)
    check_guidance(config.guidance)
    train = config.train
    counts = ("num_steps", "batch_size", "log_every", "checkpoint_every", "sample_every", "warmup_steps")
    for field in (*counts, "keep_checkpoints", "accumulate", "fsdp"):
        require(train[field] >= 1, f"config.train.{field}={train[field]} must be at least 1")
    require(train.num_steps < 2**31, f"config.train.num_steps={train.num_steps} must be below 2^31")
    for field in ("keep_every", "max_skipped"):
        require(train[field] >= 0, f"config.train.{field}={train[field]} must be 0 or more")
    for field in ("learning_rate", "grad_clip"):
        require(0 < train[field] < math.inf, f"config.train.{field}={train[field]} must be above 0 and finite")
    check_seed(config.seed, "config.seed")
    require(0 <= train.ema_decay < 1, f"config.train.ema_decay={train.ema_decay} must lie in [0, 1)")
    check_eval(config.eval)


def check_eval(evaluation):
    check_seed(evaluation.seed, "config.eval.seed")
    require(
        evaluation.bootstrap == 0 or evaluation.bootstrap >= 2,
        f"config.eval.bootstrap={evaluation.bootstrap} gives no spread: set 0 for none, or 2 and more",
    )
    require(len(evaluation.w) > 0, "config.eval.w is empty: name at least one w")
    require(
        evaluation.features in FEATURES,
        f"config.eval.features={evaluation.features!r} is unknown: choose {' or '.join(FEATURES)}",
    )
    few = evaluation.reference_images
    require(few == 0 or few >= 4, f"config.eval.reference_images={few} are too few: set 0 for all, or 4 and more")
    require(
        evaluation.features == "inception" or not evaluation.classifier,
        f"config.eval.classifier={evaluation.classifier} needs config.eval.features=inception: set it or drop this",
    )
    check_neighbours(evaluation.neighbours, "config.eval.neighbours")
    for field, choices in (("labels", LABEL_RULES), ("quantize", QUANTIZE)):
        rule = evaluation[field]
        require(rule in choices, f"config.eval.{field}={rule!r} is unknown: choose {' or '.join(choices)}")
    for field in ("batch_size", "splits"):
        require(evaluation[field] >= 1, f"config.eval.{field}={evaluation[field]} must be at least 1")
    require(
        evaluation.num_images >= max(4, 2 * evaluation.splits),
        f"config.eval.num_images={evaluation.num_images} is too few for {evaluation.splits} config.eval.splits",
    )
    for w in evaluation.w:
        check_finite(w, "config.eval.w")


def check_seed(seed, name):
    require(0 <= seed < 2**31, f"{name}={seed} must lie in [0, 2^31)")


def check_neighbours(count, name):
    require(count == 0 or count > 3, f"{name}={count} has no third neighbour: set 0 for none, or more")


def check_network(model, image_size):
    for field in ("channels", "num_blocks", "head_width", "num_heads"):
        require(model[field] is None or model[field] >= 1, f"config.model.{field}={model[field]} must be at least 1")
    require(
        model.multipliers and all(m >= 1 for m in model.multipliers),
        f"config.model.multipliers={model.multipliers} must name at least one level, each 1 or more",
    )
    require(model.channels <= 2**14, f"config.model.channels={model.channels} are more than 16,384: choose fewer")
    require(0 <= model.dropout < 1, f"config.model.dropout={model.dropout} must lie in [0, 1)")
    require(model.dtype in DTYPES, f"config.model.dtype={model.dtype!r} is unknown: choose {' or '.join(DTYPES)}")
    factor = 2 ** (len(model.multipliers) - 1)
    require(
        image_size % factor == 0,
        f"config.data.image_size={image_size} is not divisible by {factor}, the down-sampling of "
        f"{len(model.multipliers)} config.model.multipliers: drop a multiplier or change the size",
    )
    sides = [image_size >> level for level in range(len(model.multipliers))]
    unused = sorted(set(model.attention_resolutions) - set(sides))
    require(
        not unused,
        f"config.model.attention_resolutions has {unused}, the levels' sides are {sides}: drop what is not one",
    )
    require(
        (model.head_width is None) != (model.num_heads is None),
        "one of config.model.head_width and config.model.num_heads must be None: set that in the config file",
    )
    for multiplier, side in zip(model.multipliers, sides, strict=True):
        width = multiplier * model.channels
        require(
            width % 32 == 0,
            f"config.model.channels={model.channels} times multiplier {multiplier} is {width}: "
            "it must be a multiple of the 32 groups of GroupNorm",
        )
        field = "head_width" if model.num_heads is None else "num_heads"
        if side in model.attention_resolutions or side == sides[-1]:
            require(
                width % model[field] == 0,
                f"config.model.{field}={model[field]} does not divide the {width} channels at {side}x{side}",
            )


def check_objective(objective):
    for field, choices in (("predicts", loss.PREDICTIONS), ("error", loss.PREDICTIONS), ("density", loss.DENSITIES)):
        check_choice(objective[field], choices, f"config.objective.{field}")


def check_sampler(sampler):
    steps = sampler.num_steps
    require(1 <= steps <= MAX_T, f"config.sampler.num_steps={steps} (T) must be at least 1, at most {MAX_T:,}")
    for field, choices in (("threshold", samplers.THRESHOLDS), ("grid", GRIDS)):
        check_choice(sampler[field], choices, f"config.sampler.{field}")
    check_value(sampler, samplers.SAMPLERS, "config.sampler")


def check_guidance(section):
    check_value(section, guidance.RULES, "config.guidance")
    low, high = section.logsnr_low, section.logsnr_high
    require(
        low is None or high is None or low < high,
        f"config.guidance.logsnr_low={low} must be below config.guidance.logsnr_high={high}",
    )
    for bound in (low, high):
        require(bound is None or not math.isnan(bound), f"config.guidance.logsnr_low or logsnr_high is {bound}")


def check_value(section, family, path):
    """The name is one of the family's, and its fields lie within that one's limits."""
    check_choice(section.name, family, f"{path}.name")
    for field, (low, high) in getattr(family[section.name], "limits", {}).items():
        value = section[field]
        require(low <= value <= high, f"{path}.{field}={value} must lie in [{low:g}, {high:g}]")


def check_choice(value, choices, field):
    if value not in choices:
        near = difflib.get_close_matches(str(value), map(str, choices), 1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"{field}={value!r} is unknown: {meant}choose {', '.join(choices)}")


def check_finite(w, field):
    finite = isinstance(w, int | float) and math.isfinite(w) and abs(w) < 1e6
    require(finite, f"{field}={w} is no finite number below a million: w = 0 is no guidance, the paper goes to 4")


def check_w(w, p_uncond, field="w", second_model=False):
    """w is finite, and no guidance is asked of a model that never saw the null label, or only it.

    second_model: the unconditional eps is another's.
    """
    check_finite(w, field)
    require(
        w == 0 or p_uncond > 0 or second_model,
        f"{field}={w:g} asks for guidance, but the model was trained with p_uncond=0 and has no unconditional half: "
        "use w=0 or train with config.p_uncond > 0",
    )
    labelled = p_uncond < 1 or second_model
    require(w == -1 or labelled, f"{field}={w:g} needs labels, but p_uncond=1 trained none: use w=-1")


def require(condition, message):
    if not condition:
        raise InputError(message)


def save(path, config):
    write_json(path, to_json(config))


def to_json(config):
    """What from_json reads, of this version or a later one."""
    return {"version": VERSION, **config.to_dict()}


def load(path):
    """config.json -> ConfigDict."""
    try:
        return from_json(read_json(path))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no config ({error}): put back the one that was saved there") from error


def from_json(tree):
    """A config's dictionary as JSON gives it back -> ConfigDict with all fields of this version."""
    version = tree.get("version", 1) if isinstance(tree, dict) else 0
    if version not in range(1, VERSION + 1):
        raise ValueError(f"it is of version {version}, this code knows 1 to {VERSION}")
    fields: dict = {k: tuples(v) for k, v in tree.items() if k != "version"}
    for later in range(version + 1, VERSION + 1):
        for field, value in ADDED[later].items():
            group, _, name = field.rpartition(".")
            (fields[group] if group else fields)[name] = value
    if fields["model"].pop("pool", None):  # of a classifier before version 3
        fields["model"]["name"] = "noisy_classifier"
    return ml_collections.ConfigDict(fields)


def digest(config):
    """Twelve hex digits that name what decides a run's parameters: the fields it may not be continued across.

    A field that a later version brought counts where it differs from what there was before: old rows stay valid.
    """
    implied = {field: value for added in ADDED.values() for field, value in _flat(added).items()}
    fields = flat(config)
    return digest_json({f: v for f, v in fields.items() if not f.startswith(FREE) and (f, v) not in implied.items()})


def differences(old, new):
    """["train.batch_size: 128 -> 64", ...] for every field that a run may not be continued across."""
    old, new = flat(old), flat(new)
    fields = [f for f in sorted(old.keys() | new.keys()) if not f.startswith(FREE)]
    return [f"{f}: {old.get(f, 'absent')} -> {new.get(f, 'absent')}" for f in fields if old.get(f) != new.get(f)]


def flat(config):
    """{"train.batch_size": 128, ...}."""
    return _flat(tuples(config.to_dict()))


def _flat(tree, prefix=""):
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {k: v for name, value in tree.items() for k, v in _flat(value, f"{prefix}{name}.").items()}


def tuples(value):
    """JSON's lists as the tuples they were."""
    if isinstance(value, dict):
        return {k: tuples(v) for k, v in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value
