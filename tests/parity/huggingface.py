"""CLIP and SigLIP of `transformers`, and SigLIP as big_vision stores it."""

import json
import logging
import pathlib
from typing import Any, NamedTuple

import numpy as np
import transformers

from tests.parity import observing, tokenizers_of
from tests.parity.cases import Expected

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
_ADDED = 4  # words behind the end token


class Tower(NamedTuple):
    """Shape of a trunk."""

    width: int
    layers: int
    heads: int
    mlp: int


class Sizes(NamedTuple):
    """Shape of a dual encoder."""

    vision: Tower
    image: int
    patch: int
    text: Tower
    vocabulary: int
    context: int
    embedding: int


_TEXT_TINY = Tower(8, 2, 2, 12)
SIZES = {
    "tiny": Sizes(Tower(16, 2, 2, 20), 8, 4, _TEXT_TINY, 64, 12, 10),
    "b16": Sizes(
        Tower(768, 12, 12, 3072), 224, 16, Tower(512, 12, 8, 2048), 49408, 77, 512
    ),
    "l14": Sizes(
        Tower(1024, 24, 16, 4096), 224, 14, Tower(768, 12, 12, 3072), 49408, 77, 768
    ),
}
SIGLIP_SIZES = {
    "tiny": Sizes(Tower(16, 2, 2, 20), 8, 4, _TEXT_TINY, 64, 12, 16),
    "b16": Sizes(
        Tower(768, 12, 12, 3072), 224, 16, Tower(768, 12, 12, 3072), 32000, 64, 768
    ),
    "l16": Sizes(
        Tower(1024, 24, 16, 4096), 256, 16, Tower(1024, 24, 16, 4096), 32000, 64, 1024
    ),
}
transformers.utils.logging.disable_progress_bar()
logging.getLogger("transformers").setLevel(logging.ERROR)


def vision_config(sizes: Sizes, **changes: object) -> dict[str, Any]:
    """Returns the arguments of a vision config."""
    width, layers, heads, mlp = sizes.vision
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": mlp,
        "image_size": sizes.image,
        "patch_size": sizes.patch,
        **changes,
    }


def text_config(sizes: Sizes, **changes: object) -> dict[str, Any]:
    """Returns the arguments of a text config."""
    width, layers, heads, mlp = sizes.text
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": mlp,
        "vocab_size": sizes.vocabulary,
        "max_position_embeddings": sizes.context,
        **changes,
    }


def write_preprocessor(folder: pathlib.Path, image: int, **changes: object) -> None:
    """Writes `preprocessor_config.json` as OpenAI's repositories have it."""
    config = {
        "crop_size": image,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "resample": 3,
        "size": image,
    }
    text = json.dumps({**config, **changes}, indent=2)
    (folder / "preprocessor_config.json").write_text(f"{text}\n")


def _newer_preprocessor(folder: pathlib.Path, size: int) -> None:
    write_preprocessor(
        folder,
        size,
        crop_size={"height": size, "width": size},
        size={"shortest_edge": size},
        do_convert_rgb=True,
        do_rescale=True,
        rescale_factor=1 / 255,
        feature_extractor_type="CLIPFeatureExtractor",
        image_processor_type="CLIPImageProcessor",
    )


def clip(name: str, folder: pathlib.Path, size: str) -> dict[str, Expected]:
    """CLIP in one of the forms in which `save_pretrained` leaves it.

    "openai": one file, quick GELU, and the end token that configs of that time named.
    "sharded": several files and their index, GELU, and added words. The others hold
    one tower: alone, when their tensors have no prefix, or with its projection.
    """
    sizes, form = SIZES[size], name.partition("/")[2]
    activation = "quick_gelu" if form in ("openai", "vision", "text") else "gelu"
    if form == "openai":
        tokens = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
        added, pad = 0, 0
    else:
        end = sizes.vocabulary - 1 - _ADDED
        tokens = dict(bos_token_id=end - 1, eos_token_id=end, pad_token_id=1)
        added, pad = _ADDED, None
    vision = vision_config(sizes, hidden_act=activation)
    text = text_config(sizes, hidden_act=activation, **tokens)
    if form in ("openai", "sharded"):
        config = transformers.CLIPConfig(
            text_config=text, vision_config=vision, projection_dim=sizes.embedding
        )
        model = transformers.CLIPModel(config)
    else:
        kind, _, projection = form.partition("_")
        suffix = "ModelWithProjection" if projection else "Model"
        stem = f"CLIP{kind.title()}"
        arguments = vision if kind == "vision" else text
        config = getattr(transformers, f"{stem}Config")(
            **arguments, projection_dim=sizes.embedding
        )
        model = getattr(transformers, stem + suffix)(config)
    observing.randomize(model, name)
    options = {"max_shard_size": "12KB"} if form == "sharded" and size == "tiny" else {}
    model.save_pretrained(folder, **options)
    tokenizers_of.write_clip(folder, sizes.vocabulary, sizes.context, added)
    (_newer_preprocessor if added else write_preprocessor)(folder, sizes.image)
    model.double()
    expected = {}
    if not form.startswith("text"):
        expected["image"] = _image(name, model, sizes, prompts_at=1)
    if not form.startswith("vision"):
        sentences = tokenizers_of.clip_sentences(
            observing.seed(name), sizes.vocabulary, sizes.context, added, pad
        )
        expected["text"] = observing.observe_text(
            name, model, text_embed(model), sentences
        )
    return expected


