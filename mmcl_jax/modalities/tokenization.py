"""Tokenizers of text towers: their files, and the cleaning of sentences."""

import functools
import gzip
import hashlib
import html
import json
import pathlib
import re
import string
from collections.abc import Callable
from typing import Any, NamedTuple

import ftfy
import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from mmcl_jax.errors import DataError, check_bytes, reading
from mmcl_jax.modalities import tokenizer_process
from mmcl_jax.modalities.base import TokenizerSpec
from mmcl_jax.modalities.signatures import require_content

EXPECTED = "a tokenizer: " + (
    "`tokenizer.json` of the tokenizers library, `vocab.json` with `merges.txt` beside "
    "it, `bpe_simple_vocab_16e6.txt[.gz]` of CLIP, or `spiece.model` of sentencepiece"
)
# In the order in which they are searched for.
FILE_NAMES = (
    "tokenizer.json",
    "vocab.json",
    "bpe_simple_vocab_16e6.txt.gz",
    "bpe_simple_vocab_16e6.txt",
    "spiece.model",
)
# Further files of a folder that decide what a tokenizer does; they are hashed too.
_BESIDE = {
    "vocab.json": ("merges.txt",),
    "spiece.model": (
        "added_tokens.json",
        "config.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
    ),
}
_MAX_BYTES = 64 * 2**20
_MAX_GROWTH = 100  # of a sentence by normalizers
# ftfy takes seconds for a megabyte; no context is long enough for such a sentence.
_MAX_CHARACTERS = 2**16
_MAX_ID = 2**31 - 1
_CLIP_START, _CLIP_END = "<|startoftext|>", "<|endoftext|>"
_CLIP_MERGES = 48894  # merges in use; the table continues after them
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_END_OF_WORD = "</w>"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Tokenizer(NamedTuple):
    """A tokenizer that has been read.

    Attributes:
        encode: Maps a sentence to the ids of its words, without special tokens.
        start: Id of the token before a sentence; None if there is none.
        end: Id of the token after a sentence.
        pad: Id of the token that fills the rest.
        special: Ids that no word of a sentence may have.
        highest: Largest id of the vocabulary.
    """

    encode: Callable[[str], list[int]]
    start: int | None
    end: int
    pad: int
    special: frozenset[int]
    highest: int


def find_tokenizer(folder: str | pathlib.Path) -> str:
    """Returns the path of the tokenizer in the folder of an encoder.

    Raises:
        DataError: The folder holds no tokenizer.
    """
    for name in FILE_NAMES:
        if (path := pathlib.Path(folder) / name).is_file():
            return str(path)
    raise DataError(
        f"{folder}: no tokenizer in it; expected one of {', '.join(FILE_NAMES)}"
    )


def has_token(path: str, token: str) -> bool:
    """Returns whether a `tokenizer.json` has a token; false for files of other kinds.

    Raises:
        DataError: The file is damaged or larger than 64 MiB.
    """
    if not path.endswith(".json"):
        return False
    with reading(path, EXPECTED):
        check_bytes(path, _MAX_BYTES)
        return token in _load(pathlib.Path(path)).vocabulary


@functools.lru_cache(maxsize=8)
def load_tokenizer(spec: TokenizerSpec) -> Tokenizer:
    """Reads a tokenizer, once for each process and spec.

    The name of the file tells its kind: `vocab.json` with `merges.txt` beside it and
    `*.txt` or `*.txt.gz` are byte-pair tables of CLIP; `*.model` is one of
    sentencepiece, which transformers reads; every other file is read by the tokenizers
    library. Both do so in a process that is ended if they take too long.

    Raises:
        DataError: A file is missing, damaged or larger than 64 MiB, or lacks one of the
            tokens that `spec` names.
    """
    with reading(spec.path, EXPECTED):
        for file in tokenizer_files(spec.path):
            check_bytes(file, _MAX_BYTES)
            require_content(str(file), EXPECTED)
        encode, vocabulary, special = _load(pathlib.Path(spec.path))
        names = [spec.start, spec.end, spec.pad]
        start, end, pad = (vocabulary.get(name) for name in names)
        if end is None or pad is None or (start is None and spec.start is not None):
            wanted = ", ".join(name for name in names if name is not None)
            raise DataError(f"{spec.path}: expected the special tokens {wanted}")
        # The token of unknown words counts as a word; so does padding that is no
        # special token, such as CLIP's "!".
        special = frozenset({start, end, *({pad} & special)} - {None})
        highest = max(vocabulary.values())
        if highest > _MAX_ID:
            raise DataError(
                f"{spec.path}: id {highest}, more than the limit of {_MAX_ID}"
            )
        return Tokenizer(encode, start, end, pad, special, highest)


