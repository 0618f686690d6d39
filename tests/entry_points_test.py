"""The programs as a person starts them: what they say, write and refuse."""

import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from mmcl_jax import config
from mmcl_jax.errors import ConfigError
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.training import experiment
from tests import helpers


def test_importing_everything_loads_no_other_framework_and_starts_no_device() -> None:
    heavy = ("torch", "tensorflow", "transformers", "tensorflow_datasets", "matplotlib")
    code = (
        "import sys, mmcl_jax.main; from jax._src import xla_bridge; "
        f"print([name for name in {heavy} if name in sys.modules], "
        "xla_bridge.backends_are_initialized())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=helpers.REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[] False"


def test_a_signal_ends_a_run_of_several_processes() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    code = (
        "import time; from mmcl_jax.parallel import distributed; "
        f"distributed.start({address!r}, 1, 0); print('up', flush=True); time.sleep(99)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=helpers.REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout
        assert any(line.strip() == "up" for line in process.stdout)
        process.terminate()
        try:
            assert process.wait(timeout=120) == -signal.SIGTERM
        finally:
            process.kill()


# what a run writes


@pytest.mark.slow
def test_a_run_speaks_to_the_point(
    whole_run: helpers.Finished, encoder_folder: pathlib.Path
) -> None:
    assert whole_run.code == 0
    assert whole_run.errors == ""
    lines = helpers.told(whole_run.output)
    assert lines[0] == "3 tasks, 6 classes, 2 modalities: image, video"
    assert lines[1].startswith(f"method: comm; encoder: {encoder_folder}; on 1 CPU")
    assert lines[2].endswith("with the modality given (L1) and with neither: L3")
    assert "compiled once" in lines[3]
    assert [line[:5] for line in lines[4:7]] == ["[1/3]", "[2/3]", "[3/3]"]
    assert "comm: accuracy in percent" in whole_run.output
    # of 2 classes of a task, and of 6 in all
    assert ["chance", "50.0", "16.7", "16.7"] in [line.split() for line in lines]
    page, label, extend, compare = lines[-4:]
    assert page == f"see: {whole_run.workdir / 'report.html'}"
    assert label.endswith(f" --workdir={whole_run.workdir} FILES")
    assert "extend" in extend and "compare" in compare


@pytest.mark.slow
def test_a_run_leaves_what_is_promised(whole_run: helpers.Finished) -> None:
    workdir = whole_run.workdir
    assert {path.name for path in workdir.iterdir()} == {
        "calibration.json",
        "embeddings.npz",
        "encoder.txt",
        "report.html",
        "checkpoints",
        "config.json",
        "lock",
        "log.txt",
        "metrics.jsonl",
        "novelty.json",
        "predictions",
        "results.json",
        "samples",
        "snapshots",
        "stream.json",
        "tensorboard",
    }
    stages = [f"{i:03d}" for i in range(3)]
    stored = sorted(path.name for path in (workdir / "predictions").iterdir())
    assert stored == [f"{stage}.npz" for stage in stages]
    assert sorted(path.name for path in (workdir / "snapshots").iterdir()) == stages
    stream = json.loads((workdir / "stream.json").read_text())
    assert len(stream["hash"]) == len(stream["encoder"]) == 64
    assert stream["stages"] == [[0], [1], [2]]
    assert [slot["modality"] for slot in stream["classes"]].count("video") == 2
    resolved = config.resolve(json.loads((workdir / "config.json").read_text()))
    assert resolved.stream.modalities == ("image", "video")
    # of 2 epochs over 10 samples in batches of 4, every second step is written
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    steps = [(row["stage"], row["step"]) for row in map(json.loads, lines)]
    assert steps == [(stage, step) for stage in range(3) for step in (2, 4, 6)]
    assert all(np.isfinite(json.loads(line)["loss"]) for line in lines)


@pytest.mark.slow
def test_a_finished_run_can_be_started_again(
    whole_run: helpers.Finished, tmp_path: pathlib.Path
) -> None:
    workdir = tmp_path / "again"
    shutil.copytree(whole_run.workdir, workdir)
    before = whole_run.results()
    (workdir / "results.json").unlink()
    done = helpers.run(workdir=workdir)
    assert (done.code, done.errors) == (0, "")
    assert "resuming after stage 3 of 3" in done.output
    after = done.results()
    for results in (before, after):
        results["cost"].pop("seconds")
    assert (before.pop("restarts"), after.pop("restarts")) == (0, 1)
    assert after == before


@pytest.mark.slow
def test_another_config_is_refused_with_its_differences(
    whole_run: helpers.Finished,
) -> None:
    stored = json.loads((whole_run.workdir / "config.json").read_text())
    stored["train"]["epochs"] = 9
    stored["method"]["comm"]["blend"] = "none"
    before = {p: p.stat().st_mtime_ns for p in whole_run.workdir.rglob("*")}
    with pytest.raises(ConfigError) as caught:
        experiment.run(config.resolve(stored), whole_run.workdir)
    message = str(caught.value)
    assert message.startswith("--workdir: ")
    assert "config.train.epochs is 2 there and 9 here" in message
    assert "config.method.comm.blend is 'soft' there and 'none' here" in message
    assert message.count(" there and ") == 2
    assert before == {p: p.stat().st_mtime_ns for p in whole_run.workdir.rglob("*")}


def test_a_workdir_must_be_a_folder(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="is not a folder"):
        experiment.run(config.Config(), path)
    assert path.read_text() == "precious"


def test_batches_must_fit_the_devices(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = helpers.run(
        "--config=configs/demo.py:smoke",
        f"--config.encoder.path={encoder_folder}",
        "--config.train.batch_size=6",
        workdir=tmp_path / "run",
        devices=8,
    )
    assert done.code == 2
    assert re.match(r"error: config\.train\.batch_size: 6 .* 8", done.errors)
    assert not done.workdir.exists()


# streams of ordinary files


def _make_folders(root: pathlib.Path) -> pathlib.Path:
    """Two classes in each modality, three samples to train and two to test."""
    for modality in MODALITIES:
        if modality == "text":
            continue
        for i, name in enumerate(("near", "far")):
            for part, size in (("train", 3), ("test", 2)):
                folder = root / modality / "made" / part / name
                for k in range(size):
                    helpers.write(folder, modality, variant=2 * k + i)
    rows = [f"{word} is {label},{label}" for label in ("good", "bad") for word in "abc"]
    for part in ("train", "test"):
        path = root / "text" / "made" / f"{part}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["text,label", *rows]))
    return root


@pytest.mark.slow
@pytest.mark.xdist_group("folders")
def test_folders_of_all_modalities(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    root = _make_folders(tmp_path / "data")
    done = helpers.run(
        "--config=configs/folders.py:smoke,method=sequential,order=random",
        f"--config.stream.root={root}",
        f"--config.encoder.path={encoder_folder}",
        "--config.train.batch_size=4",
        "--config.report=off",
        workdir=tmp_path / "run",
    )
    assert (done.code, done.errors) == (0, "")
    results = done.results()
    assert {task["modality"] for task in results["tasks"]} == set(MODALITIES)
    for task in results["tasks"]:
        text = task["modality"] == "text"
        assert sorted(task["classes"]) == (["bad", "good"] if text else ["far", "near"])
        # max_train_per_class is 4
        assert (task["train"], task["test"]) == ((6, 6) if text else (6, 4))
    last = results["accuracy"]["union"]["given"][-1]
    assert all(0 <= value <= 1 for value in last)
    confusion = np.array(results["modality_identification"]["confusion"])
    assert confusion.sum() == 4 * 4 + 6


def _cut_jpeg(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "cut.jpg"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    return helpers.cut(str(path), path)


def _silent_video(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "frameless.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        container.start_encoding()
    return path


def _empty_sound(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "nothing.wav"
    soundfile.write(path, np.zeros(0, np.float32), 8000)
    return path


def _shallow_depth(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "shallow.png"
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(path)
    return path


DAMAGES = {
    "image": _cut_jpeg,
    "video": _silent_video,
    "audio": _empty_sound,
    "depth": _shallow_depth,
}


def test_damaged_files_are_named_and_nothing_is_written(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    root = _make_folders(tmp_path / "data")
    damaged = [
        make(root / modality / "made" / "train" / "near")
        for modality, make in DAMAGES.items()
    ]
    done = helpers.run(
        "--config=configs/folders.py:smoke",
        f"--config.stream.root={root}",
        f"--config.encoder.path={encoder_folder}",
        "--config.stream.max_train_per_class=None",
        workdir=tmp_path / "run",
    )
    assert (done.code, done.output) == (2, "")
    assert "Traceback" not in done.errors
    assert done.errors.startswith("error: 4 of 56 samples cannot be decoded")
    for path in damaged:
        assert str(path) in done.errors
    assert not done.workdir.exists()


@pytest.mark.slow
@pytest.mark.xdist_group("folders")
def test_damaged_files_can_be_skipped(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    root = _make_folders(tmp_path / "data")
    near = root / "image" / "made" / "train" / "near"
    _cut_jpeg(near)
    options = (
        "--config=configs/folders.py:smoke,method=ridge",
        f"--config.stream.root={root}",
        "--config.stream.include=image",
        f"--config.encoder.path={encoder_folder}",
        "--config.data.on_error=skip",
        "--config.report=off",
    )
    done = helpers.run(*options, workdir=tmp_path / "run")
    assert (done.code, done.errors) == (0, "")
    results = done.results()
    assert results["skipped_samples"] == 1
    assert [task["train"] for task in results["tasks"]] == [6]
    log = (done.workdir / "log.txt").read_text()
    assert f"skipped: {near / 'cut.jpg'}: cannot be decoded" in log
    # what tests was made by the same hand as what trains
    leak = "image/made/test/far/1.png is a test sample and image/made/train/far/1.png"
    assert f"warning: {leak} a training sample of the same content" in log
    for path in near.iterdir():
        path.write_bytes(b"damaged")
    done = helpers.run(*options, workdir=tmp_path / "other")
    assert done.code == 2
    assert "no train sample of class 'near' can be decoded" in done.errors
    assert not done.workdir.exists()


def test_a_table_without_labels_is_named(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    root = _make_folders(tmp_path / "data")
    table = root / "text" / "made" / "train.csv"
    table.write_text(table.read_text().replace("text,label", "text,lable"))
    options = config.Config(
        stream=config.Folders(root=str(root), classes_per_task=2),
        encoder=config.EncoderOptions(str(encoder_folder)),
    )
    with pytest.raises(ConfigError, match="no column label") as caught:
        experiment.run(options, tmp_path / "run")
    assert str(table) in str(caught.value)
    assert not (tmp_path / "run").exists()
