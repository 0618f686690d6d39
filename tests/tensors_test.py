"""Files of weights: what is read, when, and what is refused."""

import io
import json
import pathlib
import shutil
import struct
import zipfile
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from mmcl_jax.errors import DataError
from mmcl_jax.models.pretrained import mapped, tensors
from tests import torch_archive_test

INDEX = "model.safetensors.index.json"


def make() -> dict[str, np.ndarray]:
    """Tensors of every type, from plain numbers to none at all."""
    numbers = np.random.default_rng(0).normal(size=(3, 4)) * 20
    found = {f"kind/{dtype}": numbers.astype(dtype) for dtype in mapped.DTYPES}
    found["scalar"] = np.array(2.5, np.float32)
    found["empty"] = np.zeros((0, 5), np.float32)
    found["weight"] = np.arange(6, dtype=np.float32).reshape(2, 3)
    return found


def refused(path: pathlib.Path) -> str:
    with pytest.raises(DataError) as caught:
        dict(tensors.read(path))
    assert str(path) in str(caught.value)
    return str(caught.value)


def write_safetensors(path: pathlib.Path, values: dict[str, np.ndarray]) -> None:
    safetensors.numpy.save_file(values, path)


def write_npz(path: pathlib.Path, values: dict[str, np.ndarray]) -> None:
    np.savez(path, **values)


def write_compressed(path: pathlib.Path, values: dict[str, np.ndarray]) -> None:
    np.savez_compressed(path, **values)


FORMATS = {
    "safetensors": ("a.safetensors", write_safetensors),
    "npz": ("a.npz", write_npz),
    "compressed": ("a.npz", write_compressed),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_what_was_written_is_read_to_the_bit(kind: str, tmp_path: pathlib.Path) -> None:
    name, write = FORMATS[kind]
    values = make()
    write(tmp_path / name, values)
    found = tensors.read(str(tmp_path / name))
    assert found.keys() == values.keys() and len(found) == len(values)
    for key, value in values.items():
        array = found[key]
        assert (array.dtype, array.shape) == (value.dtype, value.shape)
        assert array.tobytes() == value.tobytes()
    with pytest.raises(KeyError):
        found["absent"]


@pytest.mark.parametrize("write", [write_npz, write_compressed])
def test_axes_in_the_order_of_fortran(write: Callable, tmp_path: pathlib.Path) -> None:
    value = np.asfortranarray(np.arange(24.0).reshape(2, 3, 4))
    write(tmp_path / "a.npz", {"a": value})
    np.testing.assert_array_equal(tensors.read(tmp_path / "a.npz")["a"], value)


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_bytes_are_read_when_they_are_used(kind: str, tmp_path: pathlib.Path) -> None:
    name, write = FORMATS[kind]
    path = tmp_path / name
    write(path, {"a": np.full(4, 7.5), "b": np.zeros(4)})
    found = tensors.read(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(np.full(4, 7.5).tobytes(), np.full(4, 9.5).tobytes()))
    assert found["a"].tolist() == [9.5] * 4
    assert not found["a"].flags.writeable


def test_a_file_that_is_cut_while_it_is_used(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"a": np.zeros(999)})
    found = tensors.read(path)
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(DataError, match="a.safetensors.*tensor 'a'"):
        found["a"]


def test_names_of_other_files(tmp_path: pathlib.Path) -> None:
    message = refused(tmp_path / "model.h5")
    assert "ends in .safetensors.index.json" in message
    assert "no such file" in refused(tmp_path / "model.safetensors")
    assert "no such file" in refused(tmp_path / "model.bin")
    assert "no such file" in refused(tmp_path / "model.npz")
    assert "no such file" in refused(tmp_path / INDEX)
    (tmp_path / "model.bin").touch()
    assert "empty" in refused(tmp_path / "model.bin")
    (tmp_path / "folder.npz").mkdir()
    assert "ordinary file" in refused(tmp_path / "folder.npz")


# safetensors


