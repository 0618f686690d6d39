"""Tasks that a user gives: plans, and the column `task` of a table."""

import itertools
import json
import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcl_jax.errors import ConfigError, DataError, Faults
from mmcl_jax.streams import data_options, folders, manifest
from mmcl_jax.streams.base import Stream, stream_hash
from mmcl_jax.streams.folders import Folders

HEAD = "path,label,modality,split,dataset,task\n"


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """A tree of empty files; building a stream decodes nothing."""
    kinds = {"image/pets": "jpg", "image/wild": "jpg", "audio/calls": "wav"}
    for kind, suffix in kinds.items():
        for part, number in (("train", 6), ("test", 2)):
            for name in ("ape", "bee", "big_cat", "dog"):
                folder = tmp_path / "data" / kind / part / name
                folder.mkdir(parents=True)
                for k in range(number):
                    (folder / f"{k}.{suffix}").touch()
    return tmp_path / "data"


def _build(root: pathlib.Path, **more: Any) -> Stream:
    faults = Faults()
    stream = folders.build(
        root=str(root), **{"classes_per_task": 2} | more, faults=faults
    )
    faults.check()
    return stream


def _plan(root: pathlib.Path, text: str, name: str = "plan.yaml") -> str:
    path = root.parent / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def _shown(stream: Stream) -> list[tuple[str, str, list[str], int, int]]:
    return [
        (
            task.name,
            task.modality,
            [stream.classes[c].name for c in task.classes],
            len(task.train),
            len(task.test),
        )
        for task in stream.tasks
    ]


PLAN = """
- task: first pets
  data: image/pets
  classes: [dog, ape]
  shots: 2
- task: calls
  data: audio/calls
- task: ape again
  data: image/pets
  classes: ape
  shots: 3
- task: the others
  data: image/pets
  classes: rest
"""


def test_a_plan_gives_the_tasks_in_its_order(root: pathlib.Path) -> None:
    stream = _build(root, plan=_plan(root, PLAN))
    every = ["ape", "bee", "big cat", "dog"]
    assert _shown(stream) == [
        ("first pets", "image", ["dog", "ape"], 4, 4),
        ("calls", "audio", every, 24, 8),
        ("ape again", "image", ["ape"], 3, 0),
        ("the others", "image", ["bee", "big cat"], 12, 4),
    ]
    # the class that returns keeps its slot, and no sample is there twice
    assert stream.tasks[2].classes == stream.tasks[0].classes[1:]
    places = [
        record.reference.describe()
        for task in stream.tasks
        for record in (*task.train, *task.test)
    ]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("form", [".csv", ".jsonl", ".parquet", ".json"])
def test_other_forms_give_the_same_stream(root: pathlib.Path, form: str) -> None:
    rows = [
        {"task": "one", "data": "image/pets", "classes": "dog", "shots": 2},
        {"task": "one", "data": "image/pets", "classes": "b*", "shots": 3},
        {"task": "two", "data": "audio/*", "classes": None, "shots": None},
    ]
    same = "".join(
        f"- {{task: {r['task']}, data: {r['data']}, classes: '{r['classes'] or '*'}', "
        f"shots: {r['shots'] or 'null'}}}\n"
        for r in rows
    )
    path = root.parent / f"table{form}"
    if form == ".csv":
        lines = [",".join(str(v or "") for v in row.values()) for row in rows]
        path.write_text("\n".join(["task,data,classes,shots", *lines]) + "\n")
    elif form == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        filled = [{k: v for k, v in row.items() if v} for row in rows]
        lines = map(json.dumps, filled)
        text = "\n".join(lines) if form == ".jsonl" else json.dumps(filled)
        path.write_text(text + "\n")
    stream = _build(root, plan=str(path))
    assert stream_hash(stream) == stream_hash(_build(root, plan=_plan(root, same)))
    assert [(t, n) for t, _, _, n, _ in _shown(stream)] == [("one", 8), ("two", 24)]


