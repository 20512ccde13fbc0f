"""Guidance in one pass and in fewer steps, rectified flow: what they are held to, and the runs that come of it."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cfg_jax
from cfg_jax import checks
from cfg_jax.diffusion import distill, exact, guidance, process, samplers, schedule
from cfg_jax.errors import InputError
from cfg_jax.models import build
from cfg_jax.models.mixture import Mixture
from cfg_jax.sampling import draw, pairs
from cfg_jax.store import weights
from cfg_jax.training import students, targets, trainer
from configs import digits_flow
from tests.conftest import fill

PLANE = Mixture(jnp.float32([[-1.0, 0.3], [0.8, 0.0]]), jnp.float32([0.3, 0.5]), jnp.float32([0.4, 0.6]))


@pytest.mark.slow
def test_a_students_target_is_equation_6_of_each_images_own_w():
    z, logsnr, c = jnp.float32([[0.4, -0.2], [-1.5, 0.9]]), jnp.float32([-1.0, 2.0]), jnp.int32([0, 1])
    found = guidance.guided(PLANE.eps_fn, jnp.float32([0.0, 3.0]), PLANE.null)(z, logsnr, c)
    cond, uncond = PLANE.eps_fn(z, logsnr, c), PLANE.eps_fn(z, logsnr, jnp.full(2, PLANE.null))
    np.testing.assert_allclose(found[0], cond[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], 4 * cond[1] - 3 * uncond[1], rtol=1e-4)


def test_model_guidance_ends_at_the_w_that_is_said():
    """On p(x | c) = N(0, 1), p(x) = N(0, 2), where a field is a number a times z: train a and see where it stays.

    Least squares of the target eps + omega (a_c - a_u) z on z give E[eps z] / E[z^2] + omega (a_c - a_u).
    """
    logsnr, omega = jnp.float32(0.3), 0.6
    exact_c, exact_u = (exact.eps(jnp.ones((1, 1)), logsnr, v)[0, 0] for v in exact.VARIANCES)
    z, c = jnp.float32([[0.7], [-1.2]]), jnp.zeros(2, jnp.int32)
    a_c = exact_c
    for _ in range(60):
        field = lambda z, logsnr, c: jnp.where(c[:, None] == 1, exact_u, a_c) * z  # noqa: B023, E731
        target = distill.model_guided(exact_c * z, field, 1, omega, z, jnp.broadcast_to(logsnr, 2), c)
        a_c = (target * z).sum() / (z * z).sum()
    w = distill.fixed_point(omega)
    assert w == pytest.approx(1.5)
    assert float(a_c) == pytest.approx(float((1 + w) * exact_c - w * exact_u), rel=1e-4)
    kept = distill.model_guided(exact_u * z, field, 1, omega, z, jnp.broadcast_to(logsnr, 2), jnp.ones(2, jnp.int32))
    np.testing.assert_allclose(kept, exact_u * z)  # of the null label


def test_a_network_that_takes_w_ends_at_the_guidance_of_each_w(tiny):
    """On exact Gaussians the guided fields of all w are a fixed point: each is its own target's expectation."""
    tiny.teacher.how, tiny.objective.error = "itself", "eps"
    logsnr, w = jnp.float32([0.3, -2.0, 1.0]), jnp.float32([0.0, 1.5, 4.0])
    z = jax.random.normal(jax.random.key(0), (3, 2, 2, 1))
    cond, uncond = (exact.eps(z, logsnr, v) for v in exact.VARIANCES)  # E[eps | z]: of c, of all

    class Own:
        null, predicts = 10, "eps"

        def predict(self, z, logsnr, c, w):
            cond, uncond = (exact.eps(z, logsnr, v) for v in exact.VARIANCES)
            own = guidance.guide(cond, uncond, w)
            return jnp.where(process.per_image(c, z) == self.null, uncond, own)

    def wanted(c, mean):
        x = process.predict_x(z, mean, logsnr)  # the target of eps = E[eps | z], in the place of its mean
        of = targets.Examples(x, mean, z, logsnr, jnp.int32(c), w)
        return targets.target(tiny, Own(), None, of)

    np.testing.assert_allclose(wanted([1, 2, 3], cond), Own().predict(z, logsnr, jnp.int32([1, 2, 3]), w), atol=1e-5)
    np.testing.assert_allclose(wanted([10] * 3, uncond), uncond, atol=1e-6)


