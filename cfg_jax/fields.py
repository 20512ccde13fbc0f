"""Every field of a config, once, with the paper's value at ImageNet 64x64. A field has the type of its value.

A file under configs/ sets other values. A value here is also what a saved config gets that is older than the field: so
it must be what was in effect before, and must stay. Of config.model only the fields of the U-Net are here; every
network lists its own, with their types.
"""

import dataclasses
from collections.abc import Collection, Iterable
from typing import Any

from ml_collections import ConfigDict, config_dict

from cfg_jax.diffusion.rules import RULES, WRAPPERS
from cfg_jax.diffusion.samplers import SAMPLERS
from cfg_jax.errors import require


def paper() -> ConfigDict:
    """Return the paper's recipe, with every field."""
    config = ConfigDict()
    config.seed = 0
    config.init_from = config_dict.placeholder(str)  # a run or an export to start from
    config.p_uncond = 0.1  # probability of training on the null label
    config.logsnr_min, config.logsnr_max = -20.0, 20.0

    config.objective = objective = ConfigDict()
    objective.predicts = "eps"  # what the network outputs: eps, x, v or velocity
    objective.error = "eps"  # of which of them the squared error is taken: a weight of the noise levels
    objective.density = "sech"  # of training's log-SNR: the paper's, or uniform_t or logit_normal of the straight path
    objective.logit_mean, objective.logit_std = 0.0, 1.0  # of logit_normal
    objective.omega = 0.0  # of model guidance: it folds w = omega / (1 - omega) into the network

    # experiments.distill and experiments.reflow fill these in; `itself` needs no run
    config.teacher = teacher = ConfigDict()
    teacher.how = config_dict.placeholder(str)  # guided, halved, itself: a network that takes w; pairs: rectified flow
    teacher.run = config_dict.placeholder(str)
    teacher.digest = config_dict.placeholder(str)  # of its parameters or pairs, filled in by what is loaded
    teacher.w_low, teacher.w_high = 0.0, 4.0  # the range of w that a student is trained for
    teacher.num_steps = config_dict.placeholder(int)  # of halved

    config.data = data = ConfigDict()
    data.name = "imagenet64-area"  # a directory of data.root by experiments.prepare_data; or digits, synthetic
    data.root = "data"
    data.card = config_dict.placeholder(str)  # the content to insist on; filled in by what is loaded
    data.image_size, data.channels, data.num_classes = 64, 3, 1000  # 0 classes: without labels
    data.flip = True  # half of the pictures, left to right

    config.model = model = ConfigDict()
    model.name = "unet"
    model.channels, model.multipliers, model.num_blocks = 192, (1, 2, 3, 4), 3  # per level
    model.attention_resolutions = (32, 16, 8)  # sides, in pixels
    model.head_width = 64  # channels per head, or
    model.num_heads = config_dict.placeholder(int)  # heads; the other is None
    model.null_label = True  # an embedding row for the null label
    model.resample_blocks = True  # up and down inside residual blocks, as ADM
    model.inner_head = False  # a second prediction from the middle, to guide by: guidance.uncond=inner_head
    model.learned_variance = False  # a second output per channel, which published ADM models have
    model.time = "logsnr"  # what the embedding sees: it, t of the straight path, or adm_cosine, adm_linear: ADM's t
    model.dropout = 0.1
    model.dtype = "bfloat16"  # of the body; parameters and averages are float32
    model.remat = False  # compute all but the convolutions again in the backward pass, to save memory

    config.train = train = ConfigDict()
    train.num_steps, train.batch_size = 400_000, 2048
    train.learning_rate, train.warmup_steps, train.grad_clip = 3e-4, 1000, 1.0
    train.beta2 = 0.999  # of Adam
    train.ema_decay = 0.9999
    train.averages = ()  # lengths of power-function EMAs that others are made of afterwards: (0.05, 0.1)
    train.log_every, train.checkpoint_every, train.sample_every = 100, 2000, 10_000
    train.keep_checkpoints, train.keep_every = 3, 50_000  # the last, and every so many steps; 0 for none
    train.inner_head_alone = False  # train the inner head, and nothing else of init_from's weights
    train.max_skipped = 10  # steps not finite since the last checkpoint; more roll back to it
    train.accumulate = 1  # parts that a batch is taken in, one after another; slow on a CPU
    train.fsdp = 1  # devices that share one copy of parameters, EMA and moments

    config.sampler = sampler = ConfigDict()
    sampler.name = "ancestral"  # Algorithm 2, or another of SAMPLERS
    sampler.num_steps = 256  # T, which the paper does not state at 64x64
    sampler.threshold = "static"  # none, static, dynamic: of x after guidance
    sampler.grid = "paper"  # paper (both ends), shifted (u = i/T), t (of a flow), logsnr (uniform in it)
    sampler.update(own_fields(SAMPLERS.values()))  # each class explains its fields: variance_interp is the paper's v

    config.guidance = guidance = ConfigDict()  # w itself is eval.w, and --w
    guidance.name = "classifier-free"  # Equation 6, or another of RULES
    guidance.uncond = "null"  # eps_u of the null label, a random other_label, the inner_head, or pag, seg, tpg
    guidance.classifier = "eps"  # where its gradient goes: eps, or the mean of Algorithm 2's step, as ADM
    guidance.update(own_fields((*RULES.values(), *WRAPPERS)))  # WRAPPERS apply to any rule where their fields are set

    config.eval = evaluation = ConfigDict()
    evaluation.seed = 0
    evaluation.num_images, evaluation.batch_size = 50_000, 512
    evaluation.labels = "random"  # uniform over the classes, or balanced: i mod num_classes
    evaluation.quantize = "round"  # to uint8: to the nearest level, or truncate, as ADM
    evaluation.splits = 10  # of IS
    evaluation.bootstrap = 0  # resamplings of the images for the spreads; 0 for none
    evaluation.features = "inception"  # FID's own network, or classifier: a small one trained on the data
    evaluation.inception = "data/inception.npz"  # its weights, by experiments.fetch_inception
    evaluation.classifier = config_dict.placeholder(str)  # an imported ADM classifier for the accuracy
    evaluation.reference = config_dict.placeholder(str)  # a file of statistics; None: of the training set
    evaluation.reference_images = 0  # of the training set; 0 for all
    evaluation.neighbours = 10_000  # of them for KID, precision, recall; 0 for none. Keeps features of all N
    evaluation.w = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 2.0, 3.0, 4.0)
    return config


