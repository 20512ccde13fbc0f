"""A small convolutional classifier of a data set, whose penultimate layer is a feature space."""

import flax.linen as nn
import jax
import numpy as np
import optax
from jaxtyping import Array, Float

from cfg_jax import pinned
from cfg_jax.images import to_float
from cfg_jax.models.precision import highest
from cfg_jax.progress import progress


class Classifier(nn.Module):
    num_classes: int
    num_features: int = 64

    @nn.compact
    @highest
    def __call__(self, x: Float[Array, "b h w c"]) -> tuple[Float[Array, "b f"], Float[Array, "b k"]]:
        """x [B, H, W, C] in [-1, 1] -> features [B, num_features], logits [B, num_classes]."""
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        while x.shape[1] > 8:
            width = min(2 * x.shape[-1], 64) if x.shape[1] <= 32 else 32
            x = nn.relu(nn.GroupNorm(8)(nn.Conv(width, (3, 3), strides=2)(x)))
        x = nn.relu(nn.Conv(64, (3, 3), strides=2)(x))
        x = nn.relu(nn.Conv(64, (3, 3))(x))
        features = nn.Dense(self.num_features)(x.reshape(len(x), -1))
        return features, nn.Dense(self.num_classes)(nn.relu(features))


def train(images: np.ndarray, labels: np.ndarray, index: np.ndarray, net: Classifier, num_steps: int, batch_size: int):
    """Train net with Adam and cosine decay on the images and labels that `index` selects -> its variables.

    images uint8 [N, H, W, C], labels int [N], index int [M].
    """
    tx = optax.adam(optax.cosine_decay_schedule(2e-3, num_steps))

    def loss(params, x, c):
        _, logits = net.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, c).mean()

    @jax.jit
    def step(carry, x, c):
        params, opt = carry
        updates, opt = tx.update(jax.grad(loss)(params, x, c), opt, params)
        return optax.apply_updates(params, updates), opt

    params = jax.jit(net.init)(pinned.key(0), to_float(images[:1]))
    carry = params, tx.init(params)
    rng = np.random.default_rng(0)
    for _ in progress(range(num_steps), desc="feature classifier", unit="step"):
        batch = index[rng.integers(len(index), size=batch_size)]
        carry = step(carry, to_float(images[batch]), labels[batch])
    return carry[0]
