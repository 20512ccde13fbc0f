"""What a run records of its steps, what of it is said at once, and how it is read again from metrics.jsonl."""

import logging
from collections.abc import MutableSequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cfg_jax.inputs import json_of, reading
from cfg_jax.training.metrics import TrainMetrics

log = logging.getLogger(__name__)
SCHEMA = {"step": int, "loss?": float | None, "images_per_s?": float, "skipped?": int, "rollbacks?": int}
SPIKE = 2.0  # times the median of the last records is a loss worth a warning


def summarise(metrics: list[TrainMetrics]) -> dict[str, Any]:
    """Merge the metrics of one step or more into the means over the accepted steps and the number of skipped ones.

    Returns {"loss", "grad_norm", "loss_by_logsnr", "skipped"}, and "accuracy_by_logsnr" of a classifier.
    loss and grad_norm are None where all were skipped.
    """
    merged, *others = jax.device_get(metrics)
    for other in others:
        merged = merged.merge(other)
    skipped = int(merged.skipped.total)
    loss, grad_norm = (float(m.compute()) if skipped < len(metrics) else None for m in (merged.loss, merged.grad_norm))
    by_logsnr = {name: getattr(merged, name).compute() for name in merged.means() if name.endswith("_by_logsnr")}
    return {"loss": loss, "grad_norm": grad_norm, **by_logsnr, "skipped": skipped}


def rates(seconds: float, batch_size: int, flops: float, peak_flops: float | None) -> dict[str, float]:
    """Return {"images_per_s", "tflops", "mfu"} of a step that takes `seconds` for `flops` FLOP.

    tflops is TFLOP/s of all devices together; mfu is its share of peak_flops, in FLOP/s, and absent where that is None.
    """
    mfu = {"mfu": flops / seconds / peak_flops} if peak_flops else {}
    return {"images_per_s": batch_size / seconds, "tflops": flops / seconds / 1e12} | mfu


def line(step: int, num_steps: int, values: dict[str, Any], left: float) -> str:
    """Say a record in one line: "step 1,200 of 3,000  loss 0.0835  147 img/s  41.3% of peak  left 0:12:15".

    `left` is in seconds. The share of the peak is left out where that is not known, and the loss where all steps were
    skipped.
    """
    rate, minutes = values["images_per_s"], round(left) // 60
    parts = [f"step {step:{len(f'{num_steps:,}')},} of {num_steps:,}"]
    parts += [f"loss {values['loss']:.4f}"] if values["loss"] is not None else []
    parts += [f"{rate:,.0f} img/s" if rate >= 10 else f"{rate:.2g} img/s"]
    parts += [f"{values['mfu']:.1%} of peak"] if "mfu" in values else []
    return "  ".join([*parts, f"left {minutes // 60}:{minutes % 60:02}:{round(left) % 60:02}"])


def warn_of_skipped(step: int, skipped: int, taken: int) -> None:
    """Log a warning where some of the last `taken` steps were skipped."""
    if skipped:
        log.warning("%d of the %d steps up to %d skipped: loss or gradient not finite", skipped, taken, step)


def warn_of_spike(step: int, loss: float | None, recent: MutableSequence[float]) -> None:
    """Log a warning where the loss is more than SPIKE times the median of the recent records', then append it to them.

    The median is taken of three records or more. A loss of None, where all steps were skipped, is left out.
    """
    if loss is None:
        return
    if len(recent) >= 3 and loss > SPIKE * np.median(recent):
        log.warning(
            "loss spike: %.4f at step %d, the median of the last records is %.4f", loss, step, np.median(recent)
        )
    recent.append(loss)


def troubles(run_dir: str | Path, step: int) -> dict[str, int | None]:
    """Return {"skipped_steps", "rollbacks"} of a run up to a step; None for both of an export or imported weights."""
    path = Path(run_dir) / "metrics.jsonl"
    if not path.exists():
        return {"skipped_steps": None, "rollbacks": None}
    rows = [row for _, row in read(path) if row["step"] <= step]
    skipped, rollbacks = (sum(row.get(name, 0) for row in rows) for name in ("skipped", "rollbacks"))
    return {"skipped_steps": skipped, "rollbacks": int(rollbacks > 0)}


def read(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return [(line, row), ...] of a metrics.jsonl, [] where there is none.

    A kill may have cut the last line short, which is left out. Raises InputError for any other line that is damaged.
    """
    found = []
    if not path.exists():
        return found
    with reading(path, "is damaged", "move it away"), open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                with reading(path, f"is damaged in line {number}", "remove that line, or move the file away"):
                    found.append((line.decode(), json_of(line, SCHEMA)))
    return found
