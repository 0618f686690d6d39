"""Tokenizers that take too long are ended; others are read as by their library."""

import concurrent.futures
import dataclasses
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from mmcl_jax.errors import DataError
from mmcl_jax.modalities import TEXT, tokenizer_process
from mmcl_jax.modalities.base import TokenizerSpec
from mmcl_jax.modalities.tokenization import load_tokenizer
from tests import helpers
from tests.input_references import SPEC

# hostile files

# Oniguruma gives up after ten million steps from one place, and this takes a few less:
# seconds for a line, weeks for a page
_SLOW = r"(?:(a|a){22}b)?"
_WORDS = {"<pad>": 0, "<end>": 1, "<start>": 2, "?": 3, "b": 4}


def _tokenizer(model: Any = None) -> tokenizers.Tokenizer:
    words = tokenizers.Tokenizer(model or models.WordLevel(_WORDS, unk_token="?"))
    words.add_special_tokens(["<pad>", "<end>", "<start>"])
    return words


def _split() -> tokenizers.Tokenizer:
    words = _tokenizer()
    words.pre_tokenizer = pre_tokenizers.Split(Regex(_SLOW), "isolated")
    return words


def _replace() -> tokenizers.Tokenizer:
    words = _tokenizer()
    words.normalizer = normalizers.Replace(Regex(_SLOW), "")
    return words


def _endless_words() -> tokenizers.Tokenizer:
    letters = {f"##{c}": i for i, c in enumerate("ab", len(_WORDS))}
    model = models.WordPiece(
        _WORDS | letters, unk_token="?", max_input_chars_per_word=2**30
    )
    return _tokenizer(model)


def _beginnings() -> tokenizers.Tokenizer:
    pieces = [(word, 0.0) for word in _WORDS]
    pieces += [("a" * k, float(-k)) for k in range(1, 2000)]
    return _tokenizer(models.Unigram(pieces, unk_id=3))


def _many_steps() -> tokenizers.Tokenizer:
    words = _tokenizer()
    words.normalizer = normalizers.Sequence([normalizers.NFC()] * 50_000)
    return words


def _save(words: tokenizers.Tokenizer, folder: pathlib.Path) -> pathlib.Path:
    path = folder / "tokenizer.json"
    words.save(str(path))
    return path


@pytest.mark.parametrize(
    "make", [_split, _replace, _endless_words, _beginnings, _many_steps]
)
def test_a_tokenizer_that_takes_too_long_is_ended(
    make: Callable[[], tokenizers.Tokenizer],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokenizer_process, "SECONDS", 0.2)
    path = _save(make(), tmp_path)
    encode = tokenizer_process.load(str(path)).encode
    assert encode("b") == [4]
    message = (
        r"json: a sentence of 60002 characters \('baaa.*more than 0.2 s of processor"
    )
    for _ in range(2):
        with pytest.raises(DataError, match=message) as caught:
            encode("b" + "a" * 60_000 + "b")
        assert str(path) in str(caught.value)
        assert "download the file again" in str(caught.value)
        # and it goes on
        assert encode("b") == [4]


def test_what_the_expressions_library_gives_up_is_an_error(tmp_path) -> None:
    words = _tokenizer()
    words.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+b"), "isolated")
    path = _save(words, tmp_path)
    encode = tokenizer_process.load(str(path)).encode
    with pytest.raises(DataError, match="fails .PanicException: .*retry-limit"):
        encode("a" * 40 + "cb")
    assert encode("b") == [4]


def test_memory_is_bounded(tmp_path: pathlib.Path) -> None:
    words = _tokenizer()
    words.normalizer = normalizers.Replace("a", "a" * 99)
    encode = tokenizer_process.load(str(_save(words, tmp_path))).encode
    with pytest.raises(DataError, match="ends its process, which may have 2 GiB"):
        encode("a" * 2**20)
    assert encode("b") == [4]


def test_a_sample_names_the_tokenizer(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tokenizer_process, "SECONDS", 0.2)
    path = str(_save(_split(), tmp_path))
    spec = dataclasses.replace(SPEC, tokenizer=TokenizerSpec(path), context_length=4)
    assert TEXT.preprocess("b", spec)["tokens"].tolist() == [2, 4, 1, 0]
    with pytest.raises(DataError, match="tokenizer.json: .* of processor time"):
        TEXT.preprocess("a" * 9999 + "b", spec)
    load_tokenizer.cache_clear()


def test_a_file_that_takes_too_long_to_be_read(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tokenizer_process, "__file__", str(tmp_path / "busy.py"))
    (tmp_path / "busy.py").write_text(
        "import signal\nsignal.setitimer(signal.ITIMER_PROF, 0.1)\nwhile True: pass"
    )
    path = str(_save(_tokenizer(), tmp_path))
    with pytest.raises(DataError, match="json: reading it takes more than 300 s of"):
        tokenizer_process.load(path)


# the process


def _pid(encode: Any) -> int:
    return encode.__self__._child.pid


def test_an_answer_that_nobody_waited_for_is_not_given_to_the_next(tmp_path) -> None:
    encode = tokenizer_process.load(str(_save(_split(), tmp_path))).encode

    def leave(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, leave)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            encode("a" * 9999 + "b")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert encode("b") == [4]