@pytest.mark.slow
def test_a_network_trained_on_its_own_guidance_takes_w_in_one_pass(tiny, tmp_path):
    """Outside an interval it is asked for w = 0, so that any interval is had without another input."""
    tiny.p_uncond = 0.5
    digits_flow.flow(tiny)
    tiny.teacher.update(how="itself", w_high=3.0)
    trainer.train(tiny, tmp_path / "run")
    model = cfg_jax.load(tmp_path / "run", params="params")
    assert np.abs(model.params["w_embed"]["kernel"]).max() > 0
    z, logsnr, c = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.zeros(2), jnp.int32([1, 2])
    strong, none = (model.eps_fn(z, logsnr, c, jnp.full(2, w)) for w in (3.0, 0.0))
    assert np.abs(strong - none).max() > 0
    np.testing.assert_array_equal(model.sample([1], w=3.0, logsnr_low=50.0), model.sample([1], w=0.0))
    walk = build.walk(model.config)
    assert draw.passes(guidance.Guidance(model.rule(model.config.guidance, np.float32(2.0))), walk) == len(walk.logsnrs)
    with pytest.raises(InputError, match="w=4 is outside of what this student was trained for: 0 to 3"):
        model.sample([1], w=4.0)
    halved = students.halved(model.config, str(tmp_path / "run"), 2)
    trainer.train(halved, tmp_path / "few")
    assert cfg_jax.load(tmp_path / "few").sample([1], w=2.0).shape == (1, 8, 8, 1)


