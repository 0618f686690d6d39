"""Odd files are read for what they are, or refused by name with what they are."""

import dataclasses
import gzip
import io
import pathlib
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, features

from mmcl_jax.errors import DataError
from mmcl_jax.modalities import AUDIO, DEPTH, IMAGE, TEXT, VIDEO
from mmcl_jax.modalities.base import InputSpec, Modality, Storage, TokenizerSpec
from mmcl_jax.modalities.tokenization import load_tokenizer
from mmcl_jax.models.pretrained import tensors
from mmcl_jax.serving import file_types
from tests import helpers, odd_files
from tests.odd_files import BLUE, HTML, LFS, RED, picture, sheer, sound, streams

Values = dict[tuple[int, int], object]
WHITE = (255, 255, 255)


class Odd(NamedTuple):
    """A file.

    Attributes:
        name: Its name; the suffix is what its owner believes.
        make: Makes its content.
        expected: Words of the refusal; or values by row and column of a picture or a
            map, seconds of a sound of 440 Hz, levels of the frames of a clip, or a
            sentence.
        storage: How the data set is said to be stored.
    """

    name: str
    make: Callable[[], bytes]
    expected: object
    storage: Storage = Storage()


_CORNERS: Values = {(0, 0): BLUE, (7, 0): RED, (0, 11): RED}
_ON_WHITE: Values = {(3, 2): WHITE, (3, 9): RED}
_DROPPED = Storage(transparency="drop")
_EXIF = Image.Exif()
_EXIF[0x0112] = 6
_LYING: Values = {(0, 7): BLUE, (0, 0): RED, (11, 7): RED}
_GIF = odd_files.streams("gif", "gif")


def _ftyp(brand: bytes, *others: bytes) -> bytes:
    brands = brand + bytes(4) + b"".join(others)
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(64)


def _zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # of a fixed date: all workers have to collect the same parameters
        archive.writestr(zipfile.ZipInfo(name), b"content")
    return buffer.getvalue()


def _tiff(**tags: int) -> bytes:
    numbers = {int(name[1:]): value for name, value in tags.items()}
    return picture("TIFF", tiffinfo=numbers)


def _deep(channels: int) -> np.ndarray:
    return np.full((4, 6, channels), 0x8000, ">u2")


