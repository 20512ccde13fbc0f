"""What the commands share: flags, devices, log lines, and one line instead of a traceback for bad input."""

import difflib
import logging
import math
import os
import re
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

import absl.logging
import jax
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from cfg_jax import config as configs
from cfg_jax import files, pinned
from cfg_jax.errors import InputError, first_line, require
from cfg_jax.store.hub import SCHEME
from cfg_jax.text import CONTROL, one_line, plain, short
from cfg_jax.training import hosts, stop
from experiments.helpers import config_file

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # --help shows flags defined here as the command's
GO_ON = "the same command goes on from here"
MOST = 10_000_000  # of what a flag counts, unless it says otherwise
# the fields of a config that are paths; hf:// is one of the first two
PATHS = ("init_from", "teacher.run", "data.root", "eval.inception", "eval.reference", "eval.classifier")


def define_config(default: str | None = None, required: bool = False) -> flags.FlagHolder:
    """Define --config=FILE and --config.FIELD=VALUE. They are checked here, where config_flags reads sys.argv."""
    try:
        for i, argument in enumerate(sys.argv):
            if re.match("--?config=~", argument):
                sys.argv[i] = "--config=" + os.path.expanduser(argument.partition("=")[2])
        check_config_flags(default)
        words = "a file under configs/; --config.FIELD=VALUE sets a field"
        config = config_flags.DEFINE_config_file("config", default, words)
        if required:
            flags.mark_flag_as_required("config")
        return config
    except BaseException:
        forget_flags()
        raise


def given(name: str) -> str:
    """Return the last --name=VALUE or --name VALUE of a command line not yet parsed; "" if there is none."""
    value = ""
    for argument, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        if match := re.match(rf"--?{name}(?:=(.*))?$", argument, re.DOTALL):
            value = following if match[1] is None else match[1]
    return value


def command_line(name: str) -> str:
    """Return the command line that started a module of experiments."""
    return " ".join([f"python -m experiments.{name}", *map(shlex.quote, sys.argv[1:])])


class Numbers(flags.ArgumentParser):
    """Reads one number, or several with commas between them. All are finite and lie in [low, high]."""

    def __init__(self, kind: type, low: float, high: float, many: bool) -> None:
        self.kind, self.low, self.high, self.many = kind, low, high, many

    def parse(self, argument: Any) -> Any:
        values = finite_numbers(str(argument), self.kind)
        for value in np.concatenate([np.ravel(value) for value in values]):
            if not self.low <= value <= self.high:
                side = f"below {self.low:g}" if value < self.low else f"above {self.high:g}"
                raise ValueError(f"{short(value)} is {side}")
        if not self.many and len(values) > 1:
            raise ValueError("give one number")
        return values if self.many else values[0]


def define_count(name: str, default: int | None, help: str, low: int = 1, high: int = MOST) -> flags.FlagHolder:
    """Define a flag of a whole number in [low, high]."""
    return flags.DEFINE(Numbers(int, low, high, many=False), name, default, help)


def define_float(name: str, default: float | None, help: str, low: float = -1e6, high: float = 1e6) -> flags.FlagHolder:
    """Define a flag of a number in [low, high]."""
    return flags.DEFINE(Numbers(float, low, high, many=False), name, default, help)


def define_numbers(
    name: str, default: str | None, help: str, kind: type = float, low: float = -1e6, high: float = 1e6
) -> flags.FlagHolder:
    """Define a flag of numbers in [low, high], with commas between them. Its value is a list.

    With kind=tuple, "0:2,1:1" is [(0.0, 2.0), (1.0, 1.0)].
    """
    return flags.DEFINE(
        Numbers(kind, low, high, many=True), name, default, help, serializer=flags.CsvListSerializer(",")
    )


