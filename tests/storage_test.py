"""How files of a data set are stored, as configs say it."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from mmcl_jax.config import Folders, Tfds, World
from mmcl_jax.errors import DataError
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import FileReference, Storage
from mmcl_jax.streams import storage
from tests import helpers


def test_what_belongs_to_no_data_set_is_stored_as_all_are() -> None:
    assert storage.for_all(Folders()) == Storage()
    assert storage.for_all(World()) == Storage()
    assert storage.for_all(Tfds(depth_scale="5000")) == Storage(depth_scale=5000.0)
    options = Folders(depth_scale="sunrgbd", depth_invalid="7 8", transparency="drop")
    assert storage.for_all(options) == Storage(1000.0, (7.0, 8.0), True, "drop")
    mixed = Folders(depth_scale="tum=5000", depth_invalid="65535")
    assert storage.for_all(mixed) == Storage(depth_invalid=(65535.0,))
    assert storage.differs(mixed) and not storage.differs(options)
    assert not storage.differs(World())


def test_metres_in_a_unit_are_no_units_in_a_metre() -> None:
    with pytest.raises(DataError, match="'0.001'; .* not metres in a unit; write 1000"):
        storage.parse_scale("here", "0.001")


@pytest.mark.parametrize("text", ["", "  ", "abc", "0", "-3", "inf", "nan", "1e999"])
def test_no_unit_is_guessed(text: str) -> None:
    with pytest.raises(DataError, match="here: .*; expected the stored units"):
        storage.parse_scale("here", text)


@pytest.mark.parametrize(
    ("stored", "units", "invalid"),
    [
        (1.25, "1000", ""),
        (1.25, "5000", ""),
        (1.25, "256", ""),
        (1.25, "sunrgbd", ""),
        (0.0, "1000", "1250"),
    ],
)
def test_the_same_distance_in_every_unit(
    stored: float, units: str, invalid: str, tmp_path: pathlib.Path
) -> None:
    written = 1250 if units in ("1000", "sunrgbd") else round(1.25 * float(units))
    pixels = np.full((4, 5), written, np.uint16)
    if units == "sunrgbd":
        pixels = (pixels << 3 | pixels >> 13).astype(np.uint16)
    pixels[0, 0] = pixels[0, 0] + 8
    Image.fromarray(pixels).save(tmp_path / "map.png")
    own = storage.for_all(Folders(depth_scale=units, depth_invalid=invalid))
    reference = FileReference(str(tmp_path / "map.png"), storage=own)
    depth = reference.load(MODALITIES["depth"], helpers.make_spec(tmp_path))
    assert depth[1, 1] == pytest.approx(stored) and depth[0, 0] > 0
    plain = FileReference(str(tmp_path / "map.png"))
    assert (reference.identity() == plain.identity()) == (own == Storage())
