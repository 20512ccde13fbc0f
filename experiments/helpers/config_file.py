"""A config's Python file, run for its get_config(). What is wrong in it is said in one line, with its number."""

import runpy
import traceback
from pathlib import Path

from ml_collections import ConfigDict

from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.inputs import check, check_file, reason

REMEDY = "begin as configs/digits.py does"


def read(path: str | Path) -> ConfigDict:
    """Return the config of a file. Raises InputError, "--config=PATH, line N: reason", where it has none."""
    get_config = None
    try:
        check_file(path, most=1_000_000)
        get_config = runpy.run_path(str(path)).get("get_config")
        if not callable(get_config):
            raise ValueError("it has no get_config()")
        config = get_config()
        if not isinstance(config, ConfigDict):
            raise ValueError(f"get_config() gives {type(config).__name__}, not a ConfigDict")
        check(configs.tuples(config.to_dict()), configs.SCHEMA)
        return config
    except (Exception, SystemExit) as error:
        line = line_of(error, path) or getattr(getattr(get_config, "__code__", None), "co_firstlineno", None)
        kind = "" if type(error) in (ValueError, InputError) else f"{type(error).__name__}: "
        place = f"--config={path}, line {line}" if line else f"--config={path}"
        raise InputError(f"{place}: {kind}{reason(error)}: {REMEDY}") from error


def line_of(error: BaseException, path: str | Path) -> int | None:
    """Return the line of the file at `path` that an error was raised in or below, None if it was elsewhere."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines else None
