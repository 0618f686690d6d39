"""Files of streams: which streams they hold, and whether they are whole.

FFmpeg decodes what is left of a truncated file without an error. All these formats say
how long their parts are, so that it can be checked.
"""

import mmap
import os
from collections.abc import Iterator
from typing import BinaryIO

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import InputSpec

# FFmpeg must not guess the container: it would follow a playlist in an untrusted file
# to any address.
_DEMUXERS = {
    **{"mp4": "mp4", "mov": "mp4", "matroska": "matroska", "avi": "avi", "gif": "gif"},
    **{"mp3": "mp3", "aac": "aac", "flac": "flac", "wav": "wav", "rf64": "wav"},
    **{"ogg": "ogg", "aiff": "aiff"},
}
TIME_BASE = av.time_base  # units of the duration of a container in a second
STREAMED = 0x7FFF0000
_SEGMENT = b"\x18\x53\x80\x67"
_LOST_BYTES = 512  # zeros at the end of a file that was not copied as a whole
_EBML_BYTES = 4096  # of the header before the segment
# Boxes without which a file is not whole; what else lies after the last one is not
# looked at.
_BOXES = {b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"uuid"}


def open_streams(
    path: str, form: str, max_pixels: int = InputSpec.max_pixels
) -> InputContainer:
    """Opens a file by FFmpeg, as `Signature.format` says and as nothing else.

    That decodes pictures already, to learn what the file does not say. Larger ones than
    `max_pixels` are left out, and some decoders give them no size then.
    """
    options = {"max_pixels": str(max_pixels)}
    return av.open(f"file:{path}", format=_DEMUXERS[form], options=options)


def pictures_in(container: InputContainer) -> VideoStream | None:
    """Returns the first stream of moving pictures; covers of sounds are none."""
    return next((s for s in container.streams.video if not _is_cover(s)), None)


def _is_cover(stream: VideoStream) -> bool:
    if stream.disposition & Disposition.attached_pic:
        return True
    # some writers store a cover as a clip of a single picture
    codec = stream.codec_context
    is_still = stream.frames == 1 and codec and codec.name in ("mjpeg", "png")
    return bool(is_still and stream.container.streams.audio)


def check_codec(path: str, stream: Stream, expected: str) -> None:
    """Raises `DataError` if FFmpeg does not know how a stream is coded."""
    if stream.codec_context is None:
        raise DataError(
            f"{path}: its {stream.type} is coded in an unknown way; convert it, for "
            f"instance with ffmpeg; expected {expected}"
        )


def holds_pictures(path: str, form: str) -> bool:
    """Returns whether a file holds moving pictures and not only sound.

    A file that cannot be opened is taken to do so.
    """
    try:
        with open_streams(path, form) as container:
            has_sound = bool(container.streams.audio)
            return pictures_in(container) is not None or not has_sound
    except (av.error.FFmpegError, OSError, ValueError):
        return True


def is_streamed(size: int) -> bool:
    """Returns whether a length in a RIFF header stands for "to the end of the file".

    Programs that write into a pipe cannot go back and enter the length. They leave 0,
    or a number near 2, 2.1 or 4 GiB.
    """
    return size == 0 or size >= STREAMED


def check_whole(path: str, form: str) -> None:
    """Raises `DataError` if a file is shorter than it says.

    Args:
        path: File.
        form: Its `Signature.format`; those that do not say it are not checked.
    """
    check = _CHECKS.get(form)
    if check is None:
        return
    with open(path, "rb") as file:
        if not check(file, os.path.getsize(path)):
            raise DataError(
                f"{path}: shorter than it says, or filled up with zeros; the file is "
                "truncated or damaged: copy it again"
            )


def _boxes_fit(file: BinaryIO, size: int) -> bool:
    place = 0
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if kind not in _BOXES or length == 0:
            return True
        if length < 8 or place + length > size:
            return False
        place += length
    return True


def _riff_fits(file: BinaryIO, size: int) -> bool:
    # a file of more than 1 GiB has several (OpenDML)
    place = 0
    while place + 8 <= size:
        file.seek(place)
        head = file.read(8)
        if head[:4] != b"RIFF":
            return True
        length = int.from_bytes(head[4:], "little")
        if is_streamed(length):
            return True
        # some writers do not count the byte that makes the length even
        if place + 8 + length > size + 1:
            return False
        place += 8 + length + length % 2
    return True


def _segment_fits(file: BinaryIO, size: int) -> bool:
    head = file.read(_EBML_BYTES)
    place = head.find(_SEGMENT) + len(_SEGMENT)
    if place < len(_SEGMENT) or place >= len(head) or not head[place]:
        return False
    # the zeros before the first one say how many bytes a number has
    count = 9 - head[place].bit_length()
    value = int.from_bytes(head[place : place + count], "big") & (1 << 7 * count) - 1
    unknown = value == (1 << 7 * count) - 1
    if unknown or place + count + value > size:
        return unknown
    # what was not copied is zeros, at which FFmpeg stops without an error
    file.seek(max(0, size - _LOST_BYTES))
    return any(file.read())


def _blocks_end(file: BinaryIO, size: int) -> bool:
    """Follows the blocks of a GIF to its end mark, after which anything may lie."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _last_block(data) <= size
        except IndexError:
            return False


def _last_block(data: mmap.mmap) -> int:
    place = 13 + _colours(data[10])
    while place < len(data):
        match data[place]:
            case 0x3B:
                return place + 1
            case 0x2C:
                place = _after(data, place + 11 + _colours(data[place + 9]))
            case 0x21:
                place = _after(data, place + 2)
            case 0:  # some writers fill up
                place += 1
            case _:
                raise IndexError
    return place


def _colours(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after(data: mmap.mmap, place: int) -> int:
    """Returns the place after a row of blocks, each of which begins with its length."""
    while length := data[place]:
        place += 1 + length
    return place + 1


_CHECKS = {
    **{"mp4": _boxes_fit, "mov": _boxes_fit, "avi": _riff_fits},
    **{"matroska": _segment_fits, "gif": _blocks_end},
}


def sound_in(container: InputContainer) -> Iterator[av.AudioFrame]:
    """Decodes the first stream of sound, as float32 in separate channels.

    What lies after the last frame and is no frame, such as zeros, is skipped.
    """
    resampler = av.AudioResampler(format="fltp")
    skipped = None
    for packet in container.demux(container.streams.audio[0]):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:
            # a frame of MP3 or AAC begins with ones
            if bytes(packet)[:1] == b"\xff" or not packet.size:
                raise
            skipped = error
            continue
        for frame in frames:
            if skipped:
                raise skipped
            yield from resampler.resample(frame)
