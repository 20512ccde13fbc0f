"""Averages of the parameters by a power of the step, and one of any other length made of them afterwards.

Karras et al. 2024 (EDM2), Section 3. After step t the average weighs the parameters after step s by s^gamma. Its length
is the standard deviation of that profile as a share of t; 0.05 to 0.25 is usual. An average of another length is a sum
of kept ones, whose weights fit the sum of their profiles to its own by least squares.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.errors import InputError

WORST = 0.1  # share of a wanted profile that its fit may miss
LONGEST = 0.28  # a little below that of the mean over all steps, whose gamma is 0


def power(length: float) -> float:
    """The gamma of a length: (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) = length^2. EDM2, Equation 123."""
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def start(params, lengths: Sequence[float]) -> dict:
    """Return {length: average} at step 0."""
    return {f"{length:g}": jax.tree.map(jnp.copy, params) for length in lengths}


def update(averages: dict, params, step) -> dict:
    """beta average + (1 - beta) params with beta = (1 - 1 / t)^(gamma + 1) at t = step + 1. EDM2, Equation 127."""
    before = 1 - 1 / (step + 1)

    def of(length, average):
        beta = before ** (power(float(length)) + 1)
        return jax.tree.map(lambda a, p: beta * a + (1 - beta) * p, average, params)

    return {length: of(length, average) for length, average in averages.items()}


def weights(kept: Sequence[tuple[int, float]], step: int, length: float) -> tuple[np.ndarray, float]:
    """Return the share of each kept average (step, length) in one of `length` at `step`, and the error of the fit.

    The shares sum to 1, as those of an average do: a sum of 1.04 would scale every parameter by it. What is missed is
    the norm of the difference of the two profiles, as a share of the wanted one's.
    """
    steps, powers = np.float64([t for t, _ in kept]), np.array([power(of) for _, of in kept])
    wanted = np.float64([step]), np.array([power(length)])
    gram, onto = overlap(steps, powers, steps, powers), overlap(steps, powers, *wanted)[:, 0]
    found = np.linalg.lstsq(gram, onto, rcond=1e-12)[0]
    found = found / found.sum()
    own = overlap(*wanted, *wanted)[0, 0]
    missed = own - 2 * found @ onto + found @ gram @ found
    return found, float(np.sqrt(max(missed, 0) / own))


def overlap(a_steps, a_powers, b_steps, b_powers) -> np.ndarray:
    """The inner products of profiles (gamma + 1) s^gamma / t^(gamma + 1) on 0 < s < t, [A, B]. EDM2, Equation 152."""
    (s, a), (t, b) = ((x[:, None] for x in (a_steps, a_powers)), (x[None] for x in (b_steps, b_powers)))
    ratio = np.where(s < t, (s / t) ** b, (t / s) ** a)
    return (a + 1) * (b + 1) / (a + b + 1) * ratio / np.maximum(s, t)


def combine(kept: dict[int, dict], step: int, length: float):
    """Combine {step: {length: average}} into the average of `length` at `step`.

    Raises InputError for a length that they do not give.
    """
    inside = 0 < length < LONGEST
    names = [(t, of) for t, averages in sorted(kept.items()) for of in averages]
    shares, missed = weights([(t, float(of)) for t, of in names], step, length) if inside else ([], 1.0)
    if missed > WORST:
        tracked = ", ".join(dict.fromkeys(of for _, of in names))
        raise InputError(
            f"an EMA of length {length:g} cannot be made of those of length {tracked} at {len(kept)} steps "
            f"({missed:.0%} of it is missed): take a length between or near them, or keep more checkpoints with "
            "config.train.keep_every"
        )
    parts = [kept[t][of] for t, of in names]
    return jax.tree.map(lambda *a: sum(np.float32(share) * x for share, x in zip(shares, a, strict=True)), *parts)
