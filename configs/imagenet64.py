"""Class-conditional ImageNet 64x64, Table 1 of the paper.

    python -m experiments.prepare_data --dataset=imagenet64 --source=ILSVRC2012_FILES --resize=area
    python -m experiments.fetch_inception
    python -m experiments.paper --table=1            # or one model of it:
    python -m experiments.train --config=configs/imagenet64.py --workdir=runs/imagenet64-p0.1

Not run here. Cost by arithmetic: 0.658 TFLOP per trained image, 5.39e20 FLOP for the 400,000 steps of
2,048. Expected, by the paper, at w = 0.1 and p_uncond = 0.1: FID 1.55, IS 66.11 on 50,000 images.
Smoke run without data, on an accelerator:
    --config.data.name=synthetic --config.train.batch_size=8 --config.train.num_steps=2
"""

import ml_collections
from ml_collections import config_dict


def get_config():
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.init_from = config_dict.placeholder(str)
    config.p_uncond = 0.1
    config.logsnr_min, config.logsnr_max = -20.0, 20.0

    config.objective = objective = ml_collections.ConfigDict()
    objective.predicts = "eps"
    objective.error = "eps"
    objective.density = "sech"
    objective.omega = 0.0

    config.teacher = teacher = ml_collections.ConfigDict()
    teacher.how = config_dict.placeholder(str)
    teacher.run = config_dict.placeholder(str)
    teacher.digest = config_dict.placeholder(str)
    teacher.w_low, teacher.w_high = 0.0, 4.0
    teacher.num_steps = config_dict.placeholder(int)

    config.data = data = ml_collections.ConfigDict()
    data.name = "imagenet64-area"  # the directory of data.root that experiments.prepare_data wrote
    data.root = "data"
    data.card = config_dict.placeholder(str)
    data.image_size, data.channels, data.num_classes = 64, 3, 1000
    data.flip = True

    config.model = model = ml_collections.ConfigDict()
    model.name = "unet"
    model.channels, model.multipliers, model.num_blocks = 192, (1, 2, 3, 4), 3
    model.attention_resolutions = (32, 16, 8)
    model.head_width = 64
    model.num_heads = config_dict.placeholder(int)
    model.null_label = True
    model.resample_blocks = True
    model.learned_variance = False
    model.time = "logsnr"
    model.dropout = 0.1
    model.dtype = "bfloat16"
    model.remat = False  # True where 256 images are to fit a device of 80 GB

    config.train = train = ml_collections.ConfigDict()
    train.num_steps, train.batch_size = 400_000, 2048
    train.learning_rate, train.warmup_steps, train.grad_clip = 3e-4, 1000, 1.0
    train.ema_decay = 0.9999
    train.averages = ()
    train.log_every, train.checkpoint_every, train.sample_every = 100, 2000, 10_000
    train.keep_checkpoints, train.keep_every = 3, 50_000
    train.max_skipped = 10
    train.accumulate = 1
    train.fsdp = 1

    config.sampler = sampler = ml_collections.ConfigDict()
    sampler.name = "ancestral"
    sampler.num_steps = 256  # the paper does not state T at 64x64
    sampler.variance_interp = 0.3
    sampler.eta = 0.0
    sampler.size = 1.0
    sampler.particles = config_dict.placeholder(int)
    sampler.threshold = "static"
    sampler.grid = "paper"

    config.guidance = guidance = ml_collections.ConfigDict()
    guidance.name = "classifier-free"
    guidance.uncond = "null"
    guidance.logsnr_low = config_dict.placeholder(float)
    guidance.logsnr_high = config_dict.placeholder(float)
    guidance.power = 0.9
    guidance.momentum, guidance.radius, guidance.parallel = 0.0, 2.5, 0.0
    guidance.zero_below = config_dict.placeholder(float)
    guidance.other_label = config_dict.placeholder(int)
    guidance.other_w = 1.0
    guidance.schedule_logsnr = config_dict.placeholder(tuple)
    guidance.schedule_w = config_dict.placeholder(tuple)
    guidance.rescale = config_dict.placeholder(float)
    guidance.rounds = config_dict.placeholder(int)
    guidance.renoise_logsnr = config_dict.placeholder(float)
    guidance.classifier = "eps"

    config.eval = evaluation = ml_collections.ConfigDict()
    evaluation.seed = 0
    evaluation.num_images, evaluation.batch_size = 50_000, 512
    evaluation.labels = "random"
    evaluation.quantize = "round"
    evaluation.splits = 10
    evaluation.bootstrap = 0
    evaluation.features = "inception"
    evaluation.inception = "data/inception.npz"
    evaluation.classifier = config_dict.placeholder(str)
    evaluation.reference = config_dict.placeholder(str)
    evaluation.reference_images = 0
    evaluation.neighbours = 10_000
    evaluation.w = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 2.0, 3.0, 4.0)
    return config