class Paths(flags.ArgumentParser):
    """Reads a path, or several with commas between them, as local_path does."""

    def __init__(self, hub: bool, many: bool) -> None:
        self.hub, self.many = hub, many

    def parse(self, argument: Any) -> Any:
        parts = argument.split(",") if self.many and isinstance(argument, str) else argument
        return [local_path(part, self.hub) for part in parts] if self.many else local_path(parts, self.hub)


def define_path(
    name: str, default: Any, help: str, *, writes: str | None = None, replaces: bool = True, hub: bool = False,
    many: bool = False, required: bool = False,
) -> flags.FlagHolder:  # fmt: skip
    """Define a flag of a path, or of several with commas between them, whose value is a list then.

    writes: what the command writes there, which is checked as the flags are read: the kind of a file, such as ".png",
    "run" or another kind of files.KINDS, or "directory". replaces: False where the command itself says which file it
    may replace. hub: whether hf:// names a model of the Hugging Face Hub.
    """
    path = flags.DEFINE(
        Paths(hub, many), name, default, help, required=required,
        serializer=flags.CsvListSerializer(",") if many else None,
    )  # fmt: skip
    if writes:
        flags.register_validator(path, lambda value: value is None or may_write(name, value, writes, replaces))
    return path


def may_write(name: str, path: str, kind: str, replaces: bool) -> bool:
    """Raise InputError where a command may not write this kind of file or directory at the path of a flag."""
    what = f"--{name}={path}"
    if not kind.startswith("."):
        require(os.path.isdir(path) or not os.path.exists(path), f"{what} is a file: name a directory")
        if kind in files.KINDS:
            files.check_directory(path, kind, what)
        else:
            files.check_writable(path, what)
    elif replaces or not os.path.isfile(path):  # which is false of a name that is too long
        files.check_output(path, kind, flag=f"--{name}")
    return True


def local_path(text: str, hub: bool = False) -> str:
    """Return a path of this machine, ~ as the home directory. hub: whether hf:// names a model of the hub.

    Raises ValueError for another address, an unknown home directory, and no name at all.
    """
    if scheme := re.match(r"([A-Za-z][\w+.-]*)://", text):
        if hub and scheme[0] == SCHEME:
            return text
        more = f", or name {SCHEME}OWNER/NAME" if hub else ""
        raise ValueError(f"{scheme[0]} is no path of this machine: copy it to a disk, or mount it{more}")
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise ValueError("there is no such home directory: write the path out")
    if not path:
        raise ValueError("a path is empty")
    return path


def define_run() -> flags.FlagHolder:
    words = "run directory, exported file, or a name: pretrained, or hf://OWNER/NAME"
    return define_path("run", None, words, hub=True, required=True)


def define_seed(about: str) -> flags.FlagHolder:
    return define_count("seed", 0, about, low=0, high=2**31 - 1)


def define_seeds(default: str | None, about: str) -> flags.FlagHolder:
    return define_numbers("seeds", default, f"image seeds, {about}", int, 0, 2**31 - 1)


def define_guide() -> flags.FlagHolder:
    """Define --guide, and --uncond_run, its older name."""
    guide = define_path("guide", None, "another run to take the unconditional eps from, RUN or RUN@STEP", hub=True)
    flags.DEFINE_alias("uncond_run", "guide")
    return guide


def define_ema() -> flags.FlagHolder:
    words = "length of an EMA, as a share of the steps, made of config.train.averages"
    return define_float("ema", None, words, low=0.01, high=1)


def define_training() -> None:
    """Define --train_steps and --learning_rate of a run whose config is another run's, for `training`."""
    define_count("train_steps", None, "training steps; default: those of the run it starts from", high=2**31 - 1)
    define_float("learning_rate", None, "default: that of the run it starts from", low=1e-12, high=1e3)


def training(config: ConfigDict) -> ConfigDict:
    """Return the config with what the flags of define_training set."""
    changes = {"num_steps": FLAGS.train_steps, "learning_rate": FLAGS.learning_rate}
    config.train.update({field: value for field, value in changes.items() if value is not None})
    return config


