"""Sentences: str; a file holds one sentence, tables are read by `streams`."""

import pathlib
import re

import numpy as np

from mmcl_jax.errors import DataError, check_bytes, reading
from mmcl_jax.modalities.base import Inputs, InputSpec, Modality, Shapes, Style
from mmcl_jax.modalities.signatures import found_in, head_of, identify
from mmcl_jax.modalities.tokenization import EXPECTED as EXPECTED_TOKENIZER
from mmcl_jax.modalities.tokenization import clean, load_tokenizer

EXPECTED = "a text file in UTF-8"
_MAX_BYTES = 2**20
# formats of text that may be a sample as well
_WRITTEN = ("json", "xml", "svg", "m3u")
# UTF-8 that was read as Latin-1 or Windows-1252 and stored again
MOJIBAKE = re.compile(
    "[\xc2\xc3][\x80-\xbf]|\xe2\u20ac|\xc3[\u0192\u201a\u00a0-\u00bf]"
)
# of HTML, as text that was cut out of a page has them
ENTITY = re.compile(r"&(amp|lt|gt|quot|apos|nbsp|#\d{2,5});")
# a path in the place of what it leads to, or bytes that were written as text
_FILE = re.compile(r"\S+\.(jpe?g|png|webp|gif|tiff?|npy|mp[34]|avi|wav|flac|ogg)", re.I)
_LONG_WORD = 200  # characters without white space


def decode(path: str, spec: InputSpec) -> str:
    """Reads one text file.

    Raises:
        DataError: The file is not UTF-8, is another kind of file or a failed download,
            holds only white space or a NUL, or is larger than 1 MiB.
    """
    del spec
    with reading(path, EXPECTED, found_in):
        check_bytes(path, _MAX_BYTES)
        found = identify(head_of(path))
        if found and found.format not in _WRITTEN:
            raise DataError(f"{path}: {found.phrase}; expected {EXPECTED}")
        text = pathlib.Path(path).read_text(encoding="utf-8-sig").strip()
        if not text:
            raise DataError(f"{path}: white space only; expected {EXPECTED}")
        if "\0" in text:
            raise DataError(
                f"{path}: NUL characters in it (UTF-16?); save it as UTF-8; expected "
                f"{EXPECTED}"
            )
        return text


def oddities(media: str, spec: InputSpec) -> tuple[str, ...]:
    """Returns what is odd about a sentence."""
    del spec
    odd = []
    if len(media.strip()) == 1:
        odd.append("a sentence of a single character")
    if "\ufffd" in media or MOJIBAKE.search(media):
        odd.append("a sentence with characters of a wrong encoding; save it as UTF-8")
    if ENTITY.search(media):
        odd.append("a sentence with entities of HTML, such as &amp;; unescape it")
    if _FILE.fullmatch(media.strip()):
        odd.append("a sentence that is the name of a file; is it of another modality?")
    if media.isascii() and len(media) > _LONG_WORD and len(media.split()) == 1:
        odd.append("a sentence of a single long word; is it a file, stored as text?")
    return tuple(odd)


def preprocess(media: str, spec: InputSpec) -> Inputs:
    """Returns `{"tokens": int32 [context_length]}`: start, words, end, padding.

    A sentence that is too long loses its last words and keeps the end token. Special
    tokens that are spelt out in the sentence itself are dropped.

    Raises:
        DataError: The tokenizer cannot be read, or fails on the sentence.
    """
    return {"tokens": _row(_words(media, spec), spec)}


def preprocess_name(
    name: str, template: str, context: int, spec: InputSpec
) -> np.ndarray:
    """Returns the tokens of a class name after a fixed number of context tokens.

    The context is made of the template's tokens before the name: the last of them if
    there are too many, or all of them repeated. With exactly as many as the template
    has, the result is the template's sentence.

    Args:
        name: Name of the class.
        template: Sentence with one `{}` for the name, and a word before it.
        context: Number of tokens before the name.
        spec: Input of the encoder.

    Returns:
        `int32 [context_length]`, as `preprocess` returns them.

    Raises:
        DataError: The tokenizer cannot be read or fails; or the template begins with
            the name; or no room is left for a name after the context.
    """
    before, after = template.split("{}")
    words = _words(before.rstrip(), spec)
    if not words:
        raise DataError(
            f"{template!r}: no word before the name, from which a context could "
            "start; write for instance 'a photo of a {}.'"
        )
    if (room := _room(spec) - 1) < context:
        raise DataError(
            f"a context of {context} tokens: the encoder reads {spec.context_length}, "
            f"which leaves {room} at most before a name; lower its length"
        )
    front = (words * -(-context // len(words)))[-context:]
    return _row([*front, *_words(f"{name}{after}", spec)], spec)


def _words(sentence: str, spec: InputSpec) -> list[int]:
    tokenizer = load_tokenizer(spec.tokenizer)
    with reading(spec.tokenizer.path, EXPECTED_TOKENIZER):
        words = tokenizer.encode(clean(sentence, spec.tokenizer))
    return [word for word in words if word not in tokenizer.special]


def _row(words: list[int], spec: InputSpec) -> np.ndarray:
    tokenizer = load_tokenizer(spec.tokenizer)
    start = [] if tokenizer.start is None else [tokenizer.start]
    row = [*start, *words[: _room(spec)], tokenizer.end]
    tokens = np.full(spec.context_length, tokenizer.pad, np.int32)
    tokens[: len(row)] = row
    return tokens


def _room(spec: InputSpec) -> int:
    """Returns how many words a sentence can have."""
    has_start = load_tokenizer(spec.tokenizer).start is not None
    return spec.context_length - has_start - 1


def shapes(spec: InputSpec) -> Shapes:
    """Returns the shapes of a sentence."""
    return {"tokens": ((spec.context_length,), np.int32)}


# Families differ in `InputSpec.tokenizer` alone.
_STYLE = Style(preprocess, shapes, "text-1")

TEXT = Modality(
    name="text",
    tower="text",
    suffixes=(".txt",),
    decode=decode,
    templates=("{}", "a sentence about {}.", "this is about {}."),
    styles={"clip": _STYLE, "languagebind": _STYLE, "imagebind": _STYLE},
    oddities=oddities,
)
