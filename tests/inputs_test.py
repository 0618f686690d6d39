"""What towers are fed equals what the references feed them.

Against stored numbers of the references, and against the references themselves where
torch and transformers are installed.
"""

import dataclasses
import importlib.util
import pathlib

import av
import numpy as np
import pytest

from mmcl_jax.modalities import AUDIO, IMAGE, MODALITIES, VIDEO, imagebind
from mmcl_jax.modalities.resizing import resampling_matrix
from tests import helpers
from tests import input_references as references

cases = pytest.mark.parametrize("name", references.CASES)
_TOLERANCE = 1e-5


def needs(*packages: str) -> pytest.MarkDecorator:
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)}")


def _prepared(case: references.Case, **changes: object) -> np.ndarray:
    spec = dataclasses.replace(references.SPEC, **(case.changes | changes))
    return MODALITIES[case.modality].preprocess(case.media(), spec)["pixels"]


def _stored(name: str) -> np.ndarray:
    with np.load(references.FIXTURE) as stored:
        return stored[name]


@cases
def test_stored_numbers(name: str) -> None:
    case = references.CASES[name]
    pixels, expected = _prepared(case), _stored(name)
    assert pixels.shape == expected.shape
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=case.tolerance)
    assert np.abs(pixels - expected).mean() < max(1e-6, case.tolerance / 50)


@cases
def test_mistakes_are_noticed(name: str) -> None:
    case, expected = references.CASES[name], _stored(name)
    for mistake in case.mistakes:
        wrong = _prepared(case, **mistake)
        assert wrong.shape == expected.shape
        assert np.abs(wrong - expected).max() > 20 * case.tolerance


@needs("torch", "transformers")
@cases
@pytest.mark.full("encoders")
def test_references(name: str) -> None:
    case = references.CASES[name]
    spec = dataclasses.replace(references.SPEC, **case.changes)
    expected = case.reference(case.media(), spec)
    np.testing.assert_allclose(_prepared(case), expected, rtol=0, atol=case.tolerance)
    np.testing.assert_allclose(_stored(name), expected, rtol=0, atol=case.tolerance)


# resampling


_SIZES = [(37, 16), (16, 37), (224, 14), (14, 24), (333, 224), (1, 5), (5, 1)]


@needs("torch")
@pytest.mark.parametrize("sizes", _SIZES)
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_matrix_equals_torch(
    sizes: tuple[int, int], antialias: bool, mode: str
) -> None:
    import torch

    source, target = sizes
    values = np.random.default_rng(0).normal(size=(source, source)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None],
        size=(target, target),
        mode=mode,
        antialias=antialias,
        align_corners=False,
    )[0, 0].numpy()
    kernel = {"bilinear": "linear", "bicubic": "cubic"}[mode]
    matrix = resampling_matrix(
        source, target, kernel, -0.5 if antialias else -0.75, antialias
    )
    np.testing.assert_allclose(matrix @ values @ matrix.T, expected, atol=_TOLERANCE)


@pytest.mark.parametrize("sizes", _SIZES)
def test_matrix_equals_jax(sizes: tuple[int, int]) -> None:
    import jax

    source, target = sizes
    values = np.random.default_rng(0).normal(size=source).astype(np.float32)
    expected = jax.image.resize(values, (target,), "cubic")
    found = resampling_matrix(source, target) @ values
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_matrix_by_hand() -> None:
    # places 0.5 and 2.5 among 0, 1, 2, 3; with a = -0.75 a distance of 0.5 weighs
    # 0.59375, one of 1.5 weighs -0.09375, and what lies outside goes to the border
    expected = [[0.5, 0.59375, -0.09375, 0], [0, -0.09375, 0.59375, 0.5]]
    found = resampling_matrix(4, 2, "cubic", -0.75, antialias=False)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # stretched by two and cut: weights 0.75, 0.75 and 0.25 of the left half
    expected = [[3 / 7, 3 / 7, 1 / 7, 0], [0, 1 / 7, 3 / 7, 3 / 7]]
    found = resampling_matrix(4, 2, "linear", antialias=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kernel", ["linear", "cubic"])
@pytest.mark.parametrize("antialias", [True, False])
def test_matrix_properties(kernel: str, antialias: bool) -> None:
    matrix = resampling_matrix(19, 7, kernel, -0.6, antialias)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-5)
    part = resampling_matrix(19, 7, kernel, -0.6, antialias, slice(2, 5))
    np.testing.assert_array_equal(part, matrix[2:5])
    same = resampling_matrix(9, 9, kernel, -0.6, antialias)
    np.testing.assert_allclose(same, np.eye(9), atol=1e-6)