_BOMB = zlib.compress(bytes(3 * 2**20))
PICTURES = [
    Odd("rgba.png", lambda: sheer("PNG"), _ON_WHITE),
    Odd("dropped.png", lambda: sheer("PNG"), {(3, 2): (0, 200, 0)}, _DROPPED),
    Odd("grey.png", lambda: sheer("PNG", "LA"), {(3, 2): WHITE, (3, 9): (90,) * 3}),
    Odd("palette.png", lambda: sheer("PNG", "P"), _ON_WHITE),
    Odd("key.png", lambda: sheer("PNG", "RGB"), _ON_WHITE),
    Odd("alpha.webp", lambda: sheer("WEBP", lossless=True), _ON_WHITE),
    Odd("alpha.tif", lambda: sheer("TIFF"), _ON_WHITE),
    Odd("frames.webp", lambda: odd_files.frames("WEBP"), _CORNERS),
    Odd("frames.png", lambda: odd_files.frames("PNG"), _CORNERS),
    Odd("pages.tiff", lambda: odd_files.frames("TIFF"), _CORNERS),
    Odd("lying.tif", lambda: _tiff(t274=6), _LYING),
    Odd("lying.jpg", lambda: picture("JPEG", exif=_EXIF, quality=99), _LYING),
    Odd("lying.webp", lambda: picture("WEBP", exif=_EXIF, lossless=True), _LYING),
    Odd("xmp.png", odd_files.with_xmp_orientation, _LYING),
    Odd("print.jpg", lambda: picture("JPEG", "CMYK", quality=99), _CORNERS),
    Odd("print.tif", lambda: picture("TIFF", "CMYK"), _CORNERS),
    Odd("plain.bmp", lambda: picture("BMP"), _CORNERS),
    Odd("lzw.tif", lambda: picture("TIFF", compression="tiff_lzw"), _CORNERS),
    Odd(
        "big.png",
        lambda: odd_files.with_chunk(b"tEXt", b"a\0" + b"b" * 3 * 2**20),
        _CORNERS,
    ),
    Odd("bomb.png", lambda: odd_files.with_chunk(b"zTXt", b"a\0\0" + _BOMB), _CORNERS),
    Odd(
        "itxt.png",
        lambda: odd_files.with_chunk(b"iTXt", b"a\0\1\0\0\0" + _BOMB),
        _CORNERS,
    ),
    Odd("icc.png", lambda: odd_files.with_chunk(b"iCCP", b"a\0\0" + _BOMB), _CORNERS),
    Odd("deep.png", lambda: odd_files.png(16, 2, _deep(3)), {(2, 2): (128,) * 3}),
    Odd("deep2.png", lambda: odd_files.png(16, 4, _deep(2)), {(2, 2): (191,) * 3}),
    Odd("jpeg.png", lambda: picture("JPEG", quality=99), _CORNERS),
    Odd(
        "deep.tif",
        lambda: odd_files.grey(odd_files.depth(), "TIFF"),
        "modality 'depth'",
    ),
    Odd(
        "float.tif",
        lambda: odd_files.grey(np.ones((3, 4), np.float32), "TIFF"),
        "'depth'",
    ),
    Odd("a.dng", lambda: _tiff(t50706=1), "a camera's raw photo"),
    Odd("a.nef", lambda: _tiff(t254=1), "a camera's raw photo"),
    Odd("a.cr2", lambda: b"II*\0\x10\0\0\0CR\2\0" + bytes(50), "raw photo; convert"),
    Odd("a.cr3", lambda: _ftyp(b"crx "), "raw photo; convert"),
    Odd("a.raf", lambda: b"FUJIFILMCCD-RAW 0201" + bytes(9), "raw photo; convert"),
    Odd("a.heic", lambda: _ftyp(b"heic", b"mif1"), "HEIC picture"),
    Odd("a.heif", lambda: _ftyp(b"mif1", b"heic"), "HEIC picture"),
    Odd("b.avif", lambda: _ftyp(b"mif1", b"avif"), "AVIF picture"),
    Odd("a.jxl", lambda: b"\xff\x0a" + bytes(30), "JPEG XL picture; convert it"),
    Odd("a.jp2", lambda: picture("JPEG2000"), "JPEG 2000 picture; convert it"),
    Odd("a.ppm", lambda: picture("PPM"), "a PNM picture; convert it to PNG"),
    Odd("a.psd", lambda: b"8BPS\0\1" + bytes(30), "Photoshop document; convert it"),
    Odd("a.ico", lambda: picture("ICO"), "an icon; convert it"),
    Odd("a.gif", lambda: _GIF, "a GIF clip"),
    Odd("lfs.jpg", lambda: LFS, "Git LFS pointer; run `git lfs pull`"),
    Odd("annex.jpg", lambda: b"/annex/objects/MD5-s9--a\n", "run `git annex get`"),
    Odd("dvc.jpg", lambda: b"outs:\n- md5: 12\n", "run `dvc pull`"),
    Odd("html.jpg", lambda: HTML, "an HTML page (a failed download?)"),
    Odd("old.jpg", lambda: b"<!-- x -->\n<HTML>caf\xe9", "an HTML page"),
    Odd("xml.jpg", lambda: b"<?xml version='1.0'?><Error/>", "an XML document"),
    Odd("json.png", lambda: b'{"message": "Not Found"}', "a JSON document"),
    Odd(
        "svg.png", lambda: b"<?xml version='1.0'?>\n<svg/>", "an SVG drawing; render it"
    ),
    Odd("a.pdf.jpg", lambda: b"%PDF-1.7\n\xe2\xe3\n", "a PDF document"),
    Odd("zip.jpg", lambda: _zipped("a.jpg"), "a ZIP archive; unpack it"),
    Odd("npz.jpg", lambda: _zipped("a.npy"), "an NPZ archive"),
    Odd("a.jpg.gz", lambda: gzip.compress(b"a"), "a gzip archive; unpack it"),
    Odd("._a.jpg", lambda: b"\0\5\x16\7\0\2" + bytes(30), "metadata of macOS"),
    Odd("wide.txt.jpg", lambda: "a cat".encode("utf-16"), "text in UTF-16 or"),
    Odd("csv.png", lambda: b"path,label\na.png,b\n", "text"),
    Odd("zeros.jpg", lambda: bytes(5000), "nothing but zeros (a failed copy?)"),
    Odd("cut.webp", lambda: odd_files.cut(picture("WEBP")), "found a WebP picture"),
    Odd("cut.jpg", lambda: odd_files.cut(picture("JPEG")), "found a JPEG picture"),
    Odd(
        "filled.jpg",
        lambda: odd_files.cut(picture("JPEG")) + bytes(600),
        "its last 600 bytes are zeros (a failed copy?); copy it again",
    ),
    Odd("padded.jpg", lambda: picture("JPEG", quality=99) + bytes(600), _CORNERS),
    Odd("cut.bmp", lambda: odd_files.cut(picture("BMP")), "found a BMP picture"),
    Odd("cut.tif", lambda: odd_files.cut(picture("TIFF")), "found a TIFF picture"),
    Odd("sound.jpg", lambda: sound("WAV"), "a WAV sound"),
]