def siglip(name: str, folder: pathlib.Path, size: str) -> dict[str, Expected]:
    """SigLIP as `save_pretrained` leaves it, or the same as big_vision's npz."""
    sizes, form = SIGLIP_SIZES[size], name.partition("/")[2]
    config = transformers.SiglipConfig(
        text_config=text_config(sizes, projection_size=sizes.embedding),
        vision_config=vision_config(sizes),
    )
    # of one seed: the three layouts hold the same weights
    model = observing.randomize(transformers.SiglipModel(config), "siglip")
    folder.mkdir(parents=True, exist_ok=True)
    if form == "huggingface":
        model.save_pretrained(folder)
        write_preprocessor(
            folder,
            sizes.image,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
            size={"height": sizes.image, "width": sizes.image},
            image_processor_type="SiglipImageProcessor",
        )
    else:
        tensors = {k: v.numpy() for k, v in model.state_dict().items()}
        tree = big_vision(tensors, sizes, scan=form.endswith("scan"))
        np.savez(folder / f"webli_en_b16_{sizes.image}.npz", **tree)
    tokenizers_of.write_siglip(folder, sizes.vocabulary, sizes.context)
    sentences = tokenizers_of.siglip_sentences(
        observing.seed(name), sizes.vocabulary, sizes.context
    )
    model.double()
    return {
        "image": _image(name, model, sizes, prompts_at=0),
        "text": observing.observe_text(name, model, text_embed(model), sentences, at=0),
    }


def _image(name: str, model: Any, sizes: Sizes, prompts_at: int) -> Expected:
    pixels = observing.draw_pixels(name, 2, 1, sizes.image, sizes.image, 3)
    blocks = getattr(model, "vision_model", model).encoder.layers
    return observing.observe_pixels(
        name,
        image_embed(model),
        pixels,
        observing.channels_first(pixels)[:, 0],
        sizes.vision.width,
        sizes.vision.layers,
        lambda prompts: observing.prompted(blocks, prompts, prompts_at),
    )


def image_embed(model: Any) -> observing.Embed:
    """Returns the map from pictures to embeddings, whatever the model holds."""
    if hasattr(model, "get_image_features"):
        return lambda x: model.get_image_features(pixel_values=x).pooler_output
    if hasattr(model, "visual_projection"):
        return lambda x: model(pixel_values=x).image_embeds
    return lambda x: model(pixel_values=x).pooler_output


def text_embed(model: Any) -> observing.Embed:
    """Returns the map from ids to embeddings, whatever the model holds."""
    if hasattr(model, "get_text_features"):
        return lambda x: model.get_text_features(input_ids=x).pooler_output
    if hasattr(model, "text_projection"):
        return lambda x: model(input_ids=x).text_embeds
    return lambda x: model(input_ids=x).pooler_output


# SigLIP by the names of big_vision

_BLOCK = {
    "LayerNorm_0": "layer_norm1",
    "LayerNorm_1": "layer_norm2",
    "MlpBlock_0/Dense_0": "mlp.fc1",
    "MlpBlock_0/Dense_1": "mlp.fc2",
}
_HEAD = {
    "LayerNorm_0": "layernorm",
    "MlpBlock_0/Dense_0": "mlp.fc1",
    "MlpBlock_0/Dense_1": "mlp.fc2",
}
_QKV = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
_ATTENTION = "MultiHeadDotProductAttention_0"
_FLAT = dict[str, np.ndarray]


