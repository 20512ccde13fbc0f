"""Training targets that come from a network instead of the data: guidance in one pass, and in fewer steps.

A field is a network's prediction as a function of (z [B, ...], logsnr [B], c [B]), in any of loss.PREDICTIONS: the
weights of Equation 6 sum to 1, so that guidance is the same in all of them. The target of a student that takes w is
guidance.guided of a field: Meng et al. 2023, Equation 3.
"""

from collections.abc import Callable

from jaxtyping import Array, Float, Int

from cfg_jax.diffusion import process
from cfg_jax.diffusion.guidance import both_halves
from cfg_jax.diffusion.loss import convert


def model_guided(target, field: Callable, null: int, omega, z, logsnr, c) -> Float[Array, "b ..."]:
    """target + omega (f(z, c) - f(z)) with the network's own f: model guidance. Tang et al. 2025.

    omega is a number, or one for each image [B]. Nothing is added where c is null. The caller stops the gradient of f.
    """
    cond, uncond = both_halves(field, null, z, logsnr, c)
    return target + process.per_image(omega, z) * (cond - uncond)


def omega_of(w: Float[Array, " b"]) -> Float[Array, " b"]:
    """The omega of model guidance that ends at w. A network that takes w learns all of them at once.

    Its own f(z, c, w) is also a part of its target: Geng et al. 2025 (improved MeanFlow), Lu et al. 2026 (pixel
    MeanFlow).
    """
    return w / (1 + w)


def fixed_point(omega: float) -> float:
    """The w that model guidance ends at: f = E + omega (f - f_u) is (1 + w) E - w f_u at w = omega / (1 - omega)."""
    return omega / (1 - omega)


def halved(
    field: Callable, z: Float[Array, "b ..."], logsnr, middle, after, c: Int[Array, " b"], predicts: str = "eps"
) -> Float[Array, "b ..."]:
    """x [B, ...] such that one step of DDIM from logsnr to `after` ends where the teacher's two do, by way of `middle`.

    Progressive distillation, Salimans & Ho 2022, Algorithm 2. The three log-SNR are [B]; an infinite `after` is the
    last step, whose end is x itself. predicts: what the teacher's field gives, a name of loss.PREDICTIONS.
    """

    def ddim(z, logsnr, after):
        predicted = field(z, logsnr, c)
        x, eps = (convert(predicted, z, logsnr, predicts, target) for target in ("x", "eps"))
        return process.diffuse(x, eps, after)

    end = ddim(ddim(z, logsnr, middle), middle, after)
    logsnr, after = process.per_image(logsnr, z), process.per_image(after, z)
    ratio = process.sigma(after) / process.sigma(logsnr)
    return (end - ratio * z) / (process.alpha(after) - ratio * process.alpha(logsnr))