def define_hosts() -> None:
    """Define the flags by which a command's processes find each other where no cluster tells them."""
    flags.DEFINE_string("coordinator", None, "host:port of process 0; SLURM, Open MPI, TPU pods need none of these")
    define_count("num_processes", None, "how many there are")
    define_count("process_id", None, "which this one is, from 0", low=0)
    define_count("init_timeout", 300, "seconds to wait for the others")
    define_count("lost_after", 60, "seconds of silence after which a process counts as lost", low=2)


def run(main: Callable[[], object], stopped: int = 130) -> None:
    """Call main under absl's flags. Bad input ends in one line and status 1, a stop in one line and status `stopped`.

    Where the process goes on afterwards, as in a notebook, raise SystemExit and leave the process as it was.
    """
    alone = owns_process(sys._getframe(1))
    leave = os._exit if alone else sys.exit  # at once: all is closed by now, and orbax's threads would print tracebacks

    def end(message: str, status: int) -> NoReturn:
        with suppress(OSError):  # the terminal is gone
            print(one_line(message), file=sys.stderr, flush=True)
            sys.stdout.flush()
        leave(status)

    def unraisable(error: Any) -> None:
        if error.exc_type is KeyboardInterrupt:
            end(f"stopped; {GO_ON}", stopped)

    def guarded(_: list[str]) -> None:
        stop.hear(signal.default_int_handler)
        start_logging()
        if alone:
            sys.unraisablehook = unraisable
        try:
            start_jax()
            main()
            hosts.leave()
            sys.stdout.flush()
        except SystemExit:
            hosts.leave()
            raise
        except InputError as error:
            end(f"error: {error}", 1)
        except BrokenPipeError:  # the reader of a pipe has seen enough
            leave(128 + signal.SIGPIPE)
        except OSError as error:
            path = error.filename2 or error.filename  # the second is what a temporary file was to become
            place = f"{path}: " if path else ""
            remedy = "mend that and run the same command: what was written is kept"
            end(f"error: {place}{error.strerror or error}; {remedy}", 1)
        except MemoryError as error:
            end(f"error: not enough memory ({error or 'of Python'}): take smaller sizes", 1)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or hosts.watching():
                raise
            remedy = "take a smaller batch_size, or config.train.accumulate, or config.model.remat"
            end(f"error: {first_line(error)}: {remedy}", 1)
        except KeyboardInterrupt as error:
            if str(error):  # all processes stopped at one step
                hosts.leave()
            end(f"{str(error) or 'stopped'}; {GO_ON}", stopped)
        except Exception as error:
            if not hosts.watching():
                if problem := no_devices():
                    end(f"error: {problem}", 1)
                raise
            traceback.print_exc()
            logging.getLogger("cfg_jax").warning("%s: looking which process is lost", type(error).__name__)
            time.sleep(2 * FLAGS.lost_after)  # ends sooner, in a line that names it
            raise

    with pinned.pinned(), nullcontext() if alone else as_it_was(), redirect_stdout(Printer(sys.stdout)):
        app.run(guarded, flags_parser=parse)


