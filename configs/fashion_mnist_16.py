"""Fashion-MNIST at 16x16, which a CPU learns to draw: the clothes of docs/rungs.md and docs/guidance.md.

    python -m experiments.prepare_data --dataset=arrays --source=fashion_mnist.npz --size=16 --resize=area \\
        --out=data/fashion_mnist_16
    python -m experiments.paper --table=1 --scale=fashion_mnist_16

experiments/results/fashion_mnist_16 has the measured table, times and device.
"""

from configs import fashion_mnist


def get_config():
    config = fashion_mnist.get_config()
    config.data.update(name="fashion_mnist_16", image_size=16)
    model = config.model
    model.channels, model.multipliers, model.num_blocks = 32, (1, 2), 1
    model.attention_resolutions, model.head_width = (8,), 32
    model.dropout, model.dtype = 0.0, "float32"
    train = config.train
    train.num_steps, train.batch_size = 3000, 64
    train.learning_rate, train.warmup_steps, train.ema_decay = 1e-3, 100, 0.998
    train.checkpoint_every, train.sample_every = 500, 1000
    config.sampler.num_steps = 16
    evaluation = config.eval
    evaluation.num_images, evaluation.batch_size, evaluation.bootstrap = 1000, 200, 100
    evaluation.features = "classifier"
    evaluation.w = (0.0, 0.1, 0.3, 0.5, 1.0, 2.0, 4.0)
    return config
