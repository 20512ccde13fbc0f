"""What the commands share: flags, devices, log lines, and a sentence instead of a traceback for bad input."""

import difflib
import logging
import math
import os
import re
import runpy
import shlex
import signal
import sys
import threading
import time
import traceback
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NoReturn

import absl.logging
import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from tqdm import tqdm

from cfg_jax import config as configs
from cfg_jax import pinned
from cfg_jax.errors import InputError
from cfg_jax.training import hosts, stop

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # what is defined here is the command's own, to --help
GO_ON = "the same command goes on from here"


def define_config(default=None):
    """--config=FILE and --config.FIELD=VALUE. Looked at here, since config_flags itself reads sys.argv here."""
    try:
        check_config_flags(sys.argv, default)
        return config_flags.DEFINE_config_file(
            "config", default, "a file under configs/; --config.FIELD=VALUE sets a field"
        )
    except BaseException:
        forget_flags()
        raise


def given(name, argv=None):
    """The last --name=VALUE or --name VALUE on the command line, before the flags are parsed; "" if there is none."""
    argv = argv or sys.argv
    values = [""]
    for i, argument in enumerate(argv):
        if found := re.match(rf"--?{name}(?:=(.*))?$", argument, re.DOTALL):
            values.append("".join(argv[i + 1 : i + 2]) if found[1] is None else found[1])
    return values[-1]


def command_line(name):
    """The command line of a module of experiments, as it was given."""
    return " ".join([f"python -m experiments.{name}", *map(shlex.quote, sys.argv[1:])])


def define_guide():
    """--guide, and its older name."""
    guide = flags.DEFINE_string("guide", None, "another run to take the unconditional eps from, RUN or RUN@STEP")
    flags.DEFINE_alias("uncond_run", "guide")
    return guide


def define_ema():
    return flags.DEFINE_float(
        "ema", None, "length of an EMA, as a share of the steps, made of config.train.averages", lower_bound=0.01
    )


def define_training():
    """--train_steps and --learning_rate of a run whose config is another run's, for `training`."""
    return (
        flags.DEFINE_integer("train_steps", None, "default: as many as the run's own", lower_bound=1),
        flags.DEFINE_float("learning_rate", None, "default: the run's own"),
    )


def training(config, given):
    """The config with what the flags of define_training set."""
    for field, flag in zip(("num_steps", "learning_rate"), given, strict=True):
        if flag.value is not None:
            config.train[field] = flag.value
    return config


def define_hosts():
    """The flags by which a command's processes find each other where no cluster says it."""
    flags.DEFINE_string("coordinator", None, "host:port of process 0; SLURM, Kubernetes, TPU pods need none of these")
    flags.DEFINE_integer("num_processes", None, "how many there are", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "which this one is, from 0", lower_bound=0)
    flags.DEFINE_integer("init_timeout", 300, "seconds to wait for the others", lower_bound=1)
    flags.DEFINE_integer("lost_after", 60, "seconds of silence that make a process a lost one", lower_bound=2)


