"""Classes that are retired are answered no more, and leave what is theirs alone."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmcl_jax
from mmcl_jax import config
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.ops import reservoir
from mmcl_jax.training import experiment, extension
from mmcl_jax.workdir import layout, reading, states
from tests import helpers


def _write(root: pathlib.Path, labels: str) -> pathlib.Path:
    for label in labels:
        for part, samples in (("train", 3), ("test", 2)):
            folder = root / "image" / "made" / part / label
            folder.mkdir(parents=True)
            for i in range(samples):
                number = 10 * ord(label) + i + 5 * (part == "test")
                helpers.write_picture(folder / f"{i}.png", number)
    return root


def _config(root: pathlib.Path, encoder: pathlib.Path, method: str) -> config.Config:
    return config.Config(
        stream=config.Folders(root=str(root)),
        encoder=config.EncoderOptions(str(encoder)),
        data=config.DataOptions(feature_cache=False),
        method=config.MethodOptions(method, adapter=config.AdapterOptions(length=2)),
        train=config.TrainOptions(epochs=1, batch_size=8),
        report="off",
    )


@pytest.mark.parametrize(
    "method", ["ncm", pytest.param("er", marks=pytest.mark.full("extension"))]
)
def test_a_retired_class_is_not_answered_and_not_kept(
    method: str, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    first, more = _write(tmp_path / "a", "abc"), _write(tmp_path / "b", "d")
    made, workdir = _config(first, encoder_folder, method), tmp_path / "run"
    before = experiment.run(made, workdir)
    stream = json.loads((workdir / layout.STREAM).read_text())
    gone = [slot["name"] for slot in stream["classes"]].index("b")
    shared = extension.retire(workdir, ["b"])
    assert any("gram" in path or "scatter" in path for path in shared)
    assert not any(path.endswith(("sums", "count", "mean")) for path in shared)
    classifier = mmcl_jax.load(workdir)
    assert set(classifier.classes) == {"a", "c"}
    picture = first / "image" / "made" / "test" / "b" / "0.png"
    (said,) = classifier.predict([picture])
    assert {label.name for label in said.labels} == {"a", "c"}
    # once more is an error, and so is what was never learnt
    for name in ("b", "zebra"):
        with pytest.raises(ConfigError, match=rf"--retire: .*{name}"):
            extension.retire(workdir, [name])
    extension.extend(workdir, extension.source_of(str(more), made))
    found = experiment.run(made, workdir)
    assert before and found
    state = states.read(layout.snapshot(workdir, 1))
    if method == "ncm":
        sums = state["memory/sums"]
        assert not sums[gone].any()
        assert all(sums[i].any() for i in range(4) if i != gone)
    else:
        labels = state["memory/buffers/image/rows/label"]
        stored = labels[state["memory/buffers/image/priority"] >= 0]
        assert set(stored.tolist()) == set(range(4)) - {gone}
    chosen = helpers.predictions(workdir, 1)
    assert gone not in chosen["label"]
    for name, values in chosen.items():
        assert not name.startswith("chosen") or gone not in values
    # resuming and reading know of it, and a changed list is noticed
    assert reading.read_run(workdir).stream.retired == ((gone, 1),)
    again = experiment.run(made, workdir)
    assert again and again["accuracy"] == found["accuracy"]
    stream = json.loads((workdir / layout.STREAM).read_text())
    stream["origin"]["retired"] = []
    (workdir / layout.STREAM).write_text(json.dumps(stream))
    with pytest.raises(DataError, match="not what the run has written"):
        reading.read_run(workdir)


@pytest.mark.full("extension")
def test_a_class_that_is_learnt_again_is_answered_again(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    first, more = _write(tmp_path / "a", "ab"), _write(tmp_path / "b", "b")
    made, workdir = _config(first, encoder_folder, "ncm"), tmp_path / "run"
    experiment.run(made, workdir)
    extension.retire(workdir, ["b"])
    extension.extend(workdir, extension.source_of(str(more), made))
    experiment.run(made, workdir)
    assert set(mmcl_jax.load(workdir).classes) == {"a", "b"}


def test_samples_leave_a_reservoir() -> None:
    row = {"label": jax.ShapeDtypeStruct((), np.int32)}
    full = reservoir.add(
        reservoir.init(4, row),
        {"label": jnp.array([0, 1, 0, 1])},
        jnp.ones(4),
        jnp.arange(4),
        jax.random.key(0),
    )
    left = reservoir.remove(full, full.rows["label"] == 1)
    assert left.rows["label"].tolist() == [0, 0, 0, 0]
    assert (left.priority >= 0).tolist() == [True, True, False, False]
    kept = full.priority[np.asarray(full.rows["label"]) == 0]
    np.testing.assert_array_equal(left.priority[:2], kept)
