"""A run opens no connection, writes where it may, and draws the same each time."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests import helpers

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("safety")]

# loaded by Python before anything else; what it forbids ends the run
GUARD = """
import socket, sys

def forbid(event, args):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo"):
        if event == "socket.getaddrinfo" or args[0].family != socket.AF_UNIX:
            sys.stderr.write(f"network: {event} {args[1:]}\\n")
            sys.stderr.flush()
            raise PermissionError(event)
    if event == "pickle.find_class":
        sys.stderr.write(f"pickle: {args}\\n")
        sys.stderr.flush()

sys.addaudithook(forbid)
"""


def _flags(
    encoder: pathlib.Path, *more: str, modalities: str = "image,text"
) -> tuple[str, ...]:
    return (
        f"--config={helpers.REPOSITORY / 'configs/demo.py'}:smoke",
        f"--config.encoder.path={encoder}",
        f"--config.stream.modalities={modalities}",
        f"--config.stream.tasks={len(modalities.split(','))}",
        "--config.train.batch_size=4",
        "--config.checkpoint.every_steps=4",
        *more,
    )


def _listed(folder: pathlib.Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def guarded(encoder_folder, tmp_path_factory) -> tuple[pathlib.Path, str, str]:
    """Runs in an empty home; returns it, and what a run said that was guarded."""
    home = tmp_path_factory.mktemp("home")
    for name in ("guard", "elsewhere", "tmp"):
        (home / name).mkdir()
    (home / "guard" / "sitecustomize.py").write_text(GUARD)
    variables = {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "PYTHONPATH": os.pathsep.join([str(home / "guard"), str(helpers.REPOSITORY)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "JAX_PLATFORMS": "cpu",
    }
    kept = ("PATH", "JAX_DISABLE_MOST_OPTIMIZATIONS", "LANG", "XLA_FLAGS")
    kept += ("PYTHONPYCACHEPREFIX",)  # read, and not written
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    before = _listed(helpers.REPOSITORY / "mmcl_jax")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mmcl_jax.main"),
            f"--workdir={home / 'workdir'}",
            *_flags(encoder_folder),
        ],
        cwd=home / "elsewhere",
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert _listed(helpers.REPOSITORY / "mmcl_jax") == before
    return home, done.stdout, done.stderr


def test_no_connection_is_opened_and_nothing_is_unpickled(guarded):
    _, _, errors = guarded
    assert "network: " not in errors
    assert "pickle: " not in errors


def test_files_are_written_in_the_workdir_and_the_cache_alone(guarded):
    home, _, _ = guarded
    there = {path.parts[0] for path in map(pathlib.Path, _listed(home))}
    assert there <= {"guard", "workdir", ".cache"}
    assert {p.name for p in (home / ".cache").iterdir()} == {"mmcl_jax"}
    assert list((home / "elsewhere").iterdir()) == []


def test_the_guard_guards(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    code = "import socket; socket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode and "network: " in done.stderr


@pytest.mark.full("interruption")
def test_data_threads_and_workers_change_nothing(encoder_folder, tmp_path, monkeypatch):
    # beside worker processes, unoptimized programs of XLA's older emitters ended five
    # runs of six by a segmentation fault; with the flags of users, none of twelve ended
    monkeypatch.delenv("XLA_FLAGS")
    several = {
        "threads": ("--config.data.threads=4",),
        "workers": ("--config.data.worker_processes=2",),
    }
    # workers start again in every epoch and for every test part
    flags = _flags(encoder_folder, "--config.train.epochs=1", modalities="image")
    left = tmp_path / "one"
    assert helpers.run(*flags, "--config.data.threads=1", workdir=left).code == 0
    for name, more in several.items():
        right = tmp_path / name
        done = helpers.run(*flags, *more, workdir=right)
        assert done.code == 0, done.errors
        for what in (helpers.snapshot, helpers.predictions):
            one, other = what(left, 0), what(right, 0)
            assert one.keys() == other.keys()
            one.pop("run", None)  # whose config has other numbers of threads
            for key, value in one.items():
                assert value.tobytes() == other[key].tobytes(), (name, key)
