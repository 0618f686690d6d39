"""Sentences: str; a file holds one sentence, a table of them is read elsewhere."""

import pathlib

import numpy as np

from mmcl_jax.modalities.base import (
    DataError,
    Inputs,
    InputSpec,
    Modality,
    Shapes,
    Style,
    check_bytes,
    reading,
)
from mmcl_jax.modalities.tokenization import EXPECTED as EXPECTED_TOKENIZER
from mmcl_jax.modalities.tokenization import clean, load_tokenizer

EXPECTED = "a text file in UTF-8"
_MAX_BYTES = 2**20


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


def preprocess(media: str, spec: InputSpec) -> Inputs:
    """Returns `{"tokens": int32 [context_length]}`: start, words, end, padding.

    A sentence that is too long loses words at its end and keeps the end token. Special
    tokens that are spelt out in the sentence itself are dropped.

    Raises:
        DataError: the tokenizer cannot be read, or fails on the sentence.
    """
    tokenizer = load_tokenizer(spec.tokenizer)
    with reading(spec.tokenizer.path, EXPECTED_TOKENIZER):
        words = tokenizer.encode(clean(media, spec.tokenizer))
    start = [] if tokenizer.start is None else [tokenizer.start]
    words = [word for word in words if word not in tokenizer.special]
    row = [*start, *words[: spec.context_length - len(start) - 1], tokenizer.end]
    tokens = np.full(spec.context_length, tokenizer.pad, np.int32)
    tokens[: len(row)] = row
    return {"tokens": tokens}


def shapes(spec: InputSpec) -> Shapes:
    """Returns the shapes of a sentence."""
    return {"tokens": ((spec.context_length,), np.int32)}


# what families do differently, `InputSpec.tokenizer` says
_STYLE = Style(preprocess, shapes, "text-1")

TEXT = Modality(
    name="text",
    suffixes=(".txt",),
    decode=decode,
    templates=("{}", "a sentence about {}.", "this is about {}."),
    styles={"clip": _STYLE, "languagebind": _STYLE, "imagebind": _STYLE},
)
