"""mmcl-real v1: what is pinned of it, and copies of the data that are not as pinned."""

import collections
import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any

import pytest

from mmcl_jax import config
from mmcl_jax.config import resolve
from mmcl_jax.errors import ConfigError, DataError, Faults
from mmcl_jax.modalities.base import FileReference, TextReference
from mmcl_jax.streams import folders, pinned, registry, tasks, transfer
from mmcl_jax.streams.base import ORDERS, Stream, canonical_ids, stream_hash
from mmcl_jax.streams.data_sets import DataSet
from mmcl_jax.streams.pinned import Benchmark
from tests import helpers

REAL = pinned.mmcl_real()
ROLES = ("benchmark", "development")
# of the small copy that tests make
TASKS = ("image/seen/0", "audio/heard/0", "text/said/0")
# If one of them changes, so does every published number: that is another version.
TABLE = "9a6829dd9fec5ac9"
STREAMS = {
    "1": "cb05b95419cabb3be9ff62723a9e1efb2c6075b0949712bddad567d0183e57b4",
    "2": "4231dc32a69aa21c42ef2113e4282a1df6cf6a0ec96d408af482fcb6f87581bc",
    "3": "0519fe23b4de4dd392337265c0f580706acecb39f6a9007acce3e3e97e8e3e6a",
    "4": "7554b32db2bb3847a055f05245e92614149fca7401c244e61a15ebab9a150bbe",
    "1,development": (
        "7a032ac53daabc90a432a312d553bc130a4bd6cd80a855793adcec7190ac7cbe"
    ),
}
# with 4 training samples of a class of the later modality
TRANSFER = {
    "sounds_alone": "b7a40c4280f8b96a",
    "sounds_after_pictures": "108f9e538211ebe8",
    "sounds_after_other_pictures": "baeb1434984124f8",
    "pictures_alone": "3b91e8cac5745823",
    "pictures_after_sounds": "b006da3dce5db399",
    "pictures_after_other_sounds": "beab65a2b177e242",
}
# kinds of what CIFAR-10 has, and parts of another class
LEFT_OUT = {
    "image/caltech101": (
        "airplanes car_side cougar_face crocodile_head dalmatian emu ferry flamingo "
        "flamingo_head garfield ibis ketch pigeon rooster schooner snoopy wild_cat"
    ).split(),
    # what Snips asks for as well, and intents that share a sentence
    "text/clinc150": (
        "how_old_are_you play_music restaurant_reservation update_playlist user_name "
        "weather what_is_your_name where_are_you_from"
    ).split(),
}


def _classes(role: str) -> dict[str, list[str]]:
    """Returns the classes of each data set, in the order of the tasks."""
    found: dict[str, list[str]] = {}
    for task, names in REAL.tasks[role].classes.items():
        found.setdefault(task.rpartition("/")[0], []).extend(names)
    return found


def _config(argument: str, **stream: Any) -> config.Config:
    tree = helpers.get_config(helpers.REPOSITORY / "configs/real.py", argument)
    tree.stream.update(stream)
    return resolve(tree)


@pytest.fixture(scope="module")
def real() -> list[DataSet]:
    """The data sets of the real copy, listed once."""
    root = helpers.shared_data()
    if root is None:
        pytest.skip("no folder shared/data beside the repository")
    listed = []
    for data_set, names in _sets(root):
        parts = {p: {n: data_set.samples(p, n) for n in names} for p in data_set.parts}
        listed.append(dataclasses.replace(data_set, parts=parts))
    return listed


def _build(data_sets: list[DataSet], argument: str) -> Stream:
    options = dataclasses.asdict(_config(argument, root="data").stream)
    for name in ("kind", "root", "follow_links"):
        del options[name]
    faults = Faults()
    stream = tasks.build(data_sets, **options, faults=faults)
    faults.check()
    return stream


def test_the_table_stays_as_it_is() -> None:
    table = json.loads(pinned.TABLE.read_text())
    found = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
    assert found[:16] == TABLE