class Printer:
    """Standard output that shows control characters, such as those of a class's name, instead of sending them.

    A character that the terminal's encoding has not is written as Python writes it, ± as \\xb1 in ASCII.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self.stream.write(plain(text).encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def no_devices() -> str:
    """Return why jax finds no devices, "" where it finds some."""
    try:
        jax.devices()
    except Exception as error:  # some have no text
        asked = os.environ.get("JAX_PLATFORMS", "")
        remedy = "unset it, or install what it needs (README.md)"
        return f"jax finds no devices with JAX_PLATFORMS={asked} ({first_line(error)}): {remedy}"
    return ""


def owns_process(caller: FrameType) -> bool:
    """Return whether the process ends with the command: the interpreter runs the module of this frame and no more.

    A notebook, an interactive interpreter, a debugger or a script that runs the module goes on.
    """
    outer = caller.f_back
    while outer and outer.f_globals.get("__name__") == "runpy":
        outer = outer.f_back
    return outer is None and not sys.flags.interactive


@contextmanager
def as_it_was() -> Iterator[None]:
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


def forget_flags() -> None:
    """Remove the flags that the command has defined. It defines them again when it runs again in this process."""
    defined = {flag.name for flag in FLAGS.flags_by_module_dict().get(sys.argv[0], ())}
    for name in [name for name in FLAGS if name in defined or name.startswith("config.")]:
        delattr(FLAGS, name)


def parse(argv: list[str]) -> list[str]:
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
        if found := CONTROL.search(argument) or re.search(r"[\n\t]", argument):
            fail(f"{argument.partition('=')[0]} has a control character, {found[0]!r}: leave it out")
        if empty := re.match(r"--?(\w+)=$", argument):  # an empty path would be the current directory
            fail(f"--{empty[1]} is empty: give it a value or leave it out")
    if len(rest) > 1:
        fail(f"unexpected argument {rest[1]!r}: flags are given as --name=value")
    if "config" in FLAGS and FLAGS.config:
        localize(FLAGS.config)
    return rest


def overrides() -> dict[str, Any]:
    """Return {FIELD: value} of all --config.FIELD=VALUE."""
    return config_flags.get_override_values(FLAGS["config"])


def localize(config: ConfigDict) -> None:
    """Read the paths of a config as those of flags are read."""
    for field in PATHS:
        *group, name = field.split(".")
        section = config[group[0]] if group else config
        if isinstance(section, ConfigDict) and isinstance(section.get(name), str) and section[name]:
            try:
                section[name] = local_path(section[name], hub=field in PATHS[:2])
            except ValueError as error:
                fail(f"config.{field}={section[name]}: {error}")


def check_config_flags(default: str | None) -> None:
    """End with an error that suggests near names for a config file, or a field of it, that does not exist."""
    fields = [m[1] for m in (re.match(r"--?config\.([^=]*)", argument) for argument in sys.argv) if m]
    path = given("config") or default
    if any(re.match(r"--?config=$", argument) for argument in sys.argv) or sys.argv[-1] in ("--config", "-config"):
        fail("--config is empty: give it a file, or leave it out")
    if not path:
        return
    if not os.path.isfile(path):  # config_flags' message is a page long
        choices = map(str, sorted(Path("configs").glob("*[!_].py")))
        fail(f"--config={path}: no such file: choose one of {', '.join(choices)}")
    try:
        known = [*configs.flat(config_file.read(path))]
    except InputError as error:
        fail(str(error))
    for field in fields:
        if field not in known:
            group, _, last = field.rpartition(".")
            alike = lambda k: difflib.SequenceMatcher(None, last, k.rpartition(".")[2]).ratio()  # noqa: B023, E731
            close = sorted((k for k in known if alike(k) >= 0.6), key=alike, reverse=True)
            siblings = [k for k in known if k.rpartition(".")[0] == group] or known
            fail(f"--config.{field} is no field of {path}: did you mean {' or '.join(close or siblings)}?")


def number(text: str) -> int | float | tuple[float, ...]:
    """Read a number: "1.5" -> 1.5, "2" -> 2, a whole number, and "0:2" -> (0.0, 2.0)."""
    if ":" in text:
        return tuple(map(float, text.split(":")))
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def numbers(text: str, kind: type, flag: str) -> list[Any]:
    """Read a flag's numbers: "0,0.1,4" -> [0.0, 0.1, 4.0]; with kind=tuple, "0:2,1:1" -> [(0.0, 2.0), (1.0, 1.0)]."""
    try:
        return finite_numbers(text, kind)
    except ValueError as error:
        fail(f"--{flag}={text}: {error}")


