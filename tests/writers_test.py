"""What a run says while it runs, and that who listens cannot hurt it."""

import io
import json
import pathlib
import shutil
import socket
import struct
import sys
import time

import jax
import numpy as np
import pytest
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from mmcl_jax import config
from mmcl_jax.errors import ConfigError
from mmcl_jax.parallel import compiling
from mmcl_jax.workdir import logs, progress, weights_and_biases
from mmcl_jax.workdir.tensorboard import TensorBoard
from tests import helpers

Steps = dict[str, list[tuple[int, float]]]


def events(path: pathlib.Path) -> list[Event]:
    """Returns the events of a file, whose checksums must be right."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        sums = data[8:12], data[12 + length : 16 + length]
        for part, stored in zip((data[:8], data[12 : 12 + length]), sums, strict=True):
            assert struct.unpack("<I", stored) == (masked_crc32c(part),)
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def shown(folder: pathlib.Path) -> Steps:
    """Returns steps and values by tag, as if each start hid what it redoes."""
    steps: Steps = {}
    for path in sorted(folder.iterdir()):
        first, start, *rest = events(path)
        assert first.file_version == "brain.Event:2"
        assert start.session_log.status == start.session_log.START
        steps = {k: [v for v in of if v[0] < start.step] for k, of in steps.items()}
        for event in rest:
            for value in event.summary.value:
                entry = event.step, value.simple_value
                steps.setdefault(value.tag, []).append(entry)
    return {tag: of for tag, of in steps.items() if of}


def read_by_tensorboard(folder: pathlib.Path) -> Steps:
    """Returns what TensorBoard itself shows."""
    name = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(name).EventAccumulator(str(folder))
    accumulator.Reload()
    steps = {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }
    return {tag: of for tag, of in steps.items() if of}


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# TensorBoard


def test_events_come_back(tmp_path):
    board = TensorBoard(tmp_path / "events")
    board.scalars(3, {"train/loss": 0.5, "train/accuracy": 1.0})
    board.scalars(4, {"train/loss": 0.25})
    # without being closed: what was told is on disk
    expected = {"train/loss": [(3, 0.5), (4, 0.25)], "train/accuracy": [(3, 1.0)]}
    assert shown(tmp_path / "events") == expected
    board.close()
    assert read_by_tensorboard(tmp_path / "events") == expected


def test_what_is_done_again_is_there_once(tmp_path):
    folder = tmp_path / "events"
    for start, value in ((1, 1.0), (4, 2.0), (4, 3.0), (2, 4.0)):
        board = TensorBoard(folder)
        board.start(start)
        for step in range(start, start + 4):
            board.scalars(step, {"loss": value})
        board.close()
    expected = {"loss": [(1, 1.0), *((step, 4.0) for step in range(2, 6))]}
    assert shown(folder) == expected
    assert read_by_tensorboard(folder) == expected
    # within one second, and still in their order
    assert len(list(folder.iterdir())) == 4


def test_a_clock_that_goes_back_does_not_change_the_order(tmp_path, monkeypatch):
    folder = tmp_path / "events"
    for now, value in ((2_000_000_000.0, 1.0), (1_500_000_000.0, 2.0)):
        monkeypatch.setattr(
            "mmcl_jax.workdir.tensorboard.time.time", lambda now=now: now
        )
        board = TensorBoard(folder)
        board.start(1)
        board.scalars(1, {"loss": value})
        board.close()
    assert shown(folder) == read_by_tensorboard(folder) == {"loss": [(1, 2.0)]}


# the writer


def test_the_loggers_are_told_what_the_file_holds(tmp_path):
    writer = logs.Writer(tmp_path, quiet())
    writer.tell(logs.make_loggers(tmp_path, config.Config()), [2, 0, 3])
    writer.take_back(0, 0)
    for stage, step in ((0, 1), (0, 2), (2, 1), (2, 3)):
        writer.scalars(stage, step, loss=stage + step / 4, odd=None)
        if (stage, step) == (0, 2):
            writer.scores(0, {"average/union/given": 0.5})
            writer.scores(1, {"average/union/given": 0.25})
    writer.scores(2, {"average/union/given": 0.75})
    writer.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [tuple(json.loads(line).values()) for line in lines] == [
        (0, 1, 0.25, None),
        (0, 2, 0.5, None),
        (2, 1, 2.25, None),
        (2, 3, 2.75, None),
    ]
    # a step for each training step, and behind those of a stage one for its scores
    assert shown(tmp_path / "tensorboard") == {
        "train/loss": [(1, 0.25), (2, 0.5), (5, 2.25), (7, 2.75)],
        "average/union/given": [(3, 0.5), (4, 0.25), (8, 0.75)],
    }


def test_a_run_that_goes_on_takes_back_both(tmp_path):
    def start() -> logs.Writer:
        writer = logs.Writer(tmp_path, quiet())
        writer.tell(logs.make_loggers(tmp_path, config.Config()), [3, 3])
        return writer

    writer = start()
    writer.take_back(0, 0)
    for stage, step in ((0, 1), (0, 2), (0, 3), (1, 1), (1, 2)):
        writer.scalars(stage, step, loss=1.0)
        if step == 3:
            writer.scores(stage, {"average/union/given": 1.0})
    writer.close()
    # killed, and gone on with from step 2 of the first stage, whose scores are gone
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('[0, 1]\n{"stage": 0}\n{"stage": 0, "step": null}\n{"stage": 0, "st')
    writer = start()
    writer.take_back(0, 2)
    writer.scalars(0, 3, loss=2.0)
    writer.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert losses == [1.0, 1.0, 2.0]
    expected = {"train/loss": [(1, 1.0), (2, 1.0), (3, 2.0)]}
    assert shown(tmp_path / "tensorboard") == expected
    assert read_by_tensorboard(tmp_path / "tensorboard") == expected


class Broken:
    """A logger that fails from a call on."""

    def __init__(self, at: str) -> None:
        self._at, self.calls = at, []
        self._called("open")

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self._at:
            raise RuntimeError(f"no {name}\nmore lines")

    def start(self, step: int) -> None:
        self._called("start")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._called("scalars")

    def close(self) -> None:
        self._called("close")


@pytest.mark.parametrize("at", ["open", "start", "scalars", "close"])
def test_a_logger_that_fails_is_left_alone(at: str, tmp_path):
    console, made = quiet(), []

    def make() -> Broken:
        made.append(Broken(at))
        return made[-1]

    writer = logs.Writer(tmp_path, console)
    loggers = {"Broken": make} | logs.make_loggers(tmp_path, config.Config())
    writer.tell(loggers, [2])
    writer.take_back(0, 0)
    for step in (1, 2):
        writer.scalars(0, step, loss=1.0)
    writer.close()
    assert output(console) == f"warning: Broken failed and is switched off: no {at}\n"
    if at != "open":
        # it is closed, and not asked again
        assert made[0].calls.count(at) == 1 and made[0].calls[-1] == "close"
    assert len(shown(tmp_path / "tensorboard")["train/loss"]) == 2
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_disk_that_is_full_ends_the_events_alone(tmp_path, monkeypatch):
    console = quiet()
    writer = logs.Writer(tmp_path, console)
    writer.tell(logs.make_loggers(tmp_path, config.Config()), [2])
    writer.take_back(0, 0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoard, "_write", full)
    writer.scalars(0, 1, loss=1.0)
    writer.scalars(0, 2, loss=1.0)
    writer.close()
    assert output(console).count("TensorBoard failed") == 1


# Weights & Biases


def test_weights_and_biases_are_off_unless_named(tmp_path):
    assert list(logs.make_loggers(tmp_path, config.Config())) == ["TensorBoard"]
    named = config.Config(logging=config.LoggingOptions(wandb_project="mine"))
    assert len(logs.make_loggers(tmp_path, named)) == 2


def test_a_project_without_the_program_is_refused(monkeypatch):
    weights_and_biases.check(config.Config())
    named = config.Config(logging=config.LoggingOptions(wandb_project="mine"))
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="wandb_project: .*pip install wandb"):
        weights_and_biases.check(named)


class Session:
    """The part of Weights & Biases that is used, as documented."""

    def __init__(self) -> None:
        self.runs, self.logged, self.finished = [], [], 0

    def init(self, **options: object) -> "Session":
        self.runs.append(options)
        return self

    @staticmethod
    def Settings(**options: object) -> dict:  # noqa: N802
        return options

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


def test_a_run_keeps_its_name_there(tmp_path, monkeypatch):
    session = Session()
    monkeypatch.setitem(sys.modules, "wandb", session)
    named = config.Config(logging=config.LoggingOptions(wandb_project="mine"))
    for _ in range(2):
        told = weights_and_biases.WeightsAndBiases(tmp_path, named)
        told.start(1)
        told.scalars(1, {"train/loss": 0.5})
        told.close()
    first, second = session.runs
    assert first == second
    assert (first["project"], first["resume"]) == ("mine", "allow")
    assert first["config"]["method"]["name"] == "comm"
    assert "mode" not in first  # WANDB_MODE decides
    assert session.logged == [(1, {"train/loss": 0.5})] * 2
    assert session.finished == 2
    other = tmp_path / "other"
    other.mkdir()
    weights_and_biases.WeightsAndBiases(other, named)
    assert session.runs[2]["id"] != first["id"]


def test_offline_everything_stays_in_the_workdir(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is an extra, and not installed here")
    monkeypatch.setenv("WANDB_MODE", "offline")
    connect = socket.socket.connect

    def local(self: socket.socket, address: object) -> None:
        assert self.family == socket.AF_UNIX or "127.0.0.1" in str(address), address
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", local)
    console = quiet()
    named = config.Config(logging=config.LoggingOptions(wandb_project="mine"))
    writer = logs.Writer(tmp_path, console)
    writer.tell(logs.make_loggers(tmp_path, named), [2])
    writer.scalars(0, 1, loss=0.123456)
    writer.scores(0, {"average/union/given": 0.654321})
    writer.close()
    assert output(console) == ""
    (path,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    parts = b"train/loss", b"0.123456", b"average/union/given", b"0.654321"
    # another process of theirs writes it, and may do so behind the end
    for _ in range(1200):
        if all(part in path.read_bytes() for part in parts):
            return
        time.sleep(0.1)
    pytest.fail(f"{path} does not hold what was told")


# the line of progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_is_for_all_that_is_left():
    clock, said = Clock(), []
    bar = progress.Bar(quiet(), "learning", 1000, said.append, clock)
    with bar:
        bar.begin(200)  # by an earlier start, which says nothing of the rate
        assert bar.left() == "; -:--:-- left"
        clock.now = 50.0
        bar.advance(100)
        # 100 in 50 s, 700 to go
        assert bar.left() == "; 0:05:50 left"
        assert said == []
        clock.now = 100.0
        bar.reach(400)
        bar.accuracies(0.9375, 0.5)
        bar.describe("[2/5] image-1")
        assert said == ["learning: 40 % of all samples, 2 samples/s, 0:05:00 left"]
        clock.now = 159.0
        bar.advance(0)
        clock.now = 160.0
        bar.advance(0)
        (_, line) = said
        assert line.startswith("[2/5] image-1: 40 % of all samples, ")
        assert line.endswith("0:08:00 left, given 93.8 %, predicted 50.0 %")
        bar.reach(1000)
        assert bar.left() == ""


def test_compiling_is_no_part_of_the_rate():
    clock = Clock()
    with progress.Bar(quiet(), "learning", 1000, None, clock) as bar:
        bar.begin(0)
        bar.share(0.5)  # programs of one modality, and those of another are to come
        bar.compiles("train_step")
        assert "compiling train_step (once)" in bar.line()
        clock.now = 42.0
        bar.compiled(40.0)
        bar.advance(50)
        assert bar.left() == "; -:--:-- left"  # two seconds of work say little
        clock.now = 50.0
        bar.advance(50)
        # 100 in 10 s, 900 to go, and as much compiling as before
        assert bar.left() == "; 0:02:10 left"
        bar.share(1.0)
        assert bar.left() == "; 0:01:30 left"
        assert "compiling" not in bar.line()


def test_what_jax_compiles_is_seen():
    said, seconds = [], []
    with compiling.watched(said.append, seconds.append):
        jax.jit(_doubled)(1.0)
    count = len(said)
    assert "_doubled" in said and len(seconds) == count
    assert all(0 <= value < 60 for value in seconds)
    jax.jit(lambda x: x + 3)(1.0)
    assert len(said) == count


def _doubled(x):
    return 2 * x


def test_a_terminal_has_a_live_line_and_no_plain_ones():
    clock, said = Clock(), []
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    with progress.Bar(console, "starting", 100, said.append, clock) as bar:
        bar.begin(0)
        bar.describe("[1/2] a[b]")
        bar.accuracies(0.25, 0.125)
        clock.now = 100.0
        bar.advance(50)
        assert bar.left() == ""
        bar._bars.refresh()
    text = output(console)
    assert "[1/2] a[b]" in text and "50%" in text and "0:01:40 left" in text
    assert "given 25.0 %, predicted 12.5 %" in text
    assert said == []


def test_a_total_that_is_not_known_yet():
    with progress.Bar(quiet(), "reading every file once", None) as bar:
        bar.reach(1, 4)
        assert bar.line().startswith("reading every file once: 25 %")


# real runs


@pytest.mark.full("interruption")
@pytest.mark.slow
def test_a_run_that_was_stopped_shows_each_step_once(encoder_folder, tmp_path):
    flags = (
        "--config=configs/demo.py:smoke,method=sequential",
        f"--config.encoder.path={encoder_folder}",
        "--config.stream.tasks=3",
        "--config.stream.modalities=image",
        "--config.method.adapter.length=2",
        "--config.train.log_every_steps=1",
        "--config.train.batch_size=8",
        "--config.report=off",
    )
    whole = helpers.run(*flags, workdir=tmp_path / "whole")
    assert whole.code == 0, whole.errors
    parts = helpers.run(*flags, "--stop_after=2", workdir=tmp_path / "parts")
    # as if it had been killed behind the snapshot of the first stage
    shutil.rmtree(parts.workdir / "snapshots" / "001")
    shutil.rmtree(parts.workdir / "checkpoints", ignore_errors=True)
    parts = helpers.run(workdir=parts.workdir)
    assert parts.code == 0, parts.errors
    expected = shown(whole.workdir / "tensorboard")
    assert shown(parts.workdir / "tensorboard") == expected
    assert read_by_tensorboard(parts.workdir / "tensorboard") == expected
    lines = (whole.workdir / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert [value for _, value in expected["train/loss"]] == pytest.approx(losses)
    matrix = np.array(whole.results()["accuracy"]["routed"]["predicted"], float)
    means = [row[: k + 1].mean() for k, row in enumerate(matrix)]
    scored = expected["average/routed/predicted"]
    assert [value for _, value in scored] == pytest.approx(means)
    # two steps a stage, and one for its scores
    assert [step for step, _ in scored] == [3, 6, 9]
    tasks = [task["name"] for task in whole.results()["tasks"]]
    for k, name in enumerate(tasks):
        found = [value for _, value in expected[f"accuracy/predicted/{name}"]]
        assert found == pytest.approx(matrix[k:, k])