def test_tasks_have_five_classes_but_for_the_ones_that_are_documented() -> None:
    other = {
        role: {t: len(c) for t, c in REAL.tasks[role].classes.items() if len(c) != 5}
        for role in ROLES
    }
    assert other == {
        "benchmark": {"image/caltech101/0": 4, "audio/instruments/0": 4},
        "development": {
            "depth/asl_fingerspelling/0": 2,
            "video/tennis/0": 2,
            "text/snips/0": 2,
        },
    }
    assert [len(REAL.tasks[role].classes) for role in ROLES] == [29, 10]


def test_the_classes_of_the_two_roles_are_all_that_is_pinned() -> None:
    keys = [
        f"{path}/{name}"
        for role in ROLES
        for path, names in _classes(role).items()
        for name in names
    ]
    assert len(keys) == len(set(keys)) == 143 + 41
    assert set(keys) == set(REAL.classes)


@pytest.mark.parametrize("role", ROLES)
def test_orders_have_all_tasks(role: str) -> None:
    own = REAL.tasks[role]
    assert set(own.orders) == set(ORDERS)
    orders = [tuple(own.orders[order]) for order in ORDERS]
    assert len(set(orders)) == 4
    assert all(sorted(order) == sorted(own.classes) for order in orders)


def test_concepts_are_the_names_that_two_modalities_share() -> None:
    slots = [(path, n) for path, names in _classes("benchmark").items() for n in names]
    shared = collections.defaultdict(list)
    for number, (path, name) in zip(
        canonical_ids(name for _, name in slots), slots, strict=True
    ):
        shared[number].append((name, path))
    twice = [group for group in shared.values() if len(group) > 1]
    assert {group[0][0]: [path for _, path in group] for group in twice} == {
        name: list(paths) for name, paths in REAL.concepts.items()
    }
    assert all(len({p.split("/")[0] for _, p in group}) == 2 for group in twice)


def test_classes_are_drawn_and_not_picked() -> None:
    root = helpers.shared_data()
    if root is None:
        pytest.skip("no folder shared/data beside the repository")
    clinc = root / "text/clinc150"
    domains = json.loads((clinc / "domains.json").read_text())
    benchmark, development = map(_classes, ROLES)
    for path in ("image/cifar10", "depth/asl_fingerspelling", "video/tennis"):
        drawn = _drawn(path, [p.name for p in (root / path / "train").iterdir()])
        assert drawn == benchmark[path] + development.get(path, [])
    for path, count in (("image/caltech101", 40), ("audio/instruments", 15)):
        names = {p.name for p in (root / path / "train").iterdir()} - set(REAL.concepts)
        drawn = _drawn(path, sorted(names.difference(LEFT_OUT.get(path, ()))))
        own = benchmark[path][4:]
        assert own + development[path] == drawn[: len(own) + len(development[path])]
        assert len(own) == count
    for own, per_domain in ((benchmark, slice(3)), (development, slice(3, 4))):
        path = "text/clinc150"
        wanted = [
            name
            for names in domains.values()
            for name in _drawn(path, set(names) - {*LEFT_OUT[path]})[per_domain]
        ]
        assert own[path] == _drawn(path, wanted)


def _drawn(path: str, names: Any) -> list[str]:
    def key(name: str) -> str:
        return hashlib.sha256(f"mmcl-real v1/{path}/{name}".encode()).hexdigest()

    return sorted(names, key=key)


@pytest.mark.parametrize("argument", STREAMS)
def test_streams_stay_as_they_are(argument: str, real: list[DataSet]) -> None:
    stream = _build(real, argument)
    role = "development" if "development" in argument else "benchmark"
    order = ORDERS[int(argument[0]) - 1]
    assert [task.name for task in stream.tasks] == REAL.tasks[role].orders[order]
    assert max(len(t.train) / len(t.classes) for t in stream.tasks) == 20
    assert stream_hash(stream) == STREAMS[argument]


@pytest.mark.parametrize("name", TRANSFER)
def test_streams_of_two_modalities_stay_as_they_are(
    name: str, real: list[DataSet]
) -> None:
    stream = _build(real, name)
    earlier, later = transfer.REAL[name]
    assert tuple(task.name for task in stream.tasks) == (*earlier, *later)
    counts = {t.name: len(t.train) / len(t.classes) for t in stream.tasks}
    assert {counts[name] for name in later} == {4}
    # 14 of instruments
    assert {counts[name] for name in earlier} <= {14, 20}
    assert stream_hash(stream)[:16] == TRANSFER[name]


