"""Sentence encoders of the BERT architecture, in the folders of sentence-transformers.

They read text alone. Their embedding is the mean of all tokens of a sentence.

References:
    Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding, 2019; Reimers and Gurevych, Sentence-BERT: Sentence Embeddings using
    Siamese BERT-Networks, 2019.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable

import numpy as np

from mmcl_jax.errors import reading
from mmcl_jax.files import read_json
from mmcl_jax.modalities.base import TokenizerSpec
from mmcl_jax.modalities.tokenization import find_tokenizer, load_tokenizer
from mmcl_jax.models.pretrained import inputs, sections
from mmcl_jax.models.pretrained.family import CONFIG, EXPECTED, Checkpoint, Family
from mmcl_jax.models.pretrained.mapped import MappedTensors
from mmcl_jax.models.pretrained.sections import Section
from mmcl_jax.models.pretrained.weight_layout import (
    BlockNames,
    Layout,
    Rule,
    Tensors,
    blocks,
    norm,
)
from mmcl_jax.models.specs import EncoderSpec, TextSpec

POOLING = "1_Pooling/config.json"
UNUSED = ("embeddings.position_ids", "pooler.*")

_MEAN = "pooling_mode_mean_tokens"
# Defaults of transformers for fields that a file leaves out.
_DEFAULTS = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
    "is_decoder": False,
}
_BLOCK = BlockNames(
    norm1="attention.output.LayerNorm.",
    norm2="output.LayerNorm.",
    qkv=("attention.self.query.", "attention.self.key.", "attention.self.value."),
    out="attention.output.dense.",
    mlp_in="intermediate.dense.",
    mlp_out="output.dense.",
)
_AT = "embeddings."
_POSITIONS, _TYPES = (f"{_AT}{n}_embeddings.weight" for n in ("position", "token_type"))
# Every sentence is padded to this length. The encoders were trained on sentences of 128
# tokens, though they have positions for more.
_LONGEST = 128
_SCALE = 20.0  # of cosines in their training, which no file holds


def text_spec(config: Section, end_token: int) -> TextSpec:
    """Returns the text tower from the `config.json` of a `BertModel`.

    Raises:
        ValueError: A field is of another type or out of range, or asks for what is not
            supported; the message names it.
    """
    config = _DEFAULTS | config
    for name in ("position_embedding_type", "is_decoder"):
        if config[name] != _DEFAULTS[name]:
            raise ValueError(
                f"field {name!r}: {config[name]!r}; expected {_DEFAULTS[name]!r}"
            )
    return TextSpec(
        dataclasses.replace(sections.trunk(config), post_norm=True),
        sections.integer(config, "vocab_size"),
        min(_LONGEST, sections.integer(config, "max_position_embeddings")),
        end_token,
        causal=False,
        pool="mean",
    )


def layout(ours: str) -> Layout:
    """Returns the layout of a text tower, of the tensors that `takes` reads."""
    return {
        f"{ours}/tokens": Rule((f"{_AT}word_embeddings.weight",)),
        f"{ours}/positions": Rule((_POSITIONS,)),
        f"{ours}/projection": Rule(("projection",)),
        "log_scale": Rule(("log_scale",)),
        **norm(f"{ours}/first_norm", f"{_AT}LayerNorm."),
        **blocks(ours, "encoder.layer.{}.", _BLOCK),
    }


def takes(
    tensors: Tensors, spec: TextSpec, embedding: int
) -> dict[str, Callable[[], np.ndarray]]:
    """Returns functions that read a file's tensors, and those that `layout` adds.

    A sentence has one type of tokens, whose embedding is added to the positions.

    Args:
        tensors: Tensors of the file.
        spec: Shape of the tower.
        embedding: Width of the joint space; where that is wider than the tower, zeros
            follow a sentence's embedding.
    """

    def positions() -> np.ndarray:
        return tensors[_POSITIONS][: spec.context_length] + tensors[_TYPES][0]

    found: dict[str, Callable[[], np.ndarray]] = {
        name: functools.partial(tensors.__getitem__, name) for name in tensors
    }
    if found.pop(_TYPES, None):
        found[_POSITIONS] = positions
    found["projection"] = lambda: np.eye(spec.trunk.width, embedding, dtype=np.float32)
    found["log_scale"] = lambda: np.array(math.log(_SCALE), np.float32)
    return found


def read_text(folder: pathlib.Path) -> tuple[TextSpec, TokenizerSpec]:
    """Reads shape and tokenizer of the tower in a folder.

    Raises:
        DataError: A file is missing or asks for what is not supported.
    """
    tokenizer = TokenizerSpec(find_tokenizer(folder), "[CLS]", "[SEP]", "[PAD]")
    pooling = read_json(folder / POOLING, "how the tokens of a sentence are pooled")
    with reading(str(folder / POOLING), EXPECTED):
        modes = {name for name, value in pooling.items() if value is True}
        if {name for name in modes if name.startswith("pooling_mode_")} != {_MEAN}:
            raise ValueError(f"pooling {sorted(modes)}; expected {_MEAN} alone")
    config = read_json(folder / CONFIG, EXPECTED)
    with reading(str(folder / CONFIG), EXPECTED):
        return text_spec(config, load_tokenizer(tokenizer).end), tokenizer


def files(folder: pathlib.Path, tokenizer: TokenizerSpec) -> tuple[pathlib.Path, ...]:
    """Returns the files that `read_text` reads."""
    return folder / CONFIG, folder / POOLING, pathlib.Path(tokenizer.path)


def _recognizes(weights: pathlib.Path, tensors: Tensors) -> bool:
    del tensors
    path = weights.parent / CONFIG
    return path.is_file() and read_json(path, EXPECTED).get("model_type") == "bert"


def _open(weights: pathlib.Path, tensors: Tensors) -> Checkpoint:
    text, tokenizer = read_text(weights.parent)
    width = text.trunk.width
    return Checkpoint(
        "sentence_bert",
        EncoderSpec((("text", text),), (("text", "text"),), width),
        inputs.drawn(1, text, tokenizer, inputs.CLIP),  # no picture is read
        layout("text"),
        MappedTensors(weights, takes(tensors, text, width)),
        weights,
        UNUSED,
        (*files(weights.parent, tokenizer), weights),
    )


FAMILY = Family(_recognizes, _open)