def big_vision(tensors: _FLAT, sizes: Sizes, scan: bool) -> _FLAT:
    """Returns SigLIP's weights by big_vision's names and in its shapes.

    Args:
        tensors: of `transformers.SiglipModel`.
        sizes: of the model.
        scan: whether all blocks are stacked, as they are where they were scanned.
    """
    vision = "vision_model.embeddings."
    text = "text_model.embeddings."
    tree = {
        "img/embedding/kernel": tensors[vision + "patch_embedding.weight"].transpose(
            2, 3, 1, 0
        ),
        "img/embedding/bias": tensors[vision + "patch_embedding.bias"],
        "img/pos_embedding": tensors[vision + "position_embedding.weight"][None],
        "txt/Embed_0/embedding": tensors[text + "token_embedding.weight"],
        "txt/pos_embedding": tensors[text + "position_embedding.weight"][None],
        "t": tensors["logit_scale"],
        "b": tensors["logit_bias"],
        "img/MAPHead_0/probe": tensors["vision_model.head.probe"],
        **_part(tensors, "img/Transformer/encoder_norm", "vision_model.post_layernorm"),
        **_part(tensors, "txt/Encoder_0/encoder_norm", "text_model.final_layer_norm"),
        **_part(tensors, "txt/head", "text_model.head"),
        **_map_head(tensors, sizes.vision.heads),
    }
    for at, prefix, tower in (
        ("img/Transformer", "vision_model", sizes.vision),
        ("txt/Encoder_0", "text_model", sizes.text),
    ):
        blocks = [
            _block(tensors, f"{prefix}.encoder.layers.{i}.", tower.heads)
            for i in range(tower.layers)
        ]
        if scan:
            for key in blocks[0]:
                stacked = np.stack([block[key] for block in blocks])
                tree[f"{at}/encoderblock/{key}"] = stacked
        else:
            for i, block in enumerate(blocks):
                tree |= {f"{at}/encoderblock_{i}/{k}": v for k, v in block.items()}
    return {f"params/{k}": np.ascontiguousarray(v) for k, v in tree.items()}


def _part(tensors: _FLAT, ours: str, theirs: str) -> _FLAT:
    weight, bias = tensors[f"{theirs}.weight"], tensors[f"{theirs}.bias"]
    if weight.ndim == 1:
        return {f"{ours}/scale": weight, f"{ours}/bias": bias}
    return {f"{ours}/kernel": weight.T, f"{ours}/bias": bias}


def _attention(weights: _FLAT, biases: _FLAT, heads: int) -> _FLAT:
    """Returns kernels `[width, heads, k]`, and `[heads, k, width]` of the output."""
    parts = {}
    for name, weight in weights.items():
        width, bias = len(weight), biases[name]
        if name == "out":
            kernel = weight.T.reshape(heads, width // heads, width)
        else:
            kernel = weight.T.reshape(width, heads, width // heads)
            bias = bias.reshape(heads, width // heads)
        parts[f"{_ATTENTION}/{name}/kernel"] = kernel
        parts[f"{_ATTENTION}/{name}/bias"] = bias
    return parts


def _block(tensors: _FLAT, at: str, heads: int) -> _FLAT:
    block = {}
    for ours, theirs in _BLOCK.items():
        block |= _part(tensors, ours, at + theirs)
    names = {**_QKV, "out": "out_proj"}
    weights = {k: tensors[f"{at}self_attn.{v}.weight"] for k, v in names.items()}
    biases = {k: tensors[f"{at}self_attn.{v}.bias"] for k, v in names.items()}
    return block | _attention(weights, biases, heads)


def _map_head(tensors: _FLAT, heads: int) -> _FLAT:
    at = "vision_model.head."
    head = {}
    for ours, theirs in _HEAD.items():
        head |= _part(tensors, ours, at + theirs)
    weights, biases = (
        dict(zip(_QKV, np.split(tensors[f"{at}attention.in_proj_{k}"], 3), strict=True))
        for k in ("weight", "bias")
    )
    weights["out"] = tensors[f"{at}attention.out_proj.weight"]
    biases["out"] = tensors[f"{at}attention.out_proj.bias"]
    head |= _attention(weights, biases, heads)
    return {f"img/MAPHead_0/{key}": value for key, value in head.items()}
