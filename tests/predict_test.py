"""Files labelled by what a run has learnt: agreement with the run, routes, errors."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

import mmcl_jax
from mmcl_jax import config
from mmcl_jax.errors import ConfigError, DataError, WorkdirError
from mmcl_jax.evaluation import calibration
from mmcl_jax.modalities.base import TextReference
from mmcl_jax.serving import file_types, from_workdir, reading
from mmcl_jax.streams.base import TaskDraft, build_stream
from mmcl_jax.streams.description import describe_tasks, stored_stream
from mmcl_jax.training import build
from mmcl_jax.workdir import identity, temperatures
from tests import helpers

runs = pytest.mark.xdist_group("predict")


@pytest.fixture(scope="module")
def classifier(whole_run: helpers.Finished) -> from_workdir.Classifier:
    assert whole_run.code == 0, whole_run.errors
    return mmcl_jax.load(whole_run.workdir)


def predict(
    *flags: str, workdir: pathlib.Path, cwd: pathlib.Path | None = None
) -> helpers.Finished:
    main = ("-m", "mmcl_jax.predict", f"--workdir={workdir}")
    return helpers.start(*main, flags=flags, workdir=cwd or workdir).finish()


# what a file is


@pytest.mark.parametrize("modality", helpers.WRITERS)
def test_content_tells_the_modality(modality: str, tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(helpers.write(tmp_path, modality))
    assert file_types.modality_of(path) == modality
    assert file_types.modality_of(path.rename(tmp_path / "file")) == modality
    path = (tmp_path / "file").rename(tmp_path / "file.jpg")
    if modality == "text":
        with pytest.raises(DataError, match=r"file.jpg: text, although '.jpg'"):
            file_types.modality_of(path)
    else:
        assert file_types.modality_of(path) == modality


def test_the_first_bytes_of_other_formats(tmp_path: pathlib.Path) -> None:
    heads = {
        b"\xff\xd8\xff\xe0": "image",
        b"GIF89a\1\0": "video",
        b"RIFF\0\0\0\0AVI LIST": "video",
        b"RIFF\0\0\0\0WAVEfmt ": "audio",
        b"OggS\0": "audio",
        b"fLaC\0": "audio",
        "\ufeffa sentence".encode(): "text",
        ("é" * 40000).encode()[:-1]: "text",  # the head ends inside a character
    }
    path = tmp_path / "file"
    for head, modality in heads.items():
        path.write_bytes(head)
        assert file_types.modality_of(path) == modality
    for head in (b"\x7fEL\2\1\1", b"a\0b", b"\xe9\xe8 latin", b"RIFF\0\0\0\0CDXA"):
        path.write_bytes(head)
        with pytest.raises(DataError, match="begins with") as caught:
            file_types.modality_of(path)
        assert str(path) in str(caught.value)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        file_types.modality_of(path)


# temperatures


def test_the_temperature_of_logits_that_were_scaled() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=(4000, 5))
    share = np.exp(true) / np.exp(true).sum(1, keepdims=True)
    label = np.array([rng.choice(5, p=row) for row in share])
    allowed = np.ones((4000, 5), bool)
    for scale in (1 / 16, 1, 8):
        found = calibration.temperature(true * scale, label, allowed)
        assert found == pytest.approx(scale, rel=0.1)
    # what cannot win has no say
    wider = np.concatenate([true, np.full((4000, 1), 1e4)], 1)
    among = np.concatenate([allowed, np.zeros((4000, 1), bool)], 1)
    assert calibration.temperature(wider, label, among) == pytest.approx(1, rel=0.1)


def test_samples_that_are_all_right_ask_for_no_certainty() -> None:
    logits = np.array([[4.0, 0.0], [0.0, 6.0]])
    found = calibration.temperature(logits, np.array([0, 1]), np.ones((2, 2), bool))
    # two right and one wrong: the least certain one is right as often as not
    assert found is not None
    assert 2 < found < 20
    assert calibration.temperature(logits, np.array([0, 1]), np.eye(2) > 0) is None


def test_temperatures_of_stages_are_averaged(tmp_path: pathlib.Path) -> None:
    def known(snapshot: int) -> dict[str, float] | None:
        return calibration.at_snapshot(temperatures.read(tmp_path, owner), snapshot)

    owner = identity.Owner("run")
    assert known(0) is None
    second = {"given": 8.0, "predicted": 1.0}
    temperatures.write(tmp_path, "run", {1: second})
    assert known(0) is None
    assert known(1) is None  # of the first stage nothing is known
    temperatures.write(
        tmp_path, "run", {0: {"given": None, "predicted": 4.0}, 1: second}
    )
    assert known(1) == pytest.approx({"given": 8.0, "predicted": 2.0})
    assert known(0) == pytest.approx({"given": 1.0, "predicted": 4.0})
    path = tmp_path / "calibration.json"
    for damaged in ("[]", '{"temperatures": {"0": {"given": -1, "predicted": 1}}}'):
        path.write_text(damaged)
        with pytest.raises(DataError, match=r"calibration\.json"):
            temperatures.read(tmp_path, owner)
    other = {"run": "other", "temperatures": {}}
    path.write_text(json.dumps(identity.sealed(other)))
    with pytest.raises(DataError, match="of the run 'other'"):
        temperatures.read(tmp_path, owner)


# streams that are read back


def test_a_stream_is_read_back() -> None:
    def draft(name: str, *classes: tuple[str, str]) -> TaskDraft:
        nothing = tuple([] for _ in classes)
        return TaskDraft(name, name.split("/")[0], classes, nothing, nothing)

    stream = build_stream(
        [
            draft("image/a/0", ("cat", "a"), ("dog", "a")),
            draft("audio/b/0", ("cat", "b"), ("owl", "b")),
            draft("image/c/0", ("Cat", "c"), ("cat_fish", "c")),
            draft("image/a/1", ("dog", "a"), ("emu", "a")),
            # classes that return, of which the name alone would not tell the data set
            draft("image/a/2", ("cat", "a"), ("owl", "a")),
            draft("image/d/0", ("Cat", "c"), ("cat", "d")),
        ]
    )
    described = {
        "classes": [slot.__dict__ for slot in stream.classes],
        "tasks": describe_tasks(stream),
        "stages": [list(stage) for stage in stream.stages],
        "modalities": list(stream.modalities),
    }
    assert stored_stream(json.loads(json.dumps(described))) == stream
    described["classes"].pop()
    with pytest.raises((KeyError, ValueError)):
        stored_stream(described)


# a classifier


@runs
@pytest.mark.slow
def test_the_run_and_the_classifier_agree(
    whole_run: helpers.Finished, classifier: from_workdir.Classifier
) -> None:
    columns = helpers.predictions(whole_run.workdir, 2)
    stored = config.load(whole_run.workdir / "config.json")
    stream = build.build_stream(stored)
    samples = {row.id: row.reference for task in stream.tasks for row in task.test}
    slots = stream.classes
    for modality in classifier.modalities:
        own = [slots[c].modality == modality for c in columns["label"]]
        references = [samples[i] for i in columns["id"][own]]
        said = classifier.predict(references, modality)
        chosen = columns["chosen/modality/given"][own]
        agreed = [
            slots[c].name == row.labels[0].name
            for c, row in zip(chosen, said, strict=True)
        ]
        assert np.mean(agreed) == 1
        # a rendered sample does not say of itself what it is; the model is told nothing
        (group,), _ = reading.in_groups(
            references, lambda each, m=modality: classifier._decode(each, m), 1
        )
        logits, took, _ = classifier._forward(group, None)
        allowed = np.stack([classifier.allowed(name) for name in took])
        chosen = columns["chosen/routed/predicted"][own]
        told = np.where(allowed, logits, -np.inf).argmax(1)
        np.testing.assert_array_equal(told, chosen)


@runs
@pytest.mark.slow
def test_files_are_labelled(
    classifier: from_workdir.Classifier, tmp_path: pathlib.Path
) -> None:
    paths = [helpers.write(tmp_path, "image", i) for i in range(5)]
    paths.insert(2, helpers.write(tmp_path, "video"))
    said = classifier.predict(paths, top=99)
    assert [row.source for row in said] == paths
    assert [row.modality for row in said] == [*["image"] * 2, "video", *["image"] * 3]
    for row in said:
        assert row.taken_for in ("image", "video")
        can_win = np.flatnonzero(classifier.allowed(row.taken_for))
        names = {classifier.run.stream.classes[c].name for c in can_win}
        assert {label.name for label in row.labels} == names
        assert sum(label.probability for label in row.labels) == pytest.approx(1)
    given = classifier.predict(paths[:2], "image", top=99)
    own = {s.name for s in classifier.run.stream.classes if s.modality == "image"}
    for row in given:
        assert row.taken_for == "image"
        assert {label.name for label in row.labels} == own
    # the same alone and in the middle of others
    alone = classifier.logits(paths[3:4])
    np.testing.assert_allclose(alone[0], classifier.logits(paths)[3], rtol=1e-4)
    features = classifier.embed(paths)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    assert features.shape == (6, classifier.run.encoder.spec.embedding)
    # a camera writes the next picture into the same file
    helpers.write_picture(pathlib.Path(paths[0]), 4)
    np.testing.assert_array_equal(classifier.embed(paths)[0], features[5])


@runs
@pytest.mark.slow
def test_what_a_run_has_not_met_is_said(
    whole_run: helpers.Finished,
    classifier: from_workdir.Classifier,
    tmp_path: pathlib.Path,
) -> None:
    sound = helpers.write(tmp_path, "audio")
    with pytest.raises(DataError, match="audio has not been seen") as caught:
        classifier.predict([sound])
    assert sound in str(caught.value)
    with pytest.raises(DataError, match="text has not been seen"):
        classifier.embed([TextReference("a star", "list", 1)])
    with pytest.raises(ConfigError, match="audio has not been seen"):
        classifier.predict([sound], modality="audio")
    with pytest.raises(ConfigError, match="'imgae' is not one of"):
        classifier.predict([sound], modality="imgae")
    with pytest.warns(UserWarning, match="snapshot 1 of 3"):
        first = mmcl_jax.load(whole_run.workdir, snapshot=1)
    (known,) = first.modalities
    (later,) = {"image", "video"} - {known}
    with pytest.raises(DataError, match="it is seen by snapshot 2"):
        first.predict([helpers.write(tmp_path, later)])
    assert len(first.classes) == 2


@pytest.fixture
def workdir(whole_run: helpers.Finished, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of a run that may be spoilt."""
    return shutil.copytree(whole_run.workdir, tmp_path / "run")