def test_threads_get_their_own_answers(tmp_path) -> None:
    words = tokenizers.Tokenizer(models.WordLevel({str(i): i for i in range(100)}))
    encode = tokenizer_process.load(str(_save(words, tmp_path))).encode
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(encode, map(str, [*range(100)] * 3)))
    assert found == [[i] for i in range(100)] * 3


def test_odd_sentences_are_passed_on_as_they_are(tmp_path) -> None:
    path = _save(_published_gpt2(), tmp_path)
    here = tokenizers.Tokenizer.from_file(str(path))
    there = tokenizer_process.load(str(path)).encode
    for sentence in ("", "\n", "a\r\n\0b\u2028c", "\U0001f600 é e\u0301", "x" * 70_000):
        expected = here.encode(sentence, add_special_tokens=False).ids
        assert there(sentence) == expected
    with pytest.raises(DataError, match="fails"):
        there("\ud800")  # half of a pair


_FORK = """
import os, sys
from mmcl_jax.modalities import tokenizer_process
encode = tokenizer_process.load(sys.argv[1]).encode
child = os.fork()
wanted = 4 if child else 3
assert all(encode("b" if child else "x") == [wanted] for _ in range(100))
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert encode("b") == [4]
"""


def test_a_fork_has_a_process_of_its_own(tmp_path) -> None:
    path = str(_save(_tokenizer(), tmp_path))
    command = [sys.executable, "-c", _FORK, path]
    done = subprocess.run(command, env=helpers.environment(), capture_output=True)
    assert done.returncode == 0, done.stderr


_WAIT = """
import sys, time
from mmcl_jax.modalities import tokenizer_process
encode = tokenizer_process.load(sys.argv[1]).encode
print(encode.__self__._child.pid, flush=True)
time.sleep(60)
"""


def _gone(pid: int) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        stat = pathlib.Path(f"/proc/{pid}/stat")
        # nobody may wait for what is left of a child without a parent
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False


def test_it_ends_with_its_last_user(tmp_path) -> None:
    path = str(_save(_tokenizer(), tmp_path))
    loaded = tokenizer_process.load(path)
    number = _pid(loaded.encode)
    del loaded
    assert _gone(number)
    with subprocess.Popen(
        [sys.executable, "-c", _WAIT, path],
        env=helpers.environment(),
        stdout=subprocess.PIPE,
    ) as user:
        assert user.stdout
        number = int(user.stdout.readline())
        user.kill()
    assert _gone(number)


# published forms, with small dictionaries


def _pieces(*words: str) -> dict[str, int]:
    return {word: i for i, word in enumerate(words)}


_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")


def _published_gpt2() -> tokenizers.Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = tokenizers.Tokenizer(
        models.BPE(_pieces(*letters, "Ġa", "<|endoftext|>"), [("Ġ", "a")])
    )
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    words.add_special_tokens(["<|endoftext|>"])
    return words


def _published_clip() -> tokenizers.Tokenizer:
    words = _published_gpt2()
    words.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    pattern = (
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|"
        r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    )
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return words


def _published_llama() -> tokenizers.Tokenizer:
    words = _published_gpt2()
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return words


def _published_bert() -> tokenizers.Tokenizer:
    pieces = _pieces("[PAD]", "[UNK]", *_LETTERS, *(f"##{c}" for c in _LETTERS))
    words = tokenizers.Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.decoder = decoders.WordPiece()
    return words


def _published_t5() -> tokenizers.Tokenizer:
    pieces = ["<pad>", "</s>", "<unk>", "▁", "▁a", *_LETTERS]
    scores = [(piece, -float(i)) for i, piece in enumerate(pieces)]
    words = tokenizers.Tokenizer(models.Unigram(scores, unk_id=2))
    words.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    return words


def _published_gemma() -> tokenizers.Tokenizer:
    letters = (*_LETTERS, "▁", "▁a", *(f"<0x{i:02X}>" for i in range(256)))
    model = models.BPE(
        _pieces("<pad>", "<eos>", "<bos>", "<unk>", *letters),
        [("▁", "a")],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    words = tokenizers.Tokenizer(model)
    words.normalizer = normalizers.Replace(" ", "▁")
    words.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return words


@pytest.mark.parametrize(
    "make",
    [
        *(_published_gpt2, _published_clip, _published_llama),
        *(_published_bert, _published_t5, _published_gemma),
    ],
)
def test_published_forms_are_read_as_by_their_library(
    make: Callable[[], tokenizers.Tokenizer], tmp_path: pathlib.Path
) -> None:
    path = _save(make(), tmp_path)
    here = tokenizers.Tokenizer.from_file(str(path))
    there = tokenizer_process.load(str(path))
    assert there.vocabulary == here.get_vocab()
    for sentence in (
        "a cat sat",
        "It's  2 Ämter,\n\n a<|endoftext|>!",
        " " * 5000 + "a",
    ):
        expected = here.encode(sentence, add_special_tokens=False).ids
        assert there.encode(sentence) == expected
    special = here.token_to_id("<|endoftext|>")
    assert there.special == (set() if special is None else {special})
