"""Whatever a stranger types: one line that names the flag and the remedy, before any work."""

import itertools
import re

import numpy as np
import pytest

import cfg_jax
from cfg_jax.errors import InputError
from tests.running import ROOT

DIGITS = "--config=configs/digits.py"
TRAIN = f"train {DIGITS} --workdir={{t}}/new"
SAMPLE = "sample --run=digits --labels=1 --num_steps=2 --out={t}/g.png"
SWEEP = f"sweep {DIGITS} --runs=digits --workdir={{t}}/sweep"
LONG = "a" * 300

# every command with a flag that it writes to, and what else it must be given
WRITES = [
    (f"train {DIGITS}", "workdir", ""), (f"train_classifier {DIGITS}", "workdir", ""),
    ("distill --run=digits", "workdir", ""), ("reflow --run=digits", "workdir", ""),
    (f"sweep {DIGITS} --runs=digits", "workdir", ""), (f"frontier {DIGITS} --runs=digits", "out", ""),
    ("sample --run=digits", "out", ".png"), ("sample --run=digits --out={t}/g.png", "npz", ".npz"),
    ("score --samples={t}/s.npz --reference={t}/s.npz", "out", ".json"), ("export --run=digits", "out", ".safetensors"),
    (f"results {DIGITS} --sweep={{t}}", "out", ""), ("fetch_inception --from_file={t}/s.npz", "out", ".npz"),
    ("reference_stats --dataset=digits", "out", ".npz"), ("import_adm --checkpoint={t}/s.npz", "out", ""),
    ("prepare_data --dataset=folder --size=8 --source={t}", "out", ""), ("paper --figure=6 --scale=digits", "runs", ""),
    ("paper --table=1 --scale=digits", "sweep", ""), (f"bench.speed {DIGITS}", "out", ".json"),
    (f"bench.compile {DIGITS} --target=v5e:2x2", "out", ".md"), (f"bench.exact {DIGITS}", "out", ".md"),
    (f"bench.compile {DIGITS} --target=v5e:2x2", "text", ""), ("bench.parity", "out", ".md"),
    (f"bench.peers {DIGITS}", "out", ".json"), (f"studies.bias {DIGITS}", "out", ".png"),
    (f"studies.bias {DIGITS}", "workdir", ""), (f"studies.capacity {DIGITS}", "out", ""),
    ("studies.curl --run=digits", "out", ""), ("studies.dimension", "out", ""), ("studies.edge", "out", ""),
    ("studies.ema --runs=digits", "out", ""), ("studies.flow2d", "out", ""), ("studies.gaussians", "out", ""),
    ("studies.laws", "out", ""), ("studies.likelihood --run=digits", "out", ""),
    (f"studies.objectives {DIGITS}", "out", ""), ("studies.onepass --runs=digits", "out", ""),
    ("studies.passes", "out", ".md"), ("studies.precision --run=digits", "out", ".md"),
    ("studies.rectified --runs=digits", "out", ""), ("studies.rectified2d", "out", ""),
    ("studies.density", "out", ""), (f"studies.losses {DIGITS}", "out", ""),
    ("import_jit --checkpoint={t}/s.npz", "out", ""),
    ("studies.sequences", "out", ""), ("studies.temperature", "out", ""), ("studies.truncation", "out", ""),
]  # fmt: skip
# every command with a flag that it reads from
READS = [
    ("sample --out={t}/g.png", "run"), ("sample --run=digits --out={t}/g.png", "guide"),
    ("sample --run=digits --out={t}/g.png", "classifier_run"), ("score --reference={t}/s.npz", "samples"),
    ("score --samples={t}/s.npz", "reference"), ("score --samples={t}/s.npz --reference={t}/s.npz", "inception"),
    (f"sweep {DIGITS} --workdir={{t}}/sweep", "runs"), ("report", "sweep"),
    ("export --run=digits --out={t}/m.safetensors", "scores"), ("fetch_inception --out={t}/i.npz", "from_file"),
    ("import_adm --out={t}/o", "checkpoint"), ("import_jit --out={t}/o", "checkpoint"),
    ("studies.density --out={t}", "run"), ("prepare_data --dataset=folder --size=8 --out={t}/o", "source"),
    ("reference_stats --dataset=digits --out={t}/r.npz", "inception"),
    ("reference_stats --dataset=digits --out={t}/r.npz", "root"), ("distill --workdir={t}/o", "run"),
    ("reflow --workdir={t}/o", "run"), (f"frontier {DIGITS} --out={{t}}/f", "runs"),
    (f"frontier {DIGITS} --runs=digits --out={{t}}/f", "guides"),
    (f"frontier {DIGITS} --runs=digits --out={{t}}/f", "classifiers"),
    (f"results {DIGITS} --sweep={{t}} --out={{t}}/o", "runs"), (f"bench.cost {DIGITS}", "compiled"),
    ("bench.peers --out={t}/p.json", "ours"), (f"bench.peers {DIGITS} --out={{t}}/p.json", "edm"),
    ("bench.parity --out={t}/p.md", "weights"), ("studies.curl --out={t}", "run"), ("studies.ema --out={t}", "runs"),
    ("train --workdir={t}/new", "config"),
]  # fmt: skip
UNWRITABLE = "/proc/nowhere"

