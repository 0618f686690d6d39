"""What a file is, by its first bytes and not by its name.

Names are often wrong, and programs put placeholders in the place of files: a pointer of
Git LFS, a page that says "404". Every decoder asks here before it hands bytes to a
library, so that a refusal says what was found.
"""

import codecs
import os
import re
from collections.abc import Collection
from typing import NamedTuple

from mmcl_jax.errors import DataError

HEAD_BYTES = 2**16


class Signature(NamedTuple):
    """What a file is.

    Attributes:
        format: Short name, such as "jpeg".
        phrase: Name for a message, with the remedy where there is one.
        modality: Modality of such files; None: of none. What holds streams is a
            "video", even where its streams are only sound, and a PNG, TIFF or BMP is an
            "image", even where it is a depth map.
    """

    format: str
    phrase: str
    modality: str | None = None


_CONVERT = "; convert it to JPEG or PNG"
_RAW = Signature("raw", f"a camera's raw photo{_CONVERT}")
_HTML = Signature("html", "an HTML page (a failed download?); get the file itself")
_PNM = Signature("pnm", "a PNM picture; convert it to PNG")
_LFS = Signature("lfs", "a Git LFS pointer; run `git lfs pull`")
_MP3 = Signature("mp3", "an MP3 sound", "audio")
_ADTS = Signature("aac", "an AAC sound", "audio")
_MOV = Signature("mov", "a MOV video", "video")
_MP4 = Signature("mp4", "an MP4 file", "video")
_HEIC = Signature("heic", "a HEIC picture", "image")
_BARE = Signature("bare", "a bare video stream; put it into an MP4, as ffmpeg can")
_AVIF = Signature("avif", "an AVIF picture", "image")

