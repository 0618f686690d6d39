"""Sentence encoders over `transformers.BertModel`, as sentence-transformers saves them.

Its library is not needed: its code is a mean over tokens by the attention mask.
"""

import json
import pathlib
import string

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import models, normalizers, pre_tokenizers

from tests.parity import observing
from tests.parity.cases import Expected
from tests.parity.huggingface import Tower

# trunk, ids and positions
SIZES = {
    "tiny": (Tower(16, 2, 2, 20), 64, 24),
    "minilm_l6": (Tower(384, 6, 12, 1536), 30522, 512),
}
PAD, UNKNOWN, START, END = range(4)
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_CONTEXT = 16


def write(name: str, folder: pathlib.Path, size: str) -> dict[str, Expected]:
    """Writes a model with random weights, and returns what it says of sentences."""
    trunk, vocabulary, positions = SIZES[size]
    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=trunk.width,
        num_hidden_layers=trunk.layers,
        num_attention_heads=trunk.heads,
        intermediate_size=trunk.mlp,
        max_position_embeddings=positions,
    )
    model = observing.randomize(transformers.BertModel(config), name)
    model.save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    pooling = {
        "word_embedding_dimension": trunk.width,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2))
    _write_tokenizer(folder, vocabulary)
    model.double()

    def embed(ids: torch.Tensor) -> torch.Tensor:
        mask = (ids != PAD).double()
        tokens = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    sentences = _sentences(observing.seed(name), vocabulary)
    return {"text": observing.observe_text(name, model, embed, sentences)}


def _write_tokenizer(folder: pathlib.Path, vocabulary: int) -> None:
    words = [*_SPECIAL, *string.ascii_lowercase]
    words += [f"##{letter}" for letter in string.ascii_lowercase]
    words += [f"[unused{i}]" for i in range(len(words), vocabulary)]
    table = {word: i for i, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(table, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(_SPECIAL))
    # as published files have it: a reader must turn both off
    tokenizer.enable_truncation(_CONTEXT)
    tokenizer.enable_padding(length=_CONTEXT, pad_token="[PAD]")
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def _sentences(seed: int, vocabulary: int) -> np.ndarray:
    """Returns ids `[3, 16]`: start, words, end, padding; the last row has none."""
    rng = np.random.default_rng(seed)
    tokens = np.full((3, _CONTEXT), PAD, np.int32)
    for row, words in enumerate((3, 7, _CONTEXT - 2)):
        tokens[row, 0], tokens[row, words + 1] = START, END
        tokens[row, 1 : words + 1] = rng.integers(END + 1, vocabulary, words)
    return tokens