def _marked() -> np.ndarray:
    depth = odd_files.depth()
    depth[0] = 65535
    return depth


_METRES = odd_files.depth() / 1000
_HOLED = np.where(np.eye(6, 10), np.nan, _METRES).astype(np.float32)
_HOLED[5, 0], _HOLED[5, 1], _HOLED[5, 2] = -1, np.inf, 9e9
_AT: Values = {(0, 0): 1.0, (0, 9): 1.153, (5, 0): 1.85}
_HOLES: Values = {(0, 0): 0.0, (0, 9): 1.153, (5, 0): 0.0, (5, 1): 0.0, (5, 2): 0.0}
_LOST = Storage(depth_invalid=(9e9,))
_TUM = Storage(depth_scale=5000.0)
_SUN = Storage(depth_rotated=True)
_TURNED = (odd_files.depth() << 3 | odd_files.depth() >> 13).astype(np.uint16)
_PFM = odd_files.pfm(_METRES)
DEPTHS = [
    Odd("mm.png", lambda: odd_files.grey(odd_files.depth()), _AT),
    Odd("mm.tif", lambda: odd_files.grey(odd_files.depth(), "TIFF"), _AT),
    Odd("tum.png", lambda: odd_files.grey(odd_files.depth() * np.uint16(5)), _AT, _TUM),
    Odd("sun.png", lambda: odd_files.grey(_TURNED), _AT, _SUN),
    Odd(
        "marked.png",
        lambda: odd_files.grey(_marked()),
        {(0, 0): 0.0, (5, 0): 1.85},
        Storage(depth_invalid=(65535.0,)),
    ),
    Odd("kept.png", lambda: odd_files.grey(_marked()), {(0, 0): 65.535, (5, 0): 1.85}),
    Odd(
        "i32.tif",
        lambda: odd_files.grey(odd_files.depth().astype(np.int32), "TIFF"),
        _AT,
    ),
    Odd("f32.tif", lambda: odd_files.grey(_HOLED, "TIFF"), _HOLES, _LOST),
    Odd("f64.npy", lambda: odd_files.npy(_METRES), _AT),
    Odd(
        "f16.npy",
        lambda: odd_files.npy(_METRES.astype(np.float16)),
        {(0, 0): 1.0},
        _LOST,
    ),
    Odd("holes.npy", lambda: odd_files.npy(_HOLED), _HOLES, _LOST),
    Odd("u16.npy", lambda: odd_files.npy(odd_files.depth()), _AT),
    Odd("big.npy", lambda: odd_files.npy(_TURNED.astype(">u2")), _AT, _SUN),
    Odd("i64.npy", lambda: odd_files.npy(odd_files.depth().astype(np.int64)), _AT),
    Odd("last.npy", lambda: odd_files.npy(_METRES[..., None]), _AT),
    Odd("first.npy", lambda: odd_files.npy(_METRES[None]), _AT),
    Odd("fortran.npy", lambda: odd_files.npy(np.asfortranarray(_METRES)), _AT),
    Odd("little.pfm", lambda: _PFM, _AT),
    Odd("big.pfm", lambda: odd_files.pfm(_METRES, ">"), _AT),
    Odd("holes.pfm", lambda: odd_files.pfm(_HOLED), _HOLES, _LOST),
    Odd("cut.pfm", lambda: _PFM[:-1], "239 bytes of readings; expected 240"),
    Odd("torn.pfm", lambda: b"Pf\n9\n\0\0\0", "damaged PFM header"),
    Odd("rgb.pfm", lambda: odd_files.pfm(_METRES, kind=b"PF"), "PFM map of three"),
    Odd("rgb.npy", lambda: odd_files.npy(np.ones((4, 5, 3))), "shape (4, 5, 3)"),
    Odd("u8.npy", lambda: odd_files.npy(np.ones((4, 5), np.uint8)), "type uint8"),
    Odd("object.npy", lambda: odd_files.npy(np.array([[None]]), True), "type object"),
    Odd("none.npy", lambda: odd_files.npy(np.ones((0, 5))), "shape (0, 5)"),
    Odd("huge.npy", odd_files.huge_npy, "392000128; the file is truncated"),
    Odd(
        "cut.npy",
        lambda: odd_files.cut(odd_files.npy(_METRES)),
        "the file is truncated",
    ),
    Odd("u8.png", lambda: picture("PNG", "L"), "lost the distances"),
    Odd("u8.tif", lambda: picture("TIFF", "L"), "lost the distances"),
    Odd("jet.png", lambda: picture("PNG"), "lost the distances"),
    Odd("sun.npy", lambda: odd_files.npy(_METRES), "`depth_rotated`", _SUN),
    Odd("nothing.npy", lambda: odd_files.npy(np.full((4, 5), np.nan)), "no reading"),
    Odd("behind.npy", lambda: odd_files.npy(-_METRES), "negative: change their sign"),
    Odd("bool.npy", lambda: odd_files.npy(_METRES > 1), "type bool"),
    Odd("zero.png", lambda: odd_files.grey(np.zeros((4, 5), np.uint16)), "no reading"),
    Odd("a.exr", lambda: b"\x76\x2f\x31\1" + bytes(30), "an EXR picture; convert it"),
    Odd("a.mat", lambda: b"MATLAB 5.0 MAT-file" + bytes(120), "a MATLAB file"),
    Odd("a.h5", lambda: b"\x89HDF\r\n\x1a\n" + bytes(30), "an HDF5 file"),
    Odd("a.pkl", lambda: pickle.dumps(_METRES, 4), "a Python pickle"),
    Odd("a.jpg", lambda: picture("JPEG"), "a JPEG picture"),
    Odd("lfs.npy", lambda: LFS, "Git LFS pointer"),
]

