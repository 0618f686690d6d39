"""Known answers of the decoders of pictures, clips and depth maps; damaged files."""

import dataclasses
import pathlib
import struct

import av
import numpy as np
import pytest
from PIL import Image

from mmcl_jax.modalities import DEPTH, IMAGE, VIDEO
from mmcl_jax.modalities.base import InputSpec, Modality, Storage
from tests import helpers, odd_files


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> InputSpec:
    return helpers.make_spec(tmp_path_factory.mktemp("spec"))


def _flip(path: str, target: pathlib.Path) -> pathlib.Path:
    data = bytearray(pathlib.Path(path).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(b ^ 0x5A for b in data[middle : middle + 200])
    target.write_bytes(data)
    return target


# ------------------------------------------------------------------------- image


def test_image_equals_plain_pillow(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    path = helpers.write(tmp_path, "image")
    pixels = IMAGE.preprocess(IMAGE.decode(path, spec), spec)["pixels"]
    image = Image.open(path).resize((39, 32), Image.Resampling.BICUBIC)
    expected = np.asarray(image.crop((4, 0, 36, 32))) / 255
    expected = (expected - spec.mean) / spec.std
    np.testing.assert_allclose(pixels[0], expected, atol=1e-6)


def test_image_that_fits_is_untouched(spec: InputSpec) -> None:
    media = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    pixels = IMAGE.preprocess(media, spec)["pixels"][0]
    levels = np.round((pixels * spec.std + spec.mean) * 255)
    np.testing.assert_array_equal(levels, media)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(
    orientation: int, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    stored = np.zeros((6, 8, 3), np.uint8)
    stored[0, 0], stored[0, 7], stored[5, 0] = 255, 170, 85
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(stored).save(path, exif=exif)
    # EXIF: where the stored row 0 and column 0 belong when shown.
    shown = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: stored.swapaxes(0, 1)[::-1, ::-1],
        8: np.rot90(stored),
    }[orientation]
    np.testing.assert_array_equal(IMAGE.decode(str(path), spec), shown)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_image_modes_become_rgb(
    mode: str, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    options = {"transparency": 0} if mode == "P" else {}
    Image.new("RGB", (9, 7), (200, 10, 10)).convert(mode).save(path, **options)
    media = IMAGE.decode(str(path), spec)
    assert media.shape == (7, 9, 3)
    assert media.dtype == np.uint8


def test_image_of_extreme_shape(spec: InputSpec) -> None:
    media = np.full((1, 200_000, 3), 9, np.uint8)
    pixels = IMAGE.preprocess(media, spec)["pixels"]
    assert pixels.shape == (1, 32, 32, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_image(suffix: str, spec: InputSpec, tmp_path: pathlib.Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = tmp_path / f"whole{suffix}"
    Image.fromarray(noise).save(whole)
    path = helpers.cut(str(whole), tmp_path / f"cut{suffix}")
    assert "expected a picture of 8 bits" in helpers.decode_error(IMAGE, path, spec)


def test_image_of_16_bits(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(helpers.write(tmp_path, "depth"))
    assert "modality 'depth'" in helpers.decode_error(IMAGE, path, spec)


@pytest.mark.parametrize("kind", [IMAGE, DEPTH, VIDEO])
def test_too_many_pixels(
    kind: Modality, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    path = pathlib.Path(helpers.write(tmp_path, kind.name))
    small = dataclasses.replace(spec, max_pixels=1000)
    assert "more than the limit of 1000" in helpers.decode_error(kind, path, small)


def test_huge_header_is_not_allocated(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(helpers.write(tmp_path, "image"))
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    path.write_bytes(data)
    helpers.decode_error(IMAGE, path, spec)


# ------------------------------------------------------------------------- video


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif"])
def test_frames_are_spread_in_order(
    suffix: str, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / f"a{suffix}"
    helpers.write_video(path, frames=31)
    media = VIDEO.decode(str(path), spec)
    assert media.shape == (4, 32, 48, 3)
    # Frames 0, 10, 20, 30 of a clip that grows evenly brighter; GIF has 8 levels.
    levels = media[:, 20:].mean(axis=(1, 2, 3))
    tolerance = 20 if suffix == ".gif" else 4
    np.testing.assert_allclose(levels, [0, 85, 170, 255], atol=tolerance)


def test_long_clips_are_decoded_twice(
    spec: InputSpec, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = helpers.write(tmp_path, "video")
    expected = VIDEO.decode(path, spec)
    monkeypatch.setattr("mmcl_jax.modalities.video._KEEP_BYTES", 10_000)
    np.testing.assert_array_equal(VIDEO.decode(path, spec), expected)


def test_short_clips_repeat_frames(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.mp4"
    helpers.write_video(path, frames=2)
    pixels = VIDEO.preprocess(VIDEO.decode(str(path), spec), spec)["pixels"]
    assert pixels.shape == (4, 32, 32, 3)
    assert pixels[0].mean() < pixels[-1].mean()


def test_other_number_of_frames(spec: InputSpec) -> None:
    media = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.uint8(20)
    media = np.broadcast_to(media, (9, 32, 32, 3))
    pixels = VIDEO.preprocess(media, spec)["pixels"]
    levels = np.round((pixels * spec.std + spec.mean)[:, 0, 0, 0] * 255)
    np.testing.assert_array_equal(levels, [0, 40, 100, 160])


def test_rotated_video(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(helpers.write(tmp_path, "video"))
    upright = VIDEO.decode(str(path), spec)
    data = bytearray(path.read_bytes())
    # The matrix of the track header: a quarter turn clockwise when shown.
    place = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    data[place : place + 16] = struct.pack(">4i", 0, one, 0, -one)
    data[place + 16 : place + 20] = struct.pack(">i", 0)
    path.write_bytes(data)
    turned = np.rot90(upright, -1, axes=(1, 2))
    np.testing.assert_array_equal(VIDEO.decode(str(path), spec), turned)
    # as front cameras mirror: alone, and with a quarter turn
    for matrix, shown in (
        ((-one, 0, 0, 0, one), upright[:, :, ::-1]),
        ((one, 0, 0, 0, -one), upright[:, ::-1]),
        ((0, one, 0, one, 0), upright.swapaxes(1, 2)),
    ):
        data[place : place + 20] = struct.pack(">5i", *matrix)
        path.write_bytes(data)
        np.testing.assert_array_equal(VIDEO.decode(str(path), spec), shown)


def test_damaged_videos(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    whole = helpers.write(tmp_path, "video")
    assert "truncated" in helpers.decode_error(
        VIDEO, helpers.cut(whole, tmp_path / "a.mp4"), spec
    )
    gif = tmp_path / "a.gif"
    helpers.write_video(gif)
    assert "truncated" in helpers.decode_error(
        VIDEO, helpers.cut(str(gif), tmp_path / "b.gif"), spec
    )
    longer = dataclasses.replace(spec, max_seconds=1.0)
    assert "more than the limit of 1.0 s" in helpers.decode_error(
        VIDEO, pathlib.Path(whole), longer
    )
    picture = pathlib.Path(helpers.write(tmp_path, "image"))
    assert "expected" in helpers.decode_error(
        VIDEO, picture.rename(tmp_path / "c.mp4"), spec
    )
    play_list = tmp_path / "d.mp4"
    play_list.write_text(f"#EXTM3U\n#EXTINF:1,\n{whole}\n")
    assert "expected" in helpers.decode_error(VIDEO, play_list, spec)
    assert "a playlist" in helpers.decode_error(
        VIDEO, play_list.rename(tmp_path / "d.webm"), spec
    )


@pytest.mark.parametrize(
    ("suffix", "other"), [(".mp4", ".avi"), (".avi", ".gif"), (".gif", ".webm")]
)
def test_a_video_is_read_as_what_it_is(
    suffix: str, other: str, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / f"a{suffix}"
    helpers.write_video(path)
    expected = VIDEO.decode(str(path), spec)
    misnamed = path.rename(tmp_path / f"a{other}")
    np.testing.assert_array_equal(VIDEO.decode(str(misnamed), spec), expected)


def test_video_without_frames(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "a sound, not a video" in helpers.decode_error(VIDEO, sound, spec)


# ------------------------------------------------------------------------- depth


def test_depth_keeps_its_bits(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    depth = np.arange(65536).astype(np.uint16).reshape(256, 256)
    path = tmp_path / "a.png"
    Image.fromarray(depth).save(path)
    media = DEPTH.decode(str(path), spec)
    assert media.dtype == np.float32
    # bit by bit as the integers themselves give it
    np.testing.assert_array_equal(media, depth.astype(np.float32) / 1000)


def test_rotated_bits_are_turned_back(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    depth = np.arange(65536).astype(np.uint16).reshape(256, 256)
    # the three highest bits become the lowest
    rotated = depth * np.uint16(8) + depth // np.uint16(8192)
    path = tmp_path / "a.png"
    Image.fromarray(rotated).save(path)
    turned = dataclasses.replace(spec, storage=Storage(depth_rotated=True))
    expected = depth.astype(np.float32) / 1000
    np.testing.assert_array_equal(DEPTH.decode(str(path), turned), expected)


@pytest.mark.parametrize("seed", range(8))
def test_depth_as_it_was_stored(
    seed: int, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    rng = np.random.default_rng(seed)
    shape, scale = tuple(rng.integers(1, 40, 2)), float(rng.uniform(0.5, 6000))
    metres = rng.uniform(0.5, 8, shape).astype(np.float32)
    holes = rng.random(shape) < 0.2
    holes.flat[0] = False
    stored = np.where(holes, rng.choice([np.nan, np.inf, -1, 0]), metres * scale)
    spec = dataclasses.replace(spec, storage=Storage(depth_scale=scale))
    path, order = tmp_path / "a", rng.choice(["<", ">"])
    for content in (odd_files.pfm(stored, order), odd_files.npy(stored)):
        path.write_bytes(content)
        media = DEPTH.decode(str(path), spec)
        np.testing.assert_array_equal(media == 0, holes)
        np.testing.assert_allclose(media[~holes], metres[~holes], rtol=1e-6)


def test_near_is_bright_and_holes_are_far(spec: InputSpec) -> None:
    depth = np.full((32, 32), 3, np.float32)
    depth[8:24, 8:24] = 0.7
    depth[12:16, 12:16] = 0
    pixels = DEPTH.preprocess(depth, spec)["pixels"][0]
    grey = pixels * spec.std + spec.mean
    np.testing.assert_allclose(grey[..., 0], grey[..., 2], atol=1e-6)
    np.testing.assert_allclose(grey[8:12, 8:24], 1, atol=1e-6)
    np.testing.assert_allclose(grey[:8], 0, atol=1e-6)
    np.testing.assert_allclose(grey[12:16, 12:16], 0, atol=1e-6)


def test_depth_does_not_depend_on_distance_scale(spec: InputSpec) -> None:
    depth = np.random.default_rng(0).uniform(0.5, 1.5, (40, 50)).astype(np.float32)
    near = DEPTH.preprocess(depth, spec)["pixels"]
    far = DEPTH.preprocess(depth * 4, spec)["pixels"]
    np.testing.assert_allclose(near, far, atol=1e-4)


def test_holes_do_not_darken_their_rim(spec: InputSpec) -> None:
    depth = np.full((96, 96), 2, np.float32)
    depth[:, 48:] = 1
    whole = DEPTH.preprocess(depth, spec)["pixels"][0, ..., 0]
    holed = depth.copy()
    holed[30:40, 70:80] = 0
    pixels = DEPTH.preprocess(holed, spec)["pixels"][0, ..., 0]
    hole = np.isclose(pixels * spec.std[0] + spec.mean[0], 0, atol=1e-6)
    right = np.s_[:, 20:]
    same = np.isclose(pixels[right], whole[right], atol=1e-4)
    assert (same | hole[right]).all()
    assert 4 < hole[right].sum() < 20


def test_flat_wall_is_calm(spec: InputSpec) -> None:
    noise = np.random.default_rng(0).integers(-2, 3, (32, 32))
    depth = (1 + noise / 1000).astype(np.float32)
    pixels = DEPTH.preprocess(depth, spec)["pixels"]
    grey = pixels * spec.std + spec.mean
    assert np.abs(grey - 0.5).max() < 0.05


def test_damaged_depth(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.png"
    for mode in ("L", "RGB"):
        Image.new(mode, (9, 9), 7 if mode == "L" else (7, 7, 7)).save(path)
        assert "not of 16-bit grey" in helpers.decode_error(DEPTH, path, spec)
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(path)
    assert "no reading" in helpers.decode_error(DEPTH, path, spec)
    whole = helpers.write(tmp_path, "depth")
    helpers.decode_error(DEPTH, helpers.cut(whole, path), spec)
    helpers.decode_error(DEPTH, _flip(whole, path), spec)
