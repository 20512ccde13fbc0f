"""PyTorch's .pt state dicts as numpy arrays, without PyTorch and without running what is in them.

The file is a zip of raw storages and one pickle that says which tensor is where. Its opcodes are read with
pickletools, which only disassembles; of all they could ask for, only what a plain state dict needs is understood
here, and anything else is an error.
"""

import pickletools
import zipfile

import numpy as np

from cfg_jax.errors import InputError

DTYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}


def read(path):
    """{name: array} of a state dict that torch.save wrote (PyTorch 1.6 or newer)."""
    try:
        with zipfile.ZipFile(path) as file:
            pickles = [name for name in file.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise InputError(f"{path} is no PyTorch state dict: it has {len(pickles)} data.pkl")
            root = pickles[0].removesuffix("data.pkl")
            state = _interpret(file.read(pickles[0]), lambda key: file.read(f"{root}data/{key}"))
    except (zipfile.BadZipFile, KeyError, ValueError, IndexError, TypeError) as error:
        remedy = "download it again, or save it as .safetensors"
        raise InputError(f"{path} cannot be read as a PyTorch state dict ({error}): {remedy}") from error
    if not isinstance(state, dict) or not all(isinstance(a, np.ndarray) for a in state.values()):
        raise InputError(f"{path} holds more than tensors by name: save its state dict alone")
    return state


def _interpret(program, storage):
    """Run the opcodes of a state dict on a stack of our own; a global is its name, a call is one of two we know."""
    stack, marks, memo = [], [], {}

    def pop_to_mark():
        at = marks.pop()
        items = stack[at:]
        del stack[at:]
        return items

    for opcode, argument, _ in pickletools.genops(program):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                marks.append(len(stack))
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case "GLOBAL":
                stack.append(tuple(argument.split(" ")))
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
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1][key] = value
            case "SETITEMS":
                items = pop_to_mark()
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BINPERSID":
                kind, (module, dtype), key, _, size = stack.pop()
                if kind != "storage" or module != "torch" or dtype not in DTYPES:
                    raise ValueError(f"a {module}.{dtype} in it is not understood")
                stack.append(np.frombuffer(storage(key), DTYPES[dtype], count=size))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
            case "BUILD":
                stack.pop()  # a state dict's _metadata: versions of modules
            case "STOP":
                return stack.pop()
            case other:
                raise ValueError(f"the opcode {other} in it is not understood")
    raise ValueError("it ends early")


def _call(function, arguments):
    """The two calls of a state dict: an ordered dictionary, and a tensor as a view of a storage."""
    if function == ("collections", "OrderedDict") and not arguments:
        return {}
    if function == ("torch._utils", "_rebuild_tensor_v2"):
        data, offset, shape, strides = arguments[:4]
        reach = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if not (min((offset, *strides, *shape)) >= 0 and reach < len(data)):
            raise ValueError("a tensor in it reaches past its storage")
        return np.lib.stride_tricks.as_strided(data[offset:], shape, [s * data.itemsize for s in strides]).copy()
    raise ValueError(f"a call of {'.'.join(function)} in it is not understood")
