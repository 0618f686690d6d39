"""What is odd about samples is counted by data set, and told in one line."""

import dataclasses

import numpy as np
import pytest

from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import InputSpec, Modality
from mmcl_jax.streams import plausibility
from mmcl_jax.streams.base import Stream, TaskDraft, build_stream
from mmcl_jax.streams.loader import Decoder
from mmcl_jax.streams.verification import Verified, verify
from tests import helpers


@dataclasses.dataclass(frozen=True)
class Level:
    """A picture of one grey level, stored in several ways."""

    level: int
    stored: str

    def load(self, modality: Modality, spec: InputSpec) -> np.ndarray:
        del modality, spec
        return np.full((8, 8, 3), self.level, np.uint8)

    def describe(self) -> str:
        return f"{self.level}.{self.stored}"

    def identity(self) -> str:
        return self.describe()


def _stream(*, twin: bool = False) -> Stream:
    drafts = []
    for k, (modality, dataset) in enumerate((("image", "pets"), ("depth", "rooms"))):
        levels = [Level(10 * k + i, "png") for i in range(6)]
        if twin and not k:
            levels[3] = Level(0, "bmp")
        train, test = (
            ((levels[0], levels[1]), (levels[2],)),
            ((levels[3],), (levels[4],)),
        )
        classes = (("a", dataset), ("b", dataset))
        drafts.append(TaskDraft(f"{modality}", modality, classes, train, test))
    return build_stream(drafts)


def test_phrases_are_counted_by_data_set() -> None:
    stream = _stream()
    ids = [r.id for task in stream.tasks for r in (*task.train, *task.test)]
    far, flat = "most readings are far", "one colour"
    seen = {ids[0]: (flat,), ids[5]: (far,), ids[6]: (far, flat), ids[9]: (far,)}
    found = plausibility.oddities(stream, Verified({}, seen, {}))
    assert [tuple(oddity) for oddity in found] == [
        ("depth/rooms", far, 3, 5, "10.png"),
        ("image/pets", flat, 1, 5, "0.png"),
        ("depth/rooms", flat, 1, 5, "11.png"),
    ]
    (line,) = plausibility.describe(stream, Verified({}, seen, {}))
    assert line.startswith("warning: depth/rooms: 3 of 5 samples, such as 10.png: most")
    assert not list(plausibility.describe(stream, Verified({}, {}, {})))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nan", "class 'nan', as which programs write a label that is missing"),
        ("None", "a label that is missing"),
        ("cafÃ©", "a wrong encoding"),
        ("R&amp;B", "entities of HTML"),
        ("no", ""),
        ("café & nap", ""),
    ],
)
def test_names_of_classes_that_nobody_gave(name: str, words: str) -> None:
    level = Level(1, "png")
    classes = ((name, "pets"), ("ape", "pets"))
    draft = TaskDraft("a", "image", classes, ((level,), (level,)), ((level,), (level,)))
    found = plausibility.oddities(build_stream([draft]), Verified({}, {}, {}))
    assert words in "".join(map(str, found)) if words else not found


def test_the_same_picture_in_two_formats(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = helpers.make_spec(tmp_path, image_size=8)
    odd = MODALITIES["image"]._replace(
        oddities=lambda media, _: ("black",) if not media.any() else ()
    )
    monkeypatch.setitem(MODALITIES, "image", odd)
    stream = dataclasses.replace(_stream(twin=True), tasks=_stream(twin=True).tasks[:1])
    verified = verify(Decoder(spec, 0), stream)
    (pair,) = plausibility.twins(stream, verified)
    assert [r.reference.describe() for r in pair] == ["0.png", "0.bmp"]
    (line,) = plausibility.describe(stream, verified)
    assert "image/pets: 2 of 5 samples, such as 0.png: black" in line
    assert "decoded to the same as another file: 1, such as 0.bmp and 0.png" in line
    plain = dataclasses.replace(_stream(), tasks=_stream().tasks[:1])
    assert not plausibility.twins(plain, verify(Decoder(spec, 0), plain))
