"""Who may write into a workdir, with what config, and where a run goes on."""

import dataclasses
import errno
import json
import pathlib
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import pytest

from mmcl_jax import config
from mmcl_jax.errors import RUN_AGAIN, ConfigError, DataError, WorkdirError
from mmcl_jax.files import write_json
from mmcl_jax.methods.base import Common, Method
from mmcl_jax.methods.registry import METHODS, Entry
from mmcl_jax.methods.zero_shot import make as zero_shot
from mmcl_jax.models.model import Model
from mmcl_jax.training import experiment
from mmcl_jax.workdir import resuming
from mmcl_jax.workdir.lock import Lock
from tests import helpers

HOLD = """
import pathlib, sys, time
from mmcl_jax.workdir.lock import Lock
lock = Lock(pathlib.Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(60)
"""


def _holder(folder: pathlib.Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=helpers.REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    return process


def test_the_second_is_told_of_the_first_and_a_dead_one_is_no_hindrance(tmp_path):
    with _holder(tmp_path) as process:
        with pytest.raises(WorkdirError, match=f"process {process.pid} on "):
            Lock(tmp_path)
        process.kill()
    assert str(process.pid) in (tmp_path / "lock").read_text()
    lock = Lock(tmp_path)
    assert str(process.pid) not in (tmp_path / "lock").read_text()
    lock.release()
    Lock(tmp_path).release()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(number: int, tmp_path, monkeypatch):
    def missing(*_: object) -> None:
        raise OSError(number, "no locks here")

    with monkeypatch.context() as patched:
        patched.setattr("fcntl.flock", missing)
        with pytest.raises(WorkdirError, match="without locks .*no locks here"):
            Lock(tmp_path)
    Lock(tmp_path).release()


def test_a_run_in_the_same_process_is_told_too(tmp_path):
    lock = Lock(tmp_path)
    with pytest.raises(WorkdirError, match="is in use by process "):
        Lock(tmp_path)
    lock.release()
    Lock(tmp_path).release()


def test_only_how_a_run_goes_on_may_differ(tmp_path):
    made = config.Config()
    (tmp_path / "config.json").write_text(config.to_json(made))
    resuming.check(tmp_path, dataclasses.replace(made, resume="branch:runs/other"))
    other = dataclasses.replace(made, seeds=config.Seeds(order=3))
    with pytest.raises(ConfigError, match=r"config.seeds.order is 0 there and 3"):
        resuming.check(tmp_path, other)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config.json: "):
        resuming.check(tmp_path, made)


def test_a_run_of_an_earlier_version_is_read_and_compared(tmp_path):
    made = config.Config(method=config.MethodOptions("ridge"))
    stored = json.loads(config.to_json(made))
    # made before a method was added, and before options of others were
    del stored["method"]["ranpac"], stored["method"]["er"]["modality_bytes"]
    stored["method"]["comm"] = {"removed": 1}
    # and before other parts had these fields
    del stored["stream"]["clutter"], stored["method"]["adapter"]["first_block"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(stored))
    resuming.check(tmp_path, made)
    assert resuming.has_config(tmp_path, made)
    assert config.load(path) == made
    del stored["method"]["ridge"]
    path.write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match=r"config\.method\.ridge: missing"):
        config.load(path)
    with pytest.raises(ConfigError, match=r"config\.method\.ridge"):
        resuming.check(tmp_path, made)


def test_data_and_encoder_may_move(tmp_path):
    made = config.Config(
        stream=config.Folders(root="a"), encoder=config.EncoderOptions("e")
    )
    assert resuming.moved(tmp_path, made) == []
    resuming.write_config(tmp_path, made)
    assert resuming.moved(tmp_path, made) == []
    other = dataclasses.replace(made, stream=config.Folders(root="b"))
    resuming.check(tmp_path, other)
    assert resuming.has_config(tmp_path, other)
    assert resuming.moved(tmp_path, other) == [
        "the data are now read from 'b', not 'a'"
    ]
    both = dataclasses.replace(other, encoder=config.EncoderOptions("f"))
    resuming.check(tmp_path, both)
    assert len(resuming.moved(tmp_path, both)) == 2
    for before, after in (
        (config.Manifest(path="a"), config.Manifest(path="b")),
        (config.Tfds(names=("n",)), config.Tfds(names=("n",), data_dir="b")),
    ):
        resuming.write_config(tmp_path, dataclasses.replace(made, stream=before))
        resuming.check(tmp_path, dataclasses.replace(made, stream=after))
    # what is learnt, and of which kind the data are, stays
    links = config.Manifest(path="b", classes_per_task=2)
    for stream in (links, config.Folders(root="a")):
        changed = dataclasses.replace(made, stream=stream)
        assert not resuming.has_config(tmp_path, changed)
        with pytest.raises(ConfigError, match="config.stream.(classes_per_task|kind)"):
            resuming.check(tmp_path, changed)


def test_other_data_are_refused_where_something_was_learnt(tmp_path):
    write_json(tmp_path / "stream.json", {"hash": "a", "classes": [1, 2]})
    resuming.check_stream(tmp_path, {"hash": "b", "classes": (1, 2)})
    (tmp_path / "snapshots").mkdir()
    resuming.check_stream(tmp_path, {"hash": "b", "classes": (1, 2)})
    (tmp_path / "snapshots" / "000").mkdir()
    resuming.check_stream(tmp_path, {"hash": "a", "classes": (1, 2)})
    with pytest.raises(WorkdirError, match="stream.hash is 'a' there and 'b'"):
        resuming.check_stream(tmp_path, {"hash": "b", "classes": (1, 2)})


