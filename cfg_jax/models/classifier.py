"""A small convolutional classifier whose penultimate layer is the feature space for digits."""

import flax.linen as nn
import jax
import numpy as np
import optax

from cfg_jax.images import to_float


class Classifier(nn.Module):
    num_classes: int
    num_features: int = 64

    @nn.compact
    def __call__(self, x):
        """x [B, H, W, C] in [-1, 1] -> features [B, num_features], logits [B, num_classes]."""
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        x = nn.relu(nn.Conv(64, (3, 3), strides=2)(x))
        x = nn.relu(nn.Conv(64, (3, 3))(x))
        features = nn.Dense(self.num_features)(x.reshape(len(x), -1))
        return features, nn.Dense(self.num_classes)(nn.relu(features))


def train(images, labels, index, num_classes, *, seed, num_steps, batch_size=128, learning_rate=2e-3):
    """Adam with cosine decay on the uint8 images [N, H, W, C] of `index` -> params."""
    net = Classifier(num_classes)
    tx = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

    def loss(params, x, c):
        _, logits = net.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, c).mean()

    @jax.jit
    def step(carry, x, c):
        params, opt = carry
        updates, opt = tx.update(jax.grad(loss)(params, x, c), opt, params)
        return optax.apply_updates(params, updates), opt

    params = jax.jit(net.init)(jax.random.key(seed), to_float(images[:1]))
    carry = params, tx.init(params)
    rng = np.random.default_rng(seed)
    for _ in range(num_steps):
        batch = index[rng.integers(len(index), size=batch_size)]
        carry = step(carry, to_float(images[batch]), labels[batch])
    return carry[0]
