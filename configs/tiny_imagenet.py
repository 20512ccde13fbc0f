"""Tiny ImageNet, real 64x64 colour pictures of ImageNet, 100 classes: the last rung below ImageNet.

    python -m experiments.prepare_data --dataset=tiny_imagenet --source=FOLDER
    python -m experiments.paper --table=1 --scale=tiny_imagenet

The published set has 200 classes: --config.data.num_classes=200. 1.0e18 FLOP for Table 1, by its --plan. Not
measured on an accelerator.
"""

from configs import imagenet64


def get_config():
    config = imagenet64.get_config()
    config.data.update(name="tiny_imagenet", num_classes=100)
    model = config.model
    model.channels, model.multipliers, model.num_blocks = 64, (1, 2, 3, 4), 2
    model.attention_resolutions = (16, 8)
    train = config.train
    train.num_steps, train.batch_size = 12_000, 256
    train.learning_rate, train.warmup_steps, train.ema_decay = 3e-4, 1000, 0.999
    train.log_every, train.checkpoint_every, train.sample_every = 100, 1000, 3000
    config.sampler.num_steps = 64
    evaluation = config.eval
    evaluation.num_images, evaluation.batch_size, evaluation.labels = 10_000, 500, "balanced"
    evaluation.w = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0)
    return config