def _entry(dtype: str = "F32", shape: tuple = (2,), places: tuple = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": places}


HEADERS = {
    "short data": ({"a": _entry(places=(0, 16), shape=(4,))}, "SafetensorError"),
    "long data": ({"a": _entry(places=(0, 4), shape=(1,))}, "SafetensorError"),
    "shape": ({"a": _entry(shape=(3,))}, "SafetensorError"),
    "overflow": ({"a": _entry(shape=(2**62, 4))}, "SafetensorError"),
    "negative": ({"a": _entry(shape=(-2,))}, "SafetensorError"),
    "overlap": ({"a": _entry(), "bb": _entry(places=(4, 12))}, "`bb`"),
    "same": ({"a": _entry(), "bb": _entry()}, "invalid offset"),
    "backwards": ({"a": _entry(places=(8, 0))}, "SafetensorError"),
    "far": ({"aa": _entry(places=(2**62, 2**62 + 8))}, "`aa`"),
    "type": ({"aa": _entry("F8_E4M3", (8,))}, "'aa' is of type F8_E4M3"),
    "axes": ({"aa": _entry(shape=(2,) + (1,) * 99)}, "'aa' has 100 axes"),
    "no type": ({"a": _entry("X")}, "SafetensorError"),
    "list": ([1], "SafetensorError"),
    "text": ('{"a"', "SafetensorError"),
    "nesting": ("[" * 100_000, "SafetensorError"),
    "twice": (
        '{"aa": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}, "aa": '
        + json.dumps(_entry())
        + "}",
        "'aa' twice",
    ),
}


@pytest.mark.parametrize("case", HEADERS)
def test_hostile_headers(case: str, tmp_path: pathlib.Path) -> None:
    header, message = HEADERS[case]
    data = (header if isinstance(header, str) else json.dumps(header)).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(data)) + data + bytes(8))
    assert message in refused(path)


@pytest.mark.parametrize("size", [16 * 2**20 + 1, 2**63, 2**64 - 1])
def test_sizes_of_headers(size: int, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", size) + b"{}")
    assert f"a header of {size} bytes" in refused(path)
    path.write_bytes(struct.pack("<Q", 2**20) + b"{}")
    assert "SafetensorError" in refused(path)


# an index


def write_shards(folder: pathlib.Path) -> pathlib.Path:
    parts = {
        "model-1-of-2.safetensors": {"a": np.ones(3), "b": np.zeros(2, np.int8)},
        "model-2-of-2.safetensors": {"c": np.full((2, 2), 2, np.float16)},
    }
    for name, values in parts.items():
        write_safetensors(folder / name, values)
    shard_of = {key: name for name, values in parts.items() for key in values}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))
    return folder / INDEX


def test_tensors_of_several_files(tmp_path: pathlib.Path) -> None:
    found = tensors.read(write_shards(tmp_path))
    assert {name: array.tolist() for name, array in found.items()} == {
        "a": [1, 1, 1],
        "b": [0, 0],
        "c": [[2, 2], [2, 2]],
    }


