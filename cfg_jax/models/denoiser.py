"""Networks with their parameters as values: pytrees whose leaves are the parameters and whose network is static.

A jitted function takes one as an argument, and a second one is a leaf of the guidance.
"""

import dataclasses
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from cfg_jax.diffusion import loss, struct
from cfg_jax.errors import choice


@struct.dataclass
class Network:
    """A network with its parameters."""

    params: Any
    net: Any = struct.static()  # a flax module, as build.NETWORKS has them

    def on(self, mesh: Mesh | None) -> Self:
        """Return the model for arrays that are split over a mesh, which an accelerator's own attention has to know."""
        return dataclasses.replace(self, net=self.net.clone(mesh=mesh)) if hasattr(self.net, "mesh") else self


@struct.dataclass
class Denoiser(Network):
    """A diffusion model. It is asked for eps, whatever its network was trained to predict."""

    predicts: str = struct.static(default="eps")  # of loss.PREDICTIONS

    @property
    def null(self) -> int:
        """The label that stands for no class."""
        return self.net.num_classes

    def perturbed(self, kind: str) -> "Denoiser":
        """Return the model with its attention made worse. kind: one of the network's `perturbations`.

        Raises InputError for another one, and for a network without any.
        """
        choice(kind, getattr(self.net, "perturbations", ()), "the perturbation")
        return dataclasses.replace(self, net=self.net.clone(perturbation=kind))

    def predict(
        self, z: Float[Array, "b h w c"], logsnr: Float[Array, " b"], c: Int[Array, " b"], w=None, **kwargs
    ) -> Float[Array, "b h w c"]:
        """What the network was trained to predict, without the channels of a learned variance.

        w [B] is of a network that takes it. kwargs go to the network's call; with both_heads it is a pair, see `heads`.
        """
        taken = () if w is None else (w,)
        out: Any = self.net.apply({"params": self.params}, z, logsnr, c, *taken, **kwargs)
        return jax.tree.map(lambda out: out[..., : z.shape[-1]], out)

    def heads(
        self, z: Float[Array, "b h w c"], logsnr: Float[Array, " b"], c: Int[Array, " b"], w=None, **kwargs
    ) -> list[Float[Array, "b h w c"]]:
        """Return what `predict` does, followed by the same of the inner head if the network has one."""
        if not getattr(self.net, "inner_head", False):
            return [self.predict(z, logsnr, c, w, **kwargs)]
        return [*self.predict(z, logsnr, c, w, both_heads=True, **kwargs)]

    def eps_fn(
        self, z: Float[Array, "b h w c"], logsnr: Float[Array, " b"], c: Int[Array, " b"], w=None
    ) -> Float[Array, "b h w c"]:
        """eps(z, lambda, c). Where c is null it is the unconditional eps. w as in predict."""
        return loss.convert(self.predict(z, logsnr, c, w), z, logsnr, self.predicts, "eps")


@struct.dataclass
class NoisyClassifier(Network):
    """A classifier of z at a log-SNR, such as ADM's."""

    def log_probs(self, z: Float[Array, "b h w c"], logsnr: Float[Array, " b"]) -> Float[Array, "b k"]:
        """log p(c | z, lambda) of every class c."""
        return nn.log_softmax(self.net.apply({"params": self.params}, z, logsnr))

    def log_prob(
        self, z: Float[Array, "b h w c"], logsnr: Float[Array, " b"], c: Int[Array, " b"]
    ) -> Float[Array, " b"]:
        """log p(c | z, lambda)."""
        return jnp.take_along_axis(self.log_probs(z, logsnr), c[:, None], axis=-1)[:, 0]