@pytest.mark.parametrize("num_steps", [1, 4])
def test_one_step_to_the_halved_target_ends_where_two_steps_do(tiny, num_steps):
    """The teacher walks 2N steps of DDIM, an ideal student N: both draw the same images."""
    tiny.teacher.num_steps = num_steps
    begin, middle, after = targets.two_steps(tiny)
    keys, z = samplers.start(0, jnp.arange(8), (2,))
    c = jnp.zeros(8, jnp.int32)

    def student(z, logsnr, c):
        i = jnp.argmin(jnp.abs(begin - logsnr[0]))
        at = (jnp.broadcast_to(jnp.asarray(a)[i], c.shape) for a in (begin, middle, after))
        return process.predict_eps(z, distill.halved(PLANE.eps_fn, z, *at, c), logsnr)

    def walked(eps_fn, n):
        grid = schedule.grid(n, spacing="shifted")
        return samplers.Walk(samplers.DDIM(0.0), grid)(keys, samplers.plain(eps_fn), z, c)

    np.testing.assert_allclose(walked(student, num_steps), walked(PLANE.eps_fn, 2 * num_steps), atol=3e-3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A flow, a student of it, that one halved, and the flow rectified: a few steps each."""
    from configs import digits_flow

    root, config = tmp_path_factory.mktemp("runs"), digits_flow.get_config()
    config.model.multipliers, config.model.attention_resolutions = (1,), ()
    config.train.update(num_steps=4, batch_size=8, log_every=2, checkpoint_every=2, sample_every=4, warmup_steps=1)
    config.p_uncond, config.sampler.num_steps = 0.5, 3
    flow, student, few = (str(root / name) for name in ("flow", "student", "student-2"))
    trainer.train(config, flow)
    trainer.train(students.distilled(config, flow, 0, 4), student)
    trainer.train(students.halved(weights.read(student)[0], student, 2), few)
    made = pairs.make(cfg_jax.load(flow), 24, 0.0, 2)
    pairs.write(root / "pairs.npz", made)
    trainer.train(students.rectified(config, flow, str(root / "pairs.npz"), 0.0), root / "reflow")
    return root


@pytest.mark.slow
def test_a_student_starts_as_its_teachers_conditional_half_and_takes_w(runs):
    student, teacher = cfg_jax.load(runs / "student", params="params"), cfg_jax.load(runs / "flow")
    z, logsnr, c = jnp.ones((2, 8, 8, 1)), jnp.float32([0.0, 1.0]), jnp.int32([3, 4])
    at = {w: student.eps_fn(z, logsnr, c, np.full(2, w, "f4")) for w in (0.0, 4.0)}
    assert np.abs(at[0.0] - at[4.0]).max() > 1e-7
    np.testing.assert_array_equal(at[0.0], student.eps_fn(z, logsnr, c))
    zero = {"w_embed": jax.tree.map(np.zeros_like, student.params["w_embed"])}
    begun = build.denoiser(student.config, weights.fit_to(teacher.params, student.params | zero))
    for w in (0.0, 3.0):
        wanted = teacher.eps_fn(z, logsnr, c)
        np.testing.assert_allclose(begun.eps_fn(z, logsnr, c, np.full(2, w, "f4")), wanted, atol=1e-5)


@pytest.mark.slow
def test_a_student_takes_one_pass_at_any_w_and_each_image_its_own(runs):
    student = cfg_jax.load(runs / "student")
    walk = samplers.Walk(samplers.DDIM(0.0), schedule.grid(5))
    assert draw.passes(guidance.Guidance(student.rule(student.config.guidance, np.float32(2.0))), walk) == 5
    both = student.sample([3, 3], w=[0.0, 4.0], batch_size=2)
    np.testing.assert_array_equal(both[:1], student.sample([3], w=0.0))
    np.testing.assert_array_equal(both[1:], student.sample([3, 3], w=4.0)[1:])


@pytest.mark.slow
def test_what_a_student_cannot_do_is_said_in_a_line(runs):
    student, few = cfg_jax.load(runs / "student"), cfg_jax.load(runs / "student-2")
    for settings, said in (
        ({"w": 4.5}, "w=4.5 is outside of what this student was trained for: 0 to 4"),
        ({"w": -1.0}, "w=-1 is outside"),
        ({"w": 1.0, "guidance": "apg"}, "a student takes w itself"),
        ({"w": 1.0, "rescale": 0.5}, "a student takes w itself"),
        ({"w": 2.0, "guidance": guidance.ClassifierFree(2.0)}, "guidance of your own: a student takes w itself"),
        ({"w": 2.0, "schedule_logsnr": (0.0, 1.0), "schedule_w": (0.0, 3.0)}, "asks this student for w=6"),
        ({"w": 3.0, "schedule": "cosine"}, "schedule=cosine has 2, which asks this student for w=6"),
        ({"w": 1.0, "sampler": "ancestral", "particles": 2}, "weighs two halves"),
    ):
        with pytest.raises(InputError, match=said):
            student.sample([1], **settings)
    few.sample([1], w=2.0)
    with pytest.raises(InputError, match="sampler of your own"):
        few.sample([1], sampler=samplers.Heun())
    with pytest.raises(InputError, match="rounds=1 goes back where a halved student"):
        few.sample([1], rounds=1, renoise_logsnr=0.0)
    with pytest.raises(InputError, match="this model takes no w"):
        cfg_jax.load(runs / "flow").eps_fn(np.zeros((1, 8, 8, 1)), np.zeros(1), np.zeros(1, int), np.ones(1))
    with pytest.raises(InputError, match=r"halved to 2 steps: set .*num_steps=2, not ddim, 0, shifted and 4"):
        few.sample([1], num_steps=4)
    flow = weights.read(runs / "flow")[0]
    for make, said in (
        (lambda: students.halved(flow, "flow", 2), "flow does not take w: distil its guidance first"),
        (lambda: students.distilled(student.config, "student", 0, 4), "it has been distilled, go on by --steps"),
        (lambda: students.halved(few.config, "few", 3), "--steps=3 is not half of the teacher's 2"),
        (lambda: pairs.make(few, 4, 0.0, 2), "name its teacher"),
    ):
        with pytest.raises(InputError, match=said):
            make()
    flow.p_uncond = 0.0
    with pytest.raises(InputError, match="p_uncond=0 and has no two halves to distil"):
        students.distilled(flow, "flow", 0, 4)


@pytest.mark.slow
def test_a_teacher_that_has_changed_is_not_gone_on_with(runs, tmp_path):
    config = weights.read(runs / "student")[0]
    assert config.teacher.digest == weights.digest_of(weights.read(runs / "flow")[2])
    config.teacher.digest = "0" * 12
    with pytest.raises(InputError, match="has changed since this run was begun"):
        trainer.train(config, tmp_path / "other")


@pytest.mark.slow
def test_pairs_of_another_shape_and_what_holds_none_end_in_a_line(runs, tmp_path):
    config = students.rectified(weights.read(runs / "flow")[0], "flow", str(runs / "pairs.npz"), 0.0)
    config.data.update(name="synthetic", image_size=16, card=None)
    with pytest.raises(InputError, match=r"has pairs of \(8, 8, 1\), config.data says \(16, 16, 1\)"):
        trainer.train(config, tmp_path / "other")
    np.savez(tmp_path / "images.npz", arr_0=np.zeros(3))
    np.save(tmp_path / "images.npy", np.zeros(3))
    (tmp_path / "short.npz").write_bytes((runs / "pairs.npz").read_bytes()[:2000])
    for name in ("images.npz", "images.npy", "short.npz", "none.npz"):
        with pytest.raises(InputError, match="holds no pairs"):
            pairs.read(tmp_path / name)


@pytest.mark.slow
def test_a_run_that_is_taught_is_gone_on_with_where_its_teacher_has_moved(runs, tmp_path):
    """Bit for bit as one that was never stopped, in parts of a batch as well."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flow = weights.read(runs / "flow")[0]
    shutil.copytree(runs / "flow", tmp_path / "moved")
    for workdir, teacher, steps in ((whole, "flow", 4), (parts, "flow", 2), (parts, "moved", 4)):
        config = students.distilled(flow, str((tmp_path if teacher == "moved" else runs) / teacher), 0, 4)
        config.train.num_steps, config.train.accumulate = steps, 2
        trainer.train(config, workdir)
    there, here = (weights.read(run)[2] for run in (whole, parts))
    jax.tree.map(np.testing.assert_array_equal, there, here)


@pytest.mark.slow
def test_model_guidance_asks_the_network_itself(tiny):
    tiny.objective.omega = 0.5
    params = fill(jax.eval_shape(lambda: build.parameters(tiny, jax.random.key(0))))
    own, image = build.denoiser(tiny, params), np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
    of = targets.drawn(tiny, jnp.asarray(image), jnp.int32([3, 10]), jax.random.key(1))
    found = targets.target(tiny, own, None, of)
    cond, uncond = (own.predict(of.z, of.logsnr, jnp.int32(c)) for c in ([3, 10], [10, 10]))
    np.testing.assert_allclose(found, of.eps + 0.5 * (cond - uncond), atol=1e-5)
    assert np.abs(found[0] - of.eps[0]).max() > 1e-3 and np.abs(found[1] - of.eps[1]).max() < 1e-5


@pytest.mark.slow
def test_pairs_are_the_odes_and_some_of_them_have_no_label(runs):
    flow = cfg_jax.load(runs / "flow")
    made = pairs.read(runs / "pairs.npz")
    x, eps = np.split(made.images, 2, axis=-1)
    assert made.shape == (8, 8, 1) and 0 < (made.labels == 10).sum() < 24
    np.testing.assert_allclose(eps, samplers.start(0, np.arange(24), (8, 8, 1))[1])
    i = int(np.argmax(made.labels < 10))
    again = pairs.make(flow, 24, 0.0, 2, batch_size=7)
    np.testing.assert_allclose(again.images, made.images, atol=1e-4)
    assert np.abs(x[i]).max() > 0.1
    guided = pairs.make(flow, 24, 1.0, 2)
    assert (guided.labels < 10).all() and np.abs(guided.images - made.images).max() > 1e-3


@pytest.mark.slow
def test_a_rectified_run_is_a_run_with_both_halves(runs):
    model = cfg_jax.load(runs / "reflow")
    assert model.config.p_uncond == 0.5 and model.sample([1, 2], w=1.0).shape == (2, 8, 8, 1)
    bent = pairs.straightness(model, np.arange(4), 0.0, 8), pairs.straightness(model, np.arange(4), 3.0, 8)
    assert bent[0].shape == (4,) and bent[1].mean() > bent[0].mean()


def test_bad_fields_of_a_teacher_end_in_a_line(tiny):
    for fields, said in (
        ({"objective.omega": 1.0}, "omega=1.0 must lie in"),
        ({"objective.omega": 0.5, "p_uncond": 0.0}, "needs classes, both halves"),
        ({"teacher.how": "tutored"}, "config.teacher.how='tutored' is unknown"),
        ({"teacher.how": "guided"}, "needs config.teacher.run"),
        ({"teacher.how": "itself", "p_uncond": 0.0}, "how=itself needs classes and both halves"),
        ({"teacher.how": "itself", "teacher.w_low": -1.0}, r"w_low=-1 must lie in \(-1, 0\]"),
        ({"teacher.how": "itself", "objective.omega": 0.5}, "needs classes, both halves and no teacher"),
        ({"teacher.how": "guided", "teacher.run": "x"}, "a student of guidance has no null label: set 0"),
        ({"teacher.how": "guided", "teacher.run": "x", "p_uncond": 0.0, "teacher.w_low": 1.0}, "w_low=1"),
        ({"teacher.how": "halved", "teacher.run": "x", "p_uncond": 0.0, "teacher.num_steps": 2}, "x cannot be told"),
    ):
        config = tiny.copy_and_resolve_references()
        config.update_from_flattened_dict(fields)
        with pytest.raises(InputError, match=said):
            checks.everything(config)


@pytest.mark.slow
def test_the_commands(command, runs, tmp_path):
    for name, args, said in (
        ("distill", ["--w=0:2", "--train_steps=2"], "student takes w from 0 to 2, one pass a step"),
        ("reflow", ["--w=1", "--train_steps=2", "--pairs=16", "--num_steps=2"], "its w = 0 draws what w = 1 of"),
    ):
        done = command(name, f"--run={runs}/flow", f"--workdir={tmp_path}/{name}-student", *args)
        assert done.returncode == 0 and said in done.stdout, done.stderr
    done = command(
        "distill", f"--run={tmp_path}/distill-student", f"--workdir={tmp_path}/few", "--steps=4,2", "--train_steps=2"
    )
    assert done.returncode == 0 and "few-2 takes 2 steps of one pass" in done.stdout, done.stderr
    done = command("export", f"--run={tmp_path}/few-2", f"--out={tmp_path}/few.safetensors")
    assert done.returncode == 0 and "takes w itself, from 0 to 2" in (tmp_path / "few.md").read_text()
    done = command(
        "sweep", "--config=configs/digits_flow.py", f"--runs={tmp_path}/few.safetensors,{runs}/student-2", "--w=0,2",
        "--config.eval.num_images=40", "--config.eval.batch_size=40", "--config.eval.splits=2",
        "--config.eval.bootstrap=4", "--config.sampler.num_steps=2", "--config.sampler.grid=shifted",
        f"--workdir={tmp_path}/sweep",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(path.read_text()) for path in (tmp_path / "sweep" / "cells").glob("*.json")]
    assert len(rows) == 4 and {row["passes"] for row in rows} == {2} and {row["w"] for row in rows} == {0.0, 2.0}
    assert {row["guidance"] for row in rows} == {"w as an input"} and "guidance w as an input" in done.stdout
    for name, args, said in (
        ("distill", [f"--run={tmp_path}/few-2", "--steps=3"], "--steps=3 is not half of the teacher's 2"),
        ("distill", [f"--run={runs}/student", "--steps=4,3"], "each must be half of the one before"),
        ("distill", [f"--run={runs}/flow", "--w=3:1"], "config.teacher.w_low=3"),
        ("distill", [f"--run={runs}/flow", "--w=0:4,5:6"], "give the lowest and the highest w"),
        ("distill", [f"--run={runs}/flow", "--w=0:2,1"], "give the lowest and the highest w"),
        ("distill", [f"--run={runs}/student", "--w=0:2", "--steps=2"], "goes without --steps"),
        ("reflow", [f"--run={runs}/flow", "--w=nan"], "nan"),
        ("reflow", [f"--run={tmp_path}/none"], "none is no run directory"),
        ("reflow", [f"--run={tmp_path}/few-2", "--w=3"], "outside of what this student was trained for"),
    ):
        done = command(name, *args, f"--workdir={tmp_path}/wrong")
        assert done.returncode == 1 and said in done.stderr and done.stderr.strip().count("\n") == 0, done.stderr


def table(done):
    """The cells of a study's table."""
    assert done.returncode == 0, done.stderr
    return [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]


@pytest.mark.slow
def test_the_studies_of_students(command, runs, tmp_path):
    small = [f"--runs={runs}/flow", f"--out={tmp_path}", "--num_images=40", "--train_steps=2"]
    done = command("studies.rectified", *small, "--T=1,2", "--pairs=16", "--num_steps=2", timeout=600)
    assert [row[0] for row in table(done)[2:]] == [
        "flow", "rectified", "flow, w = 1", "rectified, w = 1", "rectified at w = 1"
    ]  # fmt: skip
    done = command("studies.onepass", *small, "--T=2", "--steps=1", "--halving_steps=2", "--w=1", timeout=600)
    first, below = table(done)[2:6], table(done)[6:]
    assert [row[:3] for row in first] == [
        ["teacher", "2", "4"], ["student", "2", "2"], ["halved", "1", "1"],
        ["model guidance, omega = 0.5", "2", "2"],
    ]  # fmt: skip
    assert [row[0] for row in below] == ["less the teacher's at T = 2", "student", "halved"]
    assert {"rectified_digits.png", "onepass_digits.png"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
def test_the_study_of_objectives(command, tmp_path):
    tiny = ["--config.model.multipliers=(1,)", "--config.model.attention_resolutions=()"]
    tiny += ["--config.train.num_steps=2", "--config.train.batch_size=8", "--config.train.checkpoint_every=2"]
    asked = [f"--out={tmp_path}", "--seeds=0", "--w=1", "--passes=4", "--num_images=40"]
    done = command("studies.objectives", "--config=configs/digits.py", *tiny, *asked, timeout=600)
    assert len(table(done)) == 2 + 3 * 4 and "of v" in done.stdout


@pytest.mark.slow
def test_the_study_of_losses(command, tmp_path):
    tiny = ["--config.model.multipliers=(1,)", "--config.model.attention_resolutions=()"]
    tiny += ["--config.train.num_steps=2", "--config.train.batch_size=8", "--config.train.checkpoint_every=2"]
    asked = [f"--out={tmp_path}", "--seeds=0", "--num_steps=2", "--num_images=40"]
    done = command("studies.losses", "--config=configs/digits.py", *tiny, *asked, timeout=600)
    assert [row[0] for row in table(done)[2:]] == ["x", "eps", "velocity"] and "JiT's order" in done.stdout
