"""The studies' own laws and their commands at their smallest."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.diffusion import guidance, samplers, schedule
from cfg_jax.models.mixture import Uniforms

SMALL = {
    "laws": ["--w=0,1", "--num_steps=32", "--particles=50", "--groups=4"],
    "truncation": ["--T=4,8", "--w=0,1"],
    "density": ["--w=0,1", "--num_steps=16", "--num_samples=200"],
    "edge": ["--w=0,2", "--num_steps=16", "--num_samples=64"],
    "dimension": ["--D=1,16", "--num_steps=8", "--num_samples=32"],
    "sequences": ["--s=0,2"],
    "temperature": ["--g=1,2", "--tau=1,0.5"],
    "flow2d": ["--s=2", "--train_steps=4", "--num_samples=32", "--num_steps=4"],
    "rectified2d": ["--w=1", "--train_steps=4", "--num_pairs=32", "--num_samples=32", "--num_steps=4"],
}


@pytest.mark.slow
def test_the_uniforms_eps_is_the_posterior_mean():
    """eps = (z - alpha E[x | z]) / sigma by a sum over a fine grid of x; far out, and where the noise is all."""
    x = np.linspace(-1, 1, 400_001)
    for logsnr in (-18.0, -4.0, 0.0, 3.0, 8.0):
        alpha, sigma = (1 + np.exp(-logsnr)) ** -0.5, (1 + np.exp(logsnr)) ** -0.5
        for c, inside in enumerate((x <= 0, x >= 0, x >= -1)):
            for z in (-2.0, -0.3, 0.1, 0.9, 3.0):
                log_weight = np.where(inside, -0.5 * ((z - alpha * x) / sigma) ** 2, -np.inf)
                weight = np.exp(log_weight - log_weight.max())
                wanted = (z - alpha * (weight * x).sum() / weight.sum()) / sigma
                found = Uniforms().eps_fn(jnp.float32([[z]]), jnp.float32(logsnr), jnp.int32([c]))
                np.testing.assert_allclose(found[0, 0], wanted, rtol=2e-3, atol=1e-3)


def uniforms(sampler, w):
    """Of class 1, up to a log-SNR that float32 tells edges at."""

    @jax.jit
    def run():
        keys, z = samplers.start(0, jnp.arange(2000), (1,))
        guided = guidance.Guidance(guidance.ClassifierFree(w)).on(Uniforms())
        return samplers.Walk(sampler, schedule.grid(256, logsnr_max=12.0))(keys, guided, z, jnp.ones(2000, int))

    return np.asarray(run())


@pytest.mark.slow
def test_the_guided_ode_ends_on_the_edge_and_not_beyond():
    x = uniforms(samplers.Heun(), 10.0)
    assert (x > 0.95).mean() > 0.95 and x.max() < 1.01
    assert abs(uniforms(samplers.Heun(), 0.0).mean() - 0.5) < 0.02
    assert uniforms(samplers.Ancestral(0.3), 10.0).mean() < x.mean() - 0.1


def cells(text):
    """The rows of a study's first table, as numbers where they are."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    return [[float(c) if c.replace(".", "").replace("-", "").isdigit() else c for c in row] for row in rows]


@pytest.mark.slow
def test_distortion_vanishes_with_the_dimension_unless_classes_grow_with_it(command, tmp_path):
    done = command("studies.dimension", f"--out={tmp_path}", "--D=4,64,128", "--num_steps=64", "--num_samples=1000")
    assert done.returncode == 0, done.stderr
    _, few, many = (cells(done.stdout)[i] for i in range(3))
    assert cells(done.stdout)[0][1] > 1.15 and few[1] < 1.08 and many[1] < 1.05  # 2 classes
    assert few[7] > 1.1 and many[7] > 1.1  # 2^(D/16) classes


@pytest.mark.slow
def test_the_laws_of_temperature(command, tmp_path):
    done = command("studies.temperature", f"--out={tmp_path}", "--g=1,2", "--tau=0.5", "--num_steps=16")
    assert done.returncode == 0, done.stderr
    _, scaled, cooled = cells(done.stdout)
    assert scaled[1] == pytest.approx(1 / 3, abs=0.01) and scaled[3] < 0.01 and scaled[4] == 0.5
    assert cooled[1] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.slow
