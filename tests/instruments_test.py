"""The sounds of mmcl-real v1: phrases that are drawn by name, and how they sound."""

import hashlib
import pathlib
import shutil

import numpy as np
import pytest

from mmcl_jax.modalities.base import FileReference
from mmcl_jax.streams.pinned import mmcl_real, pin
from tests import helpers

tool = helpers.load_tool("render_instruments")


def _notes(midi: bytes) -> list[tuple[float, int, int, int]]:
    """Returns seconds, status, note and velocity of the events of a MIDI file."""
    assert midi[:14].hex() == "4d546864" + "00000006" + "0000" + "0001" + "01e0"
    assert midi[14:18] == b"MTrk"
    track = midi[22:]
    assert int.from_bytes(midi[18:22], "big") == len(track)
    found, ticks, at = [], 0, 0
    while True:
        delta = 0
        while track[at] & 0x80:
            delta, at = delta << 7 | track[at] & 0x7F, at + 1
        ticks, at = ticks + (delta << 7 | track[at]), at + 1
        status = track[at]
        if status == 0xFF:
            assert track[at:] == b"\xff\x2f\x00"
            return found
        size = 1 if status == 0xC0 else 2
        values = [*track[at + 1 : at + 1 + size], 0][:2]
        found.append((ticks / 960, status, *values))
        at += 1 + size


@pytest.mark.parametrize("name", ["timpani", "grand_piano"])
def test_phrases_are_as_described(name: str) -> None:
    program, low, high = tool.INSTRUMENTS[name]
    counts = set()
    for number in range(20):
        midi, seconds, peak = tool.phrase(f"{name} {number}", program, low, high)
        assert 1.5 <= seconds <= 2.5 and 0.3 <= peak <= 0.9
        first, *events = _notes(midi)
        assert first == (0.0, 0xC0, program, 0)
        on, off = events[::2], events[1::2]
        counts.add(len(on))
        assert [e[1] for e in on] == [0x90] * len(on)
        assert [e[1:3] for e in off] == [(0x80, note) for _, _, note, _ in on]
        notes = [note for _, _, note, _ in on]
        assert low <= min(notes) and max(notes) <= min(high, min(notes) + 14)
        assert all(
            start < stop for (start, *_), (stop, *_) in zip(on, off, strict=True)
        )
        assert off[-1][0] < seconds
        assert tool.phrase(f"{name} {number}", program, low, high)[0] == midi
    assert counts == {3, 4, 5, 6}


def test_names_are_those_that_are_pinned(tmp_path: pathlib.Path) -> None:
    (tmp_path / "any").write_text("any")
    for name in tool.INSTRUMENTS:
        train, test = (
            [
                FileReference(
                    str(tmp_path / "any"), f"{part}/{name}_{part}_{k:02}.flac"
                )
                for k in range(count)
            ]
            for part, count in tool.COUNTS.items()
        )
        pinned = mmcl_real().classes[f"audio/instruments/{name}"]
        assert pin(train, test)[:3] == pinned[:3]


def test_a_note_has_its_pitch() -> None:
    if not shutil.which("fluidsynth") or not pathlib.Path(tool.FONT).is_file():
        pytest.skip("fluidsynth or its sound font is not installed")
    assert hashlib.sha256(pathlib.Path(tool.FONT).read_bytes()).hexdigest() == (
        tool.FONT_SHA256
    )
    note = 76
    midi, *_ = tool.phrase("one note", tool.INSTRUMENTS["flute"][0], note, note)
    samples = tool.render(midi, 2.0, 0.5, tool.FONT)
    assert samples.shape == (32_000,)
    assert np.abs(samples).max() == pytest.approx(0.5)
    power = np.abs(np.fft.rfft(samples))
    hertz = np.fft.rfftfreq(len(samples), 1 / tool.RATE)[power.argmax()]
    assert hertz == pytest.approx(440 * 2 ** ((note - 69) / 12), rel=0.01)