_MP3 = sound("MP3")
SOUNDS = [
    Odd("a.mp3", lambda: _MP3, 0.5),
    Odd("tagged.mp3", lambda: odd_files.id3(100_000) + _MP3, 0.5),
    Odd("old.mp3", lambda: _MP3 + b"TAG" + bytes(125), 0.5),
    Odd("a.aif", lambda: sound("AIFF"), 0.5),
    Odd("a.opus", lambda: sound("OGG", "OPUS", 48000), 0.5),
    Odd("a.oga", lambda: sound("OGG", "VORBIS"), 0.5),
    Odd("a.m4a", lambda: streams("ipod", "aac"), 0.5),
    Odd("lossless.m4a", lambda: streams("ipod", "alac"), 0.5),
    Odd("cover.m4a", lambda: streams("mp4", "cover", "aac"), 0.5),
    Odd("a.aac", lambda: streams("adts", "aac"), 0.5),
    Odd("tagged.aac", lambda: odd_files.id3(9000) + streams("adts", "aac"), 0.5),
    Odd("tagged.flac", lambda: odd_files.id3(9000) + sound("FLAC"), 0.5),
    Odd("tagged.wav", lambda: odd_files.id3(9000) + sound("WAV"), "found a WAV sound"),
    Odd("tagged.ogg", lambda: odd_files.id3(9000) + sound("OGG", "VORBIS"), 0.5),
    Odd("a.webm", lambda: streams("webm", "libopus"), 0.5),
    Odd("a.mka", lambda: streams("matroska", "aac"), 0.5),
    Odd("only.mp4", lambda: streams("mp4", "aac"), 0.5),
    Odd("long.wav", lambda: sound("RF64"), 0.5),
    Odd("law.wav", lambda: sound("WAV", "ULAW"), 0.5),
    Odd("phone.wav", lambda: sound("WAV", "GSM610", 8000), 0.5),
    Odd("double.wav", lambda: sound("WAV", "DOUBLE"), 0.5),
    Odd("ogg.mp3", lambda: sound("OGG", "VORBIS"), 0.5),
    Odd("pipe0.wav", lambda: odd_files.sized(0, 0), 0.5),
    Odd("ffmpeg.wav", lambda: odd_files.sized(0xFFFFFFFF, 0xFFFFFFFF), 0.5),
    Odd("sox.wav", lambda: odd_files.sized(0x7FFFF024, 0x7FFFF000), 0.5),
    Odd("arecord.wav", lambda: odd_files.sized(0x80000024, 0x80000000), 0.5),
    Odd("two.wav", lambda: odd_files.sized(0x7FFFFFFF, 0x7FFFFFFF - 36), 0.5),
    Odd("half.wav", lambda: odd_files.sized(0xFFFFFFFF, None), 0.5),
    Odd("bare.wav", lambda: odd_files.sized(36, 0), 0.5),
    Odd("more.wav", lambda: sound("WAV") + b"more" * 99, 0.5),
    Odd("zeros.mp3", lambda: _MP3 + bytes(5000), 0.5),
    Odd("cut64.wav", lambda: odd_files.cut(sound("RF64")), "the file is truncated"),
    Odd("cut.wav", lambda: odd_files.cut(sound("WAV")), "the file is truncated"),
    Odd("cut2.wav", lambda: odd_files.sized(36, 20000), "the file is truncated"),
    Odd("cut.aif", lambda: odd_files.cut(sound("AIFF")), "the file is truncated"),
    Odd("cut.flac", lambda: odd_files.cut(sound("FLAC")), "a FLAC sound"),
    Odd("cut.mp3", lambda: odd_files.cut(_MP3, 0.5), "truncated"),
    Odd("cut.m4a", lambda: odd_files.cut(streams("ipod", "aac")), "truncated"),
    Odd("cut.mka", lambda: odd_files.cut(streams("matroska", "aac")), "truncated"),
    Odd("film.m4a", lambda: streams("mp4", "mpeg4", "aac"), "a video, not a sound"),
    Odd("two.ogg", lambda: sound("OGG", "VORBIS") * 2, "several sounds in a row"),
    Odd("two.flac", lambda: sound("FLAC") * 2, "several sounds in a row"),
    Odd("timit.wav", lambda: b"NIST_1A\n   1024\n" + bytes(99), "convert it to WAV"),
    Odd("a.mid", lambda: b"MThd\0\0\0\6" + bytes(30), "a MIDI score"),
    Odd("a.amr", lambda: b"#!AMR\n\x0c" + bytes(30), "an AMR sound; convert it"),
    Odd("a.caf", lambda: sound("CAF"), "a CAF sound; convert it"),
    Odd("a.au", lambda: sound("AU"), "an AU sound; convert it"),
    Odd("a.w64", lambda: sound("W64"), "a Wave64 sound; convert it"),
    Odd(
        "a.wma",
        lambda: bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(9),
        "WMV or WMA",
    ),
    Odd("html.mp3", lambda: HTML, "an HTML page"),
    Odd("a.wav", lambda: picture("PNG"), "a PNG picture"),
]