PATHS = [
    *((f"{line} --{flag}={scheme}://bucket/x{suffix}", f"--{flag}={scheme}://bucket/x{suffix}: ")
      for (line, flag, suffix), scheme in zip(WRITES, itertools.cycle(("gs", "s3", "hf", "https")), strict=False)),
    *((f"{line} --{flag}={scheme}://bucket/x", f"--{flag}={scheme}://bucket/x: ")
      for (line, flag), scheme in zip(READS, itertools.cycle(("gs", "s3", "https", "file")), strict=False)),
    *((f"{line} --{flag}={UNWRITABLE}{suffix}", f"--{flag}={UNWRITABLE}") for line, flag, suffix in WRITES),
    *((f"{line} --{flag}={{t}}/s.npz/x{suffix}", f"--{flag}={{t}}/s.npz/x") for line, flag, suffix in WRITES),
    *((f"{line} --{flag}=~nobody-of-this-name/x{suffix}", f"--{flag}=~nobody-of-this-name")
      for line, flag, suffix in WRITES),
    *((f"{line} --{flag}={{t}}/x.jpg", "must end in") for line, flag, suffix in WRITES if suffix),
    *((f"{line} --{flag}={{t}}/{LONG}{suffix}", f"--{flag}={{t}}/{LONG}") for line, flag, suffix in WRITES),
    *((f"{line} --{flag}={{t}}/a\033[2Jb{suffix}", "control character") for line, flag, suffix in WRITES[::4]),
    *((f"{line} --{flag}={{t}}/a\nb{suffix}", "control character") for line, flag, suffix in WRITES[::5]),
    *((f"{line} --{flag}={{t}}/a\udcffb{suffix}", "control character") for line, flag, suffix in WRITES[::6]),
]  # fmt: skip

