"""Small files of many formats, well made and badly made, as bytes."""

import io
import struct
import zlib
from collections.abc import Sequence

import av
import numpy as np
import soundfile
from PIL import Image, PngImagePlugin

from tests import helpers

RED, BLUE = (200, 30, 30), (20, 20, 220)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
HTML = b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n"


# pictures


def picture(form: str, mode: str = "RGB", **options: object) -> bytes:
    """A picture of 12 x 8 pixels: red, its top left quarter blue."""
    return saved(_two_colours().convert(mode), form, **options)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _two_colours() -> Image.Image:
    pixels = np.full((8, 12, 3), RED, np.uint8)
    pixels[:4, :6] = BLUE
    return Image.fromarray(pixels)


def sheer(form: str, mode: str = "RGBA", **options: object) -> bytes:
    """A picture whose left half is transparent, over hidden green, its right half red.

    Of a grey one the hidden half is black.
    """
    pixels = np.full((8, 12, 4), (*RED, 255), np.uint8)
    pixels[:, :6] = (0, 200, 0, 0)
    if mode == "LA":
        pixels[:, :6, :3], pixels[:, 6:, :3] = 0, 90
    image = Image.fromarray(pixels)
    if mode == "P":
        indexed = Image.fromarray((pixels[..., 3] > 0).astype(np.uint8)).convert("P")
        indexed.putpalette([0, 200, 0, *RED])
        return saved(indexed, form, transparency=0)
    if mode == "RGB":
        return saved(image.convert("RGB"), form, transparency=(0, 200, 0))
    return saved(image.convert(mode), form, **options)


def frames(form: str) -> bytes:
    """A file of two pictures, of which the second is another one."""
    more = [Image.new("RGB", (12, 8), (0, 255, 0))]
    options = {"lossless": True} if form == "WEBP" else {}
    return picture(form, save_all=True, append_images=more, **options)


def png(depth: int, colours: int, rows: np.ndarray, *chunks: bytes) -> bytes:
    """A PNG by hand, of samples that are written as `rows` has them."""
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    size = struct.pack(
        ">IIBBBBB", rows.shape[1], rows.shape[0], depth, colours, 0, 0, 0
    )
    parts = [(b"IHDR", size), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(*parts[0]), *chunks, chunk(*parts[1]), chunk(*parts[2])]
    )


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def with_chunk(kind: bytes, content: bytes) -> bytes:
    """Returns the picture as a PNG with one more chunk after the header."""
    whole = picture("PNG")
    return whole[:33] + chunk(kind, content) + whole[33:]


def with_xmp_orientation() -> bytes:
    """A PNG that says in its XMP alone that it lies on its side."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    return picture("PNG", pnginfo=info)


# depth maps


def depth() -> np.ndarray:
    """A map `[6, 10]` from 1 to about 2 metres, in millimetres."""
    return (1000 + 17 * np.arange(60)).reshape(6, 10).astype(np.uint16)


def grey(values: np.ndarray, form: str = "PNG") -> bytes:
    return saved(Image.fromarray(values), form)


def npy(values: np.ndarray, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=allow_pickle)
    return buffer.getvalue()


def huge_npy() -> bytes:
    header = str({"descr": "<f8", "fortran_order": False, "shape": (7000, 7000)})
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + bytes(64)


def pfm(values: np.ndarray, order: str = "<", kind: bytes = b"Pf") -> bytes:
    height, width = values.shape[:2]
    scale = b"-1.0" if order == "<" else b"1.0"
    head = kind + f"\n{width} {height}\n".encode() + scale + b"\n"
    return head + values[::-1].astype(f"{order}f4").tobytes()


# sounds


def tone(rate: int = 16000) -> np.ndarray:
    return helpers.sine(440, 0.5, rate)


def sound(form: str, subtype: str | None = None, rate: int = 16000) -> bytes:
    """Half a second of 440 Hz."""
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(rate), rate, subtype, format=form)
    return buffer.getvalue()


def id3(size: int) -> bytes:
    seven = bytes(size >> 7 * shift & 127 for shift in (3, 2, 1, 0))
    return b"ID3\4\0\0" + seven + bytes(size)


def sized(riff: int | None, data: int | None) -> bytes:
    """A WAV with other lengths in its header."""
    whole = bytearray(sound("WAV"))
    if riff is not None:
        whole[4:8] = struct.pack("<I", riff)
    if data is not None:
        whole[40:44] = struct.pack("<I", data)
    return bytes(whole)


# streams


def streams(form: str, *kinds: str) -> bytes:
    """A file with streams in the given order.

    "cover" is a single JPEG; codecs of moving pictures give twelve frames that grow
    brighter from 20 to 240; codecs of sound give `tone`.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        added = [(kind, _add(container, kind)) for kind in kinds]
        for kind, stream in added:
            for frame in _frames(kind, stream):
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return buffer.getvalue()


_SOUNDS = {"aac": 16000, "libopus": 48000, "alac": 16000}
_PIXELS = {"mjpeg": "yuvj420p", "gif": "rgb8", "png": "rgba", "qtrle": "argb"}


def _add(container: av.container.OutputContainer, kind: str) -> av.stream.Stream:
    if kind in _SOUNDS:
        return container.add_stream(kind, rate=_SOUNDS[kind], layout="mono")
    codec = "mjpeg" if kind == "cover" else kind
    stream = container.add_stream(codec, rate=10)
    stream.width, stream.height = 48, 32
    stream.pix_fmt = _PIXELS.get(codec, "yuv420p")
    return stream


def _frames(kind: str, stream: av.stream.Stream) -> list:
    if kind in _SOUNDS:
        rate = _SOUNDS[kind]
        form = stream.codec_context.format.name
        samples = tone(rate)[None]
        if form.startswith("s"):
            kind = np.int32 if form.startswith("s32") else np.int16
            samples = (samples * np.iinfo(kind).max).astype(kind)
        frame = av.AudioFrame.from_ndarray(samples, format=form, layout="mono")
        frame.sample_rate = rate
        return [frame]
    levels: Sequence[float] = [99] if kind == "cover" else np.linspace(20, 240, 12)
    if stream.pix_fmt in ("rgba", "argb"):
        return [_sheer_frame(level) for level in levels]
    return [
        av.VideoFrame.from_ndarray(np.full((32, 48, 3), level, np.uint8), "rgb24")
        for level in levels
    ]


def _sheer_frame(level: float) -> av.VideoFrame:
    pixels = np.full((32, 48, 4), level, np.uint8)
    pixels[..., 3] = 0
    return av.VideoFrame.from_ndarray(pixels, "rgba")


def cut(content: bytes, part: float = 0.6) -> bytes:
    return content[: int(len(content) * part)]
