"""Samples that can be decoded but are probably not what their owner believes."""

import dataclasses
import pathlib

import numpy as np
import pytest

from mmcl_jax.modalities import AUDIO, DEPTH, IMAGE, MODALITIES, TEXT, VIDEO
from mmcl_jax.modalities.base import InputSpec, Modality, Storage
from tests import helpers, odd_files


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> InputSpec:
    return helpers.make_spec(tmp_path_factory.mktemp("spec"))


def _room() -> np.ndarray:
    """A depth map of a slanted wall with a box, to the millimetre."""
    rng = np.random.default_rng(0)
    wall = np.linspace(1500, 4000, 4800).reshape(60, 80) + rng.normal(0, 9, (60, 80))
    wall[20:40, 20:40] = 900
    wall[:5] = 0
    return wall.astype(np.uint16)


def _half_grey() -> np.ndarray:
    picture = np.arange(6000, dtype=np.uint8).reshape(40, 50, 3).copy()
    picture[20:] = 128
    return picture


def _told(stored: np.ndarray, spec: InputSpec, tmp_path: pathlib.Path) -> str:
    path = tmp_path / "a.npy"
    np.save(path, stored)
    return " ".join(DEPTH.oddities(DEPTH.decode(str(path), spec), spec))


def test_depth_in_a_wrong_unit(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    room = _room()
    assert not _told(room, spec, tmp_path)
    assert not _told((room / 1000).astype(np.float32), spec, tmp_path)
    marked = np.where(room == 0, 65535, room).astype(np.uint16)
    for stored, word in (
        (room * np.uint16(5), "farther than `max_depth`"),
        (room * np.uint16(5), "multiples of 5"),
        ((room << 3 | room >> 13).astype(np.uint16), "`depth_rotated`"),
        (room.astype(np.float32), "`depth_scale`"),
        ((room // 1000).astype(np.uint16), "nearer than 1 cm"),
        (marked, "`depth_invalid`"),
        (np.where(room == 0, 32767, room * np.uint16(5)), "`depth_invalid`"),
        (room * 0 + 7, "all equal"),
        ((room / room.max()).astype(np.float32), "are they in metres"),
        (room.astype(np.float32), "whole metres, as where floating-point"),
        ((room // 20).astype(np.uint16), "than half a metre, as where a map of 8 bits"),
        ((room // 10).astype(np.uint16), "or of centimetres is stored"),
        (np.where(np.arange(4800).reshape(60, 80) % 20, 0, room), "fill in its holes"),
    ):
        assert word in _told(stored, spec, tmp_path)
    assert "rotated" not in _told(room.astype(np.float32), spec, tmp_path)
    tum = dataclasses.replace(spec, storage=Storage(depth_scale=5000.0))
    assert not _told(room * np.uint16(5), tum, tmp_path)


@pytest.mark.parametrize(
    ("kind", "media", "words"),
    [
        (IMAGE, np.full((40, 50, 3), 9, np.uint8), "single colour"),
        (IMAGE, np.arange(6000, dtype=np.uint8).reshape(40, 50, 3), ""),
        (AUDIO, (np.zeros(900, np.float32), 8000), "silent"),
        (AUDIO, (np.full(900, 0.3, np.float32), 8000), "silent"),
        (AUDIO, (np.clip(9 * odd_files.tone(), -1, 1), 16000), "clipped"),
        (AUDIO, (odd_files.tone() * 2, 16000), ""),
        (AUDIO, (np.sign(odd_files.tone()) / 2**15, 16000), "channels cancel each"),
        (AUDIO, (odd_files.tone() * 8, 16000), "samples far beyond 1; divide"),
        (AUDIO, (odd_files.tone()[:100], 16000), "less than 25 ms"),
        (AUDIO, (np.pad(odd_files.tone(), (0, 999_999)), 16000), "but for a moment"),
        (VIDEO, np.full((4, 9, 9, 3), 5, np.uint8), "all equal"),
        (VIDEO, np.arange(972, dtype=np.uint8).reshape(4, 9, 9, 3), ""),
        (IMAGE, np.eye(40, dtype=np.uint8)[..., None].repeat(3, -1), "almost black"),
        (IMAGE, np.arange(6000, dtype=np.uint8).reshape(4, 500, 3), "long as wide"),
        (IMAGE, _half_grey(), "plain grey at its end, as a damaged JPEG"),
        (TEXT, "a", "single character"),
        (TEXT, "cats &amp; dogs", "entities of HTML"),
        (TEXT, "AT&T; a & b", ""),
        (TEXT, "images/0017.jpg", "the name of a file"),
        (TEXT, "iVBORw0KGgo" * 40, "a single long word; is it a file"),
        (TEXT, "das ist grÃ¶ÃŸer", "wrong encoding"),
        (TEXT, "itâ€™s a cat", "wrong encoding"),
        (TEXT, "gr\ufffdßer", "wrong encoding"),
        (TEXT, "São Paulo, Â größer, 20 € à côté", ""),
    ],
)
def test_oddities(kind: Modality, media: object, words: str, spec: InputSpec) -> None:
    assert kind.oddities is not None
    told = " ".join(kind.oddities(media, spec))
    assert words in told if words else not told


@pytest.mark.parametrize("name", MODALITIES)
def test_ordinary_files_are_not_odd(
    name: str, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    kind = MODALITIES[name]
    media = kind.decode(helpers.write(tmp_path, name), spec)
    assert kind.oddities is not None and not kind.oddities(media, spec)
