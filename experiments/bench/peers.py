"""Time PyTorch's ADM networks and Inception at what experiments.bench.speed times of ours, and write a table of both.

git clone https://github.com/openai/guided-diffusion
git clone https://github.com/NVlabs/edm
python -m pip install torch torchvision torch-fidelity
python -m experiments.bench.peers --config=configs/imagenet64.py --guided_diffusion=guided-diffusion --edm=edm

Ours is timed first, by experiments.bench.speed in a separate process; --ours=FILE takes what it wrote earlier. The code
in those folders is executed. Each network has the width, blocks, attention, dropout and batch of our config. A step of
training is the squared error, clipping of the gradient, Adam and the EMA. bfloat16 is torch.autocast's for
guided-diffusion, which computes its attention again in the backward pass, and edm's cast for edm. As in XLA, cuDNN may
search its algorithms and float32 products may be TF32. --tuned turns on channels last and torch.compile, which those
repositories do not.
"""

# pyright: reportMissingImports=false
import importlib
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from cfg_jax import config as configs
from cfg_jax.errors import InputError, require
from cfg_jax.files import MARKED, check_output, write_atomic, write_json
from cfg_jax.inputs import read_json, reading
from cfg_jax.models.unet import check_name
from cfg_jax.perf import timing
from cfg_jax.text import markdown
from experiments.helpers import cli

CONFIG = cli.define_config()
OURS = cli.define_path("ours", None, "in place of --config: what experiments.bench.speed wrote of one")
OUT = cli.define_path(
    "out", "runs/benchmark-peers.json", "JSON to write; the table is the same name's .md", writes=".json"
)
GUIDED_DIFFUSION = cli.define_path("guided_diffusion", None, "a clone of openai/guided-diffusion")
EDM = cli.define_path("edm", None, "a clone of NVlabs/edm")
TUNED = flags.DEFINE_bool("tuned", False, "channels last and torch.compile")
REPEATS = cli.define_count("repeats", 5, "timed calls after the first")
FEATURES_BATCH = cli.define_count("features_batch", 64, "images in a call of Inception")
NO_TIMES = "is no JSON of experiments.bench.speed", "run that again"
TIMED = {"batch_size": int, "images_per_s": float, "seconds": {"repeats": int}, "estimated_images_per_s?": float}
SCHEMA = {  # what `table` reads of ours
    "device": str, "jax": str, "config": {"model": {"dtype": str}}, "parameters": int, "training": TIMED,
    "sampling": TIMED | {"T": int}, "features": TIMED,
}  # fmt: skip


def main() -> None:
    out = Path(OUT.value)
    for path in (out, out.with_suffix(".md"), *([] if OURS.value else [out.with_suffix(".ours.json")])):
        check_output(path, ".md" if path.suffix == ".md" else ".json", reads=[OURS.value])
    if importlib.util.find_spec("torch") is None:
        raise InputError("torch is not installed: python -m pip install torch torchvision torch-fidelity")
    import torch

    path, config = OURS.value, CONFIG.value
    require((path is None) != (config is None), "give either --config, or --ours, which experiments.bench.speed wrote")
    if path:
        with reading(path, *NO_TIMES):
            config = configs.from_json(read_json(path, {"config": {}}, *NO_TIMES)["config"])
    check(config)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    folders = {"guided-diffusion": (GUIDED_DIFFUSION, guided_diffusion), "edm": (EDM, edm)}
    nets = {}  # all are built before the first is timed
    for name, (flag, build) in folders.items():
        if flag.value:
            sys.path.insert(0, flag.value)
            try:
                nets[name] = build(config)
            except ImportError as error:
                raise InputError(f"--{flag.name}={flag.value}: {error}: name a clone of {name}") from error
    path = path or time_ours()
    ours, cuda = read_json(path, SCHEMA, *NO_TIMES), torch.cuda.is_available()
    single = not cuda or ours["device"].startswith("1 x")
    require(single, f"{path} is of {ours['device']}: the peers run on one, time ours on one")
    device = torch.device("cuda" if cuda else "cpu")
    result = {
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "tuned": TUNED.value,
        "config": configs.to_json(config),
    }
    for name in [*nets]:
        result[name] = time_network(nets.pop(name).to(device), config)
        write_json(out, MARKED | result)
    if importlib.util.find_spec("torch_fidelity"):
        result["torch-fidelity"] = {"features": time_features(config, ours["features"]["batch_size"], device)}
        write_json(out, MARKED | result)
    text = table(ours, result)
    write_atomic(out.with_suffix(".md"), f"    {cli.command_line('bench.peers')}\n\n{text}")
    print(text)


