"""Features on disk are those that would be computed, or they are computed again."""

import concurrent.futures
import dataclasses
import io
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from mmcl_jax import config
from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import FileReference, TextReference, TokenizerSpec
from mmcl_jax.parallel import sharding
from mmcl_jax.streams import loader
from mmcl_jax.streams.base import Record
from mmcl_jax.training import build, feature_cache
from mmcl_jax.training.batches import Feed
from tests import helpers

TASKS = range(3)


@pytest.fixture(scope="module")
def run(encoder_folder: pathlib.Path) -> build.Run:
    options = config.Config(
        stream=config.World(
            tasks=3,
            classes_per_task=2,
            modalities=("image", "video", "text"),
            train_per_class=3,
            test_per_class=3,
        ),
        encoder=config.EncoderOptions(str(encoder_folder)),
        method=config.MethodOptions("zero_shot"),
        train=config.TrainOptions(batch_size=8),
    )
    return build.assemble(options, Console(quiet=True))


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv(feature_cache.FOLDER_VARIABLE, str(tmp_path / "features"))
    return tmp_path / "features"


def _embedded(run: build.Run) -> np.ndarray:
    """What a feed that has just been started gives for all test samples."""
    feed = Feed(run, sharding.put(run.encoder.frozen, run.mesh))
    feed.embed_queries(TASKS, "test")
    rows = [row for i in TASKS for row in run.stream.tasks[i].test]
    return feed.queries(rows)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.rglob("*.npy"))


def test_a_second_run_reads_the_same_bits_and_decodes_nothing(
    run: build.Run, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _embedded(run)
    assert len(_files(folder)) == len(TASKS)

    def refuse(*args: object) -> None:
        raise AssertionError("something was decoded")

    monkeypatch.setattr(loader.Decoder, "__call__", refuse)
    np.testing.assert_array_equal(_embedded(run), first)


def test_files_hold_plain_arrays_of_unit_features(
    run: build.Run, folder: pathlib.Path
) -> None:
    first = _embedded(run)
    stored = [np.load(path) for path in _files(folder)]
    assert {(x.shape, x.dtype.name) for x in stored} == {((6, 16), "float32")}
    assert sorted(map(tuple, np.concatenate(stored))) == sorted(map(tuple, first))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-5)