@runs
@pytest.mark.slow
def test_workdirs_that_cannot_be_used_are_named(workdir: pathlib.Path) -> None:
    with pytest.raises(WorkdirError, match="no 7 in .*; there are 1, 2, 3"):
        from_workdir.load(workdir, 7)
    (workdir / "calibration.json").unlink()
    shutil.rmtree(workdir / "snapshots" / "002")
    notes = from_workdir.load(workdir).notes
    assert notes[0] == "the run is not finished; using snapshot 2 of 3"
    assert "no temperature" in notes[1]
    (damaged,) = (workdir / "snapshots" / "001").glob("checksums.json")
    damaged.unlink()
    assert "001 is damaged" in from_workdir.load(workdir).notes[0]
    with pytest.raises(WorkdirError, match="001 is damaged"):
        from_workdir.load(workdir, 2)
    stream = json.loads((workdir / "stream.json").read_text())
    for key, value, message in (
        ("preprocessing", {"image": "image-0"}, "preprocesses samples as"),
        ("encoder", "0" * 64, "not the encoder that"),
        ("tasks", [], "stream.json: stages do not hold each task exactly once"),
    ):
        (workdir / "stream.json").write_text(json.dumps(stream | {key: value}))
        with pytest.raises(ValueError, match=message):
            from_workdir.load(workdir)
    shutil.rmtree(workdir / "snapshots")
    (workdir / "stream.json").write_text(json.dumps(stream))
    with pytest.raises(WorkdirError, match="no snapshot yet"):
        from_workdir.load(workdir)
    assert not (workdir / "snapshots").exists()
    with pytest.raises(WorkdirError, match=r"config\.json is not there"):
        from_workdir.load(workdir / "predictions")


