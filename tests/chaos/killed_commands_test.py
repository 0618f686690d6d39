"""Commands that read a run, killed at changes of files and in the middle of a write."""

import pathlib
import random
import shutil
import signal
import zlib

import pytest

from tests import helpers

# After some changes of files and folders the next is the end: a file that is opened
# gets a hundred bytes, and the kernel ends the process at the next.
_KILLED = """
import importlib, os, resource, signal, sys
os.environ["JAX_COMPILATION_CACHE_DIR"] = sys.argv.pop(1)
left, program = int(sys.argv.pop(1)), sys.argv.pop(1)
before, changes = left, ("os.mkdir", "os.rename", "os.remove", "os.link")
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def count(event, args):
    global left
    opened = event == "open" and isinstance(args[0], str) and args[2] & writing
    if not (opened or event in changes) or str(args[0]).startswith(("/proc", "/dev")):
        return
    left -= 1
    if left < 0 and opened:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    elif left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

main = importlib.import_module(program)
sys.addaudithook(count)
try:
    main.cli()
finally:
    print(f"changes: {before - left}", file=sys.stderr)
"""
_ENDED = (-signal.SIGKILL, -signal.SIGXFSZ)
_KILLS = 2


def _run(
    program: str, flags: tuple[str, ...], caches: pathlib.Path, changes: int = 10**6
) -> helpers.Finished:
    """Runs a program until it has changed so much."""
    words = ("-c", _KILLED, str(caches / "programs"), str(changes), program)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMCL_JAX_FEATURES", str(caches / "features"))
        return helpers.start(*words, flags=flags, workdir=caches).finish()


def _contents(folder: pathlib.Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.full("interruption")
@pytest.mark.slow
@pytest.mark.xdist_group("killed_commands")
@pytest.mark.parametrize("name", ["predict", "compare"])
def test_a_command_that_is_killed_leaves_no_halves_and_works_again(
    name: str, whole_run: helpers.Finished, tmp_path: pathlib.Path
) -> None:
    assert whole_run.code == 0, whole_run.errors
    workdir = shutil.copytree(whole_run.workdir, tmp_path / "run")
    before = _contents(workdir)
    flags = {
        "predict": (f"--workdir={workdir}", helpers.write(tmp_path, "image")),
        "compare": (f"--workdirs={workdir}", "--snapshots=1,3"),
    }[name]
    program, flags = f"mmcl_jax.{name}", ("--json", *flags)

    whole = _run(program, flags, tmp_path / "alone")
    assert whole.code == 0, whole.errors
    features = _contents(tmp_path / "alone" / "features")
    total = int(whole.errors.rpartition("changes: ")[2])
    for changes in random.Random(0).sample(range(total), _KILLS):
        caches = tmp_path / f"killed-{changes}"
        assert _run(program, flags, caches, changes).code in _ENDED
        assert _contents(workdir) == before
        left = _contents(caches / "features").items()
        assert {k: v for k, v in left if k.endswith(".npy")}.items() <= features.items()

        again = _run(program, flags, caches)
        assert again.code == 0, again.errors
        assert again.output == whole.output
        assert "warning" not in again.errors.lower()
        assert _contents(workdir) == before
        for path in (caches / "programs").glob("*-cache"):
            assert zlib.decompress(path.read_bytes())
