"""scikit-learn's 1,797 handwritten digits, 8x8: the whole paper in minutes on a laptop.

    make digits
or one model of it:
    python -m experiments.train --config=configs/digits.py --workdir=runs/digits-p0.1 --config.p_uncond=0.1

experiments/results/digits has the measured table, times and device.
"""

from ml_collections.config_dict import placeholder

from configs import base


def get_config():
    config = base.get_config()
    config.data.update(name="digits", image_size=8, channels=1, num_classes=10)
    config.data.flip = False  # a mirrored digit is no digit
    model = config.model
    model.channels, model.multipliers, model.num_blocks = 32, (1, 1), 1
    model.attention_resolutions, model.num_heads = (4,), 1
    model.head_width = placeholder(int)
    model.dropout, model.dtype = 0.0, "float32"
    train = config.train
    train.num_steps, train.batch_size = 600, 64
    train.learning_rate, train.warmup_steps, train.ema_decay = 2e-3, 50, 0.99
    train.log_every, train.checkpoint_every, train.sample_every = 50, 300, 300
    train.keep_checkpoints, train.keep_every = 2, 0
    config.sampler.num_steps = 16
    evaluation = config.eval
    evaluation.num_images, evaluation.batch_size, evaluation.bootstrap = 800, 160, 100
    evaluation.labels = "balanced"  # random classes would cap IS at this N
    evaluation.features = "classifier"
    evaluation.w = (0.0, 0.1, 0.3, 0.5, 1.0, 2.0, 4.0)
    return config
