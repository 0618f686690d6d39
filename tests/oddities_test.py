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
    ):
        assert word in _told(stored, spec, tmp_path)
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
        (VIDEO, np.full((4, 9, 9, 3), 5, np.uint8), "all equal"),
        (VIDEO, np.arange(972, dtype=np.uint8).reshape(4, 9, 9, 3), ""),
        (TEXT, "a", "single character"),
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
