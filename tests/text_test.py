"""Known answers of sentences and their tokens."""

import dataclasses
import pathlib

import numpy as np
import pytest

from mmcl_jax.errors import DataError
from mmcl_jax.modalities import TEXT
from mmcl_jax.modalities.base import InputSpec, TokenizerSpec
from tests import helpers


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> InputSpec:
    return helpers.make_spec(tmp_path_factory.mktemp("spec"))


def test_tokens(spec: InputSpec) -> None:
    tokens = TEXT.preprocess("cab", spec)["tokens"]
    np.testing.assert_array_equal(tokens, [2, 6, 4, 5, 1] + [0] * 11)


def test_truncation_keeps_the_end(spec: InputSpec) -> None:
    tokens = TEXT.preprocess("b" * 99, spec)["tokens"]
    np.testing.assert_array_equal(tokens, [2] + [5] * 14 + [1])


def test_special_tokens_in_a_sentence_are_dropped(spec: InputSpec) -> None:
    tokens = TEXT.preprocess("a<end>b<start><pad>", spec)["tokens"]
    np.testing.assert_array_equal(tokens, [2, 4, 5, 1] + [0] * 12)


def test_text_file_with_mark(spec: InputSpec, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(" a sentence\n", encoding="utf-8-sig")
    assert TEXT.decode(str(path), spec) == "a sentence"
    path.write_text(" \n")
    assert "white space only" in helpers.decode_error(TEXT, path, spec)


def test_tokenizer_without_special_tokens(
    spec: InputSpec, tmp_path: pathlib.Path
) -> None:
    text = pathlib.Path(spec.tokenizer.path).read_text().replace("<end>", "<stop>")
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    broken = dataclasses.replace(spec, tokenizer=TokenizerSpec(str(path)))
    with pytest.raises(DataError, match="special tokens <start>, <end>, <pad>"):
        TEXT.preprocess("a", broken)
    nowhere = TokenizerSpec(str(tmp_path / "none.json"))
    absent = dataclasses.replace(spec, tokenizer=nowhere)
    with pytest.raises(DataError, match="no such file"):
        TEXT.preprocess("a", absent)
