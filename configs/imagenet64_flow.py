"""ImageNet 64x64 by flow matching: configs/imagenet64.py with the objective of configs/digits_flow.py. Not run here.

python -m experiments.train --config=configs/imagenet64_flow.py --workdir=runs/imagenet64-flow
"""

from configs import imagenet64
from configs.digits_flow import flow


def get_config():
    return flow(imagenet64.get_config())
