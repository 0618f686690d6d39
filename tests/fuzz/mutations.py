"""Damage done to files: a few random changes, and checksums made right again."""

import copy
import io
import json
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 60_000, 1_000_000)
_INTERESTING += (2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1)
# what may stand where a text format has a number or a word
_LITERALS = (b"0", b"-1", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""')
_LITERALS += (b"9" * 18, b"9" * 400, b"9" * 5000, b"[" * 3000, b'"\\ud800"', b"../..")
_LITERALS += (b"\n", b'"', b",", b"\0", "\N{GRINNING FACE}".encode(), b"a" * 10_000)
_VALUES: tuple[Any, ...] = (None, True, False, 0, 1, -1, 0.5, 1e308, 10**18, 10**400)
_VALUES += (float("nan"), float("inf"), -float("inf"), "", "a", "0", "nan", "..", "\0")
_VALUES += (
    [],
    {},
    [[]],
    [0],
    [None],
    {"a": 1},
    ["a", "a"],
    "a" * 10_000,
    "/etc/passwd",
)
_WORD = re.compile(rb"[\w.+-]+")
_PNG = b"\x89PNG\r\n\x1a\n"


def mutate(data: bytes, others: Sequence[bytes], source: random.Random) -> bytes:
    """Returns `data` after one to four random changes.

    Args:
        data: a valid file.
        others: files that pieces are taken from.
        source: of all draws.
    """
    for _ in range(source.choice((1, 1, 2, 4))):
        change = source.choice(_CHANGES)
        if data[:1] == b"{" and source.random() < 0.75:
            change = _alter_json  # other changes hardly ever leave it one
        if data[8:9] == b"{" and source.random() < 0.5:
            change = _alter_header
        if data[:2] == b"PK" and source.random() < 0.75:
            change = _alter_entry  # of others the checksum tells
        data = change(bytearray(data), others, source)
    return repair(data) if source.random() < 0.5 else data


def repair(data: bytes) -> bytes:
    """Makes lengths and checksums of a PNG or safetensors file fit what it holds.

    Without that nearly all damage would be found by the checksum, and what is behind it
    would never be tried.
    """
    if data[:8] == _PNG:
        return _repair_png(data)
    if data[8:9] == b"{":
        head, *body = data[8:].partition(b"}}")
        length = len(head) + len(body[0])
        return struct.pack("<Q", length) + data[8:]
    return data


def _repair_png(data: bytes) -> bytes:
    parts, at = [_PNG], 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunk = data[at + 4 : at + 8 + length]
        parts += [struct.pack(">I", len(chunk) - 4), chunk]
        parts.append(struct.pack(">I", zlib.crc32(chunk)))
        at += 12 + length
    return b"".join(parts)


def _alter_json(data: bytearray, others: object, source: random.Random) -> bytes:
    """Removes, renames or replaces a value somewhere in a JSON object."""
    try:
        tree = json.loads(data)
        places = list(_places(tree))
    except (ValueError, RecursionError):
        return _flip(data, others, source)
    if not places:
        return bytes(data)
    parent, key = source.choice(places)
    change = source.choice(("replace", "replace", "replace", "remove", "move", "scale"))
    value = parent[key]
    if change == "replace":
        parent[key] = copy.deepcopy(source.choice(_VALUES))
    elif change == "scale" and isinstance(value, int | float) and abs(value) < 2**64:
        parent[key] = source.choice(
            (-value, value * 2, value / 2, value + 1, str(value))
        )
    elif change == "move":
        other, place = source.choice(places)
        parent[key] = copy.deepcopy(other[place])
    else:
        del parent[key]
    return json.dumps(tree).encode()


def _alter_header(data: bytearray, others: object, source: random.Random) -> bytes:
    """Changes a value in the header of a safetensors file."""
    behind = 8 + int.from_bytes(data[:8], "little")
    header = _alter_json(data[8:behind], others, source)
    return struct.pack("<Q", len(header)) + header + data[behind:]


def _alter_entry(data: bytearray, others: object, source: random.Random) -> bytes:
    """Changes what is in an entry of a zip archive, and packs it again."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [(each, archive.read(each)) for each in archive.infolist()]
    except Exception:  # a change before this one has damaged it
        return _flip(data, others, source)
    # the first one says what is in the others
    chosen = source.choice((0, source.randrange(len(entries) or 1)))
    contents = [content for _, content in entries]
    packed = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # of two entries of a name
        with zipfile.ZipFile(packed, "w") as archive:
            for i, (entry, content) in enumerate(entries):
                if i == chosen:
                    change = source.choice(_CHANGES)
                    content = change(bytearray(content), contents, source)
                archive.writestr(entry.filename, content, entry.compress_type)
    return packed.getvalue()


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yields each container in a JSON value with each of its keys."""
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


def _range(data: bytes, source: random.Random, most: int = 4096) -> tuple[int, int]:
    start = source.randrange(len(data) + 1)
    return start, min(len(data), start + source.randint(1, most))


def _flip(data: bytearray, _: object, source: random.Random) -> bytes:
    for _bit in range(source.choice((1, 1, 2, 8, 64))):
        if data:
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    return bytes(data)


def _truncate(data: bytearray, _: object, source: random.Random) -> bytes:
    return bytes(data[: source.randrange(len(data) + 1)])


def _splice(data: bytearray, others: Sequence[bytes], source: random.Random) -> bytes:
    other = source.choice(others)
    low, high = _range(other, source)
    start, end = _range(data, source)
    data[start : source.choice((start, end))] = other[low:high]
    return bytes(data)


def _put_integer(data: bytearray, _: object, source: random.Random) -> bytes:
    width, order = source.choice((1, 2, 4, 8)), source.choice(("little", "big"))
    value = source.choice(_INTERESTING) % 256**width
    # sizes stand near the beginning of most formats
    limit = source.choice((64, 512, len(data)))
    start = source.randrange(min(limit, len(data)) + 1)
    data[start : start + width] = value.to_bytes(width, order)
    return bytes(data)


def _put_literal(data: bytearray, _: object, source: random.Random) -> bytes:
    words = list(_WORD.finditer(data[:100_000]))
    if not words:
        return bytes(data)
    start, end = source.choice(words).span()
    data[start:end] = source.choice(_LITERALS)
    return bytes(data)


def _repeat(data: bytearray, _: object, source: random.Random) -> bytes:
    start, end = _range(data, source)
    data[start:start] = data[start:end] * source.choice((1, 1, 2, 50))
    return bytes(data)


def _delete(data: bytearray, _: object, source: random.Random) -> bytes:
    start, end = _range(data, source, most=256)
    del data[start:end]
    return bytes(data)


def _insert(data: bytearray, _: object, source: random.Random) -> bytes:
    start, _end = _range(data, source)
    data[start:start] = source.randbytes(source.choice((1, 4, 100, 5000)))
    return bytes(data)


_CHANGES = (
    _flip,
    _flip,
    _truncate,
    _splice,
    _put_integer,
    _put_integer,
    _put_literal,
    _repeat,
    _delete,
    _insert,
)
