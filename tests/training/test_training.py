import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cfg_jax
from cfg_jax import meshes
from cfg_jax.diffusion import loss
from cfg_jax.errors import InputError
from cfg_jax.files import only_one
from cfg_jax.store import checkpoint
from cfg_jax.store.checkpoint import Checkpoints, TrainState
from cfg_jax.training import samples, trainer
from cfg_jax.training import state as states
from cfg_jax.training import step as steps
from cfg_jax.training.metrics import EDGES, LossByLogsnr
from cfg_jax.training.records import summarise, troubles, warn_of_spike
from cfg_jax.training.writers import Writer
from tests.running import ROOT


def final(workdir, config):
    """The newest checkpoint, whole."""
    shapes = jax.eval_shape(partial(states.create, config))
    place = partial(jax.ShapeDtypeStruct, sharding=meshes.replicated(meshes.data_mesh(jax.devices())))
    checkpoints = Checkpoints(workdir)
    state = checkpoints.restore(jax.tree.map(lambda a: place(a.shape, a.dtype), shapes))
    checkpoints.close()
    return state


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_step_moves_nothing_between_devices_and_host_but_its_batch(tiny, tmp_path, monkeypatch):
    compile_step = steps.compile_step

    def guarded(*args):
        step_fn, *rest = compile_step(*args)

        def step(*args):
            jax.config.update("jax_transfer_guard", "disallow")  # from the first step on; what is asked for may move
            return step_fn(*args)

        return step, *rest

    monkeypatch.setattr(steps, "compile_step", guarded)
    tiny.train.sample_every = 100
    try:
        trainer.train(tiny, tmp_path / "run")
    finally:
        jax.config.update("jax_transfer_guard", "allow")
    assert [record["step"] for record in records(tmp_path / "run")] == [2, 4]


def test_two_and_two_steps_are_four_bit_for_bit(tiny_run, tmp_path):
    config, workdir = tiny_run
    half = config.copy_and_resolve_references()
    half.train.num_steps = 2
    trainer.train(half, tmp_path)
    assert int(final(tmp_path, config).step) == 2
    trainer.train(config, tmp_path)
    assert_equal(final(tmp_path, config), final(workdir, config))
    strip = lambda rows: [{k: r[k] for k in ("step", "loss", "grad_norm", "loss_by_logsnr")} for r in rows]  # noqa: E731
    assert strip(records(tmp_path)) == strip(records(workdir))


def test_a_run_leaves_what_it_promises(tiny_run):
    config, workdir = tiny_run
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["2", "4"]
    assert sorted(p.name for p in (workdir / "samples").iterdir()) == ["0000004_ema.png", "0000004_params.png"]
    assert json.loads((workdir / "config.json").read_text())["p_uncond"] == config.p_uncond
    assert list(workdir.glob("events.out.tfevents*"))
    rows = records(workdir)
    assert [row["step"] for row in rows] == [2, 4]
    assert all(row["images_per_s"] > 0 and row["grad_norm"] > 0 and row["tflops"] > 0 for row in rows)
    assert abs(rows[0]["loss"] - 1) < 0.5  # the output starts at zero


def test_done_is_done(tiny_run):
    config, workdir = tiny_run
    before = (workdir / "checkpoints" / "4").stat().st_mtime_ns
    began = time.perf_counter()
    trainer.train(config, workdir)
    assert time.perf_counter() - began < 5  # nothing is compiled
    assert (workdir / "checkpoints" / "4").stat().st_mtime_ns == before and len(records(workdir)) == 2


@pytest.mark.slow
def test_sigterm_saves_and_the_run_goes_on_to_the_same_end(tiny_run, tmp_path):
    config, _ = tiny_run
    config = config.copy_and_resolve_references()
    config.train.update(checkpoint_every=1000, sample_every=1000, num_steps=5000)

    def stop():
        while not (tmp_path / "metrics.jsonl").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(KeyboardInterrupt, match="saved"):
        trainer.train(config, tmp_path)
    thread.join()
    stopped = int(final(tmp_path, config).step)
    assert 0 < stopped < 5000
    longer = config.copy_and_resolve_references()
    longer.train.num_steps = stopped + 2
    trainer.train(longer, tmp_path)
    straight = tmp_path / "straight"
    trainer.train(longer, straight)
    assert_equal(final(tmp_path, longer), final(straight, longer))