def test_files_of_a_cache_are_links_to_elsewhere(tmp_path: pathlib.Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots"
    blobs.mkdir(), snapshot.mkdir()
    write_shards(blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    assert tensors.read(snapshot / INDEX)["a"].tolist() == [1, 1, 1]


def test_shards_that_torch_wrote(tmp_path: pathlib.Path) -> None:
    for i in (1, 2):
        values = torch_archive_test.state(**{f"t{i}": torch_archive_test.tensor()})
        program = torch_archive_test.program(values)
        torch_archive_test.archive(tmp_path / f"pytorch_model-{i}.bin", program)
    path = tmp_path / "pytorch_model.bin.index.json"
    shard_of = {f"t{i}": f"pytorch_model-{i}.bin" for i in (1, 2)}
    path.write_text(json.dumps({"weight_map": shard_of}))
    found = tensors.read(path)
    assert found["t1"].tolist() == found["t2"].tolist() == [[0, 1, 2], [3, 4, 5]]


ONE, TWO = "model-1-of-2.safetensors", "model-2-of-2.safetensors"
INDICES = {
    "no map": (lambda index: index.pop("weight_map"), "no block 'weight_map'"),
    "empty map": (lambda index: index["weight_map"].clear(), "no block 'weight_map'"),
    "list": (lambda index: index.update(weight_map=[1]), "no block 'weight_map'"),
    "number": (lambda index: index["weight_map"].update(a=1), "'a' is in 1;"),
    "above": (lambda i: i["weight_map"].update(a=f"../{ONE}"), f"'a' is in '../{ONE}'"),
    "root": (lambda i: i["weight_map"].update(a=f"/{ONE}"), f"'a' is in '/{ONE}'"),
    "folder": (lambda i: i["weight_map"].update(a=f"b/{ONE}"), f"'a' is in 'b/{ONE}'"),
    "backslash": (lambda i: i["weight_map"].update(a=f"b\\{ONE}"), "'a' is in"),
    "zero": (lambda i: i["weight_map"].update(a=f"\0{ONE}"), "'a' is in"),
    "surrogate": (lambda i: i["weight_map"].update(a=f"\ud800{ONE}"), "'a' is in"),
    "format": (lambda i: i["weight_map"].update(a="a.bin"), "'a' is in 'a.bin'"),
    "index": (lambda i: i["weight_map"].update(a=INDEX), f"'a' is in '{INDEX}'"),
    "other shard": (lambda i: i["weight_map"].update(a=TWO), "tensor 'a'"),
    "not there": (lambda i: i["weight_map"].update(d=TWO), f"{TWO} .* tensor 'd'"),
    "not named": (lambda i: i["weight_map"].pop("b"), f"{ONE} .* tensor 'b'"),
}


@pytest.mark.parametrize("case", INDICES)
def test_hostile_indices(case: str, tmp_path: pathlib.Path) -> None:
    path = write_shards(tmp_path)
    index = json.loads(path.read_text())
    change, message = INDICES[case]
    change(index)
    path.write_text(json.dumps(index))
    with pytest.raises(DataError, match=message) as caught:
        tensors.read(path)
    assert str(path) in str(caught.value)


def test_shards_that_are_not_what_they_should_be(tmp_path: pathlib.Path) -> None:
    path = write_shards(tmp_path)
    shutil.copy(tmp_path / ONE, tmp_path / TWO)
    assert "do not agree on tensor 'a'" in refused(path)  # it is in both
    (tmp_path / TWO).unlink()
    with pytest.raises(DataError, match=f"{TWO}: no such file"):
        tensors.read(path)
    path.write_text("{" * 99)
    refused(path)


# npz


def test_bfloat16_of_numpy(tmp_path: pathlib.Path) -> None:
    # NumPy writes it as two bytes without a meaning
    value = np.array([1, -2.5], jnp.bfloat16)
    np.savez(tmp_path / "a.npz", **{"params/img/b": value})
    with np.load(tmp_path / "a.npz") as plain:
        assert plain["params/img/b"].dtype == np.dtype("V2")
    found = tensors.read(tmp_path / "a.npz")["params/img/b"]
    assert found.dtype == jnp.bfloat16 and found.tolist() == [1, -2.5]


def _npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + data


def _described(kind: str, shape: str, data: bytes = b"") -> bytes:
    entry = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}"
    return _npy(entry, data)


def _objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    return file.getvalue()


ENTRIES = {
    "pickled": (_objects(), "numbers of type object"),
    "text": (_described("<U2", "(1,)", bytes(8)), "numbers of type <U2"),
    "fields": (
        _npy(
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", bytes(4)
        ),
        "numbers of type",
    ),
    "big-endian": (_described(">f4", "(1,)", bytes(4)), "numbers of type >f4"),
    "void": (_described("|V4", "(1,)", bytes(4)), "numbers of type"),
    "short": (_described("<f4", "(2, 3)", bytes(23)), "does not fit"),
    "long": (_described("<f4", "(2, 3)", bytes(25)), "does not fit"),
    "huge": (_described("<f4", f"({2**62}, {2**62})", bytes(8)), "does not fit"),
    "product of nothing": (_described("<f4", "(-2, -1)", bytes(8)), "shape (-2, -1)"),
    "negative": (_described("<f4", "(-1,)"), "shape (-1,)"),
    "axes": (_described("<f4", str((1,) * 99), bytes(4)), "'weight'"),
    "no tuple": (_described("<f4", "'a'"), "'weight'"),
    "code": (_described("<f4", "__import__('os').getpid()"), "'weight'"),
    "nested": (_npy("-" * 9000 + "1"), "'weight'"),
    "brackets": (_npy("(" * 9000), "'weight'"),
    "long header": (_npy(" " * 2**20, version=2), "'weight'"),
    "version": (_npy("{}", version=9), "'weight'"),
    "nothing": (b"", "'weight'"),
    "magic": (bytes(200), "'weight'"),
}


@pytest.mark.filterwarnings("ignore:invalid value:SyntaxWarning")
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("case", ENTRIES)
def test_hostile_entries(case: str, compression: int, tmp_path: pathlib.Path) -> None:
    data, message = ENTRIES[case]
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("weight.npy", data)
    assert message in refused(path)


def test_a_deflated_bomb(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(2**24))
    assert path.stat().st_size < 2**18
    assert f"{2**27} bytes of tensors" in refused(path)
    # more comes out than the directory says
    np.savez_compressed(path, a=np.zeros(2**16))
    with zipfile.ZipFile(path) as file:
        size = file.infolist()[0].file_size
    data = path.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", 200))
    path.write_bytes(data)
    assert "'a' (65536,) of float64 does not fit" in refused(path)


def test_other_archives(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("weight", _described("<f4", "(1,)", bytes(4)))
    assert "does not fit in entry 'weight'" in refused(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("weight.npy", _described("<f4", "(1,)", bytes(4)))
    assert "compressed, but not deflated" in refused(path)
    path.write_bytes(bytes(99))
    assert "BadZipFile" in refused(path)


@pytest.mark.parametrize("write", [write_npz, write_compressed])
def test_cut_and_damaged_npz(write: Callable, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.npz"
    value = np.random.default_rng(0).normal(size=999)
    write(path, {"a": value})
    data = path.read_bytes()
    for part in (0.1, 0.5, 0.99):
        path.write_bytes(data[: int(len(data) * part)])
        refused(path)
    if write is write_compressed:
        path.write_bytes(data[:3000] + bytes([data[3000] ^ 1]) + data[3001:])
        assert "tensor 'a'" in refused(path)
