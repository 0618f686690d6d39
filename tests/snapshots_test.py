"""States on disk are whole, or are known not to be."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.errors import SaveError
from mmcl_jax.parallel import compiling, sharding
from mmcl_jax.workdir.snapshots import CHECKSUMS, Snapshots


def _state(value: int) -> dict:
    return {"weights": jnp.arange(4000.0) + value, "empty": {}}


@pytest.fixture
def three(tmp_path: pathlib.Path) -> Snapshots:
    made = Snapshots(tmp_path / "states")
    for number in range(3):
        made.save(number, _state(number), {"number": number, "missing": None})
    return made


def test_a_state_comes_back_as_it_was(three: Snapshots):
    assert three.numbers() == [0, 1, 2]
    state, results = three.restore(1, _state(0))
    np.testing.assert_array_equal(state["weights"], np.arange(4000.0) + 1)
    assert results == {"number": 1, "missing": None}
    assert [three.damage(number) for number in range(3)] == [None] * 3
    three.close()


def test_arrays_that_all_devices_hold_are_written_without_a_program(
    tmp_path: pathlib.Path,
) -> None:
    everywhere = sharding.replicated(sharding.make_mesh(jax.devices()))
    assert everywhere.num_devices == 8
    # of lengths that no other test has
    values = {str(n): np.arange(8.0 * n, dtype=np.float32) for n in (391, 397)}
    state = jax.device_put(values, everywhere)
    states, compiled = Snapshots(tmp_path / "states"), []
    with compiling.watched(compiled.append, lambda _: None):
        states.save(0, state, {})
    assert compiled == []
    found, _ = states.restore(0, state)
    for name, array in found.items():
        assert array.sharding == everywhere
        np.testing.assert_array_equal(array, values[name])
    states.close()


@pytest.mark.parametrize("how", ["flipped", "shorter", "longer", "missing", "strange"])
def test_every_file_is_watched(three: Snapshots, how: str):
    files = [p for p in three.path(1).rglob("*") if p.is_file() and p.name != CHECKSUMS]
    assert len(files) > 3
    for path in files:
        whole = path.read_bytes()
        if how == "missing":
            path.unlink()
        elif how == "strange":
            path.with_name("stranger").write_bytes(b"?")
        elif how == "longer":
            path.write_bytes(whole + b"\0")
        elif not whole:
            continue
        elif how == "shorter":
            path.write_bytes(whole[:-1])
        else:
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        named = "stranger" if how == "strange" else path.name
        assert named in (three.damage(1) or "nothing")
        path.with_name("stranger").unlink(missing_ok=True)
        path.write_bytes(whole)
    assert three.damage(1) is None
    three.close()


@pytest.mark.parametrize("content", [None, "", "{", "\0\0", "[]", "[" * 10**5])
def test_a_state_without_sums_was_cut_off(three: Snapshots, content: str | None):
    path = three.path(2) / CHECKSUMS
    path.unlink() if content is None else path.write_text(content)
    said = three.damage(2) or ""
    assert ("cut off" in said) if content is None else (CHECKSUMS in said)
    three.close()


def test_what_is_set_aside_is_not_there_any_more(three: Snapshots, tmp_path):
    aside = tmp_path / "damaged"
    first = three.set_aside(2, aside)
    assert three.numbers() == [0, 1]
    three.save(2, _state(5), {})
    second = three.set_aside(2, aside)
    assert (first.name, second.name) == ("states-002", "states-002-1")
    assert (first / CHECKSUMS).is_file() and (second / CHECKSUMS).is_file()
    three.close()


def test_the_last_two_are_kept_and_written_behind_the_scenes(tmp_path):
    made = Snapshots(tmp_path / "states", digits=5, keep=2, background=True)
    for number in (3, 7, 20, 21):
        made.save(number, _state(number), {}, wait=False)
        made.poll()
    made.close()
    assert sorted(p.name for p in (tmp_path / "states").iterdir()) == ["00020", "00021"]
    again = Snapshots(tmp_path / "states", digits=5)
    assert [again.damage(number) for number in again.numbers()] == [None, None]
    again.close()


def test_what_cannot_be_written_is_said(three: Snapshots, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(three._manager, "save", full)
    with pytest.raises(SaveError, match=r"states: cannot save: .*No space left"):
        three.save(3, _state(3), {})
    assert three.numbers() == [0, 1, 2]
    assert three.damage(2) is None
    monkeypatch.undo()
    three.save(3, _state(3), {})
    assert three.damage(3) is None
    three.close()


def test_what_a_killed_process_was_writing_is_cleared_away(three: Snapshots):
    three.close()
    folder = three.path(0).parent
    left = folder / "003.orbax-checkpoint-tmp"
    left.mkdir()
    (left / "part").write_bytes(b"\0" * 100)
    Snapshots(folder, create=False).close()  # who only reads touches nothing
    assert left.is_dir()
    again = Snapshots(folder)
    assert not left.exists()
    assert again.numbers() == [0, 1, 2]
    again.close()
