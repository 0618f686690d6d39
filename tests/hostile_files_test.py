"""Tables, stored JSON and encoders that are not what they should be."""

import io
import json
import os
import pathlib
import shutil
import struct
from collections.abc import Callable

import numpy as np
import pytest
import safetensors.numpy
import yaml
from rich.console import Console

from mmcl_jax import config
from mmcl_jax.errors import ConfigError, DataError, Faults
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES
from mmcl_jax.files import MAX_JSON_BYTES, parse_yaml, read_json
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import FileReference, InputSpec, TokenizerSpec
from mmcl_jax.modalities.tokenization import load_tokenizer
from mmcl_jax.models import pretrained
from mmcl_jax.streams import features
from mmcl_jax.streams.table_files import read_table
from mmcl_jax.sweeps import jobset, runs
from mmcl_jax.workdir import logs, schema
from tests import helpers
from tests.pages import EXAMPLE, make_run, seal


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> InputSpec:
    return helpers.make_spec(tmp_path_factory.mktemp("spec"))


# tables


def _table_error(path: pathlib.Path) -> str:
    faults = Faults()
    with faults.collecting():
        read_table(path, path.parent, faults)
    with pytest.raises(DataError) as caught:
        faults.check()
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_sizes_of_tables(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,label\n" + "a,b\n" * 9)
    monkeypatch.setattr("mmcl_jax.streams.table_files._MAX_ROWS", 8)
    assert "more than 8 rows" in _table_error(path)
    monkeypatch.setattr("mmcl_jax.streams.table_files._MAX_BYTES", 8)
    assert "more than the limit of 8" in _table_error(path)
    path.write_text("text,label\n" + "a" * 200_000 + ",b\n")
    monkeypatch.undo()
    assert "longer than the limit of 131072" in _table_error(path)


# names


def test_names_are_no_markup_and_numbers_are_never_cut() -> None:
    long = "名x" * 40
    matrix = {route: np.full((2, 2), 1.0).tolist() for route in ("given", "predicted")}
    metrics = {route: dict.fromkeys(logs.SHORT_NAMES, None) for route in matrix}
    tasks = [
        {"name": f"image/{name}", "modality": "image", "classes": ["a", "b"]}
        for name in ("[/red]/0", long)
    ]
    table = logs.results_table(
        {
            "method": "comm",
            "tasks": tasks,
            "accuracy": dict.fromkeys(("task", "union", "routed"), matrix),
            "metrics": dict.fromkeys(("task", "union", "routed"), metrics),
        }
    )
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    said = console.file.getvalue()
    assert "[/red]/0 " in said and "…" not in said
    assert said.count("100.0") == 2 * 5
    # all of a long name, on several lines
    assert said.count("名") == 40


# JSON


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b" " * (MAX_JSON_BYTES + 1),
    ],
    ids=["empty", "cut", "list", "null", "bytes", "deep", "huge number", "huge"],
)
def test_json_that_is_none(content: bytes, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="a.json: "):
        read_json(path)
    with pytest.raises(ConfigError, match="a.json: "):
        config.load(path)


def test_stored_configs_name_the_file_and_the_field(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.json"
    tree = json.loads(config.to_json(config.Config()))
    path.write_text(json.dumps(tree | {"train": {"epochs": 0}}))
    with pytest.raises(ConfigError, match="config.json: config.train"):
        config.load(path)


_METRICS = {
    space: {route: dict.fromkeys(schema.METRICS, 0.5) for route in ROUTES}
    for space in SPACES
}
_COST = dict.fromkeys(schema.COSTS, 1) | {"seconds": {"train": 1.0}}


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": None},
        {"metrics": _METRICS | {"union": {}}},
        {"metrics": {"union": _METRICS["union"]}},
        {"cost": {}},
        {"cost": _COST | {"bytes_remembered": None}},
        {"cost": _COST | {"seconds": {"train": float("inf")}}},
        {"cost": _COST | {"parameters_trained": "many"}},
        {"environment": 3},
    ],
)
def test_damaged_results_are_named(change: dict, tmp_path: pathlib.Path) -> None:
    run = runs.SweepRun("comm", "random", 0, config.Config())
    path = make_run(tmp_path / run.name, EXAMPLE) / "results.json"
    whole = json.loads(path.read_text()) | {"metrics": _METRICS, "cost": _COST}
    whole = {k: v for k, v in whole.items() if k not in ("run", "checksum")}
    seal(path.parent, whole)
    assert runs.finished([run], tmp_path) == [(run, whole)]
    seal(path.parent, whole | change)
    (field,) = change
    with pytest.raises(DataError, match=field) as caught:
        runs.finished([run], tmp_path)
    assert str(caught.value).startswith(str(path))


# YAML