def test_a_task_may_have_several_data_sets(root: pathlib.Path) -> None:
    text = "- {task: cats, data: [image/wild, image/pets], classes: big cat}\n"
    stream = _build(root, plan=_plan(root, text))
    assert _shown(stream) == [("cats", "image", ["big cat", "big cat"], 12, 4)]
    assert [slot.dataset for slot in stream.classes] == ["wild", "pets"]
    assert {slot.canonical for slot in stream.classes} == {0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {task: a, data: image/pts}", (":1: no data set 'image/pts'", "image/pets")),
        ("\n- {task: a, classes: bea}", (":2: no class 'bea'", "nearest: 'bee'")),
        ("- {task: a, clases: bee}", (":1: unknown key 'clases'", "'classes'")),
        ("- {task: a, task: b}", ("'task' stands there twice",)),
        ("- {data: image/pets}", (":1: no name",)),
        ("- {task: a, data: image/pets, shots: many}", (":1: shots",)),
        ("- {task: a, data: image/pets, shots: 0}", ("expected at least 1",)),
        ("- {task: a, shots: {b: 1}}", ("shots is no text",)),
        ("- a", (":1: no entry of a task",)),
        ("tasks: 1", (":1: no list",)),
        ("", ("the file is empty",)),
        ("- {task: a", (": no YAML",)),
        ("- &x {task: a}\n- *x", (":2: an alias",)),
        ("- !!python/object/apply:os.system [ls]", (":1: no entry of a task",)),
        ("- {task: a}", ("several modalities", "audio/calls/ape", "with `data`")),
        (
            "- {task: a, data: image/pets}\n- {task: b, data: image/pets}",
            (":2: task 'b' finds no sample left", "'ape'", "'a' is the first"),
        ),
        (
            "- {task: a, data: image/pets, classes: bee}\n"
            "- {task: b, data: image/wild}\n- {task: a, data: image/wild}",
            (":3: task 'a' is also that of", ":1;"),
        ),
        (
            "- {task: a, data: image/pets}\n"
            "- {task: b, data: image/pets, classes: rest}",
            (":2: no class is left for 'rest'",),
        ),
        ("- {task: a, data: x}\n- {task: b, data: y}", ("2 faults", ":1:", ":2:")),
    ],
)
def test_what_is_wrong_with_a_plan_is_named(
    root: pathlib.Path, text: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(DataError) as caught:
        _build(root, plan=_plan(root, text))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_modality_stands_for_its_data_sets(root: pathlib.Path) -> None:
    text = "- {task: a, data: image, classes: [image/wild/dog, 'b*']}"
    (task,) = _shown(_build(root, plan=_plan(root, text)))
    assert task[2] == ["dog", "bee", "big cat", "bee", "big cat"]


def test_a_plan_is_bounded(root: pathlib.Path) -> None:
    with pytest.raises(DataError, match="more than the limit"):
        _build(root, plan=_plan(root, "#" * (2**20 + 1)))
    with pytest.raises(DataError, match=":1: lists in lists"):
        _build(root, plan=_plan(root, "[" * 100_000))
    with pytest.raises(DataError, match="no such file"):
        _build(root, plan=str(root / "none.yaml"))


def test_words_of_yaml_are_names(tmp_path: pathlib.Path) -> None:
    for name, part in itertools.product(("yes", "01", "null"), ("train", "test")):
        folder = tmp_path / "data" / "image" / "odd" / part / name
        folder.mkdir(parents=True)
        (folder / "0.jpg").touch()
    path = _plan(tmp_path / "data", "- {task: a, classes: [yes, 01, null]}")
    stream = _build(tmp_path / "data", plan=path)
    assert [slot.name for slot in stream.classes] == ["yes", "01", "null"]


def test_a_task_at_the_end_changes_nothing_before(root: pathlib.Path) -> None:
    more = PLAN + "- {task: wild, data: image/wild, classes: dog}\n"
    whole, longer = (_build(root, plan=_plan(root, text)) for text in (PLAN, more))
    assert longer.tasks[:4] == whole.tasks
    assert longer.classes[: len(whole.classes)] == whole.classes


def test_classes_of_no_task_are_noted(root: pathlib.Path) -> None:
    faults = Faults()
    path = _plan(root, "- {task: a, data: image/pets, classes: [ape, bee], shots: 4}")
    folders.build(root=str(root), classes_per_task=2, plan=path, faults=faults)
    told = "\n".join(faults.unused)
    assert "image/pets (classes 'big_cat', 'dog', which no task has)" in told
    assert "image/pets (4 of 12 training samples, which no task takes" in told


def test_classes_in_the_order_of_their_names(root: pathlib.Path) -> None:
    chosen = {"include": "image/pets", "class_order": "alphabetical"}
    stream = _build(root, **chosen, classes_per_task=3)
    # a single remaining class joins the last task
    names = ["ape", "bee", "big cat", "dog"]
    assert _shown(stream) == [("image/pets/0", "image", names, 24, 8)]
    single = _build(root, **chosen, classes_per_task=1)
    assert [names for _, _, names, _, _ in _shown(single)] == [[n] for n in names]


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"stream\.plan and config\.stream\.protocol"):
        data_options.check(Folders(plan="a.yaml", protocol="b0"))
    with pytest.raises(ConfigError, match=r"'b1' .* did you mean 'b0'"):
        data_options.check(Folders(protocol="b1"))
    with pytest.raises(ConfigError, match="each of them gives the tasks"):
        data_options.check(Folders(plan="a.yaml", scenario="domains"))


