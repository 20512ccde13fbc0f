"""Fashion-MNIST by flow matching: configs/fashion_mnist.py with the objective of configs/digits_flow.py.

python -m experiments.train --config=configs/fashion_mnist_flow.py --workdir=runs/fashion-flow
"""

from configs import fashion_mnist
from configs.digits_flow import flow


def get_config():
    return flow(fashion_mnist.get_config())
