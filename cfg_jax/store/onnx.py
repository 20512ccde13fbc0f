"""Weights as an ONNX graph eps(z, logsnr, c), for programs without jax."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cfg_jax import config as configs
from cfg_jax.errors import InputError, first_line, installed, require
from cfg_jax.files import MARK, write_atomic
from cfg_jax.models import build, network
from cfg_jax.store import weights

TOLERANCE = 1e-4  # between the graph and the network, both in float32
CHECKED = 5  # images


def export(path: str | Path, config: ConfigDict, step: int, params: Any) -> float:
    """Write a diffusion model as one .onnx file and return its largest `difference` from the network at random inputs.

    The inputs are z float32 [B, H, W, C], logsnr float32 [B], c int32 [B], where num_classes is the null label, and of
    a student w float32 [B]. The output is eps float32 [B, H, W, C]. B is free. The file's metadata are the header of
    weights.export. Raises InputError, and writes nothing, where the extra onnx is not installed, where the converter
    cannot take the network, and where the difference exceeds TOLERANCE.
    """
    to_onnx, runtime = installed("jax2onnx", "onnx").to_onnx, installed("onnxruntime", "onnx")
    denoiser = build.denoiser(config, params, "float32")
    inputs = random_inputs(config)
    free = [jax.ShapeDtypeStruct(("B", *array.shape[1:]), array.dtype) for array in inputs.values()]
    wanted = jax.jit(denoiser.eps_fn)(*inputs.values())
    remedy = "export it with --format=safetensors"
    try:
        with quiet():
            graph = to_onnx(denoiser.eps_fn, free, input_names=[*inputs], output_names=["eps"], model_name="eps")
        graph.doc_string = MARK
        for key, value in weights.header(config, step).items():
            graph.metadata_props.add(key=key, value=value)
        written = graph.SerializeToString()
        session = runtime.InferenceSession(written, providers=["CPUExecutionProvider"])
        [found] = session.run(None, inputs)
    except Exception as error:  # the converter and the runtime have many ways to refuse a network
        raise InputError(
            f"this network cannot be converted ({type(error).__name__}: {first_line(error)}): {remedy}"
        ) from error
    apart = difference(found, np.asarray(wanted))
    require(apart <= TOLERANCE, f"the ONNX graph differs from the network by {apart:.1e}, nothing is written: {remedy}")
    write_atomic(path, written)
    return apart


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what the converter prints about each layer, and its warnings of shapes that it leaves out."""
    for name in ("jax2onnx", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with redirect_stdout(StringIO()), warnings.catch_warnings(action="ignore"):
        yield


def random_inputs(config: ConfigDict) -> dict[str, np.ndarray]:
    """Return inputs of CHECKED images: Gaussian z, log-SNRs of the config's range, and all kinds of labels."""
    rng, data = np.random.default_rng(0), config.data
    labels = data.num_classes + (config.p_uncond > 0)
    inputs = {
        "z": rng.standard_normal((CHECKED, *configs.image_shape(data)), np.float32),
        "logsnr": rng.uniform(config.logsnr_min, config.logsnr_max, CHECKED).astype(np.float32),
        "c": np.append(rng.integers(max(labels, 1), size=CHECKED - 1), max(labels - 1, 0)).astype(np.int32),
    }
    if network.takes_w(config):
        inputs["w"] = rng.uniform(config.teacher.w_low, config.teacher.w_high, CHECKED).astype(np.float32)
    return inputs


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference, as a share of the image's largest |eps| where that is above 1.

    eps of a network that predicts x is as large as alpha / sigma at the clean end. Not a number counts as infinite.
    """
    axes = tuple(range(1, wanted.ndim))
    apart = np.abs(found - wanted).max(axes) / np.maximum(np.abs(wanted).max(axes), 1)
    return float(np.nan_to_num(apart, nan=np.inf).max())
