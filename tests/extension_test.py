"""A run that is extended equals one that knew all tasks from the start."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from mmcl_jax import config
from mmcl_jax.errors import ConfigError, DataError, WorkdirError
from mmcl_jax.methods.coda_prompt import Options as CodaOptions
from mmcl_jax.methods.rail import Options as RailOptions
from mmcl_jax.methods.ranpac import Options as RanpacOptions
from mmcl_jax.methods.registry import METHODS
from mmcl_jax.training import capacity, experiment, extension
from mmcl_jax.workdir import layout
from tests import helpers, saved
from tests.contract import assert_same

FIRST, THEN, LAST = ("image", "ab"), ("text", "cd"), ("image", "bx")
# with every suite; the others with --full
QUICK = ("linear_probe",)
FULL = pytest.mark.full("extension")
METHOD_NAMES = [name for name in METHODS if name != "joint"]


def _write(root: pathlib.Path, modality: str, labels: str) -> pathlib.Path:
    """Writes a data set; a class has the same samples in all of them."""
    for label in labels:
        for part, samples in (("train", 3), ("test", 2)):
            folder = root / modality / "made" / part / label
            folder.mkdir(parents=True)
            for i in range(samples):
                number = 10 * ord(label) + i + 5 * (part == "test")
                if modality == "text":
                    (folder / f"{i}.txt").write_text(f"sentence {number} of {label}")
                else:
                    helpers.write_picture(folder / f"{i}.png", number)
    return root


@pytest.fixture
def folders(tmp_path: pathlib.Path) -> list[pathlib.Path]:
    return [
        _write(tmp_path / f"data{i}", *each)
        for i, each in enumerate((FIRST, THEN, LAST))
    ]


def _config(
    root: pathlib.Path, encoder: pathlib.Path, method: str = "ncm"
) -> config.Config:
    small = {
        "coda_prompt": CodaOptions(components_per_stage=2, length=2),
        "ranpac": RanpacOptions(width=32),
        "rail": RailOptions(width=32),
    }
    adapter = config.AdapterOptions(length=2)
    return config.Config(
        stream=config.Folders(root=str(root)),
        encoder=config.EncoderOptions(str(encoder)),
        data=config.DataOptions(feature_cache=False),
        method=config.MethodOptions(method, adapter=adapter, **small),
        train=config.TrainOptions(epochs=1, batch_size=8),
        report="off",
    )


def _extend(made: config.Config, workdir: pathlib.Path, data: pathlib.Path) -> bool:
    return extension.extend(workdir, extension.source_of(str(data), made))


@pytest.mark.parametrize(
    "method",
    [pytest.param(n, marks=() if n in QUICK else FULL) for n in METHOD_NAMES],
)
def test_extended_is_having_known(
    method: str,
    folders: list[pathlib.Path],
    encoder_folder: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # so small that classes and stages outgrow them
    monkeypatch.setattr(capacity, "_CLASSES", 2)
    monkeypatch.setattr(capacity, "_STAGES", 1)
    made = _config(folders[0], encoder_folder, method)
    known, extended = tmp_path / "known", tmp_path / "extended"
    experiment.run(made, known, stop_after=0)
    for data in folders[1:]:
        assert _extend(made, known, data)
    expected = experiment.run(made, known)
    experiment.run(made, extended)
    for data in folders[1:]:
        assert _extend(made, extended, data)
        found = experiment.run(made, extended)
    for stage in range(3):
        assert_same(*[helpers.snapshot(each, stage) for each in (known, extended)])
    told = [helpers.predictions(each, 2) for each in (known, extended)]
    assert [each.pop("run") is not None for each in told] == [True, True]
    assert_same(*told)
    assert expected and found
    last = [np.array(r["accuracy"]["union"]["given"])[-1] for r in (expected, found)]
    np.testing.assert_array_equal(*last)
    assert [t["name"] for t in found["tasks"]] == [
        "image/made/0",
        "text/made/0",
        "image/made/1",
    ]
    # the class that returns has its slot
    stream = json.loads((extended / layout.STREAM).read_text())
    assert sorted(slot["name"] for slot in stream["classes"]) == [*"abcdx"]


def test_the_past_is_not_needed(
    folders: list[pathlib.Path], encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    made, workdir = _config(folders[0], encoder_folder), tmp_path / "run"
    before = experiment.run(made, workdir)
    shutil.rmtree(folders[0] / "image" / "made" / "train")
    again = experiment.run(made, workdir)
    assert before and again and again["accuracy"] == before["accuracy"]
    _extend(made, workdir, folders[1])
    found = experiment.run(made, workdir)
    assert found and np.isfinite(found["accuracy"]["union"]["given"][-1]).all()
    shutil.rmtree(folders[0])
    _extend(made, workdir, folders[2])
    found = experiment.run(made, workdir)
    assert found
    last = found["accuracy"]["union"]["given"][-1]
    # gone: not scored any more, and named; what was known of it before stays
    assert last[0] is None and None not in last[1:]
    assert found["unscored"] == ["image/made/0"]
    assert found["accuracy"]["union"]["given"][1][0] is not None
    assert found["metrics"]["union"]["given"]["last_average_accuracy"] is not None
    assert "task 'image/made/0' cannot be scored" in (workdir / "log.txt").read_text()


def test_a_task_that_is_still_to_be_learnt_needs_its_samples(
    folders: list[pathlib.Path], encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    made, workdir = _config(folders[0], encoder_folder), tmp_path / "run"
    experiment.run(made, workdir)
    _extend(made, workdir, folders[1])
    (folders[1] / "text" / "made" / "train" / "c" / "0.txt").unlink()
    with pytest.raises(ConfigError, match=r"c/0.txt: no such file, but task"):
        experiment.run(made, workdir)


def test_the_same_tasks_are_added_once(
    folders: list[pathlib.Path], encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    made, workdir = _config(folders[0], encoder_folder), tmp_path / "run"
    experiment.run(made, workdir)
    assert _extend(made, workdir, folders[1])
    assert not _extend(made, workdir, folders[1])
    experiment.run(made, workdir)
    assert not _extend(made, workdir, folders[1])
    source = extension.source_of(str(folders[1]), made)
    assert extension.extend(workdir, source, name="march")
    names = [
        t["name"] for t in json.loads((workdir / layout.STREAM).read_text())["tasks"]
    ]
    assert names == ["image/made/0", "text/made/0", "march"]


def test_what_cannot_be_extended_says_so(
    folders: list[pathlib.Path], encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    made = _config(folders[0], encoder_folder, "joint")
    experiment.run(made, tmp_path / "joint")
    with pytest.raises(ConfigError, match="joint learns all tasks at once"):
        _extend(made, tmp_path / "joint", folders[1])
    with pytest.raises(ConfigError, match="--data: no such file or folder"):
        extension.source_of(str(tmp_path / "nothing"), made)
    workdir = tmp_path / "run"
    experiment.run(_config(folders[0], encoder_folder), workdir)
    (workdir / "samples" / "000.json.gz").unlink()
    with pytest.raises(WorkdirError, match="no lists of samples"):
        _extend(made, workdir, folders[1])


def test_a_changed_list_is_noticed(
    folders: list[pathlib.Path], encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    made, workdir = _config(folders[0], encoder_folder), tmp_path / "run"
    experiment.run(made, workdir)
    _extend(made, workdir, folders[1])
    path = workdir / "samples" / "001.json.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises((DataError, ConfigError), match=r"001\.json\.gz"):
        experiment.run(made, workdir)


@pytest.mark.parametrize(
    ("method", "kept", "scored"),
    [
        ("ncm", "features", True),
        pytest.param("sequential", "features", False, marks=FULL),
        pytest.param("sequential", "inputs", True, marks=FULL),
    ],
)
def test_what_is_kept_can_be_scored(
    method: str,
    kept: str,
    scored: bool,
    folders: list[pathlib.Path],
    encoder_folder: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    made = dataclasses.replace(
        _config(folders[0], encoder_folder, method),
        evaluation=config.EvaluationOptions(keep=kept),
    )
    workdir, whole = tmp_path / "run", tmp_path / "whole"
    experiment.run(made, workdir)
    shutil.copytree(workdir, whole)
    _extend(made, whole, folders[1])
    expected = experiment.run(made, whole)
    shutil.rmtree(folders[0])
    _extend(made, workdir, folders[1])
    found = experiment.run(made, workdir)
    assert expected and found
    assert found["unscored"] == ([] if scored else ["image/made/0"])
    left, right = (r["accuracy"]["union"]["predicted"][-1] for r in (found, expected))
    assert left == (right if scored else [None, *right[1:]])


@FULL
def test_kept_queries_do_not_suffice_where_layer_features_are_read(
    folders: list[pathlib.Path], encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    made = dataclasses.replace(
        _config(folders[0], encoder_folder, "comm_plus"),
        evaluation=config.EvaluationOptions(keep="features"),
    )
    experiment.run(made, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "older")
    (kept,) = (tmp_path / "older" / "kept").iterdir()
    with np.load(kept) as stored:
        columns = dict(stored)
    # as versions kept them that computed layer features anew
    np.savez(kept, **columns | {"features": columns["features"][:, :16]})
    shutil.rmtree(folders[0])
    for name, lost in (("run", []), ("older", ["image/made/0"])):
        _extend(made, tmp_path / name, folders[1])
        found = experiment.run(made, tmp_path / name)
        assert found and found["unscored"] == lost


def test_a_copy_is_extended_and_the_run_stays(
    folders: list[pathlib.Path], encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    made, workdir, copy = (
        _config(folders[0], encoder_folder),
        tmp_path / "run",
        tmp_path / "new" / "copy",
    )
    before = experiment.run(made, workdir)
    extension.copied(workdir, copy)
    assert _extend(made, copy, folders[1])
    longer = experiment.run(made, copy)
    assert before and longer
    assert [len(each["tasks"]) for each in (before, longer)] == [1, 2]
    assert (
        json.loads((workdir / layout.RESULTS).read_text())["tasks"] == before["tasks"]
    )
    assert_same(*[helpers.snapshot(each, 0) for each in (workdir, copy)])
    with pytest.raises(ConfigError, match="--into: .* is not empty"):
        extension.copied(workdir, copy)


@pytest.mark.parametrize(
    "save", [saved.plain, saved.in_folders, saved.save_to_disk, saved.push_to_hub]
)
def test_saved_data_sets_are_recognized(save, tmp_path: pathlib.Path) -> None:
    parts = {part: saved.texts() for part in ("train", "test")}
    source = extension.source_of(str(save(tmp_path / "said", **parts)), config.Config())
    assert isinstance(source, config.Parquet)


@FULL
def test_tables_and_parquet_files_extend_a_run(
    folders: list[pathlib.Path], encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    made, workdir = _config(folders[0], encoder_folder), tmp_path / "run"
    experiment.run(made, workdir)
    rows = [
        f"{path.relative_to(folders[2])},{path.parent.name},image,{path.parts[-3]},listed"
        for path in sorted((folders[2] / "image" / "made").glob("*/*/*"))
    ]
    table = folders[2] / "table.csv"
    table.write_text("\n".join(["path,label,modality,split,dataset", *rows]) + "\n")
    assert _extend(made, workdir, table)
    parts = {part: saved.texts() for part in ("train", "test")}
    assert _extend(made, workdir, saved.plain(tmp_path / "said", **parts))
    found = experiment.run(made, workdir)
    assert found
    assert [task["modality"] for task in found["tasks"]] == ["image", "image", "text"]
    assert "listed" in found["tasks"][1]["name"]


@FULL
def test_what_another_run_has_kept_is_refused(
    folders: list[pathlib.Path], encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    runs = []
    for i, data in enumerate(folders[::2]):
        made = dataclasses.replace(
            _config(data, encoder_folder),
            evaluation=config.EvaluationOptions(keep="features"),
        )
        runs.append(tmp_path / str(i))
        experiment.run(made, runs[-1])
    made = config.load(runs[0] / layout.CONFIG)
    shutil.copy(layout.kept(runs[1], 0), layout.kept(runs[0], 0))
    shutil.rmtree(folders[0])
    with pytest.raises(DataError, match=r"kept/000\.npz: of other samples"):
        _extend(made, runs[0], folders[1])


@FULL
def test_the_list_of_another_run_is_refused(
    folders: list[pathlib.Path], encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    made, runs = _config(folders[0], encoder_folder), [tmp_path / "a", tmp_path / "b"]
    for workdir, data in zip(runs, folders[1:], strict=True):
        experiment.run(made, workdir)
        _extend(made, workdir, data)
    name = "samples/001.json.gz"
    shutil.copy(runs[1] / name, runs[0] / name)
    with pytest.raises((ConfigError, DataError, WorkdirError)):
        experiment.run(made, runs[0])
    assert not layout.snapshot(runs[0], 1).exists()