def test_few_samples_are_the_same_whatever_was_learnt_before(
    real: list[DataSet],
) -> None:
    one, other = (
        _build(real, name) for name in ("sounds_alone", "sounds_after_pictures")
    )
    few = [
        [[record.reference for record in task.train] for task in tasks]
        for tasks in (one.tasks, other.tasks[2:])
    ]
    assert few[0] == few[1]


def test_development_is_scored_by_training_files_alone(real: list[DataSet]) -> None:
    stream = _build(real, "2,development")
    places = [r.reference.describe() for task in stream.tasks for r in task.test]
    assert len(places) > 400
    assert all("/train" in place for place in places)


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> pathlib.Path:
    """A small copy of a benchmark of three data sets."""
    root = tmp_path / "data"
    for path, names in (("image/seen", "abc"), ("audio/heard", "ab")):
        for part, number in (("train", 3), ("test", 2)):
            for name in names:
                folder = root / path / part / name
                folder.mkdir(parents=True)
                for k in range(number):
                    suffix = "png" if "image" in path else "wav"
                    (folder / f"{k}.{suffix}").write_text(f"{path} {part} {name} {k}")
    (root / "text/said").mkdir(parents=True)
    for part in ("train", "test"):
        rows = "".join(f"{part} {name} {k},{name}\n" for name in "xy" for k in "012")
        (root / f"text/said/{part}.csv").write_text(f"text,label\n{rows}")
    return root


def _sets(root: pathlib.Path) -> list[tuple[DataSet, list[str]]]:
    tree = folders._Tree(root, False, Faults())
    return [(d, sorted(d.parts["train"])) for d in folders._scan(tree)]


def _benchmark(root: pathlib.Path) -> Benchmark:
    """Returns the benchmark that a copy is one of; class c is in no task."""
    own = {
        "image/seen/0": ["a", "b"],
        "audio/heard/0": ["b", "a"],
        "text/said/0": ["x", "y"],
    }
    assert tuple(own) == TASKS
    orders = dict.fromkeys(ORDERS, list(TASKS))
    pins = {
        f"{d.path}/{name}": pinned.pin(
            d.samples("train", name), d.samples("test", name)
        )
        for d, names in _sets(root)
        for name in names
    }
    return pinned.from_json(
        {
            "title": "small v1",
            "shots": 2,
            "by_name": ["audio/heard"],
            "tasks": {"benchmark": {"classes": own, "orders": orders}},
            "classes": {name: list(pin) for name, pin in pins.items()},
            "concepts": {},
        }
    )


def _fault(benchmark: Benchmark, root: pathlib.Path) -> str:
    with pytest.raises(DataError) as caught:
        _check(benchmark, root)
    assert 'docs/data.md, section "mmcl-real v1"' in str(caught.value)
    return str(caught.value)


def _check(benchmark: Benchmark, root: pathlib.Path) -> list[str]:
    faults, found = Faults(), _sets(root)
    known = {data_set.path: names for data_set, names in found}
    planned = pinned.tasks(benchmark, "benchmark", TASKS, known)
    pinned.check(benchmark, planned, found, faults)
    return faults.notes


def test_a_copy_is_taken_wherever_it_is_and_whatever_lies_beside_it(
    copy: pathlib.Path,
) -> None:
    benchmark = _benchmark(copy)
    moved = copy.rename(copy.with_name("elsewhere"))
    (moved / "image/seen/train/c/0.png").write_text("another one, of no task")
    (moved / "image/more/train/d").mkdir(parents=True)
    (moved / "image/more/train/d/0.png").touch()
    table = moved / "text/said/train.csv"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, *reversed(rows), "one more,z"]) + "\n")
    (moved / "text/said/test.csv").write_text(
        (moved / "text/said/test.csv").read_text() + "one more still,z\n"
    )
    assert _check(benchmark, moved) == []


