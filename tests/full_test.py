"""Which of the tests that take minutes run, after which changes."""

import pathlib
import subprocess

from tests import full


def _git(folder: pathlib.Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def test_parts_are_there() -> None:
    for places in full.PARTS.values():
        for place in places:
            assert list(full.ROOT.glob(place)), place


def test_what_was_changed_removed_or_added_is_found(tmp_path: pathlib.Path) -> None:
    _git(tmp_path, "init", "--quiet")
    assert full.changed(tmp_path, "HEAD~1") is None
    for name in ("kept", "edited", "moved"):
        (tmp_path / name).write_text(name)
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "--quiet", "--message=one")
    # as in a clone that has no history
    assert full.changed(tmp_path, "HEAD~1") is None
    assert full.changed(tmp_path, "HEAD") == []
    (tmp_path / "edited").write_text("otherwise")
    (tmp_path / "launch").mkdir()
    _git(tmp_path, "mv", "moved", "launch/moved")
    _git(tmp_path, "commit", "--quiet", "--all", "--message=two")
    (tmp_path / "new").write_text("")
    found = full.changed(tmp_path, "HEAD~1")
    assert found and set(found) == {"edited", "moved", "launch/moved", "new"}
    assert full.touches("slurm", found)
    assert full.touches("wheel", ["mmcl_jax/a/b/__init__.py"])
    assert not full.touches("slurm", ["launch_more", "kept"])
    assert not full.touches("notebooks", found)