def listed(numbers: Iterable[Any]) -> str:
    """Return numbers as a flag of define_numbers takes them: "0,0.5,1"."""
    return ",".join(map(short, numbers))


def finite_numbers(text: str, kind: type) -> list[Any]:
    """Read numbers as `numbers` does. Raise ValueError with what is wrong."""
    try:
        values = [tuple(map(float, part.split(":"))) if kind is tuple else kind(part) for part in text.split(",")]
    except ValueError:
        kinds = {int: "whole numbers, such as 4,8", tuple: "LOW:HIGH, such as 0:4"}
        raise ValueError(f"give {kinds.get(kind, 'numbers, such as 0,1,4')}") from None
    if bad := [value for value in values if kind is not str and not math.isfinite(sum(np.atleast_1d(value)))]:
        raise ValueError(f"{bad[0]} is no finite number")
    return values


def fail(message: str) -> NoReturn:
    print(f"error: {one_line(message)}", file=sys.stderr)
    sys.exit(1)


def start_jax() -> None:
    """Make a CPU's cores XLA devices, a power of two to divide batches; keep compiled programs; join the processes."""
    cpus = os.environ.get("JAX_NUM_CPU_DEVICES", "1")
    require(cpus.isdecimal() and int(cpus) > 0, f"JAX_NUM_CPU_DEVICES={cpus}: set a number above 0, or unset it")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        with suppress(RuntimeError):  # a notebook has used jax before
            jax.config.update("jax_num_cpu_devices", 1 << (min(cores, 8).bit_length() - 1))
    home = os.path.expanduser("~")  # "~" itself where the user has none
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and home != "~":
        jax.config.update("jax_compilation_cache_dir", str(Path(home, ".cache/cfg_jax/xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if "coordinator" in FLAGS:
        at = FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id
        hosts.join(*at, timeout=FLAGS.init_timeout, lost_after=FLAGS.lost_after)
        hosts.agree(given_to_all())
        if jax.distributed.is_initialized() and jax.process_index() > 0:  # the first one writes the log
            logging.getLogger("cfg_jax").setLevel(logging.WARNING)


def given_to_all() -> dict[str, Any]:
    """Return the flags that must be the same in all processes of a run, a config by its fields."""
    differing = ("coordinator", "process_id", "init_timeout", "lost_after", "config")
    values = {f"--{name}": FLAGS[name].value for name in FLAGS if name not in differing and "." not in name}
    fields = configs.flat(FLAGS.config) if "config" in FLAGS and FLAGS.config else {}
    return values | {f"--config.{field}": value for field, value in fields.items()}


def print_failure(failed: threading.ExceptHookArgs) -> None:
    """Print the traceback of a thread that failed, except orbax's, whose errors the main thread raises."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(failed.exc_traceback))
    of_thread = next((name for name in modules if name != "threading"), "")
    if of_thread.partition(".")[0] != "orbax":
        threading.__excepthook__(failed)


class Lines(logging.Handler):
    """Writes a line for each record to stderr. A warning is marked, on a terminal in colour unless NO_COLOR is set."""

    def emit(self, record: logging.LogRecord) -> None:
        terminal = sys.stderr.isatty()
        mark = "warning: " if record.levelno >= logging.WARNING else ""
        if mark and terminal and not os.environ.get("NO_COLOR"):
            mark = f"\033[1;33m{mark}\033[0m"
        write = tqdm.write if terminal else print  # above a progress bar
        with suppress(OSError):  # the terminal or the pipe is gone: a run goes on to its save
            write(f"{time.strftime('%H:%M:%S')} {mark}{plain(record.getMessage())}", file=sys.stderr)


def start_logging() -> None:
    threading.excepthook = print_failure
    absl.logging.set_verbosity(absl.logging.FATAL)  # orbax logs every file it writes
    logger = logging.getLogger("cfg_jax")
    logger.addHandler(Lines())
    logger.setLevel(logging.INFO)
    logger.propagate = False
