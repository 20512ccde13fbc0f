"""The digits by a small JiT: the transformer and objective of configs/imagenet64_jit.py, and the steps of digits.

    python -m experiments.train --config=configs/digits_jit.py --workdir=runs/digits-jit

Its sizes are this project's; the authors' code has none so small.
"""

from configs import digits
from configs.imagenet64_jit import jit


def get_config():
    return jit(
        digits.get_config(), patch=2, width=96, depth=4, num_heads=3, bottleneck=16, class_tokens=4,
        class_tokens_from=1,
    )  # fmt: skip