def own_fields(classes: Iterable[Any]) -> dict[str, Any]:
    """Return {field: value} of samplers or rules as in a config that sets none: all their fields but w and rule."""
    fields = {field.name: field for cls in classes for field in dataclasses.fields(cls)}
    kinds = {name: field.metadata.get("optional") for name, field in fields.items() if name not in ("w", "rule")}
    return {name: config_dict.placeholder(kind) if kind else fields[name].default for name, kind in kinds.items()}


def effective(configured: Collection[ConfigDict], given: Iterable[str]) -> None:
    """Check that fields such as "guidance.momentum" are of the rule or the sampler that one of the configs names.

    Raises InputError for a field of another one, which has no effect. What is no such field is not checked.
    """
    families, everywhere = {"sampler": SAMPLERS, "guidance": RULES}, own_fields(WRAPPERS)
    for field in given:
        group, _, name = field.partition(".")
        having = {key for key, cls in families.get(group, {}).items() if name in own_fields([cls])}
        if not having or name in everywhere:
            continue
        named = {config[group].name for config in configured}
        unknown = named - families[group].keys()  # which is another error
        require(
            unknown or named & having,
            f"config.{field} has no effect on config.{group}.name={' or '.join(sorted(named))}: leave it out, or set "
            f"config.{group}.name={' or '.join(sorted(having))}",
        )


def types(section: ConfigDict) -> dict[str, Any]:
    """Return the types of a section's fields, as inputs.check takes them. A tuple is one of numbers."""
    found = {}
    for name, value in section.items():
        kind = section.get_type(name)
        if isinstance(value, ConfigDict):
            found[name] = types(value)
        elif kind is tuple:
            found[name] = [float] if value is not None else [float, None]
        else:
            found[name] = kind if value is not None else kind | None
    return found