def test_layer_features_are_views_that_are_computed_once(
    run: build.Run, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = dataclasses.replace(run.config.method, name="comm_plus")
    changed = dataclasses.replace(run.config, method=method)
    kept = run.encoder, run.stream, run.mesh, run.decoder
    own, passed = build.compose(changed, *kept), []

    def counted(frozen, batch):
        passed.append(float(batch.weight.sum()))
        return own.learner.query(frozen, batch)

    learner = own.learner._replace(query=counted)
    feed = Feed(own._replace(learner=learner), own.encoder.frozen)
    feed.embed_queries(TASKS, "train")
    rows = {i: list(run.stream.tasks[i].train) for i in TASKS}
    assert sum(passed) == sum(map(len, rows.values()))
    image = next(i for i in TASKS if run.stream.tasks[i].modality == "image")
    inputs = [run.decoder(row, "image")["pixels"] for row in rows[image]]
    query, layers = own.model.embed_layers(
        jax.device_put(own.encoder.frozen),
        "image",
        {"pixels": jnp.asarray(np.stack(inputs))},
        None,
        own.method.layer_blocks,
    )
    np.testing.assert_allclose(feed.queries(rows[image]), query, atol=1e-5)
    np.testing.assert_allclose(feed.layers(rows[image]), layers, atol=1e-5)

    def refuse(*args: object) -> None:
        raise AssertionError("something was decoded")

    monkeypatch.setattr(loader.Decoder, "__call__", refuse)
    assert not own.method.needs_inputs
    for i in TASKS:
        modality, number = run.stream.tasks[i].modality, len(rows[i])
        (bare,) = feed.batches({modality: rows[i]}, decoded=False)
        assert bare.inputs == {} and bare.layers is not None
        np.testing.assert_array_equal(bare.layers[:number], feed.layers(rows[i]))
        np.testing.assert_array_equal(bare.query[:number], feed.queries(rows[i]))
    again = Feed(own, own.encoder.frozen)
    again.embed_queries(TASKS, "train")
    np.testing.assert_array_equal(again.views(rows[0]), feed.views(rows[0]))


def test_without_the_cache_nothing_is_read_or_written(
    run: build.Run, folder: pathlib.Path
) -> None:
    first = _embedded(run)
    for path in _files(folder):
        path.write_bytes(b"other features")
    data = dataclasses.replace(run.config.data, feature_cache=False)
    without = run._replace(config=dataclasses.replace(run.config, data=data))
    before = {path: path.stat().st_mtime_ns for path in _files(folder)}
    np.testing.assert_array_equal(_embedded(without), first)
    assert {path: path.stat().st_mtime_ns for path in _files(folder)} == before


DAMAGES = {
    "cut": lambda content: content[:-40],
    "empty": lambda content: b"",
    "flipped": lambda content: content[:200] + b"\xff\x01" + content[202:],
    "longer": lambda content: content + b"0",
    "no array": lambda content: b"x" * 400,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_computed_again(
    run: build.Run, folder: pathlib.Path, damage: str
) -> None:
    first = _embedded(run)
    good = {path: path.read_bytes() for path in _files(folder)}
    for path, content in good.items():
        path.write_bytes(DAMAGES[damage](content))
    np.testing.assert_array_equal(_embedded(run), first)
    assert {path: path.read_bytes() for path in _files(folder)} == good


def _entry(shape: tuple[int, int], version: str = "text-1") -> feature_cache.Entry:
    return feature_cache.Entry("producer", "text", version, "samples", shape)


def test_what_is_stored_is_what_was_asked_for(tmp_path: pathlib.Path) -> None:
    stored, entry = np.arange(6, dtype=np.float32).reshape(2, 3), _entry((2, 3))
    feature_cache.write(tmp_path, entry, stored)
    np.testing.assert_array_equal(feature_cache.read(tmp_path, entry), stored)
    assert feature_cache.read(tmp_path, _entry((3, 2))) is None
    assert feature_cache.read(tmp_path, _entry((2, 3), "text-2")) is None


def test_a_renamed_file_is_noticed(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = _entry((2, 3)), _entry((2, 3), "text-2")
    for entry, value in ((one, 1), (other, 2)):
        feature_cache.write(tmp_path, entry, np.full((2, 3), value, np.float32))
    path, target = (tmp_path / e.name[:2] / f"{e.name}.npy" for e in (one, other))
    os.replace(path, target)
    assert feature_cache.read(tmp_path, other) is None
    assert f"{target}: damaged or of other samples" in caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_believed(
    value: float, tmp_path: pathlib.Path
) -> None:
    feature_cache.write(tmp_path, _entry((2, 3)), np.full((2, 3), value, np.float32))
    assert feature_cache.read(tmp_path, _entry((2, 3))) is None


def test_what_is_no_array_under_a_right_checksum_is_not_believed(
    tmp_path: pathlib.Path,
) -> None:
    entry = _entry((2, 3))
    feature_cache.write(tmp_path, entry, np.zeros((2, 3), np.float32))
    (path,) = _files(tmp_path)
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        huge, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**10)}
    )
    for array in (b"", b"nothing", huge.getvalue()):
        path.write_bytes(entry.sealed(array))
        assert feature_cache.read(tmp_path, entry) is None


def test_a_file_that_is_replaced_while_a_run_is_paused_is_an_error(
    tmp_path: pathlib.Path, run: build.Run, folder: pathlib.Path
) -> None:
    path = pathlib.Path(helpers.write(tmp_path, "image"))
    record = Record(FileReference(str(path), "cat.png"), 0, 0)
    decoder = loader.Decoder(run.encoder.inputs, 2**20)
    first = decoder(record, "image")
    os.utime(path)  # the same content
    assert decoder(record, "image") is first
    helpers.write_picture(path, 1)
    for each in (decoder, loader.Decoder(run.encoder.inputs, 0)):
        if each is decoder:
            with pytest.raises(DataError, match="cat.png: its content has changed"):
                each(record, "image")
        else:  # which has not read it before
            assert not np.array_equal(each(record, "image")["pixels"], first["pixels"])


