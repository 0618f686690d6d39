"""What every modality promises, on files made here and on real ones."""

import concurrent.futures
import dataclasses
import pathlib
import pickle
import string

import numpy as np
import pytest

from mmcl_jax.errors import DataError
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import FileReference, InputSpec, Modality
from mmcl_jax.streams import procedural
from tests import helpers

_REAL = 6
modalities = pytest.mark.parametrize("name", MODALITIES)


@pytest.fixture(scope="module", params=["clip", "languagebind", "imagebind"])
def spec(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> InputSpec:
    folder = tmp_path_factory.mktemp("spec")
    return helpers.make_spec(folder, style=request.param, mel_bands=24, mel_frames=60)


def _inputs(path: str, kind: Modality, spec: InputSpec) -> dict[str, np.ndarray]:
    return kind.preprocess(FileReference(path).load(kind, spec), spec)


def _shape(kind: Modality, spec: InputSpec) -> tuple[int, ...]:
    """What the towers take; sides of three kinds of encoders, five kinds of input."""
    size = spec.image_size
    frames = {"video": spec.frames}.get(kind.name, 1)
    return {
        ("languagebind", "audio"): (1, spec.mel_bands, spec.mel_frames, 3),
        ("imagebind", "audio"): (3, spec.mel_bands, spec.mel_frames, 1),
        ("imagebind", "video"): (15, 2, size, size, 3),
        ("imagebind", "depth"): (1, size, size, 1),
    }.get((spec.style, kind.name), (frames, size, size, 3))


def _check(inputs: dict[str, np.ndarray], kind: Modality, spec: InputSpec) -> None:
    expected = {
        "visual": ("pixels", _shape(kind, spec), np.float32),
        "text": ("tokens", (spec.context_length,), np.int32),
    }[kind.tower]
    ((name, array),) = inputs.items()
    assert (name, array.shape, array.dtype) == expected
    assert kind.shapes(spec) == {name: expected[1:]}
    assert np.isfinite(array).all()


def _real_files(kind: Modality) -> list[pathlib.Path]:
    root = helpers.shared_data()
    if root is None:
        pytest.skip("no folder shared/data beside the repository")
    files = sorted((root / kind.name).glob("*/*/*/*"))
    files = [path for path in files if path.suffix in kind.suffixes]
    if not files:
        pytest.skip(f"no single files of modality {kind.name} in shared/data")
    return files[:: max(1, len(files) // _REAL)]


@modalities
def test_describes_itself(name: str, spec: InputSpec) -> None:
    kind = MODALITIES[name]
    assert kind.name == name
    assert kind.tower in ("visual", "text")
    assert name in kind.version(spec)
    assert all(s.startswith(".") and s == s.lower() for s in kind.suffixes)
    assert len(set(kind.templates)) >= 3
    for template in kind.templates:
        fields = [field for _, field, _, _ in string.Formatter().parse(template)]
        assert fields.count("") == 1


@modalities
@pytest.mark.parametrize("size", [32, 45])
def test_shapes_on_own_files(
    name: str, size: int, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    kind = MODALITIES[name]
    spec = dataclasses.replace(spec, image_size=size)
    _check(_inputs(helpers.write(tmp_path, name), kind, spec), kind, spec)


@modalities
def test_real_files(name: str, spec: InputSpec) -> None:
    kind = MODALITIES[name]
    seen = []
    for path in _real_files(kind):
        inputs = _inputs(str(path), kind, spec)
        _check(inputs, kind, spec)
        (array,) = inputs.values()
        assert array.std() > 0.05
        # a hole is the nearest that ImageBind's recipe for depth knows, by far
        assert np.abs(array).max() < (33 if name == "depth" else 10)
        seen.append(array.tobytes())
    assert len(set(seen)) == len(seen)


@modalities
def test_samples_of_the_world(name: str, spec: InputSpec) -> None:
    stream = procedural.build(
        tasks=1,
        classes_per_task=3,
        modalities=(name,),
        order="by_modality",
        train_per_class=2,
        test_per_class=1,
        order_seed=0,
        data_seed=0,
    )
    for record in (*stream.tasks[0].train, *stream.tasks[0].test):
        kind = MODALITIES[name]
        inputs = kind.preprocess(record.reference.load(kind, spec), spec)
        _check(inputs, kind, spec)


@modalities
def test_deterministic_in_threads(
    name: str, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    kind = MODALITIES[name]
    path = helpers.write(tmp_path, name)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: _inputs(path, kind, spec), range(8)))
    for result in results:
        for key, array in result.items():
            np.testing.assert_array_equal(array, results[0][key])


@modalities
def test_different_files_differ(
    name: str, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    kind = MODALITIES[name]
    arrays = [
        next(iter(_inputs(helpers.write(tmp_path, name, i), kind, spec).values()))
        for i in range(3)
    ]
    assert np.any(arrays[0] != arrays[1])
    assert np.any(arrays[1] != arrays[2])


@modalities
def test_preprocess_leaves_media_alone(
    name: str, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    kind = MODALITIES[name]
    media = kind.decode(helpers.write(tmp_path, name), spec)
    before = pickle.dumps(media)
    kind.preprocess(media, spec)
    assert pickle.dumps(media) == before


@modalities
def test_pickles(name: str, spec: InputSpec, tmp_path: pathlib.Path) -> None:
    kind = MODALITIES[name]
    reference = FileReference(helpers.write(tmp_path, name), "somewhere")
    kept = pickle.loads(pickle.dumps((kind, spec, reference)))
    assert kept == (kind, spec, reference)


@modalities
@pytest.mark.parametrize("damage", ["missing", "empty", "folder", "garbage"])
def test_damage_is_named(
    name: str, damage: str, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    kind = MODALITIES[name]
    path = tmp_path / f"broken{kind.suffixes[0]}"
    if damage == "empty":
        path.touch()
    elif damage == "folder":
        path.mkdir()
    elif damage == "garbage":
        path.write_bytes(b"\xff\xfe\x00garbage" * 99)
    with pytest.raises(DataError, match="expected") as caught:
        kind.decode(str(path), spec)
    assert str(path) in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_reference_describes_by_name() -> None:
    assert FileReference("a/b.png").describe() == "a/b.png"
    assert FileReference("/x/a/b.png", "a/b.png").describe() == "a/b.png"