_RISING = (20, 80, 160, 240)
CLIPS = [
    Odd("a.mp4", lambda: streams("mp4", "mpeg4"), _RISING),
    Odd("a.m4v", lambda: streams("mp4", "mpeg4", "aac"), _RISING),
    Odd("a.mov", lambda: streams("mov", "aac", "mpeg4"), _RISING),
    Odd("a.mkv", lambda: streams("matroska", "mpeg4"), _RISING),
    Odd("a.webm", lambda: streams("webm", "libvpx"), _RISING),
    Odd("a.avi", lambda: streams("avi", "mpeg4"), _RISING),
    Odd("mkv.avi", lambda: streams("matroska", "mpeg4"), _RISING),
    Odd("cover.mp4", lambda: streams("mp4", "cover", "aac", "mpeg4"), _RISING),
    Odd("sheer.mov", lambda: streams("mov", "qtrle"), (255,) * 4),
    Odd("more.mp4", lambda: streams("mp4", "mpeg4") + b"more" * 99, _RISING),
    Odd("more.avi", lambda: streams("avi", "mpeg4") + b"more" * 99, _RISING),
    Odd("a.gif", lambda: _GIF, _RISING),
    Odd("more.gif", lambda: _GIF + b"more;" * 99, _RISING),
    Odd("marked.gif", lambda: odd_files.cut(_GIF) + b";", "truncated"),
    Odd("cut.gif", lambda: odd_files.cut(_GIF), "truncated"),
    Odd("cut.mp4", lambda: odd_files.cut(streams("mp4", "mpeg4")), "truncated"),
    Odd("cut.mkv", lambda: odd_files.cut(streams("matroska", "mpeg4")), "truncated"),
    Odd("cut.webm", lambda: odd_files.cut(streams("webm", "libvpx"), 0.9), "truncated"),
    Odd("cut.avi", lambda: odd_files.cut(streams("avi", "mpeg4"), 0.8), "truncated"),
    Odd(
        "filled.mkv",
        lambda: odd_files.cut(streams("matroska", "mpeg4")).ljust(9000, b"\0"),
        "filled up with zeros",
    ),
    Odd("bare.mp4", lambda: b"\0\0\0\1\x67" + bytes(30), "a bare video stream"),
    Odd("song.mp4", lambda: streams("mp4", "aac"), "a sound, not a video"),
    Odd("cover2.mp4", lambda: streams("mp4", "cover", "aac"), "a sound, not a video"),
    Odd("song.webm", lambda: streams("webm", "libopus"), "a sound, not a video"),
    Odd("photo.mp4", lambda: _ftyp(b"heic"), "a HEIC picture"),
    Odd(
        "half.mp4",
        lambda: odd_files.cut(streams("mp4", "mpeg4")).ljust(1335, b"\0"),
        "coded in an unknown way",
    ),
    Odd("list.mp4", lambda: b"#EXTM3U\n#EXTINF:1,\n/a\n", "a playlist"),
    Odd(
        "a.ts", lambda: streams("mpegts", "mpeg4"), "an MPEG transport stream; convert"
    ),
    Odd("a.flv", lambda: streams("flv", "flv"), "an FLV video; convert it"),
    Odd("a.mpg", lambda: b"\0\0\1\xba" + bytes(30), "an MPEG video; convert it"),
    Odd("lfs.mp4", lambda: LFS, "Git LFS pointer"),
    Odd("a.jpg", lambda: picture("JPEG"), "a JPEG picture"),
]

