"""Sentences: str; a file holds one sentence, a table of them is read elsewhere."""

import functools
import pathlib

import numpy as np
from tokenizers import Tokenizer

from mmcl_jax.modalities.base import (
    DataError,
    Inputs,
    InputSpec,
    Modality,
    Shapes,
    check_bytes,
    reading,
)

EXPECTED = "a text file in UTF-8"
EXPECTED_TOKENIZER = "a `tokenizer.json` of the tokenizers library"
_MAX_BYTES = 2**20
_MAX_TOKENIZER_BYTES = 64 * 2**20
_SPECIAL = ("<start>", "<end>", "<pad>")


def decode(path: str, spec: InputSpec) -> str:
    """Reads one text file.

    Raises:
        DataError: not UTF-8, nothing but white space, or larger than 1 MiB.
    """
    del spec
    with reading(path, EXPECTED):
        check_bytes(path, _MAX_BYTES)
        text = pathlib.Path(path).read_text(encoding="utf-8-sig").strip()
        if not text:
            raise DataError(f"{path}: white space only; expected {EXPECTED}")
        return text


@functools.lru_cache(maxsize=8)
def load_tokenizer(path: str) -> tuple[Tokenizer, tuple[int, int, int]]:
    """Reads a `tokenizer.json`, once a process and path.

    Returns:
        The tokenizer, and the ids of its start, end and padding token.

    Raises:
        DataError: the file is absent or damaged, larger than 64 MiB, or lacks one of
            these tokens.
    """
    with reading(path, EXPECTED_TOKENIZER):
        check_bytes(path, _MAX_TOKENIZER_BYTES)
        tokenizer = Tokenizer.from_file(path)
        start, end, pad = (tokenizer.token_to_id(name) for name in _SPECIAL)
        if start is None or end is None or pad is None:
            raise DataError(
                f"{path}: expected the special tokens {', '.join(_SPECIAL)}"
            )
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer, (start, end, pad)


def preprocess(media: str, spec: InputSpec) -> Inputs:
    """Returns `{"tokens": int32 [context_length]}`: start, words, end, padding.

    A sentence that is too long loses words at its end and keeps the end token. Special
    tokens that are spelt out in the sentence itself are dropped.

    Raises:
        DataError: the tokenizer cannot be read, or fails on the sentence.
    """
    tokenizer, special = load_tokenizer(spec.tokenizer)
    start, end, pad = special
    with reading(spec.tokenizer, EXPECTED_TOKENIZER):
        words = tokenizer.encode(media, add_special_tokens=False).ids
    words = [word for word in words if word not in special]
    tokens = np.full(spec.context_length, pad, np.int32)
    row = [start, *words[: spec.context_length - 2], end]
    tokens[: len(row)] = row
    return {"tokens": tokens}


def shapes(spec: InputSpec) -> Shapes:
    """Returns the shapes of a sentence."""
    return {"tokens": ((spec.context_length,), np.int32)}


TEXT = Modality(
    name="text",
    tower="text",
    suffixes=(".txt",),
    decode=decode,
    preprocess=preprocess,
    shapes=shapes,
    templates=("{}", "a sentence about {}.", "this is about {}."),
    version="text-1",
)