@pytest.mark.slow
def test_records_past_the_checkpoint_of_a_killed_run_are_not_kept_twice(tiny_run, tmp_path):
    config, _ = tiny_run
    half = config.copy_and_resolve_references()
    half.train.num_steps = 2
    trainer.train(half, tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as f:
        f.write('{"step": 3, "loss": 0}\n{"step": 4, "lo')  # what kill -9 may leave
    trainer.train(config, tmp_path)
    assert [row["step"] for row in records(tmp_path)] == [2, 4]


@pytest.mark.parametrize("left", [b'{"step": 2, "lo', b"{", b"\0" * 64], ids=["cut", "a letter", "a power cut"])
def test_a_first_record_that_was_cut_short_is_dropped(tiny, tmp_path, left):
    def write(step):
        """By a process of its own."""
        writer = Writer(tmp_path, step - 2, tiny)
        writer.write(step, {"loss": 1.0})
        writer.close()

    path = tmp_path / "metrics.jsonl"
    path.write_bytes(left)
    for step in (2, 4):
        write(step)
    assert [row["step"] for row in records(tmp_path)] == [2, 4]
    path.write_bytes(path.read_bytes() + left)
    write(6)
    assert [row["step"] for row in records(tmp_path)] == [2, 4, 6]


@pytest.mark.slow
def test_a_grid_that_fails_costs_no_step(tiny, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("no room for pictures")

    monkeypatch.setattr(samples, "save_grids", fails)
    with pytest.raises(OSError, match="no room"):
        trainer.train(tiny, tmp_path)
    assert int(final(tmp_path, tiny).step) == 4
    trainer.train(tiny, tmp_path)  # which is done


@pytest.mark.slow
def test_a_thread_trains_too(tiny, tmp_path):
    """Signals are of the main thread, and stay there what they were."""
    before, raised = signal.getsignal(signal.SIGTERM), []

    def train():
        try:
            trainer.train(tiny, tmp_path)
        except BaseException as error:
            raised.append(error)

    tiny.train.sample_every = 100
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert not raised and int(final(tmp_path, tiny).step) == 4
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_of_another_config_is_refused(tiny_run):
    config, workdir = tiny_run
    other = config.copy_and_resolve_references()
    other.p_uncond, other.train.learning_rate = 0.3, 1.0
    with pytest.raises(InputError, match=r"p_uncond: 0.1 -> 0.3; train.learning_rate: 0.002 -> 1.0"):
        trainer.train(other, workdir)
    assert json.loads((workdir / "config.json").read_text())["p_uncond"] == 0.1


def test_a_checkpoint_cut_short_is_named(tiny_run, tmp_path):
    """In a process of its own: orbax's other reads end in warnings whenever they are collected."""
    _, workdir = tiny_run
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    files = [p for p in (tmp_path / "checkpoints" / "4").rglob("*") if p.is_file() and p.stat().st_size > 20_000]
    for path in files:
        os.truncate(path, 1000)
    command = [sys.executable, "-m", "experiments.sample", f"--run={tmp_path}", f"--out={tmp_path / 'x.png'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "checkpoints/4 cannot be read" in done.stderr and "remove it, step 2 is taken then" in done.stderr
    assert cfg_jax.load(tmp_path, step=2).step == 2


def spoil(path, how):
    """The largest file of a checkpoint's parameters."""
    file = max((p for p in (path / "params").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "a bit":
        file.write_bytes(content)
    elif how == "a file":
        file.unlink()
    else:
        (path / "sha256.json").write_text("{")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["a bit", "a file", "the digests"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tiny_run, tmp_path, how, caplog):
    """The run ends as one that was never damaged, bit for bit, and what was damaged is kept aside."""
    config, workdir = tiny_run
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    spoil(tmp_path / "checkpoints" / "4", how)
    if how == "a bit":
        with pytest.raises(
            InputError, match=r"checkpoints/4 cannot be read \(params/.* has changed\): remove it, step 2"
        ):
            cfg_jax.load(tmp_path, params="params")
        assert cfg_jax.load(tmp_path).step == 4  # the EMA is whole
    with caplog.at_level("WARNING", "cfg_jax"):
        trainer.train(config, tmp_path)
    assert "checkpoint 4 is damaged" in caplog.text and "step 2 is taken" in caplog.text
    assert (tmp_path / "damaged" / "4").is_dir()
    assert_equal(final(tmp_path, config), final(workdir, config))
    assert [row["step"] for row in records(tmp_path)] == [2, 4]


WITHOUT_DIGESTS = {
    "gone": lambda path, sealed: path.unlink(),
    "empty": lambda path, sealed: path.write_text("{}"),
    "no table": lambda path, sealed: path.write_text("[]"),
    "one less": lambda path, sealed: path.write_text(json.dumps(dict(list(sealed.items())[1:]))),
    "one more": lambda path, sealed: path.write_text(json.dumps(sealed | {"ema/more": "0" * 64})),
    "no words": lambda path, sealed: path.write_text(json.dumps(dict.fromkeys(sealed, 1))),
    "and no metadata": lambda path, sealed: (path.unlink(), (path.parent / "_CHECKPOINT_METADATA").unlink()),
}


@pytest.mark.parametrize("how", WITHOUT_DIGESTS)
def test_a_checkpoint_without_whole_digests_is_damaged(tiny_run, tmp_path, how):
    _, workdir = tiny_run
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "checkpoints" / "4" / "sha256.json"
    WITHOUT_DIGESTS[how](path, json.loads(path.read_text()))
    with pytest.raises(InputError, match=r"checkpoints/4 cannot be read .*: remove it, step 2 is taken then"):
        cfg_jax.load(tmp_path)
    checkpoint.set_aside_damaged(tmp_path / "checkpoints")
    assert checkpoint.steps_of(tmp_path) == [2] and cfg_jax.load(tmp_path).step == 2


def test_a_renamed_checkpoint_is_no_later_step(tiny_run, tmp_path):
    _, workdir = tiny_run
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoints" / "2").rename(tmp_path / "checkpoints" / "99999")
    with pytest.raises(
        InputError, match=r"checkpoints/99999 cannot be read \(it was saved as step 2\): remove it, step 4"
    ):
        cfg_jax.load(tmp_path)
    checkpoint.set_aside_damaged(tmp_path / "checkpoints")
    assert checkpoint.steps_of(tmp_path) == [4] and cfg_jax.load(tmp_path).step == 4


def test_a_checkpoint_of_an_older_version_needs_no_digests(tiny_run, tmp_path):
    """Such a one says nothing of digests in orbax's metadata; those of imported weights say it, too."""
    _, workdir = tiny_run
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "checkpoints" / "4"
    (path / "sha256.json").unlink()
    metadata = json.loads((path / "_CHECKPOINT_METADATA").read_text())
    (path / "_CHECKPOINT_METADATA").write_text(json.dumps(metadata | {"custom_metadata": {}}))
    assert checkpoint.damage(path) is None
    checkpoint.save_weights(tmp_path / "imported", {"a": np.zeros(3, np.float32)})
    imported = tmp_path / "imported" / "checkpoints" / "0"
    assert checkpoint.damage(imported) is None
    (imported / "sha256.json").unlink()
    assert checkpoint.damage(imported) == "sha256.json is missing"


def test_one_run_at_a_time(tiny_run):
    config, workdir = tiny_run
    with only_one(workdir), pytest.raises(InputError, match=f"in use by process {os.getpid()} on"):
        trainer.train(config, workdir)


def test_no_checkpoint_no_run(tmp_path, tiny_run):
    _, workdir = tiny_run
    with pytest.raises(InputError, match="no run directory"):
        cfg_jax.load(tmp_path)
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    with pytest.raises(InputError, match="no checkpoints"):
        cfg_jax.load(tmp_path)
    with pytest.raises(InputError, match=r"no checkpoint of step 3: choose one of \[2, 4\]"):
        cfg_jax.load(workdir, step=3)


def test_batch_must_divide_over_the_devices_before_anything_is_written(tiny, tmp_path):
    tiny.train.batch_size = 6
    with pytest.raises(InputError, match="multiple of the 4 devices"):
        trainer.train(tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_steps_that_are_not_finite_are_skipped_then_rolled_back_once_then_stop_the_run(
    tiny, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(
        loss.Objective, "distance", lambda self, predicted, z, logsnr, target: logsnr * jnp.inf + predicted.sum()
    )
    tiny.train.max_skipped = 1
    with (
        caplog.at_level("WARNING", "cfg_jax"),
        pytest.raises(InputError, match=r"2 steps before step 2 .* again after a rollback"),
    ):
        trainer.train(tiny, tmp_path)
    assert caplog.text.count("back to the last checkpoint, once") == 1
    assert caplog.text.count("2 of the 2 steps up to 2 skipped") == 2
    [row] = records(tmp_path)
    assert (row["skipped"], row["rollbacks"], row["loss"]) == (2, 1, None)
    assert not [p for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()]


@pytest.mark.slow
def test_a_step_that_is_not_finite_changes_nothing_but_the_step(tiny, monkeypatch):
    """NaN in one image: nothing moves, it counts as skipped and in no mean, and the next step is taken."""
    state = jax.jit(partial(states.create, tiny))()
    batch = {"image": jnp.zeros((8, 8, 8, 1), jnp.uint8), "label": jnp.arange(8)}
    noised = loss.Objective.noised
    monkeypatch.setattr(
        loss.Objective, "noised", lambda *a: (lambda z, *rest: (z.at[3].set(jnp.nan), *rest))(*noised(*a))
    )
    after, metrics = jax.jit(partial(steps.train_step, config=tiny))(state, batch, jax.random.key(0), jnp.float32(0.1))
    assert_equal(after, state.replace(step=jnp.int32(1)))
    assert summarise([metrics]) == {"loss": None, "grad_norm": None, "loss_by_logsnr": {}, "skipped": 1}
    monkeypatch.undo()
    accepted, good = jax.jit(partial(steps.train_step, config=tiny))(after, batch, jax.random.key(0), jnp.float32(0.1))
    merged = summarise([metrics, good])
    assert merged["skipped"] == 1 and merged["loss"] == float(good.loss.compute())
    assert merged["loss_by_logsnr"] == good.loss_by_logsnr.compute()
    assert int(accepted.step) == 2


def test_an_update_of_a_finite_gradient_is_finite(tiny):
    """Why a step looks at its gradient alone: Adam's update of the largest and of the least that clipping leaves."""
    params = {"a": jnp.zeros(4), "b": jnp.zeros(3)}
    tx = states.optimizer(tiny.train)
    for size in (1e38, 1e19, 1e-19, 1e-38, 0.0):
        opt_state, gradient = tx.init(params), jax.tree.map(lambda a, s=size: jnp.full_like(a, s), params)
        for _ in range(3):
            updates, opt_state = tx.update(gradient, opt_state, params)
            state = TrainState(jnp.int32(0), updates, updates, opt_state)
            assert not jnp.isfinite(optax.tree.norm(gradient)) or steps.all_finite(state), size


@pytest.mark.slow
def test_a_state_is_finite_after_any_number_of_steps(tiny):
    """Squares of the optimizer's counts overflow from 46,341 on."""
    state = jax.jit(partial(states.create, tiny))()
    for count in (0, 46_341, 50_000, 2_700_000):
        counted = jax.tree.map(lambda a, n=count: jnp.full_like(a, n) if a.dtype == jnp.int32 else a, state)
        assert steps.all_finite(counted)
    first, *rest = jax.tree.leaves(state.ema)
    bad = jax.tree.unflatten(jax.tree.structure(state.ema), [first.at[0].set(jnp.inf), *rest])
    assert not steps.all_finite(state.replace(ema=bad))


@pytest.mark.slow
def test_a_warning_during_the_last_step_is_heard(tiny, tmp_path, monkeypatch):
    """Or the next model of a table would be begun."""
    monkeypatch.setattr(
        samples, "sample_grid", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM) or jnp.zeros((8, 8, 8, 1))
    )
    with pytest.raises(KeyboardInterrupt, match="stopped at step 4, saved"):
        trainer.train(tiny, tmp_path)
    assert int(final(tmp_path, tiny).step) == 4


@pytest.mark.slow
def test_a_warning_during_the_last_save_does_not_cut_it_short(tiny, tmp_path, monkeypatch):
    """Some are sent again and again: SIGHUP by the terminal and by the shell, SIGXCPU each second."""
    close = Checkpoints.close
    monkeypatch.setattr(Checkpoints, "close", lambda self: (os.kill(os.getpid(), signal.SIGINT), close(self)))
    tiny.train.sample_every = 100
    with pytest.raises(KeyboardInterrupt, match="stopped at step 4, saved"):
        trainer.train(tiny, tmp_path)
    monkeypatch.undo()
    assert int(final(tmp_path, tiny).step) == 4


@pytest.mark.slow
def test_parts_of_a_batch_give_the_whole_s_gradient(tiny):
    """Adam's first moment, after one step, is a tenth of the clipped gradient."""
    state = jax.jit(partial(states.create, tiny))()
    batch = {"image": jnp.arange(8 * 64, dtype=jnp.uint8).reshape(8, 8, 8, 1), "label": jnp.arange(8)}
    moments = []
    for parts in (1, 2, 8):
        tiny.train.accumulate = parts
        step = jax.jit(partial(steps.train_step, config=tiny))
        after, metrics = step(state, batch, jax.random.key(0), jnp.float32(0.5))
        moments.append([*jax.tree.leaves(after.opt_state), metrics.grad_norm.total, metrics.loss_by_logsnr.total])
    for other in moments[1:]:
        for a, b in zip(moments[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_spike_of_the_loss_is_said(caplog):
    recent = []
    with caplog.at_level("WARNING", "cfg_jax"):
        for step, value in enumerate((1.0, 0.5, 0.4, None, 0.9, 1.5)):
            warn_of_spike(step, value, recent)
    assert [record.args[:2] for record in caplog.records] == [(1.5, 5)] and len(recent) == 5


@pytest.mark.slow
def test_every_so_many_checkpoints_are_kept(tiny, tmp_path):
    tiny.train.update(num_steps=7, checkpoint_every=1, keep_checkpoints=2, keep_every=3, sample_every=10)
    trainer.train(tiny, tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["3", "6", "7"]


def test_what_was_skipped_is_found_in_the_records(tmp_path):
    assert troubles(tmp_path, 9) == {"skipped_steps": None, "rollbacks": None}
    rows = [(3, 1, 0), (6, 2, 1), (9, 4, 1)]
    lines = [json.dumps({"step": step, "skipped": skipped, "rollbacks": rolled}) for step, skipped, rolled in rows]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 12')
    assert troubles(tmp_path, 6) == {"skipped_steps": 3, "rollbacks": 1}
    assert troubles(tmp_path, 3) == {"skipped_steps": 1, "rollbacks": 0}


@pytest.mark.slow
def test_every_step_draws_anew(tiny_run):
    """The same parameters and the same batch at another step: another loss."""
    config, _ = tiny_run
    state = jax.jit(partial(states.create, config))()
    batch = {"image": jnp.zeros((8, 8, 8, 1), jnp.uint8), "label": jnp.arange(8)}
    step = jax.jit(partial(steps.train_step, config=config))
    first, again, later = (
        step(state.replace(step=jnp.int32(k)), batch, jax.random.key(0), jnp.float32(0.5))[1].loss.compute()
        for k in (0, 0, 1)
    )
    assert first == again != later


def test_ema_of_constant_parameters_and_its_warm_up():
    params, ema = {"a": jnp.ones(3)}, {"a": jnp.zeros(3)}
    for step, decay in ((0, 0.1), (8, 0.5), (10**6, 0.99)):
        np.testing.assert_allclose(states.update_ema(ema, params, step, 0.99)["a"], 1 - decay, rtol=1e-5)


@pytest.mark.slow
def test_ema_moves_slower_than_the_parameters(tiny_run):
    config, workdir = tiny_run
    start, end = jax.jit(partial(states.create, config))(), final(workdir, config)

    def moved(params):
        return sum(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.square(a - b).sum()), params, start.params)))

    assert 0 < moved(end.ema) < moved(end.params)
    assert_equal(cfg_jax.load(workdir).params, end.ema)
    assert_equal(cfg_jax.load(workdir, params="params").params, end.params)


def test_gradients_are_clipped_after_the_mean():
    """Adam's first step is the sign of the gradient times the rate, however large the gradient."""
    config = importlib.import_module("configs.digits").get_config()
    config.train.warmup_steps = 1
    tx = states.optimizer(config.train)
    params = {"a": jnp.zeros(4)}
    opt = tx.init(params)
    gradient = {"a": jnp.float32([1e6, -1e6, 1e6, 0])}
    updates, opt = tx.update(gradient, opt, params)  # the rate is 0 at step 0
    updates, _ = tx.update(gradient, opt, params)
    np.testing.assert_allclose(updates["a"], config.train.learning_rate * np.array([-1, 1, -1, 0]), rtol=1e-4)
    clipped = next(leaf for leaf in jax.tree.leaves(opt) if leaf.shape == (4,))
    assert np.linalg.norm(clipped / 0.1) == pytest.approx(1, rel=1e-5)  # Adam's mean of a gradient of norm 1


def test_loss_by_logsnr_merges():
    losses, logsnrs = np.float32([1, 2, 3, 5]), np.float32([-19, 0.5, 1.0, 19])
    parts = [LossByLogsnr.from_model_output(loss=losses[i : i + 2], logsnr=logsnrs[i : i + 2]) for i in (0, 2)]
    assert len(EDGES) == 7
    assert parts[0].merge(parts[1]).compute() == {"min..-15": 1.0, "0..5": 2.5, "15..max": 5.0}


@pytest.fixture(scope="module")
def imagenet64_step():
    config = importlib.import_module("configs.imagenet64").get_config()
    config.train.batch_size = 8
    state = jax.eval_shape(partial(states.create, config))
    batch = {"image": jax.ShapeDtypeStruct((8, 64, 64, 3), "uint8"), "label": jax.ShapeDtypeStruct((8,), "int32")}
    args = state, batch, jax.random.key(0), jnp.float32(0.1)
    return jax.jit(partial(steps.train_step, config=config), donate_argnums=0).lower(*args)


@pytest.mark.slow
def test_the_whole_imagenet64_step_lowers(imagenet64_step):
    """3 x 219.3 GFLOP a trained image, less what XLA leaves out: products with the padding of a convolution."""
    padding = 1 - (1 - 1 / 24) ** 2  # share of a 3x3 kernel's products that fall outside, at the smallest side, 8
    assert (1 - padding) * 0.658e12 < meshes.flops(imagenet64_step) / 8 < 0.658e12


@pytest.mark.slow
def test_the_whole_imagenet64_step_compiles(imagenet64_step):
    memory = imagenet64_step.compile().memory_analysis()
    assert memory.argument_size_in_bytes > 4 * 4 * 295_900_035  # parameters, EMA and Adam's two moments in float32
