"""Tokenizers of text towers: how they are stored, and what they do to a sentence."""

import functools
import gzip
import hashlib
import html
import pathlib
import re
import string
from collections.abc import Callable
from typing import NamedTuple

import ftfy
import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from mmcl_jax.errors import DataError, check_bytes, reading
from mmcl_jax.modalities import auto_tokenizer
from mmcl_jax.modalities.base import TokenizerSpec

EXPECTED = "a tokenizer: " + (
    "`tokenizer.json` of the tokenizers library, `vocab.json` with `merges.txt` beside "
    "it, `bpe_simple_vocab_16e6.txt[.gz]` of CLIP, or `spiece.model` of sentencepiece"
)
# in the order in which they are looked for
FILE_NAMES = (
    "tokenizer.json",
    "vocab.json",
    "bpe_simple_vocab_16e6.txt.gz",
    "bpe_simple_vocab_16e6.txt",
    "spiece.model",
)
# further files of a folder that decide what a tokenizer does
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
# Mending takes seconds for a megabyte; no sentence that is read to its end is longer.
_MAX_CHARACTERS = 2**16
_MAX_ID = 2**31 - 1
_CLIP_START, _CLIP_END = "<|startoftext|>", "<|endoftext|>"
_CLIP_MERGES = 48894  # that are used; the table goes on behind them
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_END_OF_WORD = "</w>"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Tokenizer(NamedTuple):
    """A tokenizer that has been read.

    Attributes:
        encode: a sentence -> the ids of its words, nothing around them.
        start: id of the token in front; None: there is none.
        end: id of the token behind.
        pad: id of the token that fills the rest.
        special: ids that no word of a sentence may have.
        highest: largest id that there is.
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
        DataError: there is none.
    """
    for name in FILE_NAMES:
        if (path := pathlib.Path(folder) / name).is_file():
            return str(path)
    raise DataError(f"{folder}: none of {', '.join(FILE_NAMES)} in it")


@functools.lru_cache(maxsize=8)
def load_tokenizer(spec: TokenizerSpec) -> Tokenizer:
    """Reads a tokenizer, once a process and description.

    Which kind of file it is, its name says: `vocab.json` with `merges.txt` beside it
    and `*.txt` or `*.txt.gz` are byte-pair tables of CLIP, `*.model` one of
    sentencepiece, which is left to transformers; every other file is read by the
    tokenizers library.

    Raises:
        DataError: a file is absent or damaged, larger than 64 MiB, or lacks one of the
            tokens that `spec` names.
    """
    with reading(spec.path, EXPECTED):
        for file in _files(spec.path):
            check_bytes(file, _MAX_BYTES)
        if spec.path.endswith(".model"):
            loaded = auto_tokenizer.load(pathlib.Path(spec.path).parent)
            encode, vocabulary, special = loaded
        else:
            encode, vocabulary, special = _load(pathlib.Path(spec.path))
        names = [spec.start, spec.end, spec.pad]
        start, end, pad = (vocabulary.get(name) for name in names)
        if end is None or pad is None or (start is None and spec.start is not None):
            wanted = ", ".join(name for name in names if name is not None)
            raise DataError(f"{spec.path}: expected the special tokens {wanted}")
        # a special token for what is unknown is a word; padding may be one, as "!" is
        special = frozenset({start, end, *({pad} & special)} - {None})
        highest = max(vocabulary.values())
        if highest > _MAX_ID:
            raise DataError(f"{spec.path}: id {highest}, more than {_MAX_ID}")
        return Tokenizer(encode, start, end, pad, special, highest)


def tokenizer_hash(spec: TokenizerSpec) -> str:
    """Returns a hash of all that decides ids, wherever the files lie.

    Raises:
        DataError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for value in (spec.start, spec.end, spec.pad, spec.cleaning):
        digest.update(repr(value).encode())
    with reading(spec.path, EXPECTED):
        for file in _files(spec.path):
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def clean(sentence: str, spec: TokenizerSpec) -> str:
    """Does to a sentence what the tokenizer's own code does to it first.

    - "none": nothing.
    - "clip": mends mistaken encodings, replaces HTML entities, twice, makes one blank
      of white space, and lower-cases, as the code of CLIP and OpenCLIP.
    - "siglip": lower-cases, drops ASCII punctuation and makes one blank of white space,
      as the code of SigLIP.

    What is cleaned is cut to 65,536 characters first.
    """
    if spec.cleaning == "none":
        return sentence
    sentence = sentence[:_MAX_CHARACTERS]
    if spec.cleaning == "clip":
        sentence = html.unescape(html.unescape(ftfy.fix_text(sentence))).lower()
    else:
        sentence = sentence.lower().translate(_NO_PUNCTUATION)
    return re.sub(r"\s+", " ", sentence).strip()


def _files(path: str) -> list[pathlib.Path]:
    file = pathlib.Path(path)
    beside = (file.with_name(name) for name in _BESIDE.get(file.name, ()))
    return [file, *(other for other in beside if other.exists())]


def _load(path: pathlib.Path) -> auto_tokenizer.Loaded:
    if path.name == "vocab.json":
        merges = str(path.with_name("merges.txt"))
        tokenizer = _clip_tokenizer(*models.BPE.read_file(str(path), merges))
    elif path.suffix in (".txt", ".gz"):
        tokenizer = _clip_tokenizer(*_read_pairs(path))
    else:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    added = tokenizer.get_added_tokens_decoder()
    return auto_tokenizer.Loaded(
        lambda sentence: tokenizer.encode(sentence, add_special_tokens=False).ids,
        tokenizer.get_vocab(),
        {id for id, token in added.items() if token.special},
    )


def _read_pairs(
    path: pathlib.Path,
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Returns vocabulary and merges of CLIP's own table; it holds the merges alone."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise DataError(f"{path}: unpacked more than the limit of {_MAX_BYTES} bytes")
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
