"""Files that lie about their size, contents that are not what they should be."""

import dataclasses
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import tracemalloc

import av
import numpy as np
import pytest
import soundfile

from mmcl_jax.errors import DataError, reading
from mmcl_jax.modalities import AUDIO, DEPTH, IMAGE, TEXT, VIDEO
from mmcl_jax.modalities.base import FileReference, InputSpec, Modality, TokenizerSpec
from tests import helpers
from tests.fuzz.mutations import repair

_MIB = 2**20


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> InputSpec:
    return helpers.make_spec(tmp_path_factory.mktemp("spec"))


def _patched(path: pathlib.Path, place: int, value: bytes) -> pathlib.Path:
    data = bytearray(path.read_bytes())
    data[place : place + len(value)] = value
    path.write_bytes(repair(bytes(data)))
    return path


def _cheaply(kind: Modality, path: pathlib.Path, spec: InputSpec) -> str:
    """Returns the message of the error; decoding must have taken little memory."""
    tracemalloc.start()
    message = helpers.decode_error(kind, path, spec)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * _MIB
    return message


# sizes that headers declare


@pytest.mark.parametrize("kind", [IMAGE, DEPTH])
def test_png_of_60000_by_60000(
    kind: Modality, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    path = pathlib.Path(helpers.write(tmp_path, kind.name))
    _patched(path, 16, struct.pack(">II", 60_000, 60_000))
    assert "pixels" in _cheaply(kind, path, spec)


def test_jpeg_of_60000_by_60000(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.jpg"
    helpers.write_picture(path)
    place = path.read_bytes().index(b"\xff\xc0") + 5
    _patched(path, place, struct.pack(">HH", 60_000, 60_000))
    assert "pixels" in _cheaply(IMAGE, path, spec)


@pytest.mark.parametrize("kind", [IMAGE, DEPTH])
def test_png_with_a_chunk_of_4_gib(
    kind: Modality, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    path = pathlib.Path(helpers.write(tmp_path, kind.name))
    data = path.read_bytes()
    place = data.index(b"IDAT") - 4
    path.write_bytes(data[:place] + b"\xff\x7f\0\0" + data[place + 4 :])
    tracemalloc.start()
    # what is there is whole
    kind.decode(str(path), spec)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * _MIB


def test_wav_that_claims_4_gib(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(helpers.write(tmp_path, "audio"))
    whole, _ = AUDIO.decode(str(path), spec)
    place = path.read_bytes().index(b"data") + 4
    _patched(path, place, b"\xff\xff\xff\xff")
    # what is there, and no more, is decoded
    samples, _ = AUDIO.decode(str(path), spec)
    assert len(samples) <= len(whole)
    _patched(path, 4, b"\xff\xff\xff\x6f")
    assert "truncated" in _cheaply(AUDIO, path, spec)


@pytest.mark.parametrize(
    ("samples", "message"),
    [(2**36 - 1, "limit of 600.0 s"), (2**27 + 1, "a channel"), (2**25, "")],
)
def test_flac_that_claims_more_than_it_holds(
    samples: int, message: str, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "a.flac"
    helpers.write_sound(path)
    (bits,) = struct.unpack(">Q", path.read_bytes()[18:26])
    _patched(path, 18, struct.pack(">Q", bits >> 36 << 36 | samples))
    limits = dataclasses.replace(spec, max_seconds=1e6)
    assert message in _cheaply(AUDIO, path, spec if samples > 2**30 else limits)


def test_long_sounds_are_read_in_blocks(
    spec: InputSpec, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pathlib.Path(helpers.write(tmp_path, "audio"))
    whole, _ = AUDIO.decode(str(path), spec)
    monkeypatch.setattr("mmcl_jax.modalities.audio._BLOCK", 999)
    parts, _ = AUDIO.decode(str(path), spec)
    np.testing.assert_array_equal(parts, whole)
    loud = np.full(4000, 0.5, np.float32)
    loud[3500] = np.nan
    soundfile.write(path, loud, 8000, subtype="FLOAT")
    assert "not finite" in helpers.decode_error(AUDIO, path, spec)


def test_video_of_a_million_frames(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.avi"
    helpers.write_video(path)
    million = struct.pack("<I", 1_000_000)
    _patched(path, path.read_bytes().index(b"avih") + 8 + 16, million)
    _patched(path, path.read_bytes().index(b"strh") + 8 + 32, million)
    try:
        # frames are counted by decoding them
        assert VIDEO.decode(str(path), spec).shape == (4, 32, 48, 3)
    except DataError as error:
        assert str(path) in str(error)
        assert "more than the limit of 600.0 s" in str(error)


def test_gif_of_gigantic_frames(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.gif"
    helpers.write_video(path)
    _patched(path, 6, struct.pack("<HH", 60_000, 60_000))
    assert "pictures of no size, or of one that is more" in _cheaply(VIDEO, path, spec)


def test_mp4_of_gigantic_frames(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(helpers.write(tmp_path, "video"))
    place = path.read_bytes().index(b"mp4v") + 28
    _patched(path, place, struct.pack(">HH", 60_000, 60_000))
    # the frames themselves say how large they are
    assert VIDEO.decode(str(path), spec).shape == (4, 32, 48, 3)


_DECODE = """
import dataclasses, pathlib, re, sys
from mmcl_jax.modalities import VIDEO
from tests import helpers
small, large = map(pathlib.Path, sys.argv[1:])
spec = dataclasses.replace(helpers.make_spec(small.parent), max_pixels=1_000_000)
status = pathlib.Path("/proc/self/status")
most = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) // 1024
VIDEO.decode(str(small), spec)
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the most is what is used now
before = most()
print(helpers.decode_error(VIDEO, large, spec))
print(most() - before)
"""


def test_large_pictures_are_not_decoded_to_see_what_is_there(
    tmp_path: pathlib.Path,
) -> None:
    small, large = tmp_path / "small.mkv", tmp_path / "large.mkv"
    for path, size in ((small, 64), (large, 4096)):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
            stream.options = {"preset": "ultrafast"}
            frame = av.VideoFrame(size, size, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            for _ in range(4):
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    done = subprocess.run(
        [sys.executable, "-c", _DECODE, str(small), str(large)],
        env=helpers.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    message, grown = done.stdout.splitlines()
    assert "4096 x 4096 = 16777216 pixels, more than the limit of 1000000" in message
    # a picture has 24 MiB, and the decoder keeps several
    assert int(grown) < 20, grown


def test_mp4_with_a_table_of_gigantic_length(
    spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "a.mp4"
    helpers.write_video(path)
    # the length stands behind the name, version and flags
    length = path.read_bytes().index(b"stts") + 8
    _patched(path, length, b"\x7f\xff\xff\xff")
    assert "an impossible size" in helpers.decode_error(VIDEO, path, spec)


@pytest.mark.parametrize("limit", ["_MAX_RETURNED_PIXELS", "_MAX_DECODED_PIXELS"])
def test_frames_are_bounded_together(
    limit: str,
    spec: InputSpec,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = helpers.write(tmp_path, "video")
    # four frames of 48 x 32 are returned, thirty decoded
    monkeypatch.setattr(f"mmcl_jax.modalities.video.{limit}", 4 * 48 * 32)
    if limit == "_MAX_RETURNED_PIXELS":
        VIDEO.decode(path, spec)
        monkeypatch.setattr(f"mmcl_jax.modalities.video.{limit}", 4 * 48 * 32 - 1)
    message = helpers.decode_error(VIDEO, pathlib.Path(path), spec)
    assert "pixels together, more than the limit" in message


def test_sizes_of_text(
    spec: InputSpec, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a" * (_MIB + 1))
    assert "more than the limit of 1048576" in helpers.decode_error(TEXT, path, spec)
    monkeypatch.setattr("mmcl_jax.modalities.tokenization._MAX_BYTES", 9)
    broken = tmp_path / "tokenizer.json"
    shutil.copy(spec.tokenizer.path, broken)
    with pytest.raises(DataError, match="tokenizer.json: .* more than the limit of 9"):
        tokenizer = TokenizerSpec(str(broken))
        TEXT.preprocess("a", dataclasses.replace(spec, tokenizer=tokenizer))


@pytest.mark.parametrize("kind", [IMAGE, VIDEO, AUDIO, DEPTH])
def test_content_of_another_kind(
    kind: Modality, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    other = {"image": "audio", "video": "image", "audio": "video", "depth": "text"}
    source = pathlib.Path(helpers.write(tmp_path, other[kind.name]))
    path = source.rename(tmp_path / f"wrong{kind.suffixes[0]}")
    assert "expected" in helpers.decode_error(kind, path, spec)


def test_a_panic_is_damage_of_the_file(tmp_path: pathlib.Path) -> None:
    class PanicException(BaseException):
        pass

    path = tmp_path / "a"
    path.write_text("a")
    with pytest.raises(DataError, match="a: cannot be decoded .PanicException"):
        with reading(str(path), "something"):
            raise PanicException
    with pytest.raises(KeyboardInterrupt), reading(str(path), "something"):
        raise KeyboardInterrupt


def test_a_file_that_may_not_be_read(spec: InputSpec) -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        path = pathlib.Path(helpers.write(pathlib.Path(place), "image"))
        path.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # an administrator may read it all the same
        try:
            message = helpers.decode_error(IMAGE, path, spec)
            with pytest.raises(DataError, match=str(path)):
                FileReference(str(path)).identity()
        finally:
            os.seteuid(user)
    assert "Permission denied" in message
