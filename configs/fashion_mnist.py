"""Fashion-MNIST, 28x28 grey pictures padded to 32x32, ten classes: the first rung above digits.

    python -m experiments.prepare_data --dataset=fashion_mnist
    python -m experiments.paper --table=1 --scale=fashion_mnist

1.9e17 FLOP for Table 1, by its --plan. Not measured on an accelerator.
"""

from configs import imagenet64


def get_config():
    config = imagenet64.get_config()
    config.data.update(name="fashion_mnist", image_size=32, channels=1, num_classes=10)
    model = config.model
    model.channels, model.multipliers, model.num_blocks = 64, (1, 2, 2), 2
    model.attention_resolutions = (16, 8)
    train = config.train
    train.num_steps, train.batch_size = 10_000, 256
    train.learning_rate, train.warmup_steps, train.ema_decay = 4e-4, 500, 0.999
    train.log_every, train.checkpoint_every, train.sample_every = 100, 1000, 2000
    config.sampler.num_steps = 64
    evaluation = config.eval
    evaluation.num_images, evaluation.batch_size, evaluation.labels = 10_000, 500, "balanced"
    evaluation.w = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0)
    return config