SENTENCES = [
    Odd("mark.txt", lambda: "\ufeffa größer cat\r\n".encode(), "=a größer cat"),
    Odd("free.txt", lambda: b"the free lunch", "=the free lunch"),
    Odd("mac.txt", lambda: b"MAC addresses, MZ and BM", "=MAC addresses, MZ and BM"),
    Odd("pnm.txt", lambda: b"P5 12 3 is a grade", "=P5 12 3 is a grade"),
    Odd("tag.txt", lambda: b"<error> is a tag", "=<error> is a tag"),
    Odd("wide.txt", lambda: "a cat".encode("utf-16"), "UTF-32; save it as UTF-8"),
    Odd("bare.txt", lambda: "a cat".encode("utf-16-le"), "NUL characters"),
    Odd(
        "latin.txt", lambda: "größer".encode("latin-1"), "expected a text file in UTF-8"
    ),
    Odd("lfs.txt", lambda: LFS, "Git LFS pointer"),
    Odd("html.txt", lambda: HTML, "an HTML page"),
    Odd("a.pdf", lambda: b"%PDF-1.4\n%%EOF", "a PDF document"),
    Odd("a.rtf", lambda: b"{\\rtf1 a cat}", "an RTF document; save it as plain text"),
    Odd("a.docx", lambda: _zipped("[Content_Types].xml"), "an Office document"),
    Odd("a.txt", lambda: picture("PNG"), "a PNG picture"),
]
_ALL = [
    *((IMAGE, odd) for odd in PICTURES),
    *((DEPTH, odd) for odd in DEPTHS),
    *((AUDIO, odd) for odd in SOUNDS),
    *((VIDEO, odd) for odd in CLIPS),
    *((TEXT, odd) for odd in SENTENCES),
]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> InputSpec:
    return helpers.make_spec(tmp_path_factory.mktemp("spec"))