# offset, bytes, what they mean; the first that fits wins
_TABLE: tuple[tuple[int, bytes, Signature], ...] = (
    (0, b"\xff\xd8\xff", Signature("jpeg", "a JPEG picture", "image")),
    (0, b"\x89PNG\r\n\x1a\n", Signature("png", "a PNG picture", "image")),
    (0, b"GIF87a", Signature("gif", "a GIF clip", "video")),
    (0, b"GIF89a", Signature("gif", "a GIF clip", "video")),
    (8, b"CR\x02\0", _RAW),  # Canon, within a TIFF
    (0, b"IIU\0", _RAW),
    (0, b"IIRO", _RAW),
    (0, b"IIRS", _RAW),
    (0, b"MMOR", _RAW),
    (0, b"FUJIFILMCCD-RAW", _RAW),
    (0, b"FOVb", _RAW),
    (0, b"II*\0", Signature("tiff", "a TIFF picture", "image")),
    (0, b"MM\0*", Signature("tiff", "a TIFF picture", "image")),
    (0, b"II+\0", Signature("tiff", "a TIFF picture", "image")),
    (0, b"MM\0+", Signature("tiff", "a TIFF picture", "image")),
    (0, b"8BPS", Signature("psd", f"a Photoshop document{_CONVERT}")),
    (
        0,
        b"\0\0\0\x0cjP  \r\n\x87\n",
        Signature("jp2", f"a JPEG 2000 picture{_CONVERT}"),
    ),
    (0, b"\xff\x4f\xff\x51", Signature("jp2", f"a JPEG 2000 picture{_CONVERT}")),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", Signature("jxl", f"a JPEG XL picture{_CONVERT}")),
    (0, b"\xff\x0a", Signature("jxl", f"a JPEG XL picture{_CONVERT}")),
    (0, b"\x76\x2f\x31\x01", Signature("exr", "an EXR picture; convert it")),
    (0, b"#?RADIANCE", Signature("hdr", "a Radiance HDR picture; convert it")),
    (0, b"\0\0\1\0", Signature("ico", f"an icon{_CONVERT}")),
    (0, b"qoif", Signature("qoi", f"a QOI picture{_CONVERT}")),
    (0, b"DDS ", Signature("dds", f"a DDS texture{_CONVERT}")),
    (0, b"\x93NUMPY", Signature("npy", "an NPY array", "depth")),
    (0, b"Pf\n", Signature("pfm", "a PFM map", "depth")),
    (0, b"Pf\r\n", Signature("pfm", "a PFM map", "depth")),
    (0, b"Pf ", Signature("pfm", "a PFM map", "depth")),
    (0, b"PF\n", Signature("pfm3", "a PFM map of three channels; keep one")),
    (0, b"fLaC", Signature("flac", "a FLAC sound", "audio")),
    (28, b"\x80theora", Signature("ogv", "an Ogg video; convert it to MP4")),
    (0, b"OggS", Signature("ogg", "an Ogg sound", "audio")),
    (0, b"RF64", Signature("rf64", "a WAV sound", "audio")),
    (0, b"caff", Signature("caf", "a CAF sound; convert it to WAV")),
    (0, b".snd", Signature("au", "an AU sound; convert it to WAV")),
    (0, b"riff.\x91\xcf\x11", Signature("w64", "a Wave64 sound; convert it to WAV")),
    (0, b"NIST_1A", Signature("sphere", "a NIST SPHERE sound; convert it to WAV")),
    (0, b"MThd", Signature("midi", "a MIDI score, not a sound; render it to WAV")),
    (0, b"#!AMR", Signature("amr", "an AMR sound; convert it to WAV")),
    (0, b"wvpk", Signature("wavpack", "a WavPack sound; convert it to FLAC")),
    (0, b"MAC ", Signature("ape", "a Monkey's Audio sound; convert it to FLAC")),
    (0, b"FLV\1", Signature("flv", "an FLV video; convert it to MP4")),
    (
        0,
        bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
        Signature("asf", "a WMV or WMA file; convert it to MP4 or WAV"),
    ),
    (0, b"\0\0\1\xba", Signature("mpg", "an MPEG video; convert it to MP4")),
    (0, b"\0\0\1\xb3", Signature("mpg", "an MPEG video; convert it to MP4")),
    (0, b"\0\0\1\xb0", _BARE),
    (0, b"\0\0\0\1\x67", _BARE),
    (0, b"\0\0\0\1\x40\1", _BARE),
    (0, b"PK\3\4", Signature("zip", "a ZIP archive; unpack it")),
    (0, b"PK\5\6", Signature("zip", "an empty ZIP archive")),
    (0, b"\x1f\x8b", Signature("gzip", "a gzip archive; unpack it")),
    (0, b"BZh", Signature("bzip2", "a bzip2 archive; unpack it")),
    (0, b"\xfd7zXZ\0", Signature("xz", "an xz archive; unpack it")),
    (0, b"\x28\xb5\x2f\xfd", Signature("zstd", "a Zstandard archive; unpack it")),
    (0, b"7z\xbc\xaf\x27\x1c", Signature("7z", "a 7z archive; unpack it")),
    (0, b"Rar!\x1a\7", Signature("rar", "a RAR archive; unpack it")),
    (257, b"ustar", Signature("tar", "a tar archive; unpack it")),
    (0, b"\x89HDF\r\n\x1a\n", Signature("hdf5", "an HDF5 file; export its arrays")),
    (128, b"HDF\r\n\x1a\n", Signature("hdf5", "an HDF5 file; export its arrays")),
    (513, b"HDF\r\n\x1a\n", Signature("hdf5", "a MATLAB file; export its arrays")),
    (0, b"MATLAB ", Signature("mat", "a MATLAB file; export its arrays")),
    (0, b"PAR1", Signature("parquet", "a Parquet table; export its rows")),
    (0, b"ARROW1", Signature("arrow", "an Arrow table; export its rows")),
    (0, b"SQLite format 3\0", Signature("sqlite", "an SQLite database")),
    (0, b"\x80\4\x95", Signature("pickle", "a Python pickle, which is not opened")),
    (0, b"\x80\5\x95", Signature("pickle", "a Python pickle, which is not opened")),
    (0, b"\x80\2", Signature("pickle", "a Python pickle, which is not opened")),
    (
        0,
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        Signature("ole", "a document of an old Office; save it as plain text"),
    ),
    (0, b"\0\5\x16\7", Signature("appledouble", "metadata of macOS; delete it")),
    (0, b"\0\5\x16\0", Signature("appledouble", "metadata of macOS; delete it")),
    (0, b"bplist00", Signature("plist", "a property list of macOS; delete it")),
    (0, b"\x7fELF", Signature("elf", "a program")),
    (0, b"MZ", Signature("exe", "a program")),
)
_RIFF = {
    b"WAVE": Signature("wav", "a WAV sound", "audio"),
    b"AVI ": Signature("avi", "an AVI video", "video"),
    b"WEBP": Signature("webp", "a WebP picture", "image"),
}
_AIFF = Signature("aiff", "an AIFF sound", "audio")
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_SOUND_BRANDS = {b"M4A ", b"M4B ", b"M4P "}
# boxes that begin a QuickTime file without a brand
_OLD_BOXES = {b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
# what begins with plain characters; white space before it is skipped
_TEXTS: tuple[tuple[str, Signature], ...] = (
    (r"version https://git-lfs\.github\.com/", _LFS),
    (
        r"[./]*(\.git|annex)[/\\]annex[/\\]objects|/annex/objects/",
        Signature("annex", "a git-annex pointer; run `git annex get`"),
    ),
    (r"outs:\s+- md5:", Signature("dvc", "a DVC pointer; run `dvc pull`")),
    (r"(<!--.{0,2000}?-->\s*)?<(!doctype html|html|head|body)\b", _HTML),
    (
        r"(<\?xml[^>]*>\s*)?((<!--.{0,2000}?-->|<!doctype svg[^>]*>)\s*)*<svg\b",
        Signature("svg", "an SVG drawing; render it to PNG"),
    ),
    (r"<\?xml\b|<error>\s*<", Signature("xml", "an XML document (a failed download?)")),
    (r"%PDF-", Signature("pdf", "a PDF document")),
    (r"%!PS", Signature("ps", "a PostScript document")),
    (r"\{\\rtf", Signature("rtf", "an RTF document; save it as plain text")),
    (r"P[1-7]\r?\n(#[^\n]*\n)?(\d+\s+\d+\s|WIDTH )", _PNM),
    (r"#EXTM3U", Signature("m3u", "a playlist, which is not followed")),
    (
        r"\{\s*(\"[^\"]{0,200}\"\s*:|\})|\[\s*[\[{]",
        Signature("json", "a JSON document (a failed download?)", "text"),
    ),
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f]")
# kbit/s of MPEG 1 and of MPEG 2 and 2.5; hertz by version
_BITRATES = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_LOW_BITRATES = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def describe(head: bytes) -> str | None:
    """Returns what a file is that begins with these bytes; None: it is not known.

    >>> describe(b"%PDF-1.7")
    'a PDF document'
    """
    found = identify(head)
    return found.phrase if found else None


def identify(head: bytes) -> Signature | None:
    """Returns what a file is that begins with these bytes, at best 64 KiB of them.

    None: it is not known, as of plain sentences.
    """
    if (text := _by_text(head)) or is_text(head):
        return text
    if head and not any(head):
        return Signature("zeros", "nothing but zeros (a failed copy?); copy it again")
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _AIFF
    if head[4:8] == b"ftyp":
        return _by_brand(head)
    if head[4:8] in _OLD_BOXES:
        return _MOV
    if head[:4] == b"\x1aE\xdf\xa3":
        kind = "WebM" if b"webm" in head[:64] else "Matroska"
        return Signature("matroska", f"a {kind} file", "video")
    if head[:2] == b"BM" and head[6:10] == bytes(4) and head[15:18] == bytes(3):
        return Signature("bmp", "a BMP picture", "image")
    if head[0:1] == b"\x47" and head[188:189] == b"\x47" and head[376:377] == b"\x47":
        return Signature("ts", "an MPEG transport stream; convert it to MP4")
    if head[:3] == b"ID3":
        return identify(head[_tag_size(head) :]) or _MP3
    for place, magic, signature in _TABLE:
        if head.startswith(magic, place):
            return _inside_zip(head) if signature.format == "zip" else signature
    if len(head) > 10 and head[8:10] == b'{"' and head[4:8] == bytes(4):
        return Signature("safetensors", "weights as safetensors")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return Signature("utf16", "text in UTF-16 or UTF-32; save it as UTF-8")
    return _by_frames(head)


def _by_brand(head: bytes) -> Signature:
    size = min(int.from_bytes(head[:4], "big"), 256)
    major = head[8:12]
    brands = {major, *(head[i : i + 4] for i in range(16, size, 4))}
    if major in _AVIF_BRANDS or major in (b"mif1", b"msf1") and brands & _AVIF_BRANDS:
        return _AVIF
    if major in _HEIC_BRANDS:
        return _HEIC
    if major == b"crx ":
        return _RAW
    if major in _SOUND_BRANDS:
        return Signature("mp4", "an M4A sound", "video")
    return _MOV if major == b"qt  " else _MP4


def _inside_zip(head: bytes) -> Signature:
    # the name of the first entry begins at byte 30
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if name.endswith(b".npy"):
        return Signature("npz", "an NPZ archive; save each array as NPY")
    if name.endswith(b"/data.pkl"):
        return Signature("torch", "a file that torch.save wrote")
    if name == b"[Content_Types].xml":
        return Signature("office", "an Office document; save it as plain text or CSV")
    return Signature("zip", "a ZIP archive; unpack it")


def _by_frames(head: bytes) -> Signature | None:
    """Recognizes sounds that have no signature but the start of their frames."""
    if len(head) < 4 or head[0] != 0xFF:
        return None
    if head[1] & 0xF6 == 0xF0:
        size = (head[3] & 3) << 11 | int.from_bytes(head[4:6], "big") >> 5
        return _ADTS if size > 7 and head[size : size + 1] in (b"", b"\xff") else None
    version, bits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if head[1] & 0xE6 != 0xE2 or version == 1 or rate == 3 or bits in (0, 15):
        return None
    if version == 3:
        size = 144_000 * _BITRATES[bits] // _RATES[version][rate]
    else:
        size = 72_000 * _LOW_BITRATES[bits] // _RATES[version][rate]
    size += head[2] >> 1 & 1
    return _MP3 if head[size : size + 1] in (b"", b"\xff") else None


def mp3_seconds(frame: bytes) -> float:
    """Returns the length of a frame of MP3, seconds; 0: there is no such frame."""
    if _by_frames(frame) is not _MP3:
        return 0.0
    version, rate = frame[1] >> 3 & 3, frame[2] >> 2 & 3
    return (1152 if version == 3 else 576) / _RATES[version][rate]


def _by_text(head: bytes) -> Signature | None:
    start = head[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    text = start.decode("latin-1")
    for pattern, signature in _TEXTS:
        if re.match(pattern, text, re.IGNORECASE | re.DOTALL):
            return signature
    return None


def _tag_size(head: bytes) -> int:
    """Returns the length of an ID3 tag, whose numbers have seven bits a byte."""
    size = sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(head[6:10]))
    return 10 + size + (10 if len(head) > 5 and head[5] & 16 else 0)


def head_of(path: str) -> bytes:
    """Returns the first 64 KiB of a file; of a tagged sound, those after its tag."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        if head[:3] != b"ID3":
            return head
        tag = min(_tag_size(head), os.path.getsize(path))
        file.seek(tag)
        # the tag is kept as an empty one, so that it is known that there is one
        return head[:5] + bytes(5) + file.read(HEAD_BYTES)


def found_in(path: str) -> str | None:
    """Returns what a file is, for a message; None if that is not known."""
    return describe(head_of(path))


def require(path: str, formats: Collection[str], expected: str) -> Signature:
    """Returns what a file is.

    Args:
        path: File.
        formats: Values of `Signature.format` that are allowed.
        expected: What the file should be, for the message.

    Raises:
        DataError: It is of no such format; the message says what it is.
    """
    head = head_of(path)
    found = identify(head)
    if found is None or found.format not in formats:
        what = found.phrase if found else _unknown(head)
        raise DataError(f"{path}: {what}; expected {expected}")
    return found


def require_content(path: str, expected: str) -> None:
    """Raises `DataError` if a page or a pointer is there in the place of a file."""
    found = identify(head_of(path))
    if found and found.format in ("lfs", "annex", "dvc", "html", "xml"):
        raise DataError(f"{path}: {found.phrase}; expected {expected}")


def _unknown(head: bytes) -> str:
    kind = "text that " if is_text(head) else ""
    return f"{kind}begins with {head[:8]!r}"


def is_text(head: bytes) -> bool:
    """Returns whether bytes are characters of UTF-8 without control characters."""
    try:
        # incrementally, since the last character may be cut off
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return False
    return not _CONTROLS.search(text)