def time_ours() -> Path:
    """Time ours in a separate process, which gives an accelerator's memory back, and return the file."""
    file = Path(OUT.value).with_suffix(".ours.json")
    config = [f"--config={cli.given('config')}", *(a for a in sys.argv if a.startswith("--config."))]
    sizes = f"--repeats={REPEATS.value}", f"--features_batch={FEATURES_BATCH.value}", f"--out={file}"
    ended = subprocess.run([sys.executable, "-m", "experiments.bench.speed", *config, *sizes])
    if ended.returncode:
        sys.exit(ended.returncode)  # it has printed why
    return file


def check(config: ConfigDict) -> None:
    """Check that the config asks for no more than the peers have: ADM's network and one batch a step."""
    check_name(config)
    wanted = {
        "data.num_classes": config.data.num_classes > 0,
        "model.null_label": config.model.null_label,
        "model.learned_variance": not config.model.learned_variance,
        "model.remat": not config.model.remat,
        "train.accumulate": config.train.accumulate == 1,
    }
    for field, same in wanted.items():
        remedy = "which the peers cannot do: change it, and time ours again"
        require(same, f"config.{field}={configs.flat(config)[field]}, {remedy}")


def guided_diffusion(config: ConfigDict) -> Any:
    import torch
    from guided_diffusion import unet

    def checkpoint(run: Callable, inputs: tuple, _: Any, flag: bool) -> Any:  # theirs loses autocast going backward
        return torch.utils.checkpoint.checkpoint(run, *inputs, use_reentrant=False) if flag else run(*inputs)

    unet.checkpoint = checkpoint
    data, model = config.data, config.model
    net = unet.UNetModel(
        data.image_size, data.channels, model.channels, data.channels, model.num_blocks,
        [data.image_size // side for side in model.attention_resolutions], dropout=model.dropout,
        channel_mult=model.multipliers, num_classes=data.num_classes + 1, num_heads=model.num_heads or 1,
        num_head_channels=model.head_width or -1, use_scale_shift_norm=True, resblock_updown=model.resample_blocks,
    )  # fmt: skip
    net.autocast = model.dtype == "bfloat16"
    return net


def edm(config: ConfigDict) -> Any:
    import torch
    from training.networks import DhariwalUNet

    data, model = config.data, config.model
    require(model.head_width == 64, f"edm's heads are 64 wide, config.model.head_width={model.head_width}")

    class Network(DhariwalUNet):
        autocast = False

        def forward(self, z: Any, t: Any, c: Any) -> Any:  # its layers take the type of z, its labels are one-hot
            c = torch.nn.functional.one_hot(c, data.num_classes + 1).to(z.dtype)
            return super().forward(z.to(getattr(torch, model.dtype)), t, c)

    return Network(
        data.image_size, data.channels, data.channels, data.num_classes + 1, model_channels=model.channels,
        channel_mult=model.multipliers, num_blocks=model.num_blocks, attn_resolutions=model.attention_resolutions,
        dropout=model.dropout,
    )  # fmt: skip


def time_network(net: Any, config: ConfigDict) -> dict[str, Any]:
    """Return the rates of a step of training and of guided sampling, for the batches and T of our config."""
    import torch

    params = list(net.parameters())
    device = params[0].device
    autocast = torch.autocast(device.type, torch.bfloat16) if net.autocast else nullcontext()
    if TUNED.value:
        net = torch.compile(net.to(memory_format=torch.channels_last), dynamic=False)
    ema = [p.detach().clone() for p in params]
    adam = torch.optim.Adam(params, lr=config.train.learning_rate, fused=device.type == "cuda")

    def batch(count: int) -> tuple[Any, Any, Any]:
        data, random = config.data, torch.Generator(device).manual_seed(0)
        z = torch.randn(count, data.channels, data.image_size, data.image_size, generator=random, device=device)
        z = z.to(memory_format=torch.channels_last) if TUNED.value else z
        return z, torch.rand(count, device=device), torch.arange(count, device=device) % data.num_classes

    def step() -> None:
        z, t, c = batch(config.train.batch_size)
        with autocast:
            out = net(z, t, c)
        ((out.float() - z) ** 2).mean().backward()
        torch.nn.utils.clip_grad_norm_(params, config.train.grad_clip)
        adam.step()
        adam.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(ema, params, 1 - config.train.ema_decay)

    @torch.inference_mode()
    def sample() -> None:
        z, t, c = batch(config.eval.batch_size)
        both, w = torch.cat([c, torch.full_like(c, config.data.num_classes)]), 1.0
        for _ in range(config.sampler.num_steps):
            with autocast:
                cond, uncond = net(torch.cat([z, z]), torch.cat([t, t]), both).float().chunk(2)
            z = 0.9 * z - 0.1 * ((1 + w) * cond - w * uncond) + 0.1 * torch.randn_like(z)

    result = {"parameters": sum(p.numel() for p in params), "training": rates(step, config.train.batch_size)}
    net.train(False)
    return result | {"sampling": rates(sample, config.eval.batch_size)}


def time_features(config: ConfigDict, batch_size: int, device: Any) -> dict[str, Any]:
    """Time torch-fidelity's Inception network up to its logits on images of our size; float32, random weights."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: Any) -> None:  # the published weights are not needed
            pass

    with tempfile.NamedTemporaryFile() as file:
        torch.save({}, file.name)
        net = Untrained("timed", ["2048", "logits_unbiased"], feature_extractor_weights_path=file.name)
    net, side = net.to(device), config.data.image_size
    images = torch.randint(0, 256, (batch_size, 3, side, side), dtype=torch.uint8, device=device)
    with torch.inference_mode():
        return rates(lambda: net(images), len(images))


def rates(run: Callable, images: int) -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return timing.rates(run, REPEATS.value, images)
    torch.cuda.reset_peak_memory_stats()
    measured = timing.rates(lambda: (run(), torch.cuda.synchronize()), REPEATS.value, images)
    return measured | {"peak_bytes": torch.cuda.max_memory_allocated()}


def table(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Return images/s of each, and ours over theirs."""
    kinds = ("training", "sampling", "features")
    rows = [["", "parameters", *(f"{kind}, images/s" for kind in kinds)]]
    named = {f"cfg_jax, jax {ours['jax']}": ours}
    named |= {f"{k}, torch {theirs['torch']}": v for k, v in theirs.items() if isinstance(v, dict) and k != "config"}
    for name, result in named.items():
        cells = [f"{result['parameters']:,}" if "parameters" in result else ""]
        for kind in kinds:
            speed, remark = result.get(kind, {}).get("images_per_s"), ""
            if result is not ours and speed:
                remark = f" (ours {ours[kind]['images_per_s'] / speed:.2f} times)"
            elif estimated := result.get(kind, {}).get("estimated_images_per_s"):
                remark = f" ({estimated:.4g} estimated)"
            cells.append(f"{speed:.4g}{remark}" if speed else "")
        rows.append([name, *cells])
    training, sampling = ours["training"], ours["sampling"]
    about = (
        f"{ours['device']}; {theirs['device']} for torch{', channels last and compiled' if theirs['tuned'] else ''}. "
        f"{ours['config']['model']['dtype']}, batches of {training['batch_size']} in training and "
        f"{sampling['batch_size']} in sampling, T = {sampling['T']}, w = 1 (two passes a step); features in float32, "
        f"batches of {ours['features']['batch_size']}. Medians of {training['seconds']['repeats']} calls."
    )
    return f"{about}\n\n{markdown(rows)}\n"


if __name__ == "__main__":
    cli.run(main)