def test_tasks_have_their_classes_in_order_and_few_samples(copy: pathlib.Path) -> None:
    benchmark = _benchmark(copy)
    known = {data_set.path: names for data_set, names in _sets(copy)}
    planned = pinned.tasks(benchmark, "benchmark", TASKS, known)
    assert [(task.name, [*task.keys()]) for task in planned][1] == (
        "audio/heard/0",
        [("audio/heard", "b"), ("audio/heard", "a")],
    )
    assert {choice.shots for task in planned for choice in task.classes} == {2}


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        (
            "image/seen/train/b/0.png",
            "other",
            "image/seen/b: samples of other contents",
        ),
        (
            "image/seen/test/a/7.png",
            "one too many",
            "image/seen/a: 3 training and 3 test samples; expected 3 and 2",
        ),
        (
            "text/said/test.csv",
            "text,label\nother,x\nother 1,x\nother 2,x\nother,y\no,y\np,y\n",
            "2 classes are not those of small v1",
        ),
    ],
)
def test_what_differs_is_named(
    copy: pathlib.Path, file: str, text: str, words: str
) -> None:
    benchmark = _benchmark(copy)
    (copy / file).write_text(text)
    assert words in _fault(benchmark, copy)


def test_files_of_other_names_are_others(copy: pathlib.Path) -> None:
    benchmark = _benchmark(copy)
    folder = copy / "audio/heard/train/a"
    (folder / "0.wav").rename(folder / "9.wav")
    assert "audio/heard/a: files of other names" in _fault(benchmark, copy)


def test_a_file_may_not_change_its_part(copy: pathlib.Path) -> None:
    benchmark = _benchmark(copy)
    one, other = (copy / f"image/seen/{part}/a/0.png" for part in ("train", "test"))
    texts = one.read_text(), other.read_text()
    for path, text in zip((one, other), reversed(texts), strict=True):
        path.write_text(text)
    assert "image/seen/a: samples of other contents" in _fault(benchmark, copy)


def test_contents_do_not_count_where_names_do(copy: pathlib.Path) -> None:
    benchmark = _benchmark(copy)
    (copy / "audio/heard/train/a/0.wav").write_text("rendered anew")
    (note,) = _check(benchmark, copy)
    assert "audio/heard: the files of 1 classes" in note


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("audio/heard", "small v1 needs audio/heard, which the data do not have"),
        ("image/seen/train/b", "small v1 needs image/seen/b, which"),
        ("image/seen/test", "seen: no test part"),
    ],
)
def test_what_is_missing_is_named(copy: pathlib.Path, path: str, words: str) -> None:
    benchmark = _benchmark(copy)
    (copy / path).rename(copy.with_name("gone"))
    assert words in _fault(benchmark, copy)


def test_a_pin_is_that_of_the_samples_in_any_order(tmp_path: pathlib.Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    files = [FileReference(str(tmp_path / name), f"d/{name}.png") for name in "ab"]
    said = [TextReference("one", "t.csv", 2), TextReference("two", "t.csv", 3)]
    elsewhere = [TextReference("two", "u.csv", 9), TextReference("one")]
    make = functools.partial(pinned.pin, test=said)
    assert make(files) == make(files[::-1])
    assert make(said) == make(elsewhere)
    lines = (("train", "a.png", "a"), ("train", "b.png", "b"))
    named = sorted("\0".join(line[:2]) for line in lines)
    names = hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]
    assert pinned.pin(files, []).names == names


def test_the_benchmark_needs_its_data(copy: pathlib.Path) -> None:
    stream = config.Folders(root=str(copy), protocol="mmcl_real")
    with pytest.raises(DataError, match="mmcl-real v1 needs audio/fsdd, audio/instr"):
        registry.build(stream, 0, 0)


def test_arguments_of_the_config() -> None:
    plain = _config("", root="data").stream
    assert (plain.protocol, plain.order) == ("mmcl_real", "by_modality")
    assert _config("benchmark,1", root="data").stream == plain
    chosen = _config("2,development,method=ridge", root="data")
    assert chosen.method.name == "ridge"
    assert chosen.stream.protocol == "mmcl_real_development"
    assert chosen.stream.order == "interleaved"
    assert chosen.stream.evaluate_on == "validation"
    assert _config("4", root="d") == _config("stream=recurring", root="d")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("1,2", "give one order"),
        ("1,stream=random", "give one order"),
        ("development,benchmark", "one of benchmark, development"),
        ("developmint", "did you mean 'development'"),
        ("5", "'5' is not one of smoke, 1, 2, 3, 4, benchmark, development"),
    ],
)
def test_arguments_that_contradict_each_other(argument: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _config(argument)
