"""What the commands share: flags, devices, log lines, and a sentence instead of a traceback for bad input."""

import difflib
import logging
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import NoReturn

import absl.logging
import jax
from absl import app, flags
from ml_collections import config_flags
from tqdm import tqdm

from cfg_jax.errors import InputError

FLAGS = flags.FLAGS


def define_config(default=None):
    """--config=FILE and --config.FIELD=VALUE."""
    return config_flags.DEFINE_config_file(
        "config", default, "a file under configs/; --config.FIELD=VALUE sets a field"
    )


def run(main):
    """main() under absl's flags: bad input ends in one line and status 1, a stop in one line and status 130."""

    def guarded(_):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        start_logging()
        start_jax()
        try:
            main()
        except InputError as error:
            fail(error)
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            fail(f"{place}{error.strerror or error}; mend that and run the same command: what was written is kept")
        except KeyboardInterrupt as stop:
            print(f"{stop or 'stopped'}; the same command goes on from here", file=sys.stderr)
            sys.exit(130)

    app.run(guarded, flags_parser=parse)


def parse(argv):
    if "config" in FLAGS:
        check_config_flags(argv)
    try:
        rest = FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        fail(" ".join(str(error).split()))
    except SystemExit:  # absl's --help ends with status 1
        sys.exit(0)
    if len(rest) > 1:
        fail(f"unexpected argument {rest[1]!r}: flags are given as --name=value")
    return rest


def check_config_flags(argv):
    """An unknown --config.FIELD is an error that names the near misses."""
    named = [a.partition("=")[2] for a in argv if a.lstrip("-").startswith("config=")]
    path = named[-1] if named else config_flags.get_config_filename(FLAGS["config"])
    if not path:
        return
    if not Path(path).is_file():
        fail(
            f"--config={path}: no such file: choose one of {', '.join(map(str, sorted(Path('configs').glob('*.py'))))}"
        )
    known = [*flat(runpy.run_path(path)["get_config"]())]
    for argument in argv:
        field = argument.lstrip("-").partition("=")[0]
        if field.startswith("config.") and (field := field.removeprefix("config.")) not in known:
            last = field.split(".")[-1]
            close = [k for k in known if k.split(".")[-1] == last] + difflib.get_close_matches(field, known, cutoff=0.4)
            remedy = f"did you mean {', '.join(dict.fromkeys(close))}?" if close else f"it has {', '.join(known)}"
            fail(f"--config.{field} is no field of {path}: {remedy}")


def flat(config, prefix=""):
    """The dotted names of a ConfigDict's fields."""
    for name, value in config.items():
        if hasattr(value, "items"):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def numbers(text, kind, flag):
    """ "0,0.1,4" -> [0.0, 0.1, 4.0]."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        fail(f"--{flag}={text}: give numbers with commas between them, such as 0,1,4")


def fail(message) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def start_jax():
    """Split a CPU by image, one XLA device a core (a power of two, to divide batches), and keep compiled programs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", 1 << (min(cores, 8).bit_length() - 1))
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/cfg_jax/xla").expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def start_logging():
    class Handler(logging.Handler):
        def emit(self, record):
            write = tqdm.write if sys.stderr.isatty() else print  # above the bar, where there is one
            write(self.format(record), file=sys.stderr)

    absl.logging.set_verbosity(absl.logging.ERROR)  # orbax logs every file it writes
    handler = Handler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("cfg_jax")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
