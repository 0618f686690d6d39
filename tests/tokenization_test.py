"""Tokenizers of published text towers, in the forms in which they are stored."""

import dataclasses
import gzip
import importlib.util
import json
import pathlib
import pickle
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from mmcl_jax.errors import DataError
from mmcl_jax.modalities import TEXT
from mmcl_jax.modalities.base import TokenizerSpec
from mmcl_jax.modalities.tokenization import (
    clean,
    find_tokenizer,
    load_tokenizer,
    tokenizer_hash,
)
from tests import helpers
from tests.input_references import SPEC

# of OpenCLIP's own tokenizer, with CLIP's table
_OPENCLIP = pathlib.Path(__file__).parent / "fixtures" / "openclip_tokens.json"
_MERGES = ["t h", "th e</w>", "c a", "ca t</w>"]


def needs(*packages: str) -> pytest.MarkDecorator:
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)}")


def _clip(path: pathlib.Path | str, pad: str = "!") -> TokenizerSpec:
    return TokenizerSpec(str(path), "<|startoftext|>", "<|endoftext|>", pad, "clip")


def _tokens(sentence: str, tokenizer: TokenizerSpec, length: int = 8) -> list[int]:
    spec = dataclasses.replace(SPEC, tokenizer=tokenizer, context_length=length)
    tokens = TEXT.preprocess(sentence, spec)["tokens"]
    assert (tokens.shape, tokens.dtype) == ((length,), np.int32)
    return tokens.tolist()


# CLIP, a table of four merges: ids are those of 256 letters, 256 letters at the end of
# a word, four merges and two special tokens


def _letters() -> list[str]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(i) for i in printable] + [chr(i) for i in range(256, 324)]


def _vocabulary() -> dict[str, int]:
    words = [*_letters(), *(letter + "</w>" for letter in _letters())]
    words += [merge.replace(" ", "") for merge in _MERGES]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return {word: i for i, word in enumerate(words)}


def _text(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "bpe_simple_vocab_16e6.txt"
    path.write_text("\n".join(["version", *_MERGES, ""]), encoding="utf-8")
    return path


def _packed(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "bpe_simple_vocab_16e6.txt.gz"
    path.write_bytes(gzip.compress("\n".join(["version", *_MERGES, ""]).encode()))
    return path


def _pair(folder: pathlib.Path) -> pathlib.Path:
    (folder / "vocab.json").write_text(json.dumps(_vocabulary()))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *_MERGES, ""]))
    return folder / "vocab.json"


def _single(folder: pathlib.Path) -> pathlib.Path:
    """As Hugging Face stores it, where the pattern knows the special tokens."""
    merges = [(left, right) for left, right in (merge.split() for merge in _MERGES)]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            _vocabulary(),
            merges,
            unk_token="<|endoftext|>",
            end_of_word_suffix="</w>",
        )
    )
    tokenizer.normalizer = normalizers.Lowercase()
    pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    tokenizer.enable_truncation(3)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


forms = pytest.mark.parametrize("write", [_text, _packed, _pair, _single])


@forms
def test_clip_by_hand(
    write: Callable[[pathlib.Path], pathlib.Path], tmp_path: pathlib.Path
) -> None:
    path = write(tmp_path)
    assert find_tokenizer(tmp_path) == str(path)
    tokenizer = _clip(path)
    # "a" is the 65th letter; "the" and "cat" are the second and the fourth merge
    the, cat, a = 513, 515, 256 + 64
    assert _tokens("The  cat&amp;#32;a", tokenizer) == [516, the, cat, a, 517, 0, 0, 0]
    filled = [516, the, *[517] * 6]
    assert _tokens("the", _clip(path, "<|endoftext|>")) == filled
    assert _tokens("the cat " * 9, tokenizer, 5) == [516, the, cat, the, 517]
    assert _tokens("", tokenizer, 3) == [516, 517, 0]
    # the word "!" is not the padding, and padding is not looked for in a sentence
    assert _tokens("!", tokenizer, 4) == [516, 256, 517, 0]
    assert _tokens("!!", tokenizer, 5) == [516, 0, 256, 517, 0]


