"""The byte-level tokenizer of the built-in encoder."""

import pathlib
from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

# The end token has id 1: readers of CLIP configs treat id 2 as a known old mistake.
SPECIAL_TOKENS = ("<pad>", "<end>", "<start>")
_WORDS = pathlib.Path(__file__).parent / "words.txt"


def common_words() -> list[str]:
    """Returns common English words, so that ordinary text is not split into bytes."""
    return _WORDS.read_text().split()


def train(sentences: Iterable[str], vocabulary: int) -> tokenizers.Tokenizer:
    """Returns a byte-pair tokenizer fitted to `sentences` and the common words.

    It works on bytes, so every string has ids; text is lower-cased and enclosed in
    `<start> ... <end>`.

    References:
        Sennrich et al., Neural Machine Translation of Rare Words with Subword Units,
        2016.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*sentences, *common_words()], trainer)
    start, end = tokenizer.token_to_id("<start>"), tokenizer.token_to_id("<end>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[("<start>", start), ("<end>", end)],
    )
    return tokenizer