def run(main, stopped=130):
    """main() under absl's flags: bad input ends in one line and status 1, a stop in one line and status `stopped`.

    Where the process goes on after it, as in a notebook, it raises SystemExit and leaves the process as it was.
    """
    own = owns_process(sys._getframe(1))
    leave = os._exit if own else sys.exit  # at once: all is closed by now, and orbax's threads would print tracebacks

    def end(message, status) -> NoReturn:
        with suppress(OSError):  # of a terminal that is gone
            print(message, file=sys.stderr, flush=True)
            sys.stdout.flush()
        leave(status)

    def unraisable(error):
        if error.exc_type is KeyboardInterrupt:
            end(f"stopped; {GO_ON}", stopped)

    def guarded(_):
        stop.hear(signal.default_int_handler)
        start_logging()
        if own:
            sys.unraisablehook = unraisable
        try:
            start_jax()
            main()
            hosts.leave()
        except SystemExit:
            hosts.leave()
            raise
        except InputError as error:
            end(f"error: {error}", 1)
        except BrokenPipeError:  # the reader of a pipe has seen enough
            leave(128 + signal.SIGPIPE)
        except OSError as error:
            named = error.filename2 or error.filename  # the second is what a temporary file was to become
            place = f"{named}: " if named else ""
            remedy = "mend that and run the same command: what was written is kept"
            end(f"error: {place}{error.strerror or error}; {remedy}", 1)
        except MemoryError as error:
            end(f"error: more memory is asked for than there is ({error or 'of Python'}): take smaller sizes", 1)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or hosts.watching():
                raise
            reason = str(error).splitlines()[0]
            end(f"error: {reason}: take a smaller batch_size, or config.train.accumulate, or config.model.remat", 1)
        except KeyboardInterrupt as error:
            if str(error):  # all processes stopped at one step
                hosts.leave()
            end(f"{str(error) or 'stopped'}; {GO_ON}", stopped)
        except Exception as error:
            if not hosts.watching():
                raise
            traceback.print_exc()
            logging.getLogger("cfg_jax").warning("%s: looking who is lost", type(error).__name__)
            time.sleep(2 * FLAGS.lost_after)  # ends sooner, in a line that names it
            raise

    with pinned.pinned(), nullcontext() if own else as_it_was():
        app.run(guarded, flags_parser=parse)


def owns_process(caller):
    """Whether nothing goes on after the command: the interpreter itself runs the module of `caller`, a frame.

    A notebook, an interactive interpreter, a debugger or a script that runs the module goes on.
    """
    outer = caller.f_back
    while outer and outer.f_globals.get("__name__") == "runpy":
        outer = outer.f_back
    return outer is None and not sys.flags.interactive


