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

from configs import base


def get_config():
    return base.get_config()