# the column `task`


def _rows(*tasks: tuple[str, str, str]) -> str:
    """Returns rows of data set pets: a class, a part and a task for each."""
    return HEAD + "".join(
        f"image/pets/{part}/{name}/{k}.jpg,{name},image,{part},pets,{task}\n"
        for k, (name, part, task) in enumerate(tasks)
    )


def _column(root: pathlib.Path, text: str, **more: Any) -> Stream:
    (root / "table.csv").write_text(text)
    faults = Faults()
    stream = manifest.build(
        path=str(root / "table.csv"), classes_per_task=2, faults=faults, **more
    )
    faults.check()
    return stream


def _numbered(root: pathlib.Path) -> None:
    for part, name in itertools.product(("train", "test"), ("ape", "bee")):
        for k in range(10):
            (root / "image/pets" / part / name / f"{k}.jpg").touch()


def test_a_column_gives_the_tasks(root: pathlib.Path) -> None:
    _numbered(root)
    rows = [
        ("bee", "train", "later"),
        ("ape", "train", "first"),
        ("ape", "train", "first"),
        ("bee", "train", "first"),
        ("ape", "test", ""),
        ("bee", "test", "first"),
        ("bee", "test", ""),
    ]
    stream = _column(root, _rows(*rows))
    # in the order of their first rows
    assert _shown(stream) == [
        ("later", "image", ["bee"], 1, 1),
        ("first", "image", ["ape", "bee"], 3, 2),
    ]
    assert _shown(_column(root, _rows(*rows), first_tasks=1))[0][0] == "later"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("ape", "train", "a"), ("ape", "train", ""), ("ape", "test", "")], "no task"),
        (
            [("ape", "train", "a"), ("bee", "train", "b"), ("ape", "test", "b")]
            + [("bee", "test", "")],
            "task 'b' has a test sample of class 'ape'",
        ),
    ],
)
def test_what_is_wrong_with_the_column_is_named(
    root: pathlib.Path, rows: list[tuple[str, str, str]], words: str
) -> None:
    _numbered(root)
    with pytest.raises(DataError, match=words):
        _column(root, _rows(*rows))


def test_a_task_has_one_modality(root: pathlib.Path) -> None:
    _numbered(root)
    text = _rows(("ape", "train", "a"), ("ape", "test", ""))
    text += "audio/calls/train/ape/0.wav,ape,audio,train,calls,a\n"
    text += "audio/calls/test/ape/0.wav,ape,audio,test,calls,\n"
    with pytest.raises(DataError, match=r"csv:2: task 'a' has samples of audio and im"):
        _column(root, text)


def test_a_plan_and_a_column_are_refused(root: pathlib.Path) -> None:
    _numbered(root)
    with pytest.raises(DataError, match="has a column `task` as well; leave one"):
        _column(root, _rows(("ape", "train", "a"), ("ape", "test", "")), plan="p.yaml")