def _row(first: str, more: str) -> str:
    """Returns 60 lines, each of which names the one before it several times."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{i}: &a{i} {more.format(f'*a{i - 1}')}" for i in range(1, 60)]
    return "\n".join(lines)


YAML_BOMBS = {
    "aliases": (_row("[x, y]", "[{0}, {0}]"), "more than 1048576 values"),
    "merges": (_row("{x: y}", "{{<<: [{0}, {0}]}}"), "more than 1048576 values"),
    "itself": ("a: &a [*a]", "more than 1048576 values"),
    "base 60": ("a: " + ":".join(["1"] * 50_000), "a number of 99999 characters"),
    "deep": ("[" * 5000, "recursion"),
    "huge number": ("a: " + "9" * 5000, "a number of 5000"),
}


@pytest.mark.parametrize("bomb", YAML_BOMBS)
def test_yaml_that_grows_is_refused(bomb: str, tmp_path: pathlib.Path) -> None:
    text, message = YAML_BOMBS[bomb]
    manifest = tmp_path / "job.yaml"
    manifest.write_text(text)
    with pytest.raises(DataError, match=f"job.yaml: .*{message}"):
        jobset.read(manifest)
    (tmp_path / "README.md").write_text(f"---\n{text}\n---\n")
    with pytest.raises(DataError, match=f"README.md: .*{message}"):
        features.header(tmp_path)


def test_yaml_that_is_plain_is_read() -> None:
    text = """
        one: &one {a: 1, b: 1:30, c: [x, null, true, 2001-01-01]}
        two: {<<: *one, b: 0x10}
        same: [*one, *one]
    """
    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml("") is None
    with pytest.raises(yaml.YAMLError):
        parse_yaml("a: !!python/object/apply:os.getpid []")


# encoders


@pytest.fixture
def folder(encoder_folder: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the tiny encoder, to be damaged."""
    return pathlib.Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))


def _load_error(path: pathlib.Path) -> str:
    with pytest.raises(DataError) as caught:
        pretrained.load(path.parent)
    assert str(path) in str(caught.value)
    return str(caught.value)


def _header(data: bytes, change: Callable[[dict], None]) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def _overlap(header: dict) -> None:
    first, second, *_ = (name for name in header if name != "__metadata__")
    header[second]["data_offsets"] = header[first]["data_offsets"]


def _out_of_range(header: dict) -> None:
    header["logit_scale"]["data_offsets"] = [0, 2**40]


def _huge_shape(header: dict) -> None:
    header["logit_scale"]["shape"] = [2**62, 2**62]


def _kind(header: dict) -> None:
    header["logit_scale"]["dtype"] = "I32"


@pytest.mark.parametrize("change", [_overlap, _out_of_range, _huge_shape, _kind])
def test_safetensors_with_a_wrong_header(
    change: Callable[[dict], None], folder: pathlib.Path
) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(_header(path.read_bytes(), change))
    _load_error(path)


@pytest.mark.parametrize("size", [100_000_000, 2**63])
def test_safetensors_with_a_huge_header(size: int, folder: pathlib.Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", size) + path.read_bytes()[8:])
    assert "more than the limit of 16777216" in _load_error(path)


def test_types_of_weights(folder: pathlib.Path) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    half = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    safetensors.numpy.save_file(half, path)
    assert pretrained.load(folder).frozen["log_scale"].dtype == np.float32
    huge = tensors | {"logit_scale": np.array(1e300)}
    safetensors.numpy.save_file(huge, path)
    assert "'logit_scale' is not finite" in _load_error(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("projection_dim", 10**12),
        ("projection_dim", True),
        ("vision_config.patch_size", 17),
        ("vision_config.num_attention_heads", 3),
        ("vision_config.num_hidden_layers", 0),
        ("vision_config.hidden_act", ["gelu"]),
        ("text_config.eos_token_id", 10**6),
        ("text_config.layer_norm_eps", float("nan")),
        ("text_config", []),
        ("preprocessing.frames", 10**9),
        ("preprocessing.mean", [0, 0]),
        ("preprocessing.std", [1, 1, 0]),
        ("preprocessing.audio_seconds", "2"),
        ("preprocessing.max_pixels", -1),
        ("preprocessing.max_seconds", float("inf")),
        ("preprocessing.spare", 1),
    ],
)
def test_encoder_config_out_of_range(
    place: str, value: object, folder: pathlib.Path
) -> None:
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    *sections, name = place.split(".")
    block = tree[sections[0]] if sections else tree
    block[name] = value
    path.write_text(json.dumps(tree))
    assert name in _load_error(path)


def test_tokenizer_of_another_vocabulary(folder: pathlib.Path) -> None:
    path = folder / "tokenizer.json"
    shutil.copy(helpers.make_tokenizer(folder / "other.json"), path)
    tree = json.loads(path.read_text())
    tree["model"]["vocab"]["z"] = 10**6
    path.write_text(json.dumps(tree))
    message = _load_error(path)
    assert "ids up to 1000000" in message
    assert "vocab_size" in message


@pytest.mark.parametrize("modality", ["image", "video", "audio", "depth", "text"])
def test_sparse_files_of_a_terabyte_are_not_opened(
    modality: str, tmp_path: pathlib.Path
) -> None:
    path = pathlib.Path(helpers.write(tmp_path, modality))
    os.truncate(path, 2**40)
    kind, spec = MODALITIES[modality], helpers.make_spec(tmp_path)
    message = helpers.decode_error(kind, path, spec)
    assert f"{2**40} bytes, more than the limit of" in message
    with pytest.raises(DataError, match="more than the limit of"):
        FileReference(str(path)).identity()


@pytest.mark.parametrize("pattern", [{"String": "a"}, {"Regex": "a"}])
def test_normalizers_that_grow_a_sentence_are_refused(
    pattern: dict[str, str], folder: pathlib.Path
) -> None:
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    double = {"type": "Replace", "pattern": pattern, "content": "aa"}
    for number, refused in ((3, False), (40, True)):
        inner = {"type": "Sequence", "normalizers": [double] * number}
        whole["normalizer"] = {"type": "Sequence", "normalizers": [inner]}
        path.write_text(json.dumps(whole))
        load_tokenizer.cache_clear()
        spec = TokenizerSpec(str(path))
        if refused:
            with pytest.raises(DataError, match="times as long, more than the limit"):
                load_tokenizer(spec)
        else:
            assert load_tokenizer(spec).encode("a cat")