NUMBERS = [
    *((f"{SAMPLE} --{flag}={value}", flag.removesuffix("s")) for flag, values in {
        "seed": ("nan", "inf", "1e3", "-1", "9" * 30, "x", "0x10"), "num_steps": ("nan", "0", "-3", "2.5", "9" * 30),
        "classifier_scale": ("nan", "inf", "-inf", "x", "1e30"), "ema": ("nan", "inf", "0", "-1", "5"),
        "w": ("nan", "inf", "1e9", "1,,2", "a", "0,nan"), "labels": ("nan", "-1", "1.5", "9" * 30, "1,,2"),
        "step": ("nan", "-1", "2.5", "9" * 30),
    }.items() for value in values),
    *((f"{line} --{flag}={value}", f"--{flag}") for line, flag in (
        ("bench.speed " + DIGITS + " --out={t}/b.json", "peak_tflops"), ("studies.edge --out={t}", "error"),
        ("studies.curl --run=digits --out={t}", "w"), ("studies.dimension --out={t}", "w"),
        ("studies.precision --run=digits", "w"), ("studies.rectified --runs=digits --out={t}", "w"),
        ("studies.onepass --runs=digits --out={t}", "omega"), ("reflow --run=digits --workdir={t}/o", "w"),
        ("reflow --run=digits --workdir={t}/o", "learning_rate"),
        ("distill --run=digits --workdir={t}/o", "learning_rate"),
    ) for value in ("nan", "inf", "-inf", "1e300", "x")),
    *((f"{line} --{flag}={value}", f"--{flag}") for line, flag in (
        ("studies.curl --run=digits --out={t}", "probes"), ("studies.likelihood --run=digits --out={t}", "probes"),
        ("studies.curl --run=digits --out={t}", "num_images"), ("studies.laws --out={t}", "particles"),
        ("studies.laws --out={t}", "num_steps"), ("studies.flow2d --out={t}", "num_samples"),
        ("studies.gaussians --out={t}/g", "num_samples"), ("studies.passes", "num_samples"),
        ("studies.density --out={t}", "num_samples"), (f"studies.losses {DIGITS} --out={{t}}", "num_steps"),
        ("studies.truncation --out={t}", "T"), ("studies.passes", "T"), ("studies.dimension --out={t}", "D"),
        ("studies.onepass --runs=digits --out={t}", "T"), ("studies.rectified --runs=digits --out={t}", "T"),
        (f"studies.bias {DIGITS} --out={{t}}/b.png", "counts"), (f"studies.bias {DIGITS} --out={{t}}/b.png", "draws"),
        (f"studies.capacity {DIGITS} --out={{t}}", "channels"), (f"studies.capacity {DIGITS} --out={{t}}", "tuned"),
        (f"studies.objectives {DIGITS} --out={{t}}", "seeds"), (f"bench.cost {DIGITS}", "models"),
        (f"bench.speed {DIGITS} --out={{t}}/b.json", "repeats"), ("bench.parity --out={t}/p.md", "num_images"),
        ("prepare_data --dataset=folder --source={t} --out={t}/o", "size"),
        ("prepare_data --dataset=folder --source={t} --size=8 --out={t}/o", "workers"),
        ("reference_stats --dataset=digits --out={t}/r.npz", "num_images"),
        ("reference_stats --dataset=digits --out={t}/r.npz", "neighbours"),
        ("score --samples={t}/s.npz --reference={t}/s.npz", "splits"),
        ("score --samples={t}/s.npz --reference={t}/s.npz", "bootstrap"),
        ("distill --run=digits --workdir={t}/o", "steps"), ("distill --run=digits --workdir={t}/o", "train_steps"),
        ("reflow --run=digits --workdir={t}/o", "pairs"), (f"{TRAIN}", "init_timeout"), (f"{TRAIN}", "num_processes"),
        ("paper --scale=digits --table=1 --plan", "seeds"), ("paper --scale=digits --figure=6 --plan", "label"),
    ) for value in ("-3", "2.5", "nan", "9" * 25)),
    ("studies.truncation --variance_interp=2 --out={t}", "--variance_interp"),
    ("studies.truncation --variance_interp=nan --out={t}", "--variance_interp"),
    ("studies.truncation --T=0 --out={t}", "--T"), ("studies.sequences --s=-1 --out={t}", "--s"),
    ("studies.laws --w=-5 --out={t}", "--w"), ("studies.gaussians --w=-5 --out={t}/g", "--w"),
    ("studies.edge --w=-5 --out={t}", "--w"), ("studies.passes --w=-5", "--w"),
    ("studies.temperature --w=-5 --out={t}", "--w"), ("studies.temperature --tau=2e9 --out={t}", "--tau"),
    ("reference_stats --dataset=digits --num_images=1 --out={t}/r.npz", "--num_images=1"),
    ("reference_stats --dataset=digits --num_images=3 --out={t}/r.npz", "--num_images=3"),
    ("paper --scale=digits --table=1 --seeds=1,,2 --plan", "--seeds"),
    *((f"studies.capacity {DIGITS} --out={{t}} --{text}", said) for text, said in (
        ("w=1", "--w=1"), ("p_uncond=2", "--p_uncond=2"), ("config.p_uncond=2", "config.p_uncond=2"),
        ("channels=32,33", "config.model.channels=33"),
    )),
    (f"train_classifier {DIGITS} --workdir={{t}}/c --config.p_uncond=2", "config.p_uncond=2"),
]  # fmt: skip