def tokenizer_hash(spec: TokenizerSpec) -> str:
    """Returns a hash of everything that decides ids, but not of the files' paths.

    Raises:
        DataError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for value in (spec.start, spec.end, spec.pad, spec.cleaning):
        digest.update(repr(value).encode())
    with reading(spec.path, EXPECTED):
        for file in tokenizer_files(spec.path):
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def clean(sentence: str, spec: TokenizerSpec) -> str:
    """Normalizes a sentence as the encoder's own code does before it is encoded.

    - "none": leaves it as it is.
    - "clip": repairs wrong encodings, unescapes HTML entities twice, collapses white
      space to single blanks and lower-cases, as the code of CLIP and OpenCLIP.
    - "siglip": lower-cases, drops ASCII punctuation and collapses white space, as the
      code of SigLIP.
    - "lower": lower-cases, as the code of SigLIP 2.

    A sentence that is cleaned is cut to 65,536 characters first.
    """
    if spec.cleaning == "none":
        return sentence
    sentence = sentence[:_MAX_CHARACTERS]
    if spec.cleaning == "clip":
        sentence = html.unescape(html.unescape(ftfy.fix_text(sentence))).lower()
    elif spec.cleaning == "lower":
        return sentence.lower()
    else:
        sentence = sentence.lower().translate(_NO_PUNCTUATION)
    return re.sub(r"\s+", " ", sentence).strip()


def tokenizer_files(path: str) -> list[pathlib.Path]:
    """Returns the files that decide what a tokenizer does, itself the first."""
    file = pathlib.Path(path)
    beside = (file.with_name(name) for name in _BESIDE.get(file.name, ()))
    return [file, *(other for other in beside if other.exists())]


def _load(path: pathlib.Path) -> tokenizer_process.Loaded:
    if path.name == "vocab.json":
        merges = str(path.with_name("merges.txt"))
        table = models.BPE.read_file(str(path), merges)
    elif path.suffix in (".txt", ".gz"):
        table = _read_pairs(path)
    else:
        if path.suffix != ".model":
            _check_growth(path)
        return tokenizer_process.load(str(path))
    # what takes time is ours, and the table does not change that
    return tokenizer_process.loaded(_clip_tokenizer(*table))


def _check_growth(path: pathlib.Path) -> None:
    """Raises `DataError` if normalizers could make a sentence many times as long.

    Each of a row of replacements may double what the one before has made: forty of them
    turn a letter into a terabyte.
    """
    with open(path, encoding="utf-8") as file:
        whole = json.load(file)
    normalizer = whole.get("normalizer") if isinstance(whole, dict) else None
    if (growth := _growth(normalizer)) > _MAX_GROWTH:
        raise DataError(
            f"{path}: its normalizers can make a sentence {growth:.0f} times as long, "
            f"more than the limit of {_MAX_GROWTH}"
        )


def _growth(normalizer: Any) -> float:
    """Returns how many times as long a normalizer can make a text."""
    if not isinstance(normalizer, dict):
        return 1.0
    growth = 1.0
    for inner in normalizer.get("normalizers") or ():
        growth *= _growth(inner)
    content = normalizer.get("content")
    if normalizer.get("type") == "Replace" and isinstance(content, str):
        pattern = normalizer.get("pattern")
        text = pattern.get("String") if isinstance(pattern, dict) else None
        # an expression may match between any two characters
        growth *= max(1.0, len(content) / len(text) if text else 1.0 + len(content))
    return growth


def _read_pairs(
    path: pathlib.Path,
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Returns vocabulary and merges of CLIP's own table, which holds only merges."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise DataError(f"{path}: more than the limit of {_MAX_BYTES} bytes unpacked")
    letters = _byte_letters()
    lines = content.decode().rstrip("\n").split("\n")[1 : 1 + _CLIP_MERGES]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    words = [*letters, *(letter + _END_OF_WORD for letter in letters)]
    words += [left + right for left, right in merges]
    words += [_CLIP_START, _CLIP_END]
    return {word: i for i, word in enumerate(words)}, merges


def _byte_letters() -> list[str]:
    """Returns the 256 letters that stand for bytes, in the order of CLIP's ids."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = 256 - len(plain)
    return [chr(i) for i in plain] + [chr(256 + i) for i in range(others)]


def _clip_tokenizer(
    vocabulary: dict[str, int], merges: list[tuple[str, str]]
) -> tokenizers.Tokenizer:
    model = models.BPE(
        vocabulary,
        merges,
        unk_token=_CLIP_END,
        continuing_subword_prefix="",
        end_of_word_suffix=_END_OF_WORD,
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    words = pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True)
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    tokenizer.add_special_tokens([_CLIP_START, _CLIP_END])
    return tokenizer
