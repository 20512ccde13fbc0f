"""PyTorch's .pt state dicts as numpy arrays, without PyTorch and without running what is in them.

The file is a zip of raw storages and one pickle that says which tensor is where. Before PyTorch 1.6 it was pickles one
after the other and then the storages. The opcodes are read with pickletools, which only disassembles. The opcodes of
state dicts and of training checkpoints are understood here. Any other is an error.
"""

import math
import os
import pickletools
import zipfile
from pathlib import Path

import numpy as np

from cfg_jax.errors import InputError, require
from cfg_jax.inputs import MOST, check_size, reading, zip_file

DTYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}
MOST_PICKLE, MOST_OPCODES = 50_000_000, 2_000_000  # bytes, opcodes; a published ADM has 0.2 MB and 30,000
LEGACY = 0x1950A86A20F9469CFC6C  # the first of the older format's pickles


def read(path: str | Path, part: str | None = None) -> dict[str, np.ndarray]:
    """{name: array} of a state dict that torch.save wrote.

    part: the state dict's name in a file that holds several things by name, as a training's checkpoint does. Raises
    InputError where the file is damaged, lacks the part, or holds more than tensors by name.
    """
    remedy = "download it again, or save it as .safetensors"
    with reading(path, "cannot be read as a PyTorch state dict", remedy, MOST):
        state = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    if part:
        require(isinstance(state, dict) and part in state, f"{path} has no {part}: name another part, or another file")
        state = state[part]
    if not isinstance(state, dict) or not all(isinstance(a, np.ndarray) for a in state.values()):
        raise InputError(f"{path} holds more than tensors by name: save its state dict alone")
    return state


def _read_zip(path):
    taken = 0

    with zip_file(path) as file:
        pickles = [name for name in file.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError(f"{path} is no PyTorch state dict: it has {len(pickles)} data.pkl")
        root = pickles[0].removesuffix("data.pkl")

        def storage(key, dtype, size):
            nonlocal taken
            member = file.getinfo(f"{root}data/{key}")
            taken += member.file_size
            check_size(taken)
            return np.frombuffer(file.read(member), dtype, size)

        check_size(file.getinfo(pickles[0]).file_size, MOST_PICKLE)
        return _interpret(file.read(pickles[0]), storage)


def _read_legacy(path):
    """Read the format before PyTorch 1.6: five pickles, then the storages, each after its length in elements.

    The pickles are a magic number, a version, the machine, the state dict and the keys of the storages. Only the state
    dict tells the dtype of a storage, so it is read twice: first for the dtypes, then for the tensors.
    """
    whole = os.path.getsize(path)

    def of_zeros(key, dtype, size):
        check_size(size * np.dtype(dtype).itemsize, whole)
        return storages.setdefault(key, np.zeros(size, dtype))

    with open(path, "rb") as file:
        if file.read(1) != b"\x80" or file.seek(0) or _interpret(file) != LEGACY:
            raise ValueError("it does not begin as one")
        _interpret(file)
        _interpret(file)
        begin, storages = file.tell(), {}
        _interpret(file, of_zeros)
        for key in _interpret(file):
            length = int.from_bytes(file.read(8), "little")
            dtype = storages[key].dtype
            check_size(length * dtype.itemsize, whole)
            storages[key] = np.frombuffer(file.read(length * dtype.itemsize), dtype, length)
        file.seek(begin)
        return _interpret(file, lambda key, *_: storages[key])


def _no_storage(*_):
    raise ValueError("a tensor in it has no storage")


def _interpret(program, storage=_no_storage):
    """Run the opcodes of one pickle on a stack of our own -> the object it describes.

    A global stays a name, and only the calls of _call are made. storage: (key, dtype, size) -> array.
    """
    stack, marks, memo, made = [], [], {}, 0

    def pop_to_mark():
        at = marks.pop()
        items = stack[at:]
        del stack[at:]
        return items

    for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if count == MOST_OPCODES:
            raise ValueError(f"it has more than {MOST_OPCODES:,} opcodes")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "EMPTY_DICT" | "EMPTY_TUPLE" | "EMPTY_LIST":
                stack.append({"EMPTY_DICT": {}, "EMPTY_TUPLE": (), "EMPTY_LIST": []}[opcode.name])
            case "MARK":
                marks.append(len(stack))
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "GLOBAL":
                stack.append(tuple(str(argument).split(" ")))
            case "NEWFALSE" | "NEWTRUE" | "NONE":
                stack.append({"NEWFALSE": False, "NEWTRUE": True, "NONE": None}[opcode.name])
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode.name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = pop_to_mark()
                stack[-1].extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1][_key(key)] = value
            case "SETITEMS":
                items = pop_to_mark()
                stack[-1].update(zip(map(_key, items[::2]), items[1::2], strict=True))
            case "BINPERSID":
                kind, names, key, _, size, *_ = stack.pop()
                module, dtype = map(_text, names)
                if kind != "storage" or module != "torch" or dtype not in DTYPES:
                    raise ValueError(f"a {module}.{dtype} in it is not understood")
                stack.append(storage(_text(key), DTYPES[dtype], size))
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
                made += getattr(stack[-1], "nbytes", 0)
                check_size(made)
            case "BUILD":
                stack.pop()  # a state dict's _metadata, versions of modules, or what the flags of a training were
            case "STOP":
                return stack.pop()
            case other:
                raise ValueError(f"the opcode {other} in it is not understood")
    raise ValueError("it ends early")


def _key(value):
    """Return a key of a dictionary: a text, or the number of a parameter in an optimizer's state."""
    return value if isinstance(value, int) else _text(value)


def _text(value):
    """Return a value that must be a text. To hash or print another would take forever if its tuples share parts."""
    if not isinstance(value, str):
        raise ValueError("a name in it is no text")
    return value


def _call(function, arguments):
    """The calls of state dicts: a tensor as a view of a storage, a parameter, and what is filled in afterwards."""
    if function in (("collections", "OrderedDict"), ("argparse", "Namespace")) and not arguments:
        return {}
    if function == ("torch._utils", "_rebuild_parameter"):
        return arguments[0]
    if function == ("torch._utils", "_rebuild_tensor_v2"):
        data, offset, shape, strides = arguments[:4]
        reach = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if not (min((offset, *strides, *shape)) >= 0 and reach < len(data)):
            raise ValueError("a tensor in it reaches past its storage")
        check_size(math.prod(shape) * data.itemsize)
        return np.lib.stride_tricks.as_strided(data[offset:], shape, [s * data.itemsize for s in strides]).copy()
    raise ValueError(f"a call of {'.'.join(map(_text, function))} in it is not understood")