@contextmanager
def as_it_was():
    """Put back at the end what a command sets in its process: signals, hooks, log lines and flags."""
    signals = {number: signal.getsignal(number) for number in stop.asking()}
    loggers = [logging.getLogger(name) for name in (None, "absl", "cfg_jax")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    hook = threading.excepthook
    try:
        yield
    finally:
        forget_flags()
        for name in FLAGS:  # absl's
            FLAGS[name].unparse()
        threading.excepthook = hook
        for logger, (handlers, level, logger.propagate) in zip(loggers, before, strict=True):
            logger.handlers[:] = handlers
            logger.setLevel(level)
        stop.put_back(signals)


def forget_flags():
    """Take back what the command has defined: when it is run again in this process, it defines them anew."""
    own = {flag.name for flag in FLAGS.flags_by_module_dict().get(sys.argv[0], ())}
    for name in [name for name in FLAGS if name in own or name.startswith("config.")]:
        delattr(FLAGS, name)


def parse(argv):
    try:
        rest = FLAGS(argv)
    except flags.IllegalFlagValueError as error:
        missing = re.match(r"flag --(\w+)=None: .* must have a value", str(error))
        fail(f"--{missing[1]} is required: --help says what it takes" if missing else " ".join(str(error).split()))
    except (flags.Error, TypeError, ValueError) as error:
        fail(" ".join(str(error).split()))
    except SystemExit:  # absl's --help ends with status 1
        sys.exit(0)
    for argument in argv[1:]:
        if empty := re.match(r"--?(\w+)=$", argument):  # a path of no letters would be the directory one is in
            fail(f"--{empty[1]} is empty: give it a value or leave it out")
    if len(rest) > 1:
        fail(f"unexpected argument {rest[1]!r}: flags are given as --name=value")
    return rest


def check_config_flags(argv, default):
    """A config file that is not there, or a field that is not in it, is an error that names the near misses."""
    fields = [m[1] for m in (re.match(r"--?config\.([^=]*)", argument) for argument in argv) if m]
    path = given("config", argv) or default
    if not path:
        return
    if not Path(path).is_file():  # config_flags' own message is a page
        choices = map(str, sorted(Path("configs").glob("*[!_].py")))
        fail(f"--config={path}: no such file: choose one of {', '.join(choices)}")
    known = [*configs.flat(runpy.run_path(path)["get_config"]())]
    for field in fields:
        if field not in known:
            group, _, last = field.rpartition(".")
            alike = lambda k: difflib.SequenceMatcher(None, last, k.rpartition(".")[2]).ratio()  # noqa: B023, E731
            close = sorted((k for k in known if alike(k) >= 0.6), key=alike, reverse=True)
            siblings = [k for k in known if k.rpartition(".")[0] == group] or known
            fail(f"--config.{field} is no field of {path}: did you mean {' or '.join(close or siblings)}?")


def number(text):
    """ "1.5" -> 1.5, "2" -> 2, a whole number, and "0:2" -> (0.0, 2.0)."""
    if ":" in text:
        return tuple(map(float, text.split(":")))
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def numbers(text, kind, flag):
    """ "0,0.1,4" -> [0.0, 0.1, 4.0]; of the kind tuple, "0:2,1:1" -> [(0.0, 2.0), (1.0, 1.0)]."""
    try:
        values = [tuple(map(float, part.split(":"))) if kind is tuple else kind(part) for part in text.split(",")]
    except ValueError:
        fail(f"--{flag}={text}: give numbers with commas between them, such as 0,1,4")
    if bad := [value for value in values if kind is not str and not math.isfinite(sum(np.atleast_1d(value)))]:
        fail(f"--{flag}={text}: {bad[0]} is no finite number")
    return values


def fail(message) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def start_jax():
    """Split a CPU by image, one XLA device a core (a power of two, to divide batches); keep compiled programs; meet."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        with suppress(RuntimeError):  # of a notebook in which jax has begun
            jax.config.update("jax_num_cpu_devices", 1 << (min(cores, 8).bit_length() - 1))
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/cfg_jax/xla").expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if "coordinator" in FLAGS:
        at = FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id
        hosts.join(*at, timeout=FLAGS.init_timeout, lost_after=FLAGS.lost_after)
        hosts.agree(given_to_all())
        if jax.distributed.is_initialized() and jax.process_index() > 0:  # the first one speaks for all
            logging.getLogger("cfg_jax").setLevel(logging.WARNING)


def given_to_all():
    """The flags that all processes of a run must have alike, a config by its fields."""
    own = ("coordinator", "process_id", "init_timeout", "lost_after", "config")
    given = {f"--{name}": FLAGS[name].value for name in FLAGS if name not in own and "." not in name}
    fields = configs.flat(FLAGS.config) if "config" in FLAGS and FLAGS.config else {}
    return given | {f"--config.{field}": value for field, value in fields.items()}


def print_failure(failed: threading.ExceptHookArgs) -> None:
    """Print the traceback of a thread that failed, but none of orbax's, whose errors the main thread raises."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(failed.exc_traceback))
    of_thread = next((name for name in modules if name != "threading"), "")
    if of_thread.partition(".")[0] != "orbax":
        threading.__excepthook__(failed)


class Lines(logging.Handler):
    """A line for each record on stderr. A warning is marked, on a terminal in colour unless NO_COLOR is set."""

    def emit(self, record):
        terminal = sys.stderr.isatty()
        mark = "warning: " if record.levelno >= logging.WARNING else ""
        if mark and terminal and not os.environ.get("NO_COLOR"):
            mark = f"\033[1;33m{mark}\033[0m"
        write = tqdm.write if terminal else print  # above the bar, where there is one
        with suppress(OSError):  # a terminal or a pipe that is gone: a run goes on to its save
            write(f"{time.strftime('%H:%M:%S')} {mark}{record.getMessage()}", file=sys.stderr)


def start_logging():
    threading.excepthook = print_failure
    absl.logging.set_verbosity(absl.logging.FATAL)  # orbax logs every file it writes
    logger = logging.getLogger("cfg_jax")
    logger.addHandler(Lines())
    logger.setLevel(logging.INFO)
    logger.propagate = False