def test_a_study_writes_its_picture_and_its_table(name, command, tmp_path):
    done = command(f"studies.{name}", f"--out={tmp_path}", *SMALL[name])
    assert done.returncode == 0, done.stderr
    text = (tmp_path / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n\n    python -m experiments.studies.{name} ")
    assert "| ---" in text and "nan" not in text
    assert (tmp_path / f"{name}.png").stat().st_size > 5000
    assert "</text>" in (tmp_path / f"{name}.svg").read_text()


@pytest.mark.parametrize(
    ("name", "flag", "said"),
    [
        ("laws", "--w=nan", "nan is no finite number"),
        ("laws", "--particles=1", "particles"),
        ("temperature", "--g=0.5", "--g=0.5: 0.5 is below 0.500001"),
        ("temperature", "--tau=-1", "--tau=-1"),
        ("dimension", "--D=0", "--D=0: 0 is below 1"),
        ("sequences", "--s=-1", "--s=-1"),
        ("flow2d", "--s=-1", "--s=-1: -1 is below 0"),
        ("rectified2d", "--w=1,5", "--w=1,5: 5 is above 4"),
        ("likelihood", "--run=nowhere", "nowhere"),
    ],
)
def test_bad_input_ends_in_a_line(name, flag, said, command, tmp_path):
    done = command(f"studies.{name}", f"--out={tmp_path}", flag)
    assert done.returncode == 1 and said in done.stderr and done.stderr.strip().count("\n") == 0, done.stderr


SMALL_MODEL = ["--config.model.multipliers=(1,)", "--config.model.attention_resolutions=()"]
SHORT = ["--config.train.batch_size=8", "--config.train.num_steps=4", "--config.train.checkpoint_every=2"]


@pytest.mark.slow
def test_the_length_of_an_average_is_looked_at_for_every_w(command, tmp_path):
    run, lengths = tmp_path / "run", "--config.train.averages=(0.05, 0.1)"
    done = command("train", "--config=configs/digits.py", f"--workdir={run}", *SMALL_MODEL, *SHORT, lengths)
    assert done.returncode == 0, done.stderr
    points = "--lengths=0.05,0.07,0.1", "--w=0,1", "--num_images=40", "--num_steps=2"
    done = command("studies.ema", f"--runs={run}", f"--out={tmp_path}", *points)
    assert done.returncode == 0, done.stderr
    assert [row[0] for row in cells(done.stdout)] == [0.05, 0.07, 0.1] and done.stdout.count("**") == 4
    wrong = command("studies.ema", f"--runs={run}", f"--out={tmp_path}", "--lengths=0.4")
    assert wrong.returncode == 1 and "an EMA of length 0.4 cannot be made of those of length 0.05, 0.1" in wrong.stderr


@pytest.mark.slow
def test_label_dropout_against_width_trains_what_it_compares(command, tmp_path):
    scored = ["--config.eval.num_images=40", "--config.eval.splits=2", "--config.eval.bootstrap=4",
              "--config.eval.batch_size=40", "--config.sampler.num_steps=2", "--config.eval.neighbours=0"]  # fmt: skip
    asked = ["--config=configs/digits.py", f"--out={tmp_path}", "--channels=32", "--p_uncond=0.2", "--w=0,1",
             "--tuned=2", *SMALL_MODEL, *SHORT, *scored]  # fmt: skip
    done = command("studies.capacity", *asked)
    assert done.returncode == 0, done.stderr
    names = [row[0] for row in cells(done.stdout)]
    assert names == [
        "32 channels, p = 0", "32 channels, p = 0.2", "32 channels, p = 0, 2 steps more with p = 0.1",
        "32 channels, p = 0.1, 2 steps more",
    ]  # fmt: skip
    assert (tmp_path / "capacity_digits.png").stat().st_size > 5000
    again = command("studies.capacity", *asked)
    assert again.returncode == 0 and cells(again.stdout) == cells(done.stdout)


@pytest.mark.slow
def test_gaussians_third_row_is_the_density(command, tmp_path):
    done = command("studies.gaussians", f"--out={tmp_path}", "--w=1", "--num_samples=4000", "--num_steps=128")
    assert done.returncode == 0, done.stderr
    for row in json.loads((tmp_path / "gaussians.json").read_text())["rows"]:
        assert abs(row["particles_mean"] - row["density_mean"]) < 4 * row["particles_error"] + 0.01
        assert row["sampled_mean"] - row["density_mean"] > 0.1