@forms
def test_special_tokens_are_not_written_by_sentences(
    write: Callable[[pathlib.Path], pathlib.Path], tmp_path: pathlib.Path
) -> None:
    tokenizer = _clip(write(tmp_path))
    tokens = _tokens("<|startoftext|>the<|endoftext|> cat", tokenizer)
    assert tokens == [516, 513, 515, 517, 0, 0, 0, 0]
    tokens = _tokens("the &lt;|ENDOFTEXT|&gt; cat", tokenizer)
    assert tokens == [516, 513, 515, 517, 0, 0, 0, 0]


def test_clip_equals_openclip() -> None:
    root = helpers.shared_data()
    if root is None:
        pytest.skip("no folder shared/data beside the repository")
    path = root / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz"
    tokenizer, wrong = _clip(path), dataclasses.replace(_clip(path), cleaning="none")
    differ = 0
    for sentence, expected in json.loads(_OPENCLIP.read_text()).items():
        padded = expected + [0] * (77 - len(expected))
        assert _tokens(sentence, tokenizer, 77) == padded
        differ += _tokens(sentence, wrong, 77) != padded
    assert differ >= 2
    assert load_tokenizer(tokenizer).highest == 49407


@needs("transformers")
def test_clip_equals_transformers(tmp_path: pathlib.Path) -> None:
    from transformers import CLIPTokenizer

    root = helpers.shared_data()
    if root is None:
        pytest.skip("no folder shared/data beside the repository")
    table = root / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(table.read_bytes()).decode().split("\n")[1:48895]
    words = [*_letters(), *(letter + "</w>" for letter in _letters())]
    words += [line.replace(" ", "") for line in lines]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(
        json.dumps({w: i for i, w in enumerate(words)})
    )
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]))
    reference = CLIPTokenizer.from_pretrained(str(tmp_path))
    stored = tmp_path / "stored"
    reference.save_pretrained(stored)
    assert find_tokenizer(stored).endswith("tokenizer.json")
    end = "<|endoftext|>"
    for path in (tmp_path / "vocab.json", stored / "tokenizer.json", table):
        tokenizer = _clip(path, end)
        for sentence in json.loads(_OPENCLIP.read_text()):
            expected = reference(
                clean(sentence, tokenizer),
                padding="max_length",
                truncation=True,
                max_length=77,
            )["input_ids"]
            assert _tokens(sentence, tokenizer, 77) == expected


# SigLIP


def _siglip(path: pathlib.Path | str) -> TokenizerSpec:
    return TokenizerSpec(str(path), None, "</s>", "</s>", "siglip")


def test_cleaning() -> None:
    sentence = " A &amp; B:\tÄrger_mit\u00a0(Ünïcode)! "
    expected = {
        "none": sentence,
        "clip": "a & b: ärger_mit (ünïcode)!",
        "siglip": "a amp b ärgermit ünïcode",
    }
    for cleaning, cleaned in expected.items():
        assert clean(sentence, TokenizerSpec("", cleaning=cleaning)) == cleaned
    # words that were read with a wrong encoding
    assert clean("schÃ¶n", TokenizerSpec("", cleaning="clip")) == "schön"