def test_a_branch_needs_something_that_was_learnt(tmp_path):
    source = tmp_path / "source"
    (source / "snapshots").mkdir(parents=True)
    with pytest.raises(ConfigError, match="there is no snapshot in it"):
        resuming.branch(tmp_path / "new", source, config.Config(), {})


@pytest.mark.parametrize(
    ("value", "said"), [("branch:", "give the folder"), ("fork:a", "is not branch:DIR")]
)
def test_a_branch_names_its_folder(value: str, said: str):
    made = dataclasses.replace(config.Config(), resume=value)
    with pytest.raises(ConfigError, match=said):
        config.resolve(config.to_config_dict(made))


# by the real command

slow = pytest.mark.slow
runs = pytest.mark.xdist_group("workdir")


def _flags(encoder: pathlib.Path, *more: str, method: str = "sequential"):
    return (
        f"--config=configs/demo.py:smoke,method={method}",
        f"--config.encoder.path={encoder}",
        "--config.stream.modalities=image,depth",
        "--config.stream.tasks=3",
        "--config.train.batch_size=4",
        "--config.report=off",
        *more,
    )


@runs
@slow
def test_a_branch_goes_on_under_another_config(encoder_folder, tmp_path):
    one, other, third = (tmp_path / name for name in ("one", "other", "third"))
    flags = _flags(encoder_folder)
    assert helpers.run(*flags, "--stop_after=2", workdir=one).code == 0
    rate = "--config.train.optimizer.learning_rate=0.01"
    refused = helpers.run(*flags, rate, workdir=one)
    assert refused.code == 2
    assert "config.train.optimizer.learning_rate is 0.003 there and 0.01" in (
        refused.errors
    )
    assert f"--config.resume=branch:{one}" in refused.errors
    branch = f"--config.resume=branch:{one}"
    gone_on = helpers.run(*flags, rate, branch, workdir=other)
    assert gone_on.code == 0, gone_on.errors
    assert "resuming after stage 2 of 3" in gone_on.output
    left = helpers.snapshot(one, 1)
    for name, value in helpers.snapshot(other, 1).items():
        assert value.tobytes() == left[name].tobytes()
    assert [p.name for p in sorted((other / "predictions").iterdir())] == [
        f"{stage:03d}.npz" for stage in range(3)
    ]
    strange = helpers.run(*flags, "--config.seeds.order=1", branch, workdir=third)
    assert strange.code == 2
    assert "it learns another stream" in strange.errors


@runs
@slow
def test_a_run_that_diverges_stops_at_the_step(encoder_folder, tmp_path):
    flags = _flags(encoder_folder, "--config.train.optimizer.learning_rate=1e38")
    stopped = helpers.run(*flags, workdir=tmp_path / "stops")
    assert stopped.code == 1
    assert "error: [1/3]" in stopped.errors and "step 2: loss nan" in stopped.errors
    assert "samples [" in stopped.errors and "on_nonfinite=skip_step" in stopped.errors
    kept = [p.name for p in (tmp_path / "stops" / "checkpoints").iterdir()]
    assert len(kept) == 1


@runs
@slow
def test_the_first_signal_saves_and_the_second_leaves_at_once(encoder_folder, tmp_path):
    flags = _flags(encoder_folder, "--config.train.epochs=2000")
    run = helpers.start_run(*flags, workdir=tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.is_file() and metrics.read_text()):
        assert run.process.poll() is None
        time.sleep(0.05)
    second = helpers.run(*flags, workdir=tmp_path / "run")
    assert second.code == 2
    assert f"is in use by process {run.process.pid} on" in second.errors
    run.process.send_signal(signal.SIGINT)
    done = run.finish()
    assert done.code == RUN_AGAIN
    assert "preempted: saved" in done.errors
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_state_of_another_version_is_named(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch
) -> None:
    made = config.Config(
        stream=config.World(
            tasks=2,
            classes_per_task=2,
            modalities=("text",),
            train_per_class=2,
            test_per_class=2,
        ),
        encoder=config.EncoderOptions(str(encoder_folder)),
        method=config.MethodOptions("zero_shot"),
    )
    assert experiment.run(made, tmp_path / "run", stop_after=1) is None

    def newer(model: Model, options: None, common: Common) -> Method:
        remembers = {"more": jnp.zeros(3)}
        method = zero_shot(model, options, common)
        return method._replace(init=lambda key, model: ({}, remembers))

    monkeypatch.setitem(METHODS, "zero_shot", Entry(newer))
    with pytest.raises(WorkdirError, match="snapshots/000: whole, but not a"):
        experiment.run(made, tmp_path / "run")
    monkeypatch.undo()
    results = {"stages": 1}
    monkeypatch.setattr(
        "mmcl_jax.workdir.results.Results.to_json", lambda self: results
    )
    assert experiment.run(made, tmp_path / "other", stop_after=1) is None
    with pytest.raises(WorkdirError, match="snapshots/000: whole, but not a"):
        experiment.run(made, tmp_path / "other")
