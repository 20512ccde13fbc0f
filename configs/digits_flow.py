"""The digits by flow matching: the same network, steps and seeds, trained on the velocity of the straight path.

    python -m experiments.train --config=configs/digits_flow.py --workdir=runs/digits-flow

It is drawn by Euler's steps in flow matching's own time, T passes; sampler.name="flow_heun" is of second order with two
passes a step. Any other sampler, grid and rule of guidance takes it as well.
"""

from configs import digits


def get_config():
    return flow(digits.get_config())


def flow(config):
    """Three fields make any config one of flow matching, and two draw it by its own time."""
    config.objective.update(predicts="velocity", error="velocity", density="uniform_t")
    config.sampler.update(name="ddim", grid="t")
    return config