def test_features_of_replaced_files_are_not_stored(
    run: build.Run, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, looks = feature_cache.entry, []

    def changing(*args: object) -> feature_cache.Entry:
        looks.append(args)
        return entry(*args)._replace(samples=str(len(looks)))

    monkeypatch.setattr(feature_cache, "entry", changing)
    _embedded(run)
    assert looks and not _files(folder)


def test_writers_of_one_file_do_not_meet(tmp_path: pathlib.Path) -> None:
    values = [np.full((300, 40), i, np.float32) for i in range(8)]
    entry = _entry((300, 40))

    def write_and_read(value: np.ndarray) -> float:
        feature_cache.write(tmp_path, entry, value)
        found = feature_cache.read(tmp_path, entry)
        assert found is not None
        assert np.ptp(found) == 0
        return found[0, 0]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(write_and_read, values * 4))
    assert set(found) <= set(range(8))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [
        f"{entry.name}.npy"
    ]


def test_a_write_that_fails_is_a_warning_and_leaves_nothing(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    feature_cache.write(tmp_path, _entry((2, 3)), np.zeros((2, 3), np.float32))
    assert "disk full" in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    (tmp_path / "file").write_text("")
    entry = _entry((2, 3))
    feature_cache.write(tmp_path / "file", entry, np.zeros((2, 3), np.float32))
    assert feature_cache.read(tmp_path / "file", entry) is None


# what a name depends on


def _producer(run: build.Run, **changes: object) -> str:
    return feature_cache.producer(run.encoder._replace(**changes), run.mesh, 8)


def test_names_change_with_what_computes_the_features(run: build.Run) -> None:
    inputs = dataclasses.replace(run.encoder.inputs, audio_mean=1.0)
    found = [
        _producer(run),
        _producer(run, fingerprint="0"),
        _producer(run, inputs=inputs),
        feature_cache.producer(run.encoder, run.mesh, 16),
        feature_cache.producer(run.encoder, sharding.make_mesh(jax.devices()[:2]), 8),
    ]
    assert len(set(found)) == len(found)


def test_names_do_not_depend_on_where_the_encoder_lies(
    run: build.Run, tmp_path: pathlib.Path
) -> None:
    content = pathlib.Path(run.encoder.inputs.tokenizer.path).read_bytes()
    (tmp_path / "words.json").write_bytes(content)
    tokenizer = TokenizerSpec(str(tmp_path / "words.json"))
    inputs = dataclasses.replace(run.encoder.inputs, tokenizer=tokenizer)
    assert _producer(run, inputs=inputs) == _producer(run)
    (tmp_path / "words.json").write_bytes(content + b" ")
    assert _producer(run, inputs=inputs) != _producer(run)


def _key(*sentences: str, modality: str = "text", version: str = "text-1") -> str:
    rows = [Record(TextReference(s, "t", i), 0, i) for i, s in enumerate(sentences)]
    return feature_cache.entry("producer", modality, version, rows, 16).name


def test_names_change_with_the_samples() -> None:
    found = [
        _key("a", "b"),
        _key("b", "a"),
        _key("a"),
        _key("a", "b", "c"),
        _key("ab"),
        _key("a", "b", modality="image"),
        _key("a", "b", version="another"),
    ]
    assert len(set(found)) == len(found)


def test_names_depend_on_what_is_in_a_file_and_not_on_its_place(
    tmp_path: pathlib.Path,
) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path, content in zip(paths, ("one", "one", "two"), strict=True):
        path.write_text(content)
    names = [FileReference(str(path), path.name).identity() for path in paths]
    assert names[0] == names[1] != names[2]
    paths[0].write_text("three")
    assert FileReference(str(paths[0])).identity() not in names
