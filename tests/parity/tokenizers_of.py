"""Tiny tokenizers in the files in which published models have theirs."""

import json
import pathlib
import string

import numpy as np
import tokenizers
from tokenizers import (
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

START, END = "<|startoftext|>", "<|endoftext|>"
# CLIP's words, numbers one by one, and runs of other signs
_CLIP_PIECES = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def write_clip(
    folder: pathlib.Path, vocabulary: int, context: int, added: int = 0
) -> None:
    """Writes CLIP's byte-level BPE; the end token is the last id before `added` ones.

    Letters and a few merges are all it knows; ids up to `vocabulary` are filled.
    """
    letters = [*string.ascii_lowercase, *(f"{c}</w>" for c in string.ascii_lowercase)]
    end = vocabulary - 1 - added
    merges = [("a", "t</w>"), ("c", "at</w>"), ("d", "o"), ("do", "g</w>")]
    words = ["!", *letters, *("".join(pair) for pair in merges)]
    words = words[: end - 1]
    merges = [pair for pair in merges if "".join(pair) in words]
    words += [f"<unused{i}>" for i in range(len(words), end - 1)]
    vocab = {word: i for i, word in enumerate([*words, START, END])}
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges,
            unk_token=END,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_PIECES), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, end), (START, end - 1), trim_offsets=False, add_prefix_space=False
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([START, END])
    tokenizer.add_tokens([f"<new{i}>" for i in range(added)])
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    _write_config(
        folder,
        tokenizer_class="CLIPTokenizer",
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
        model_max_length=context,
    )


def write_siglip(folder: pathlib.Path, vocabulary: int, context: int) -> None:
    """Writes SigLIP's unigram model; sentences end and are padded with id 1."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *string.ascii_lowercase]
    pieces += [f"▁{c}" for c in string.ascii_lowercase]
    pieces = pieces[:vocabulary]
    pieces += [f"<unused{i}>" for i in range(len(pieces), vocabulary)]
    scored = [(piece, -float(i)) for i, piece in enumerate(pieces)]
    tokenizer = tokenizers.Tokenizer(models.Unigram(scored, unk_id=2))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["</s>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    _write_config(
        folder,
        tokenizer_class="SiglipTokenizer",
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
        model_max_length=context,
    )


def _write_config(folder: pathlib.Path, **config: object) -> None:
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / "tokenizer_config.json").write_text(f"{text}\n")


def clip_sentences(
    name: int, vocabulary: int, context: int, added: int = 0, pad: int | None = None
) -> np.ndarray:
    """Returns ids `[3, context]`: start, words, end, and padding behind it.

    Words hold id 2, which configs of old took for the end token, and the `added` ids,
    which lie behind the end token's. Padding is 0, OpenAI's, or the end token, HF's.

    Args:
        name: the seed.
        vocabulary: number of ids.
        context: length of each row.
        added: ids behind the end token.
        pad: id of padding, or None for the end token.
    """
    rng = np.random.default_rng(name)
    end = vocabulary - 1 - added
    tokens = np.full((3, context), end if pad is None else pad, np.int32)
    for row, words in enumerate((3, context // 2, context - 2)):
        tokens[row, 0], tokens[row, 1 + words] = end - 1, end
        tokens[row, 1 : 1 + words] = rng.integers(3, end - 1, words)
        tokens[row, 2] = 2
        if added:
            tokens[row, 1] = vocabulary - 1 - row % added
    return tokens


def siglip_sentences(name: int, vocabulary: int, context: int) -> np.ndarray:
    """Returns ids `[3, context]`: words, then id 1 to the end; the last row is full."""
    rng = np.random.default_rng(name)
    tokens = np.ones((3, context), np.int32)
    for row, words in enumerate((3, context // 2, context)):
        tokens[row, :words] = rng.integers(3, vocabulary, words)
    return tokens