# the program


@runs
@pytest.mark.slow
def test_the_program_labels_what_it_can(
    whole_run: helpers.Finished, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "folder"
    good = [helpers.write(folder, "image"), helpers.write(folder / "more", "video")]
    (folder / ".hidden").write_bytes(b"?")
    (folder / "Thumbs.db").write_bytes(b"?")
    cut = str(helpers.cut(good[0], tmp_path / "cut\x1b[2J.png", 0.2))
    done = predict(
        cut, "--json", str(folder), "--top=2", workdir=whole_run.workdir, cwd=tmp_path
    )
    assert done.code == 1
    rows = [json.loads(line) for line in done.output.splitlines()]
    assert [row["source"] for row in rows] == [cut, *good]
    assert "error" in rows[0]
    assert [row["modality"] for row in rows[1:]] == ["image", "video"]
    assert all(len(row["labels"]) == 2 for row in rows[1:])
    assert done.errors.startswith("error: ")
    assert len(done.errors.splitlines()) == 1
    assert "\x1b" not in done.errors
    shown = predict(good[0], "--modality=image", workdir=whole_run.workdir)
    assert (shown.code, shown.errors) == (0, "")
    first, *labels = shown.output.splitlines()
    assert first == f"{good[0]}: image"
    assert all(label.strip().split()[1] == "%" for label in labels)
    Image.new("RGB", (9, 9), "red").save(tmp_path / "plain.png")
    odd = predict(str(tmp_path / "plain.png"), workdir=whole_run.workdir)
    assert odd.output.endswith("  warning: a picture of a single colour\n")