def test_siglip_by_hand(tmp_path: pathlib.Path) -> None:
    pieces = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁cat", "c", "a", "t"]
    scores = [(piece, -float(i)) for i, piece in enumerate(pieces)]
    tokenizer = tokenizers.Tokenizer(models.Unigram(scores, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["</s>", "<unk>"])
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    spec = _siglip(path)
    assert _tokens("A cat!", spec, 5) == [4, 5, 1, 1, 1]
    assert _tokens("a cat a cat a cat", spec, 4) == [4, 5, 4, 1]
    assert _tokens("a </s> cat", spec, 6)[:1] == [4]
    # what is unknown stays in its place
    assert _tokens("a dog cat", spec, 6) == [4, 3, 2, 5, 1, 1]
    assert load_tokenizer(spec).start is None


@needs("transformers", "sentencepiece", "google.protobuf")
@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
@pytest.mark.full("encoders")
def test_sentencepiece_equals_transformers(tmp_path: pathlib.Path) -> None:
    import sentencepiece
    from transformers import SiglipTokenizer

    text = tmp_path / "sentences.txt"
    words = (pathlib.Path(helpers.REPOSITORY) / "mmcl_jax/models/words.txt").read_text()
    text.write_text(words)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=200,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    reference = SiglipTokenizer(str(tmp_path / "spiece.model"))
    folder = tmp_path / "encoder"
    reference.save_pretrained(folder)
    assert find_tokenizer(folder) == str(folder / "spiece.model")
    for sentence in ("A photo of: a Cat!", "it's", "words " * 40, "größer", ""):
        expected = reference(
            sentence, padding="max_length", truncation=True, max_length=16
        )["input_ids"]
        found = _tokens(sentence, _siglip(folder / "spiece.model"), 16)
        assert found == expected


def test_what_sentencepiece_needs_is_said(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(b"model")
    (tmp_path / "sentencepiece.py").write_text("raise ImportError('none')")
    monkeypatch.syspath_prepend(tmp_path)
    assert "pip install sentencepiece protobuf" in _error(_siglip(path))


def test_neither_torch_nor_transformers_is_imported() -> None:
    program = (
        "import sys, mmcl_jax.main, mmcl_jax.modalities\n"
        "print(sorted({'torch', 'transformers'} & sys.modules.keys()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=helpers.REPOSITORY,
        env=helpers.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"


# descriptions and damage


def test_descriptions_travel(tmp_path: pathlib.Path) -> None:
    spec = dataclasses.replace(SPEC, tokenizer=_clip(_text(tmp_path)))
    again = pickle.loads(pickle.dumps(spec))
    assert again == spec
    assert hash(again) == hash(spec)
    tokens = TEXT.preprocess("the cat", again)["tokens"]
    np.testing.assert_array_equal(tokens, TEXT.preprocess("the cat", spec)["tokens"])


def test_hashes(tmp_path: pathlib.Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    first, second = (_clip(_pair(folder)) for folder in folders)
    assert tokenizer_hash(first) == tokenizer_hash(second)
    found = {tokenizer_hash(first)}
    for change in ({"pad": "</w>"}, {"cleaning": "none"}, {"start": None}):
        found.add(tokenizer_hash(dataclasses.replace(first, **change)))
    (folders[1] / "merges.txt").write_text("#version: 0.2\n")
    found.add(tokenizer_hash(second))
    assert len(found) == 5


def _error(spec: TokenizerSpec) -> str:
    with pytest.raises(DataError) as caught:
        load_tokenizer(spec)
    assert spec.path in str(caught.value)
    return str(caught.value)


def test_damaged_tables(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _pair(tmp_path)
    (tmp_path / "merges.txt").unlink()
    assert "expected a tokenizer" in _error(_clip(path))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nx yz\n")
    assert "expected a tokenizer" in _error(_clip(path))
    path = _text(tmp_path)
    assert "special tokens <start>, <end>, <pad>" in _error(TokenizerSpec(str(path)))
    path.write_text("version\nthree words here\n")
    assert "expected a tokenizer" in _error(_clip(path))
    path = _packed(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    assert "expected a tokenizer" in _error(_clip(path))
    monkeypatch.setattr("mmcl_jax.modalities.tokenization._MAX_BYTES", 10_000)
    path.write_bytes(gzip.compress(b"a" * 1_000_000))
    assert "more than the limit of 10000 bytes unpacked" in _error(_clip(path))
    expected = "no tokenizer in it; expected one of tokenizer.json, vocab.json"
    with pytest.raises(DataError, match=expected):
        find_tokenizer(tmp_path / "nowhere")


@needs("sentencepiece")
@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
@pytest.mark.full("encoders")
def test_damaged_sentencepiece(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(b"\xff" * 99)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "SiglipTokenizer"})
    )
    assert "expected a tokenizer" in _error(_siglip(path))
