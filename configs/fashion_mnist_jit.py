"""Fashion-MNIST by a small JiT: the transformer and objective of configs/imagenet64_jit.py, and the steps of its U-Net.

    python -m experiments.train --config=configs/fashion_mnist_jit.py --workdir=runs/fashion-jit

Its sizes are this project's; the authors' code has none so small. Not measured on an accelerator.
"""

from configs import fashion_mnist
from configs.imagenet64_jit import jit


def get_config():
    return jit(
        fashion_mnist.get_config(), patch=4, width=192, depth=8, num_heads=3, bottleneck=32, class_tokens=16,
        class_tokens_from=2,
    )  # fmt: skip
