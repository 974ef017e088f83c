"""Arrays from files that PyTorch saved, without PyTorch and without running anything in them.

`torch.save` writes a pickle, which is a program. Here only the few instructions that state dicts
are made of are followed, and the few globals that stand in them are names of what is done here:
nothing is imported, called or built but dicts, lists, tuples, text, numbers and descriptions of
tensors. Both forms are read: the zip file of PyTorch 1.6 and later, and the row of pickles before.
"""

import json
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewshot import DataError, replacing

Array = NDArray[Any]

# What a global of torch's stands for: a dtype of NumPy's, of storages. bfloat16 is widened.
_STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "<u2",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1",
    "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older form
_MOST_STEPS = 1_000_000

# What damaged and hostile files end in.
_UNREADABLE = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, OverflowError,
    MemoryError, NotImplementedError, RuntimeError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


class _Storage(NamedTuple):
    key: str
    kind: str
    length: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: str | Path) -> dict[str, Array]:
    """The tensors of a state dict or checkpoint by name, those in inner dicts as "outer.inner".

    Read-only; bfloat16 as float32. What is no tensor is left out. Raises DataError, naming the
    file, for anything but a state dict: another global in it (which is named), a damaged file, a
    tensor that reaches beyond its storage.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        form = _zipped if content.startswith(b"PK") else _in_a_row
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's, of escapes in damaged text
            tree, storages = form(BytesIO(content), len(content))
        tensors = dict(_tensors(tree, set()))
        if sum(prod(tensor.shape) for tensor in tensors.values()) > 8 * len(content):
            raise ValueError("tensors that share their numbers many times over")
        return {name: _array(tensor, storages) for name, tensor in tensors.items()}
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except _UNREADABLE as error:
        line = " ".join(str(error).split())[:200]
        why = "" if isinstance(error, KeyError) else f": {line}"  # a key alone tells nobody why
        raise DataError(f"{path}: not a state dict of PyTorch, or damaged{why}") from error


# ------------------------------------------------------------------------------ the files


def _zipped(whole: BytesIO, size: int) -> tuple[Any, Mapping[str, bytes]]:
    with zipfile.ZipFile(whole) as archive:
        if sum(info.file_size for info in archive.infolist()) > size:
            raise ValueError("more in the zip file than its size: no state dict is compressed")
        (found,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = found.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist():
            _require_little(archive.read(f"{folder}byteorder") == b"little")
        with archive.open(found) as file:
            tree, storages = _loaded(file)
        return tree, {key: archive.read(f"{folder}data/{key}") for key in storages}


def _in_a_row(whole: BytesIO, size: int) -> tuple[Any, Mapping[str, bytes]]:
    """Pickles of magic number, version, machine, tree and keys, then every key's contents."""
    if _loaded(whole)[0] != _MAGIC:
        raise ValueError("its first pickle is not the magic number")
    _loaded(whole)
    _require_little(_loaded(whole)[0]["little_endian"] is True)
    tree, storages = _loaded(whole)
    contents = {}
    for key in _loaded(whole)[0]:
        (length,) = struct.unpack("<q", whole.read(8))
        if not length == storages[key].length <= size:
            raise ValueError(f"storage {key!r} has {length} numbers, not {storages[key].length}")
        contents[key] = whole.read(length * np.dtype(storages[key].kind).itemsize)
    return tree, contents


def _require_little(little: bool) -> None:
    if not little:
        raise ValueError("written on a machine that has the high byte first")


# ------------------------------------------------------------------------------ the pickle


def _ordered_dict(*nothing: Any) -> dict[Any, Any]:
    if nothing not in ((), ([],)):
        raise ValueError("an OrderedDict made of something")
    return {}


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    whole = (type(number) is int and number >= 0 for number in (offset, *shape, *strides))
    if type(storage) is not _Storage or not all(whole) or len(shape) != len(strides):
        raise ValueError("a tensor without a storage, or with sizes that are none")
    return _Tensor(storage, offset, shape, strides)


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
}
_GLOBALS = {*_FUNCTIONS, *(f"torch {name}" for name in _STORAGES)}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS_AND_TEXT = {
    "BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
}  # fmt: skip