SETTINGS = [
    *((f"{SAMPLE} --set={text}", said) for text, said in (
        ("self=1", "self is no setting"), ("labels=1", "labels is no setting"), ("seed=1", "seed is no setting"),
        ("w=1", "w is no setting"), ("guides=1", "guides is no setting"), ("batch_size=1", "batch_size is no setting"),
        ("num_steps=2.5", "num_steps"), ("num_steps=x", "num_steps"), ("v=nan", "v"), ("v=inf", "v"), ("v=2", "v"),
        ("guidance=apg --set=momentum=nan", "momentum"), ("guidance=apg --set=momentum=inf", "momentum"),
        ("guidance=apg --set=radius=nan", "radius"), ("sampler=ddim --set=eta=nan", "eta"),
        ("guidance=1", "guidance"), ("sampler=1.5", "sampler"), ("sampler=1:2", "sampler"), ("v=1:2", "v"),
        ("schedule_w=x", "schedule_w"), ("schedule_w=1:x", "schedule_w"), ("schedule_w=1:nan", "schedule_w"),
        ("particles=1.5", "particles"), ("particles=x", "particles"), ("rounds=1e9", "rounds"),
        ("rounds=99999999999", "rounds"), ("guidance=two_labels --set=other_label=99999999999999999999", "other_label"),
        ("threshold=1", "threshold"), ("rescale=nan", "rescale"), ("logsnr_low=nan", "logsnr_low"),
        ("=", "FIELD=VALUE"), ("v=", "FIELD=VALUE"), ("__class__=1", "no setting"),
        ("renoise_logsnr=nan", "renoise_logsnr"), ("guidance=power_law --set=power=nan", "power"),
        ("sampler=langevin --set=size=nan", "size"),
        ("guidance=cfg_zero --set=zero_below=nan", "zero_below"),
        ("guidance=two_labels --set=other_w=nan", "other_w"), ("guidance=two_labels --set=other_w=inf", "other_w"),
    )),
    *((f"{TRAIN} --config.{text}", said) for text, said in (
        ("train.averages=None", "config.train.averages"), ("train.averages=x", "config.train.averages"),
        ("train.averages=0.1", "config.train.averages"), ("train.averages=('a','b')", "config.train.averages"),
        ("model.multipliers=None", "config.model.multipliers"), ("model.multipliers=x", "config.model.multipliers"),
        ("model.multipliers=('a',)", "config.model.multipliers"),
        ("model.multipliers=(1.5,)", "config.model.multipliers"),
        ("model.attention_resolutions=None", "config.model.attention_resolutions"),
        ("model.attention_resolutions=('a',)", "config.model.attention_resolutions"),
        ("eval.w=None", "config.eval.w"), ("eval.w=x", "config.eval.w"),
        ("guidance.schedule_w=x", "schedule_w"), ("guidance.schedule_w=1", "schedule_w"),
        ("guidance.schedule_w=('a','b')", "config.guidance.schedule_w"),
        ("guidance.schedule_logsnr=(nan,1)", "config.guidance.schedule_logsnr"),
        ("guidance.name=apg --config.guidance.momentum=nan", "config.guidance.momentum"),
        ("guidance.name=power_law --config.guidance.power=inf", "config.guidance.power"),
        ("guidance.name=apg --config.guidance.radius=inf", "config.guidance.radius"),
        ("guidance.logsnr_high=inf", "config.guidance.logsnr_high"),
        ("sampler.name=ddim --config.sampler.eta=nan", "config.sampler.eta"),
        ("sampler.particles=-1", "config.sampler.particles"),
        ("seed=None", "config.seed"), ("p_uncond=None", "config.p_uncond"), ("data.name=None", "config.data.name"),
        ("data.name=a/../../b", "config.data.name"), ("data.root=gs://x", "config.data.root"),
        ("train.num_steps=2.5", "config.train.num_steps"),
        ("model.dropout=None", "config.model.dropout"), ("model.dtype=None", "config.model.dtype"),
        ("train.learning_rate=None", "config.train.learning_rate"), ("teacher.how=x", "config.teacher.how"),
        ("eval.reference=gs://x", "config.eval.reference"), ("init_from=gs://x", "config.init_from"),
        ("train=1", "config.train"), ("model={}", "config.model"),
    )),
    (f"{SAMPLE} --set=eta=0.5", "config.sampler.eta has no effect"),
    (f"{SWEEP} --config.sampler.eta=0.5", "config.sampler.eta has no effect"),
    ("paper --scale=digits --table=1 --plan --config.sampler.eta=0.5", "config.sampler.eta has no effect"),
    (f"{SWEEP} --vary=guidance.coarse=0,1", "config.guidance.name=fdg"),
    (f"{TRAIN} --config.data.name=a\nb", "control character"), (f"{TRAIN} --config=a\nb.md", "--config=a b.md"),
    (f"{SWEEP} --vary=guidance.schedule_w=1", "schedule_w"), (f"{SWEEP} --vary=sampler.name=1", "sampler.name"),
    (f"{SWEEP} --config.guidance.name=apg --vary=guidance.momentum=nan", "guidance.momentum"),
    (f"{SWEEP} --config.sampler.name=ddim --vary=sampler.eta=1:2", "sampler.eta"),
    (f"{SWEEP} --vary=eval.seed=-1", "eval.seed"), (f"{SWEEP} --vary=sampler.num_steps=0", "sampler.num_steps"),
    (f"{SWEEP} --config.eval.w=x.jpg", "w=x.jpg"), (f"{TRAIN} --config.p_uncond=0 --config", "--config is empty"),
    (f"{SWEEP} --vary=", "--vary"), (f"{SWEEP} --vary==", "--vary"), (f"{SWEEP} --w=", "--w"),
    (f"frontier {DIGITS} --runs=digits --out={{t}}/f --curve=x:guidance.rescale=9", "config.guidance.rescale"),
    (f"frontier {DIGITS} --runs=digits --out={{t}}/f --curve=x:sampler.num_steps=0", "config.sampler.num_steps"),
    (f"frontier {DIGITS} --runs=digits --out={{t}}/f --curve=x:sampler.name=no", "config.sampler.name"),
    (f"frontier {DIGITS} --runs=digits --out={{t}}/f --seeds=-1", "--seeds"),
    (f"frontier {DIGITS} --runs=digits --out={{t}}/f --rules=no", "--rules"),
]  # fmt: skip

