"""Class-conditional ImageNet 128x128, Table 2 of the paper: what differs from imagenet64.

    python -m experiments.paper --table=2            # or its model alone:
    python -m experiments.train --config=configs/imagenet128.py --workdir=runs/imagenet128-p0.1

Not run here. Expected, by the paper, at w = 0.3 and T = 256: FID 2.43, IS 158.47 on 50,000 images.
The paper does not state p_uncond at this size.
"""

from ml_collections.config_dict import placeholder

from configs import imagenet64


def get_config():
    config = imagenet64.get_config()
    config.data.name, config.data.image_size = "imagenet128-area", 128
    model = config.model
    model.channels, model.multipliers, model.num_blocks = 256, (1, 1, 2, 3, 4), 2
    model.head_width, model.num_heads = placeholder(int), 4
    model.dropout = 0.0
    train = config.train
    train.num_steps, train.batch_size, train.learning_rate = 2_700_000, 256, 1e-4
    config.sampler.variance_interp = 0.2
    return config