class _Global(str):
    """The name of a global, which is all there is of it."""

    __slots__ = ()


def _loaded(file: IO[bytes]) -> tuple[Any, dict[str, _Storage]]:
    """What one pickle describes, and the storages it names, by key."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    storages: dict[str, _Storage] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        taken = stack[start:]
        del stack[start:]
        return taken

    def put(target: Any, pairs: list[Any]) -> None:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(target) is not dict or type(key) not in (str, int):
                raise ValueError("a key that is neither text nor a number")
            target[key] = value

    argument: Any
    for step, (code, argument, _) in enumerate(pickletools.genops(file)):
        if step > _MOST_STEPS:
            raise ValueError(f"more than {_MOST_STEPS} steps")
        name = code.name
        if name in _NUMBERS_AND_TEXT:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("SETITEM", "SETITEMS"):
            pairs = since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            put(stack[-1], pairs)
        elif name in ("APPEND", "APPENDS"):
            values = since_mark() if name == "APPENDS" else [stack.pop()]
            list.extend(stack[-1], values)
        elif name == "GLOBAL":
            if argument not in _GLOBALS:
                raise DataError(
                    f"it asks for {argument.replace(' ', '.')}, which no plain state dict does: "
                    "nothing of it was run; save the state dict alone, or as safetensors"
                )
            stack.append(_Global(argument))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            if type(function) is not _Global or type(arguments) is not tuple:
                raise ValueError("it calls what is no function")
            stack.append(_FUNCTIONS[function](*arguments))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
            storages[stack[-1].key] = stack[-1]
        elif name == "BUILD":  # `_metadata` of a state dict
            stack.pop()
        elif name == "STOP":
            return stack.pop(), storages
        elif name != "PROTO":
            raise ValueError(f"the instruction {name}, which no state dict needs")
    raise EOFError("it ends in the middle")


def _storage(described: Any) -> _Storage:
    """("storage", its kind, key, device, length[, None])."""
    what, kind, key, _, length, *view = described
    _, _, dtype = str(kind).rpartition(" ")
    plain = what == "storage" and type(kind) is _Global and type(key) is str and not any(view)
    if not plain or type(length) is not int or length < 0:
        raise ValueError("a storage that is none")
    return _Storage(key, _STORAGES[dtype], length)


# ------------------------------------------------------------------------------ the tensors


def _tensors(tree: Any, seen: set[int], outer: str = "") -> Iterator[tuple[str, _Tensor]]:
    if type(tree) is not dict or id(tree) in seen:
        raise ValueError("no dict of tensors, or one that is in itself")
    seen.add(id(tree))
    for key, value in tree.items():
        if type(value) is _Tensor:
            yield f"{outer}{key}", value
        elif type(value) is dict:
            yield from _tensors(value, seen, f"{outer}{key}.")


def _array(tensor: _Tensor, contents: Mapping[str, bytes]) -> Array:
    storage, offset, shape, strides = tensor
    dtype, content = np.dtype(storage.kind), contents[storage.key]
    if len(content) != storage.length * dtype.itemsize:
        raise ValueError(f"storage {storage.key!r} has {len(content)} bytes, which is not its size")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    size = prod(shape)
    if size and (last >= storage.length or size > storage.length):
        raise ValueError(f"a tensor {shape} reaches beyond its {storage.length} numbers")
    flat = np.frombuffer(content, dtype)[offset:] if size else np.empty(0, dtype)
    steps = [stride * dtype.itemsize for stride in strides]
    array = np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)
    if storage.kind == _STORAGES["BFloat16Storage"]:  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


# ------------------------------------------------------------------------------ safetensors

_NAMES = {
    "f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8",
    "u1": "U8", "b1": "BOOL",
}  # fmt: skip


def save(arrays: Mapping[str, Array], path: Path) -> None:
    """Write safetensors: a header in JSON, then all numbers in order; whole or not at all."""
    header, end = {}, 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        dtype = _NAMES[array.dtype.str[1:]]
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).tobytes())