KINDS = {"paths": PATHS, "numbers": NUMBERS, "settings": SETTINGS}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_flag_ends_in_one_line_that_names_it(kind, tmp_path, command):
    (tmp_path / "s.npz").write_bytes(b"")
    before, outside = sorted(tmp_path.iterdir()), sorted(ROOT.iterdir())
    wrong = []
    for line, said in KINDS[kind]:
        line, said = (text.replace("{t}", str(tmp_path)) for text in (line, said))
        name, *args = line.split(" ")
        done = command(name, *args, timeout=20)
        last = done.stderr.splitlines()[-1] if done.stderr else ""
        good = done.returncode == 1 and done.stderr.count("\n") == 1 and last.startswith("error: ") and said in last
        if not good:
            wrong.append(f"{line!r} -> {done.returncode} {last[:300]!r}, not {said!r}")
    assert not wrong, f"{len(wrong)} of {len(KINDS[kind])}:\n" + "\n".join(wrong)
    assert sorted(tmp_path.iterdir()) == before and sorted(ROOT.iterdir()) == outside


def test_every_command_that_writes_is_asked():
    tested = {line.split()[0] for line, *_ in WRITES}
    for path in (ROOT / "experiments").rglob("*.py"):
        text, name = path.read_text(), ".".join(path.relative_to(ROOT / "experiments").with_suffix("").parts)
        if "cli.run(main)" in text and ("writes=" in text or "define_out" in text):
            assert name in tested, f"give {name} a line in WRITES"


def test_every_path_and_number_is_defined_in_one_place():
    for path in (ROOT / "experiments").rglob("*.py"):
        found = re.findall(r"DEFINE_(?:integer|float|multi_integer|multi_float)\b", path.read_text())
        assert not found, f"{path}: cli.define_count or cli.define_float checks what {found[0]} does not"


NAN = float("nan")
ASKED = [
    *({"seed": value} for value in (None, "a", 1.5, NAN, -1, 2**31, True, [1])),
    *({"batch_size": value} for value in (-1, 0, 1.5, "a", NAN)),
    *({"w": value} for value in ("a", NAN, "nan", [1.0, 2.0, 3.0], object(), float("inf"), 10**400)),
    *({"num_steps": value} for value in (0, -1, 2.5, "a", 10**9, NAN)),
    *({"labels": value} for value in (["a"], [1.5], [-1], [10], None, [[1]], [10**30], [], "1")),
    *({"v": value} for value in (2, NAN, "a", (1, 2), [1], object())),
    *({name: 1} for name in ("x", "name", "labels_", "__class__", "config", "batch")),
    {"particles": "a"}, {"particles": 1.5}, {"rounds": "a"}, {"schedule_w": 1}, {"schedule_w": "ab"},
    {"schedule_w": (NAN, 1.0), "schedule_logsnr": (0.0, 1.0)}, {"guidance": 1}, {"sampler": 1}, {"threshold": 1},
]  # fmt: skip


@pytest.mark.parametrize("asked", ASKED, ids=[f"{i}-{next(iter(asked))}" for i, asked in enumerate(ASKED)])
def test_a_model_is_asked_for_what_it_cannot_give(asked):
    model = cfg_jax.load("digits")
    with pytest.raises(InputError) as caught:
        model.sample(**({"labels": [1], "num_steps": 1} | asked))
    assert str(caught.value).count("\n") == 0


@pytest.mark.slow
def test_settings_may_be_numpy_s():
    model = cfg_jax.load("digits")
    numpy_s = {"v": np.float64(0.5), "num_steps": np.int64(1), "seed": np.uint8(3), "batch_size": np.int32(2)}
    plain = {"v": 0.5, "num_steps": 1, "seed": 3, "batch_size": 2}
    images = [model.sample(np.array([1, 2]), np.float32(1), **asked) for asked in (numpy_s, plain)]
    np.testing.assert_array_equal(*images)
