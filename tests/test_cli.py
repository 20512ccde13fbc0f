import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
THREAD = "import threading, types\nfrom experiments import cli\ncli.start_logging()\n"
# signs of life that no process of this run has given
WATCHDOG = """
from cfg_jax.training import hosts
client = types.SimpleNamespace(
    key_value_set=lambda *_, **__: None,
    blocking_key_value_get=lambda *_: "here",
    key_value_dir_get=lambda _: [("cfg_jax/beat/7", "0")],
)
hosts.distributed = types.SimpleNamespace(global_state=types.SimpleNamespace(client=client))
hosts.watch(60)
for thread in threading.enumerate():
    if thread.name.endswith("(beat)"):
        thread.join(30)
"""
ORBAX = """
def save():
    raise OSError("the disk is full")
threading.Thread(target=types.FunctionType(save.__code__, {"__name__": "orbax.checkpoint.saving"})).start()
"""


@pytest.mark.parametrize(("script", "said"), [(WATCHDOG, "KeyError: '7'"), (ORBAX, None)], ids=["ours", "orbax's"])
def test_the_failure_of_a_thread_is_printed_where_nothing_else_raises_it(script, said):
    done = subprocess.run([sys.executable, "-c", THREAD + script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" if said is None else "in beat" in done.stderr and done.stderr.endswith(f"{said}\n")
