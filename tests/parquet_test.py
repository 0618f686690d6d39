"""Streams from data sets in the layouts that `datasets` and its hub publish."""

import json
import pathlib
import pickle
import unicodedata
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import FileReference, Storage
from mmcl_jax.models.pretrained import hub
from mmcl_jax.streams import inspection, parquet, verification
from mmcl_jax.streams.base import Stream
from mmcl_jax.streams.loader import Decoder
from tests import helpers, saved
from tests.odd_files import LFS

LAYOUTS = [saved.save_to_disk, saved.push_to_hub, saved.plain, saved.in_folders]


def _build(*paths: pathlib.Path | str, **more: Any) -> Stream:
    faults = Faults()
    chosen = {"classes_per_task": 2} | more
    stream = parquet.build(paths=[str(p) for p in paths], **chosen, faults=faults)
    faults.check()
    return stream


def _fails(path: pathlib.Path, **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        _build(path, **more)
    return str(caught.value)


@pytest.mark.parametrize("write", LAYOUTS)
@pytest.mark.parametrize("modality", ["image", "audio", "video"])
def test_media_are_those_of_the_files(tmp_path, write, modality: str) -> None:
    train, test = saved.rows(tmp_path, modality), saved.rows(tmp_path, modality, 4)
    folder = write(tmp_path / "pets", train=train, test=test)
    stream = _build(folder)
    (task,) = stream.tasks
    assert task.name == f"{modality}/pets/0"
    assert (len(task.train), len(task.test)) == (6, 4)
    spec = helpers.make_spec(tmp_path)
    kind = MODALITIES[modality]
    for records, table in ((task.train, train), (task.test, test)):
        stored = table.column("media").to_pylist()
        labels = table.column("label").to_pylist()
        for record in records:
            reference = pickle.loads(pickle.dumps(record.reference))
            row = _row(reference, table, folder)
            path = tmp_path / "files" / stored[row]["path"]
            wanted = kind.decode(str(path), spec)
            found = reference.load(kind, spec)
            for a, b in zip(_arrays(found), _arrays(wanted), strict=True):
                np.testing.assert_array_equal(a, b)
            assert saved.NAMES[labels[row]] == stream.classes[record.label].name
            assert reference.describe().startswith("pets/")


def _arrays(media: Any) -> list[Any]:
    return [
        np.asarray(part) for part in (media if isinstance(media, tuple) else [media])
    ]


def _row(reference, table: pa.Table, folder: pathlib.Path) -> int:
    """Returns the row of a whole split that a reference to a shard is."""
    second = "-00001-of-" in reference.path
    return reference.number - 1 + (len(table) // 2 if second else 0)


def test_a_split_alone_and_a_test_part_split_off(tmp_path: pathlib.Path) -> None:
    saved.save_split(saved.rows(tmp_path, "image", 8), tmp_path / "pets", None)
    message = _fails(tmp_path / "pets")
    assert "no split 'test'; there are train; choose by" in message
    (task,) = _build(tmp_path / "pets", test="", test_fraction=0.3).tasks
    assert len(task.train) + len(task.test) == 8


def test_several_data_sets(tmp_path: pathlib.Path) -> None:
    images = saved.save_to_disk(
        tmp_path / "pets",
        train=saved.rows(tmp_path, "image"),
        test=saved.rows(tmp_path, "image"),
    )
    texts = saved.push_to_hub(
        tmp_path / "words", train=saved.texts(), test=saved.texts(4)
    )
    depth = saved.plain(
        tmp_path / "rooms",
        train=saved.rows(tmp_path, "depth"),
        test=saved.rows(tmp_path, "depth"),
    )
    stream = _build(images, texts, depth, modality="rooms=depth", order="by_modality")
    assert {task.name for task in stream.tasks} == {
        "image/pets/0",
        "text/words/0",
        "depth/rooms/0",
    }
    (task,) = [task for task in stream.tasks if task.modality == "text"]
    assert {r.reference.load(None, None) for r in task.test} == {
        f"sentence {k}" for k in range(4)
    }
    decoder = Decoder(helpers.make_spec(tmp_path), 0)
    verified = verification.verify(decoder, stream)
    assert not verified.failures
    assert inspection.inspect(stream, verified, Faults()).leaks


def test_depth_is_read_as_it_is_stored(tmp_path: pathlib.Path) -> None:
    table = saved.rows(tmp_path, "depth")
    folder = saved.save_to_disk(tmp_path / "rooms", train=table, test=table)
    (task,) = _build(folder, modality="depth", depth_scale="5000").tasks
    reference = task.train[0].reference
    assert reference.storage == Storage(depth_scale=5000)
    (plain,) = _build(folder, modality="depth").tasks
    same = next(
        r.reference
        for r in plain.train
        if r.reference.describe() == reference.describe()
    )
    assert reference.identity() != same.identity()
    # the decoder is told
    seen = []
    depth = MODALITIES["depth"]._replace(decode=lambda path, spec: seen.append(spec))
    for each in (reference, same):
        each.load(depth, helpers.make_spec(tmp_path))
    assert [spec.storage.depth_scale for spec in seen] == [5000, None]


def test_identity_is_that_of_the_content(tmp_path: pathlib.Path) -> None:
    table = saved.rows(tmp_path, "image")
    one = _build(saved.push_to_hub(tmp_path / "a", train=table, test=table))
    two = _build(saved.save_to_disk(tmp_path / "b", train=table, test=table))
    found = [
        sorted(r.reference.identity() for r in stream.tasks[0].train)
        for stream in (one, two)
    ]
    assert found[0] == found[1]
    assert len(set(found[0])) == 3


def test_paths_in_place_of_bytes(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "pets"
    names = [
        pathlib.Path(helpers.write(folder / "media", "image", k)) for k in range(4)
    ]
    (folder / "media" / "notes.pdf").touch()
    (tmp_path / "outside.png").touch()
    paths = [f"media/{name.name}" for name in names]
    wrong = ["media/gone.png", "../outside.png", "/etc/passwd", "media/notes.pdf", None]
    for kind in (saved.MEDIA, pa.string()):
        listed = [*paths, *wrong]
        if kind == saved.MEDIA:
            listed = [{"bytes": None, "path": path} for path in listed]
        columns = {"media": listed, "label": ["x"] * len(listed)}
        table = saved.table_of(columns, None, {"media": kind})
        pq.write_table(table, folder / "train.parquet")
        (task,) = _build(folder, media="media", modality="image", test="").tasks
        references = {r.reference for r in (*task.train, *task.test)}
        spec = helpers.make_spec(tmp_path)
        faults = []
        for reference in references:
            try:
                reference.load(MODALITIES["image"], spec)
            except DataError as error:
                faults.append(str(error))
        assert len(faults) == len(wrong)
        text = "\n".join(sorted(faults))
        assert "pets/train.parquet:5: media/gone.png: no such file" in text
        assert "pets/train.parquet:6: ../outside.png: leads out of" in text
        assert "pets/train.parquet:7: /etc/passwd: expected a path relative" in text
        assert "pets/train.parquet:8: media/notes.pdf: modality 'image' takes" in text
        assert "pets/train.parquet:9: neither content nor a path" in text


def test_a_damaged_row_is_named(tmp_path: pathlib.Path) -> None:
    table = saved.rows(tmp_path, "image").to_pylist()
    table[2]["media"]["bytes"] = table[2]["media"]["bytes"][:40]
    held = {"media": {"_type": "Image"}, "label": saved.LABEL}
    columns = {name: [row[name] for row in table] for name in ("media", "label")}
    made = saved.table_of(columns, held, {"media": saved.MEDIA})
    stream = _build(saved.plain(tmp_path / "pets", train=made, test=made))
    decoder = Decoder(helpers.make_spec(tmp_path), 0)
    failures = verification.verify(decoder, stream, collect=True).failures
    assert len(failures) == 2
    assert any("pets/train.parquet:3" in failure for failure in failures.values())


def test_labels_may_be_texts(tmp_path: pathlib.Path) -> None:
    nfc, nfd = (unicodedata.normalize(form, "caf\xe9") for form in ("NFC", "NFD"))
    for kind in (
        pa.string(),
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
    ):
        columns = {"text": ["a", "b", "c", None], "label": [nfc, nfd, "x", "x"]}
        table = saved.table_of(columns, None, {"label": kind})
        pq.write_table(table, tmp_path / "train.parquet")
        stream = _build(tmp_path, test="")
        assert {slot.name for slot in stream.classes} == {nfc, "x"}


def _with(label: Any, features: dict[str, Any] | None = None, kind: Any = None):
    columns = {"text": ["a", "b", "c"], "label": label}
    return saved.table_of(columns, features, {"label": kind})


@pytest.mark.parametrize(
    ("table", "more", "words"),
    [
        (_with([0, 1, 1]), {}, "holds no names of classes but numbers"),
        (_with([0.5, 1, 1]), {}, "holds no names of classes but numbers"),
        (
            _with([0, -1, -1], {"label": saved.LABEL}),
            {},
            "2 of 3 rows have no valid class, the first of them row 2, with -1",
        ),
        (
            _with([0, 2, None], {"label": saved.LABEL}),
            {},
            "first of them row 2, with 2",
        ),
        (
            _with([-1] * 3, {"label": saved.LABEL}),
            {},
            "no row with a class in split 'train'",
        ),
        (_with([0, 0, 0], {"label": {"_type": "ClassLabel"}}), {}, "without a list of"),
        (_with(["x", "y", " "]), {}, "1 of 3 rows have no valid class"),
        (_with(["x"] * 3), {"label": "class"}, "no column 'class', which --config"),
        (_with(["x"] * 3), {"media": "image"}, "no column 'image', which --config"),
        (_with(["x"] * 3), {"train": "dev"}, "no split 'dev'; there are train"),
        (_with(["x"] * 3), {"modality": "smell"}, "'smell'; expected one of image"),
        (_with(["x"] * 3), {"modality": "pets=image"}, "no data set 'pets'; there are"),
        (
            saved.table_of({"a": ["a"], "b": ["b"], "label": ["x"]}, None, {}),
            {},
            "several columns may be the media, of a (text), b (text), label (text)",
        ),
        (
            saved.table_of({"a": ["a"], "b": ["b"]}, None, {}),
            {},
            "no column is clearly the label, of a (text), b (text); choose by "
            "--config.stream.label",
        ),
        (
            saved.table_of({"image": [b"a"], "label": ["x"]}, None, {}),
            {},
            "does not say of which modality its media are; give --config.stream",
        ),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, table, more, words: str) -> None:
    pq.write_table(table, tmp_path / "train.parquet")
    assert words in _fails(tmp_path, **({"test": ""} | more))


def test_classes_of_each_file_must_be_those_of_the_first(tmp_path) -> None:
    swapped = {"label": saved.LABEL | {"names": saved.NAMES[::-1]}}
    plain = saved.plain(tmp_path / "a", train=saved.texts(), test=_with([0, 1, 1]))
    assert len(_build(plain).tasks) == 1
    pq.write_table(_with([0, 1, 1], swapped), plain / "test.parquet")
    message = _fails(plain)
    assert "test.parquet: its classes from number 0 on are ['bee', 'ape'], " in message
    assert "train.parquet are ['ape', 'bee']; write both with the same" in message
    shards = saved.push_to_hub(tmp_path / "b", train=saved.texts())
    pq.write_table(
        pa.table({"words": ["a"], "label": [0]}),
        shards / "data" / "train-00001-of-00002.parquet",
    )
    message = _fails(shards, test="")
    assert "train-00001-of-00002.parquet: no column 'text', which" in message
    assert "there are words, label" in message


def test_a_selection_of_rows_and_a_pointer_are_refused(tmp_path) -> None:
    folder = saved.save_to_disk(tmp_path / "a", train=saved.texts(), test=saved.texts())
    state = json.loads((folder / "train" / "state.json").read_text())
    state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (folder / "train" / "state.json").write_text(json.dumps(state))
    assert "train/state.json: the rows are a selection" in _fails(folder)
    plain = saved.plain(tmp_path / "b", train=saved.texts())
    (plain / "train.parquet").write_bytes(LFS)
    assert "train.parquet: a Git LFS pointer; run" in _fails(plain, test="")


def test_a_split_that_is_not_used_is_named(tmp_path: pathlib.Path) -> None:
    more = {"dev": saved.texts(), "test": saved.texts()}
    folder = saved.plain(tmp_path / "pets", train=saved.texts(), **more)
    faults = Faults()
    parquet.build(paths=[str(folder)], classes_per_task=2, faults=faults)
    assert faults.unused == ["pets (split 'dev')"]


@pytest.mark.parametrize("write", [saved.plain, saved.save_to_disk])
def test_paths_alone(tmp_path: pathlib.Path, write) -> None:
    kept = tmp_path / "pets"
    table = saved.rows(tmp_path, "image")
    paths = [{"path": row["path"]} for row in table["media"].to_pylist()]
    place = table.schema.get_field_index("media")
    write(kept, train=table.set_column(place, "media", pa.array(paths)))
    for file in (tmp_path / "files").iterdir():
        file.rename(kept / file.name)
    (task,) = _build(kept, test="").tasks
    assert all(isinstance(r.reference, FileReference) for r in task.train)


def test_files_that_are_missing_are_named_at_once(tmp_path: pathlib.Path) -> None:
    kept = saved.save_to_disk(
        tmp_path / "saved", train=saved.texts(), test=saved.texts()
    )
    pushed = saved.push_to_hub(
        tmp_path / "pushed", train=saved.texts(), test=saved.texts()
    )
    for k in range(2):
        (kept / "train" / f"data-{k:05}-of-00002.arrow").unlink()
    assert "data-00000-of-00002.arrow, data-00001-of-00002.arrow" in _fails(kept)
    (pushed / "data" / "train-00001-of-00002.parquet").unlink()
    (pushed / "data" / "test-00000-of-00002.parquet").unlink()
    message = _fails(pushed)
    assert "test-00000-of-00002.parquet, data/train-00001-of-00002.parquet" in message
    (pushed / "data" / "test-00001-of-00002.parquet").unlink()
    assert "README.md: no Parquet file matches 'data/test-*'" in _fails(pushed)


def test_a_name_is_looked_up_on_this_machine_first(tmp_path, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(
        hub, "_download", lambda *a: asked.append(a) or tmp_path / "abc"
    )
    monkeypatch.chdir(tmp_path)
    saved.plain(tmp_path / "org" / "pets", train=saved.texts(), test=saved.texts())
    assert _build("org/pets").classes[0].dataset == "pets"
    assert "no such folder" in _fails(pathlib.Path("org/cats"))
    assert "no such folder" in _fails(tmp_path / "none")
    assert not asked
    saved.plain(tmp_path / "abc", train=saved.texts(), test=saved.texts())
    stream = _build("else/words@v1.0")
    assert stream.classes[0].dataset == "else-words"
    described = stream.tasks[0].train[0].reference.describe()
    assert described.startswith("else-words@abc/train.parquet:")
    assert asked == [
        ("else/words", "v1.0", "else/words", parquet.splits.PATTERNS, "dataset")
    ]
    assert "is not the name of a revision" in _fails(pathlib.Path("else/words@../x"))


def test_names_of_classes_may_stand_in_the_readme(tmp_path: pathlib.Path) -> None:
    names = "".join(f"          '{k}': {name}\n" for k, name in enumerate(saved.NAMES))
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: text\n    dtype: string\n"
        "  - name: label\n    dtype:\n      class_label:\n        names:\n"
        + names
        + "---\n"
    )
    pq.write_table(_with([0, 1, 1]), tmp_path / "train-00000-of-00001.parquet")
    (tmp_path / "train-00000-of-00001.parquet").rename(tmp_path / "train.parquet")
    stream = _build(tmp_path, test="", include="*/*/bee")
    assert [slot.name for slot in stream.classes] == ["bee"]


def test_several_configs_are_refused(tmp_path: pathlib.Path) -> None:
    for config in ("en", "de"):
        saved.plain(tmp_path / config, train=saved.texts(), test=saved.texts())
    assert "several data sets, in de, en; give the folder of one" in _fails(tmp_path)
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n- config_name: de\n---\n"
    )
    assert "several configs, en, de; give the folder" in _fails(tmp_path)
    assert len(_build(tmp_path / "en").tasks) == 1


@pytest.mark.parametrize("write", LAYOUTS)
def test_damage_is_named(tmp_path: pathlib.Path, write) -> None:
    folder = write(tmp_path / "pets", train=saved.texts(), test=saved.texts())
    for path in [*folder.rglob("*.parquet"), *folder.rglob("train/*.arrow")]:
        content = path.read_bytes()
        for damaged in (content[: len(content) // 2], b"", b"junk" * 9):
            path.write_bytes(damaged)
            assert str(path) in _fails(folder)
        path.write_bytes(content)
    for path in folder.rglob("*.json"):
        if "test" in path.parts or path.name == "dataset_info.json":
            continue
        content = path.read_bytes()
        path.write_bytes(content[:-9])
        assert str(path) in _fails(folder)
        path.write_bytes(content)


def test_no_file_of_a_description_leads_out(tmp_path: pathlib.Path) -> None:
    folder = saved.save_to_disk(
        tmp_path / "pets", train=saved.texts(), test=saved.texts()
    )
    state = json.loads((folder / "train" / "state.json").read_text())
    state["_data_files"][0]["filename"] = "../test/data-00000-of-00002.arrow"
    (folder / "train" / "state.json").write_text(json.dumps(state))
    assert "no list of files" in _fails(folder)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["..", "test"]}))
    assert "no list of splits" in _fails(folder)
