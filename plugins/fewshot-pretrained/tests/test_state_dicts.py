"""Files of PyTorch's are read as far as they hold tensors, and nothing in them is ever run."""

import importlib.util
import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from fewshot import DataError

pytest.importorskip("fewshot_pretrained", reason="the plugin fewshot-pretrained is not installed")

from fewshot_pretrained import state_dicts
from fewshot_pretrained.weights import weights

KINDS = {
    "<f8": "DoubleStorage", "<f4": "FloatStorage", "<f2": "HalfStorage", "<i8": "LongStorage",
    "<i4": "IntStorage", "<i2": "ShortStorage", "|i1": "CharStorage", "|u1": "ByteStorage",
    "|b1": "BoolStorage",
}  # fmt: skip
MAGIC = 0x1950A86A20F9469CFC6C


class Named:
    """What is pickled as a global of torch's, which is not installed."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Called:
    """What is pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments


class Stored:
    """A storage: its kind, key, contents and the number of its elements that the file tells."""

    def __init__(self, kind: str, key: str, content: bytes, length: int) -> None:
        self.kind, self.key, self.content, self.length = kind, key, content, length


class Writer(pickle._Pickler):  # type: ignore[name-defined]
    """Protocol 2, as `torch.save` writes it."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, file: Any, *, view: bool) -> None:
        super().__init__(file, protocol=2)
        self.view, self.stored = view, {}

    def persistent_id(self, part: Any) -> Any:
        if not isinstance(part, Stored):
            return None
        self.stored[part.key] = part
        described = ("storage", Named("torch", part.kind), part.key, "cpu", part.length)
        return (*described, None) if self.view else described

    def save_named(self, part: Named) -> None:
        self.write(pickle.GLOBAL + f"{part.module}\n{part.name}\n".encode())
        self.memoize(part)

    def save_called(self, part: Called) -> None:
        self.save(part.function)
        self.save(part.arguments)
        self.write(pickle.REDUCE)
        self.memoize(part)

    dispatch[Named], dispatch[Called] = save_named, save_called


def tensor(array: Any, key: str, kind: str | None = None, **changed: Any) -> Called:
    """An array as the call that rebuilds it from its whole memory."""
    base = array if array.base is None else array.base
    item = array.itemsize
    told = {
        "offset": (array.__array_interface__["data"][0] - base.__array_interface__["data"][0])
        // item,
        "shape": array.shape,
        "strides": tuple(stride // item for stride in array.strides),
        "length": base.size,
        **changed,
    }
    stored = Stored(kind or KINDS[array.dtype.str], key, base.tobytes("A"), told["length"])
    hooks = Called(Named("collections", "OrderedDict"))
    function = Named("torch._utils", "_rebuild_tensor_v2")
    return Called(function, stored, told["offset"], told["shape"], told["strides"], False, hooks)


def in_a_row(tree: Any) -> bytes:
    """The older form."""
    file, body = io.BytesIO(), io.BytesIO()
    machine = {"little_endian": True, "protocol_version": 1001, "type_sizes": {"int": 4}}
    for part in (MAGIC, 1001, machine):
        pickle.dump(part, file, protocol=2)
    writer = Writer(body, view=True)
    writer.dump(tree)
    pickle.dump(sorted(writer.stored), body, protocol=2)
    for _, stored in sorted(writer.stored.items()):
        body.write(struct.pack("<q", stored.length) + stored.content)
    return file.getvalue() + body.getvalue()


def zipped(tree: Any, compression: int = zipfile.ZIP_STORED) -> bytes:
    """The newer form."""
    file, body = io.BytesIO(), io.BytesIO()
    writer = Writer(body, view=False)
    writer.dump(tree)
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("model/data.pkl", body.getvalue())
        archive.writestr("model/byteorder", "little")
        for key, stored in writer.stored.items():
            archive.writestr(f"model/data/{key}", stored.content)
    return file.getvalue()


FORMS = pytest.mark.parametrize("form", [in_a_row, zipped])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "model.pth"


def read(path: Path, content: bytes) -> dict[str, Any]:
    path.write_bytes(content)
    return state_dicts.read(path)


def refused(path: Path, content: bytes, match: str | None = None) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read(path, content)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text


@FORMS
@settings(max_examples=30, deadline=None)
@given(
    array=arrays_of.arrays(
        st.sampled_from(sorted(KINDS)), arrays_of.array_shapes(min_dims=0, max_side=4)
    ),
    turned=st.booleans(),
    cut=st.integers(0, 2),
)
def test_an_array_comes_back_as_it_was(
    form: Callable[[Any], bytes], path: Path, array: Any, turned: bool, cut: int
):
    view = array.T if turned else array
    if view.ndim and 0 < cut < len(view):
        view = view[cut:]
    found = read(path, form({"a": tensor(view, "0"), "inner": {"b": tensor(array, "1")}}))
    assert list(found) == ["a", "inner.b"]
    for name, given_one in (("a", view), ("inner.b", array)):
        assert found[name].dtype == given_one.dtype
        np.testing.assert_array_equal(found[name], given_one)


@FORMS
def test_state_dicts_are_ordered_have_metadata_and_share(form: Callable[[Any], bytes], path: Path):
    shared = np.arange(6, dtype=np.float32)
    ordered = Called(Named("collections", "OrderedDict"))
    parameter = Named("torch._utils", "_rebuild_parameter")
    first, second = tensor(shared[2:], "0"), tensor(shared.reshape(2, 3).T, "0")
    hooks = Called(Named("collections", "OrderedDict"))
    found = read(
        path,
        form({"w": Called(parameter, first, True, hooks), "v": second, "epoch": 3, "e": ordered}),
    )
    np.testing.assert_array_equal(found["w"], [2, 3, 4, 5])
    np.testing.assert_array_equal(found["v"], [[0, 3], [1, 4], [2, 5]])
    assert set(found) == {"w", "v"}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(width=16, allow_nan=False), min_size=1, max_size=5))
def test_bfloat16_is_the_upper_half_of_a_float32(path: Path, numbers: list[float]):
    wide = np.array(numbers, np.float32)
    upper = (wide.view(np.uint32) >> 16).astype(np.uint16)
    found = read(path, zipped({"a": tensor(upper, "0", "BFloat16Storage")}))["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(
        found, np.array(mx.array(upper).view(mx.bfloat16).astype(mx.float32))
    )


RAN: list[str] = []


def ran(what: str) -> None:
    """What a hostile file would call."""
    RAN.append(what)


@FORMS
@pytest.mark.parametrize(
    "function", [Named("os", "system"), Named(__name__, "ran"), Named("builtins", "eval")]
)
def test_another_global_is_named_and_not_run(
    form: Callable[[Any], bytes], path: Path, function: Named
):
    refused(
        path, form({"a": Called(function, "RAN.append(1)")}), rf"{function.module}.{function.name}"
    )
    assert not RAN


A = np.arange(4, dtype=np.float32)
HOSTILE = {
    "beyond": tensor(A, "0", shape=(5,), strides=(1,)),
    "offset": tensor(A, "0", offset=1),
    "before": tensor(A, "0", offset=-1),
    "strided": tensor(A, "0", shape=(2, 2), strides=(3, 1)),
    "huge": tensor(A, "0", shape=(1 << 62, 1 << 62), strides=(0, 0)),
    "backwards": tensor(A, "0", strides=(-1,)),
    "text": tensor(A, "0", shape="ab"),
    "uneven": tensor(A, "0", strides=(1, 1)),
    "longer": tensor(A, "0", length=1 << 40),
    "shorter": tensor(A, "0", length=2),
    "no storage": Called(Named("torch._utils", "_rebuild_tensor_v2"), 3, 0, (1,), (1,), False, {}),
    "kind": Called(Named("torch", "FloatStorage")),
    "key": {("a", "b"): 1},
}


@FORMS
@pytest.mark.parametrize("what", HOSTILE)
def test_what_cannot_be_is_refused(form: Callable[[Any], bytes], path: Path, what: str):
    refused(path, form({"a": HOSTILE[what]}))


@FORMS
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_ends_in_one_line_or_in_arrays(
    form: Callable[[Any], bytes], path: Path, data: st.DataObject
):
    whole = form({"a": tensor(A, "0"), "b": tensor(np.ones((2, 2)), "1")})
    cut = data.draw(st.integers(0, len(whole)))
    changed = bytearray(whole[:cut] if data.draw(st.booleans()) else whole)
    for at in data.draw(st.lists(st.integers(0, max(0, len(changed) - 1)), max_size=3)):
        if changed:
            changed[at] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(changed))
    try:
        found = state_dicts.read(path)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert sum(array.nbytes for array in found.values()) <= 8 * 8 * len(whole)


def test_bombs_are_refused(path: Path):
    nested: Any = {"t": tensor(A, "0")}
    for _ in range(60):
        nested = {"a": nested, "b": nested}
    refused(path, zipped(nested))
    refused(path, zipped({"a": tensor(np.zeros(1 << 20, np.float32), "0")}, zipfile.ZIP_DEFLATED))
    many = {f"{i}": tensor(np.zeros(64, np.float32), "0") for i in range(2000)}
    assert len(read(path, zipped(many))) == 2000
    put = pickle.PROTO + b"\x02}" + pickle.LONG_BINPUT + struct.pack("<I", 0xFFFFFFFF) + b"."
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/data.pkl", put)
    assert read(path, file.getvalue()) == {}


def test_what_is_no_state_dict(path: Path, tmp_path: Path):
    refused(path, b"")
    refused(path, b"PK\x03\x04 no zip")
    refused(path, pickle.dumps({"a": 1}, protocol=2), "magic number")
    refused(path, pickle.dumps(OrderedDict(a=1), protocol=4))
    refused(path, b"S'\\o'\n.")
    with pytest.raises(DataError, match="No such file"):
        state_dicts.read(tmp_path / "none.pth")


def test_convert_writes_what_mlx_reads(tmp_path: Path):
    source = tmp_path / "model.pth"
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3).T, "n": np.array(7)}
    source.write_bytes(zipped({k: tensor(v, k) for k, v in arrays.items()}))
    done = CliRunner().invoke(weights, ["convert", str(source)])
    assert done.exit_code == 0, done.output
    assert "2 tensors, 7 numbers" in done.output
    found: Any = mx.load(str(tmp_path / "model.safetensors"))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(np.array(found[name]), array)
        assert np.array(found[name]).dtype == array.dtype
    done = CliRunner().invoke(weights, ["convert", str(source)])
    assert "exists: name another" in str(done.exception)
    done = CliRunner().invoke(weights, ["convert", str(source), "-o", str(tmp_path / "no" / "x")])
    assert "cannot be written" in str(done.exception)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("newer", [True, False])
def test_what_torch_saves(tmp_path: Path, newer: bool):
    import torch

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = {
        **network.state_dict(),
        "half": torch.ones(3).half(),
        "brain": torch.ones(2).bfloat16(),
    }
    torch.save(state, tmp_path / "model.pth", _use_new_zipfile_serialization=newer)
    found = state_dicts.read(tmp_path / "model.pth")
    assert found.keys() == state.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, state[name].float().numpy())
