import re

import pytest

from cfg_jax.training import records, trainer

VALUES = {"loss": 0.08349, "images_per_s": 1470.6, "tflops": 1.0}


@pytest.mark.parametrize(
    ("step", "changed", "left", "line"),
    [
        (1200, {"mfu": 0.4129}, 735.4, "step 1,200 of 3,000  loss 0.0835  1,471 img/s  41.3% of peak  left 0:12:15"),
        (50, {"images_per_s": 0.1234}, 359_999.6, "step    50 of 3,000  loss 0.0835  0.12 img/s  left 100:00:00"),
        (3000, {"loss": None}, 0, "step 3,000 of 3,000  1,471 img/s  left 0:00:00"),
    ],
)
def test_a_record_in_a_line(step, changed, left, line):
    assert records.line(step, 3000, VALUES | changed, left) == line


@pytest.mark.slow
def test_training_says_each_record_once(tiny, tmp_path, caplog, capfd):
    tiny.train.sample_every = 100
    with caplog.at_level("INFO", "cfg_jax"):
        trainer.train(tiny, tmp_path)
    said = [line for line in caplog.messages if line.startswith("step ")]
    rows = [row for _, row in records.read(tmp_path / "metrics.jsonl")]
    assert len(said) == len(rows) == 2
    for line, row in zip(said, rows, strict=True):
        assert line.startswith(f"step {row['step']} of 4  loss {row['loss']:.4f}  ")
    assert re.search(r"img/s  left 0:\d\d:\d\d$", said[0]) and said[1].endswith("left 0:00:00")
    assert capfd.readouterr().err == ""  # no bar where there is no terminal
