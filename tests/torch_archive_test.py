"""Tensors of files that torch wrote, and what such files could do to who unpickles."""

import os
import pathlib
import pickle
import struct
import zipfile
from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.errors import DataError
from mmcl_jax.models.pretrained import torch_archive

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "checkpoint.pt"

# the instructions of a pickle, written by hand


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes(10, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def together(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def numbers(values: tuple[int, ...]) -> bytes:
    return together(*map(number, values))


def storage(key: str = "0", elements: int = 6, kind: str = "FloatStorage") -> bytes:
    place = (text("storage"), named("torch", kind), text(key), text("cpu"))
    return together(*place, number(elements)) + b"Q"


def tensor(
    stored: bytes | None = None,
    offset: int = 0,
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    more: bytes = b"",
) -> bytes:
    hooks = named("collections", "OrderedDict") + b")R"
    places = (number(offset), numbers(shape), numbers(strides))
    arguments = (storage() if stored is None else stored, *places, b"\x89", hooks, more)
    return named("torch._utils", "_rebuild_tensor_v2") + together(*arguments) + b"R"


def state(**values: bytes) -> bytes:
    items = b"".join(text(name) + value for name, value in values.items())
    return b"}(" + items + b"u"


def archive(
    path: pathlib.Path,
    program: bytes,
    compression: int = zipfile.ZIP_STORED,
    **more: bytes,
) -> pathlib.Path:
    """Writes what torch would, with a storage of the numbers 0 to 5."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("tiny/data.pkl", program)
        file.writestr("tiny/data/0", np.arange(6, dtype=np.float32).tobytes())
        file.writestr("tiny/byteorder", "little")
        for name, data in more.items():
            file.writestr(f"tiny/{name.replace('__', '/').replace('_', '.')}", data)
    return path


def program(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def refused(path: pathlib.Path) -> str:
    with pytest.raises(DataError) as caught:
        dict(torch_archive.read(path))
    assert str(path) in str(caught.value)
    return str(caught.value)


# files of torch


def test_a_file_that_torch_wrote() -> None:
    found = dict(torch_archive.read(FIXTURE))
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = {
        "plain": base,
        "transposed": base.T,
        "row": np.array([5, 6], np.float32),
        "parameter": np.array([0.1, -2], np.float32),
        "half": np.array([1.5, -65504], np.float16),
        "bfloat16": np.array([1, 3.140625], jnp.bfloat16),
        "position_ids": np.array([[0, 1, 2]], np.int64),
        "logit_scale": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].shape == value.shape, name
        assert found[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "old"])
def test_what_torch_saves_is_read_to_the_bit(
    protocol: int, zipped: bool, tmp_path: pathlib.Path
) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch")
    torch.manual_seed(0)
    base = torch.randn(5, 6, 7)
    kinds = ("float64", "float32", "float16", "bfloat16")
    values = {kind: base.to(getattr(torch, kind)) for kind in kinds}
    kinds = ("int64", "int32", "int16", "int8", "uint8", "bool")
    values |= {kind: (10 * base).to(getattr(torch, kind)) for kind in kinds}
    values |= {
        "transposed": base.permute(2, 0, 1),
        "shared": base,
        "part": base[1:4, ::2, 3:],
        "parameter": torch.nn.Parameter(base[0]),
        "scalar": base[1, 2, 3],
        "empty": base[:0],
    }
    module = torch.nn.TransformerEncoderLayer(8, 2, 16)
    nested = {"model": OrderedDict(values) | module.state_dict(), "epoch": 3}
    torch.save(
        nested,
        tmp_path / "a.pth",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )
    found = torch_archive.read(tmp_path / "a.pth")
    assert found.keys() == nested["model"].keys()
    for name, value in nested["model"].items():
        assert str(found[name].dtype) == str(value.dtype).removeprefix("torch.")
        assert found[name].shape == tuple(value.shape)
        data = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        assert found[name].tobytes() == data.tobytes(), name


@pytest.mark.parametrize("kind", ["old module", "script", "module", "tensor"])
def test_other_files_of_torch_are_refused(kind: str, tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch", reason="writes with torch")
    module, path = torch.nn.Linear(2, 2), tmp_path / "a.pt"
    if kind == "old module":
        torch.save(module, path, _use_new_zipfile_serialization=False)
    elif kind == "script":
        torch.jit.ScriptModule().save(str(path))
    else:
        torch.save(module if kind == "module" else module.weight.data, path)
    message = refused(path)
    assert "safetensors" in message
    assert "module" not in kind or "'torch.nn.modules.linear.Linear'" in message


# files by hand


def test_views_and_what_is_passed_over(tmp_path: pathlib.Path) -> None:
    leaves = {"epoch": number(3), "note": text("words"), "none": b"N", "loss": b"]"}
    turned = tensor(shape=(3, 2), strides=(1, 3))
    parameter = named("torch._utils", "_rebuild_parameter")
    parameter += together(tensor(), b"\x88", b"}") + b"R"
    body = state(turned=turned, parameter=parameter, **leaves)
    found = torch_archive.read(archive(tmp_path / "a.bin", program(body)))
    assert list(found) == ["turned", "parameter"]
    assert found["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["parameter"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("nest", ["state_dict", "model"])
def test_weights_of_a_checkpoint(nest: str, tmp_path: pathlib.Path) -> None:
    body = state(optimizer=state(b=tensor()), **{nest: state(a=tensor())})
    assert list(torch_archive.read(archive(tmp_path / "a.bin", program(body)))) == ["a"]


def test_two_sets_of_weights_are_refused(tmp_path: pathlib.Path) -> None:
    body = state(state_dict=state(a=tensor()), model=state(a=tensor()))
    message = refused(archive(tmp_path / "a.bin", program(body)))
    assert "as state_dict and as model" in message


def test_bytes_are_read_when_they_are_used(tmp_path: pathlib.Path) -> None:
    path = archive(tmp_path / "a.bin", program(state(a=tensor())))
    found = torch_archive.read(path)
    before, after = (np.arange(6, dtype=np.float32) + n for n in (0, 100))
    data = path.read_bytes()
    assert data.count(before.tobytes()) == 1
    path.write_bytes(data.replace(before.tobytes(), after.tobytes()))
    array = found["a"]
    assert array.ravel().tolist() == after.tolist()
    assert not array.flags.writeable


class Bomb:
    """Makes a pickle of a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("is_nested", [False, True])
def test_nothing_is_run(protocol: int, is_nested: bool, tmp_path: pathlib.Path) -> None:
    marker = tmp_path / "marker"
    calls = {
        "posix.system": (os.system, f"touch {marker}"),
        "builtins.eval": (eval, f"__import__('pathlib').Path({str(marker)!r}).touch()"),
    }
    for name, (function, argument) in calls.items():
        bomb = Bomb(function, argument)
        value = OrderedDict(state_dict={"weight": [bomb]}) if is_nested else bomb
        body = pickle.dumps(value, protocol)
        message = refused(archive(tmp_path / "a.bin", body))
        old = name.replace("builtins", "__builtin__")
        assert protocol == 0 or name in message or old in message
        assert not marker.exists()
        pickle.loads(body)
        assert marker.exists()  # it was a bomb
        marker.unlink()


def _call(module: str, name: str, *arguments: bytes) -> bytes:
    return named(module, name) + together(*arguments) + b"R"


HOSTILE = {
    # other ways to call, to make and to change what the program names
    "INST": (b"(X\1\0\0\0aiposix\nsystem\n", "INST"),
    "OBJ": (b"(" + named("collections", "OrderedDict") + b"o", "OBJ"),
    "NEWOBJ": (named("collections", "OrderedDict") + b")\x81", "NEWOBJ"),
    "EXT1": (b"\x82\1", "EXT1"),
    "PERSID": (b"P0\n", "PERSID"),
    "STACK_GLOBAL": (text("posix") + text("system") + b"\x93", "'posix.system'"),
    "dotted": (named("torch._utils", "os.system"), "'torch._utils.os.system'"),
    "torch": (named("torch._utils", "_rebuild_tensor_v3"), "_rebuild_tensor_v3"),
    "similar": (named("torch", "FloatStorage.__init__"), "FloatStorage.__init__"),
    "build of a global": (named("torch", "FloatStorage") + b"}b", "_Global where"),
    "call of a storage": (_call("torch", "FloatStorage", number(9)), "arguments"),
    "call of a text": (text("posix.system") + together(text("ls")) + b"R", "str where"),
    "call of a list": (b"])R", "list where"),
    "arguments of a dict": (
        _call(
            "collections", "OrderedDict", b"]" + together(text("a"), tensor()) + b"a"
        ),
        "arguments",
    ),
    "parameter of a text": (
        _call("torch._utils", "_rebuild_parameter", text("a"), b"\x89", b"}"),
        "arguments",
    ),
    "metadata": (tensor(more=b"}" + text("neg") + b"\x88s"), "arguments"),
    "not little": (tensor(stored=storage(kind="ComplexFloatStorage")), "ComplexFloat"),
    "reference": (text("storage") + b"Q", "reference"),
    "reference to a global": (
        together(text("storage"), named("collections", "OrderedDict"))[:-1]
        + text("0")
        + text("cpu")
        + number(1)
        + b"tQ",
        "reference",
    ),
    # memo
    "memo far away": (b"]r\xff\xff\xff\xff", "value 4294967295"),
    "memo of nothing": (b"h\7", "7"),
    "memo of an empty stack": (b"q\0", "data.pkl"),
    "long text in the memo": (
        text("a" * 99) + b"q\0" + b"h\0" * 99 + b"\x85R",
        "where",
    ),
    # stacks
    "empty": (b"", "data.pkl"),
    "no mark": (b"t", "data.pkl"),
    "append to a text": (text("a") + text("b") + b"a", "str where"),
    "item of a list": (b"]" + text("b") + b"Ks", "data.pkl"),
    "half an item": (b"}(" + text("b") + b"u", "data.pkl"),
    # counts
    "text": (b"\x8d" + struct.pack("<Q", 2**62), "data.pkl"),
    "short text": (b"X\xff\xff\xff\xff", "data.pkl"),
    "bytes": (b"\x8e" + struct.pack("<Q", 2**62), "data.pkl"),
    "array": (b"\x96" + struct.pack("<Q", 2**40), "data.pkl"),
    "long": (b"\x8b\xff\xff\xff\x7f", "data.pkl"),
    "frame": (b"\x95" + struct.pack("<Q", 2**63) + b"N", "no state dict"),
    "unknown": (b"\xff", "data.pkl"),
    # nesting
    "marks": (b"(" * 100_000, "data.pkl"),
    "lists": (b"]" * 100_000 + b"a" * 99_999, "no state dict"),
    "tuples as a key": (b"})" + b"\x85" * 100_000 + b"Ns", "no tensors"),
    "doubled": (
        b"]"
        + b"".join(
            b"q" + bytes([i]) + b"]" + b"h" + bytes([i]) + b"ah" + bytes([i]) + b"a"
            for i in range(99)
        ),
        "no state dict",
    ),
    "inside itself": (b"}q\0" + text("state_dict") + b"h\0s", "no tensors"),
    # none of a state dict
    "list": (b"]" + tensor() + b"a", "no state dict"),
    "no tensors": (state(epoch=number(3)), "no tensors"),
    "numbers for names": (b"}" + number(7) + tensor() + b"s", "no tensors"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_programs(case: str, tmp_path: pathlib.Path) -> None:
    body, message = HOSTILE[case]
    assert message in refused(archive(tmp_path / "a.bin", program(body)))


_HUGE = 2**62
OUTSIDE = {
    "offset": tensor(offset=1),
    "shape": tensor(shape=(3, 3)),
    "strides": tensor(strides=(4, 1)),
    "negative stride": tensor(strides=(-3, 1)),
    "negative offset": tensor(offset=-1),
    "negative shape": tensor(shape=(-2, -3)),
    "product that overflows": tensor(shape=(_HUGE, _HUGE), strides=(_HUGE, 4)),
    "larger than 64 bits": tensor(shape=(2**65, 1)),
    "one number, many times": tensor(shape=(_HUGE, _HUGE), strides=(0, 0)),
    "more strides than axes": tensor(strides=(3, 1, 1)),
    "axes": tensor(shape=(1,) * 33, strides=(1,) * 33),
    "no number": tensor(shape=(2, 3)).replace(number(2), b"\x88"),
    "no tuple": tensor().replace(numbers((3, 1)), b"]"),
    "empty beyond the end": tensor(offset=7, shape=(0,), strides=(1,)),
    "larger storage": tensor(stored=storage(elements=7)),
    "wider storage": tensor(stored=storage(kind="DoubleStorage")),
    "negative storage": tensor(stored=storage(elements=-1)),
    "other storage": tensor(stored=storage(key="1")),
    "storage elsewhere": tensor(stored=storage(key="../byteorder")),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_tensors_outside_their_storage(case: str, tmp_path: pathlib.Path) -> None:
    path = archive(tmp_path / "a.bin", program(state(weight=OUTSIDE[case])))
    assert "data.pkl" in (message := refused(path)) or "'weight'" in message


def test_few_bytes_do_not_become_many(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(
        tmp_path / "a.bin", program(state(**{f"t{i}": tensor() for i in range(20)}))
    )
    assert len(torch_archive.read(path)) == 20  # 480 bytes, of 24
    monkeypatch.setattr("mmcl_jax.models.pretrained.mapped._FREE_BYTES", 0)
    monkeypatch.setattr("mmcl_jax.models.pretrained.mapped._MAX_GROWTH", 0.05)
    assert "480 bytes of tensors" in refused(path)


def test_archives_of_another_kind(tmp_path: pathlib.Path) -> None:
    good, path = program(state(a=tensor())), tmp_path / "a.bin"
    assert list(torch_archive.read(archive(path, good)))
    compressed = archive(path, good, compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(compressed)
    assert "TorchScript" in refused(archive(path, good, constants_pkl=b"."))
    assert "TorchScript" in refused(archive(path, good, code__a_py=b""))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tiny/data.pkl", good)
        file.writestr("other/data.pkl", good)
    assert "2 entries data.pkl" in refused(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme", "")
    assert "0 entries data.pkl" in refused(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tiny/data.pkl", good)
        file.writestr("tiny/byteorder", "big")
    assert "little-endian" in refused(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tiny/data.pkl", good)
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("tiny/data.pkl", good)
    assert "two entries" in refused(path)
    path.write_bytes(good)
    assert "safetensors" in refused(path)


def test_cut_and_damaged_archives(tmp_path: pathlib.Path) -> None:
    path = archive(tmp_path / "a.bin", program(state(a=tensor())))
    data = path.read_bytes()
    for part in (0.0, 0.2, 0.6, 0.99):
        path.write_bytes(data[: int(len(data) * part)])
        refused(path)
    path.write_bytes(data.replace(text("a"), text("b")))
    assert "checksum" in refused(path)


def test_sizes_of_programs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "a.bin", program(state(a=tensor())))
    size = len(program(state(a=tensor())))
    monkeypatch.setattr(torch_archive, "_MAX_PROGRAM_BYTES", size)
    torch_archive.read(path)
    monkeypatch.setattr(torch_archive, "_MAX_PROGRAM_BYTES", size - 1)
    assert f"limit of {size - 1}" in refused(path)
    monkeypatch.undo()
    monkeypatch.setattr(torch_archive, "_MAX_INSTRUCTIONS", 9)
    assert "more than 9 instructions" in refused(path)
    monkeypatch.undo()
    name = "mmcl_jax.models.pretrained.archives._MAX_DIRECTORY_BYTES"
    monkeypatch.setattr(name, 100)
    assert "limit of 100" in refused(path)


# files of torch before 1.6


def old_file(
    path: pathlib.Path,
    body: bytes,
    keys: tuple[str, ...] = ("0",),
    machine: bytes | None = None,
    more: bytes = b"",
) -> pathlib.Path:
    """Writes what torch before 1.6 would, with storages of the numbers 0 to 5."""
    facts = state(little_endian=b"\x88") if machine is None else machine
    listed = b"](" + b"".join(map(text, keys)) + b"e"
    start = (number(0x1950A86A20F9469CFC6C), number(1001), facts, body, listed)
    stored = struct.pack("<q", 6) + np.arange(6, dtype=np.float32).tobytes()
    path.write_bytes(b"".join(map(program, start)) + stored * len(keys) + more)
    return path


def old_storage(key: str, view: bytes = b"N") -> bytes:
    place = (text("storage"), named("torch", "FloatStorage"), text(key), text("cpu"))
    return together(*place, number(6), view) + b"Q"


def test_storages_of_old_files_follow_one_another(tmp_path: pathlib.Path) -> None:
    body = state(a=tensor(old_storage("7")), b=tensor(old_storage("0"), shape=(1, 3)))
    path = old_file(tmp_path / "a.pth", body, ("0", "7"))
    data = path.read_bytes()
    last = np.arange(6, dtype=np.float32).tobytes()
    assert data.endswith(last)
    path.write_bytes(data[: -len(last)] + np.full(6, 9, np.float32).tobytes())
    found = torch_archive.read(path)
    assert found["a"].tolist() == [[9, 9, 9], [9, 9, 9]]
    assert found["b"].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"more": b"x"}, "storages up to byte"),
        ({"keys": (), "more": bytes(32)}, "storages up to byte"),
        ({"keys": ("0", "0")}, "a storage '0', of no tensor or twice"),
        ({"keys": ("1",)}, "a storage '1', of no tensor or twice"),
        ({"machine": state(little_endian=b"\x89")}, "little-endian"),
        ({"machine": number(3)}, "little-endian"),
        (
            {"body": state(a=tensor(old_storage("0", together(number(0)))))},
            "to a storage",
        ),
        ({"body": named("os", "system") + together(text("id")) + b"R"}, "'os.system'"),
        (
            {
                "body": state(
                    a=tensor(old_storage("0")),
                    b=tensor(storage("0", 6, "DoubleStorage"), shape=(1, 3)),
                )
            },
            "two storages with the key '0'",
        ),
    ],
)
def test_old_files_that_torch_does_not_write(
    changes: dict, message: str, tmp_path: pathlib.Path
) -> None:
    parts = {"body": state(a=tensor(old_storage("0")))} | changes
    assert message in refused(old_file(tmp_path / "a.pth", **parts))


def test_cut_old_files(tmp_path: pathlib.Path) -> None:
    path = old_file(tmp_path / "a.pth", state(a=tensor(old_storage("0"))))
    data = path.read_bytes()
    for length in (20, 60, len(data) // 2, len(data) - 25, len(data) - 1):
        path.write_bytes(data[:length])
        refused(path)