def _frequency(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate / len(samples))


def _compare(kind: Modality, media: object, expected: object) -> None:
    if kind is TEXT:
        assert f"={media}" == expected
    elif kind is AUDIO:
        samples, rate = media
        assert len(samples) / rate == pytest.approx(expected, abs=0.15)
        assert _frequency(samples, rate) == pytest.approx(440, abs=5)
        assert 0.3 < np.abs(samples).max() < 0.7
    elif kind is VIDEO:
        # a GIF has eight levels
        np.testing.assert_allclose(media.mean((1, 2, 3)), expected, atol=25)
    else:
        for place, value in expected.items():
            tolerance = 1e-6 if kind is DEPTH else 6
            np.testing.assert_allclose(media[place], value, atol=tolerance)


@pytest.mark.parametrize(
    ("kind", "odd"), _ALL, ids=[f"{kind.name} {odd.name}" for kind, odd in _ALL]
)
def test_odd_files(
    kind: Modality, odd: Odd, spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / odd.name
    path.write_bytes(odd.make())
    spec = dataclasses.replace(spec, storage=odd.storage)
    if isinstance(odd.expected, str) and not odd.expected.startswith("="):
        message = helpers.decode_error(kind, path, spec)
        assert odd.expected in message
        assert " at 0x" not in message
        return
    _compare(kind, kind.decode(str(path), spec), odd.expected)
    assert file_types.modality_of(path) == kind.name


def test_heic_is_read_whole(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    pixels = np.full((128, 192, 3), RED, np.uint8)
    pixels[:64, :64] = BLUE
    path = tmp_path / "a.heic"
    Image.fromarray(pixels).save(path, "HEIF", quality=90, tile_size=64)
    media = IMAGE.decode(str(path), spec)
    assert media.shape == pixels.shape
    assert np.abs(media.astype(int) - pixels).mean() < 3


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_avif(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    for name, content, expected in (
        ("a.avif", picture("AVIF", quality=100), _CORNERS),
        ("sheer.avif", sheer("AVIF", quality=100), _ON_WHITE),
    ):
        (tmp_path / name).write_bytes(content)
        _compare(IMAGE, IMAGE.decode(str(tmp_path / name), spec), expected)
        assert file_types.modality_of(tmp_path / name) == "image"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("lfs.txt", LFS, "Git LFS pointer"),
        ("lfs", LFS, "Git LFS pointer"),
        ("a.html", HTML, "an HTML page"),
        ("table.png", b"path,label\na.png,b\n", "text, although '.png'"),
        ("answer.jpg", b'{"a": 1}', "a JSON document (a failed download?), although"),
        ("sentence.wav", b"a sentence", "text, although '.wav'"),
        ("a.zip", _zipped("a"), "a ZIP archive; unpack it"),
        ("a.wma", bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "WMV or WMA"),
    ],
)
def test_what_is_no_sample(
    name: str, content: bytes, words: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        file_types.modality_of(tmp_path / name)
    assert words in str(caught.value) and name in str(caught.value)


def test_tokenizers_that_were_not_downloaded(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(LFS)
    with pytest.raises(DataError, match="tokenizer.json: a Git LFS pointer"):
        load_tokenizer(TokenizerSpec(str(path)))


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin", "model.npz"])
def test_weights_that_were_not_downloaded(name: str, tmp_path: pathlib.Path) -> None:
    for content, words in ((LFS, "Git LFS pointer"), (HTML, "an HTML page")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: .*{words}"):
            tensors.read(tmp_path / name)