# frames and samples that are taken


@pytest.mark.parametrize("rate", [10.0, 24000 / 1001, 25.0, 30000 / 1001, 59.94])
def test_frames_of_imagebind(rate: float) -> None:
    for count in [*range(1, 60), 299, 300, 301, 1000, 12345]:
        expected = references.imagebind_frames(count, rate)
        np.testing.assert_array_equal(imagebind.frame_indices(count, rate), expected)


def test_frames_of_imagebind_where_there_are_hardly_any() -> None:
    np.testing.assert_array_equal(imagebind.frame_indices(1, 0.1), [0] * 10)
    indices = imagebind.frame_indices(7, 0.3)
    assert indices.min() == 0
    assert indices.max() == 6
    assert (np.diff(indices) >= 0).all()


def test_imagebind_reads_its_frames(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.mp4"
    helpers.write_video(path, frames=37)
    with av.open(str(path)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    spec = dataclasses.replace(references.SPEC, style="imagebind")
    media = VIDEO.decode(str(path), spec)
    chosen = references.imagebind_frames(37, 10.0)
    assert chosen[:4] == [0, 19, 5, 24]
    np.testing.assert_array_equal(media, np.stack(frames)[chosen])


def test_frames_of_imagebind_are_bounded(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pathlib.Path(helpers.write(tmp_path, "video"))
    spec = dataclasses.replace(references.SPEC, style="imagebind")
    limit = "mmcl_jax.modalities.video._MAX_RETURNED_PIXELS"
    monkeypatch.setattr(limit, 10 * 48 * 32)
    assert VIDEO.decode(str(path), spec).shape == (10, 32, 48, 3)
    monkeypatch.setattr(limit, 10 * 48 * 32 - 1)
    assert "10 frames of" in helpers.decode_error(VIDEO, path, spec)


def test_references_hear_the_first_channel(tmp_path: pathlib.Path) -> None:
    import soundfile

    left, right = helpers.sine(440, 0.2, 16000), helpers.sine(880, 0.2, 16000)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    for style in ("languagebind", "imagebind"):
        spec = dataclasses.replace(references.SPEC, style=style)
        samples, _ = AUDIO.decode(str(path), spec)
        np.testing.assert_array_equal(samples, left)


def test_long_sounds_take_no_more_than_their_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mmcl_jax.modalities import languagebind

    seen = []
    whole = languagebind.log_mel

    def log_mel(samples: np.ndarray, rate: int, bands: int) -> np.ndarray:
        seen.append(len(samples))
        return whole(samples, rate, bands)

    monkeypatch.setattr(languagebind, "log_mel", log_mel)
    spec = dataclasses.replace(references.SPEC, style="languagebind")
    AUDIO.preprocess((np.zeros(16000 * 60, np.float32), 16000), spec)
    assert seen == [400 + 34 * 160] * 3


# versions


def test_versions_say_what_was_chosen() -> None:
    spec = references.SPEC
    assert IMAGE.version(spec) == "image-2"
    squashed = dataclasses.replace(spec, resize="squash")
    assert IMAGE.version(squashed) == "image-2 resize=squash"
    bound = dataclasses.replace(spec, style="languagebind", antialias=False)
    assert IMAGE.version(bound) == "languagebind-image-2 antialias=False"
    found = {
        kind.version(dataclasses.replace(spec, style=style))
        for kind in MODALITIES.values()
        for style in kind.styles
    }
    # ImageBind prepares pictures as CLIP does; sentences differ by their tokenizer
    assert len(found) == 5 + 4 + 3


def test_squashed_frames_of_a_clip() -> None:
    spec = dataclasses.replace(references.SPEC, resize="squash")
    media = np.random.default_rng(0).integers(0, 256, (4, 30, 50, 3)).astype(np.uint8)
    clip = VIDEO.preprocess(media, spec)["pixels"]
    for frame, picture in zip(clip, media, strict=True):
        still = IMAGE.preprocess(picture, spec)["pixels"][0]
        np.testing.assert_array_equal(frame, still)


@pytest.mark.parametrize("style", ["languagebind", "imagebind"])
def test_clips_of_extreme_shape(style: str) -> None:
    spec = dataclasses.replace(references.SPEC, style=style)
    media = np.full((3, 1, 20_000, 3), 9, np.uint8)
    pixels = VIDEO.preprocess(media, spec)["pixels"]
    assert pixels.shape == VIDEO.shapes(spec)["pixels"][0]
    np.testing.assert_allclose(np.ptp(pixels, axis=(-3, -2)), 0, atol=1e-6)
