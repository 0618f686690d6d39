"""CLIP, and SigLIP over a trunk of timm, as `open_clip` builds and publishes them."""

import contextlib
import json
import pathlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import safetensors.torch
import torch

from tests.parity import huggingface, observing, tokenizers_of
from tests.parity.cases import Expected


class _AnyName(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Empty(types.ModuleType):
    """A module in which every name is a class without use."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyName(name, (), {})


@contextlib.contextmanager
def _torchvision() -> Iterator[None]:
    """Stands in for torchvision, whose names open_clip and timm import but for data.

    It goes away again, since `transformers` asks whether torchvision is installed.
    """
    try:
        import torchvision  # noqa: F401 # pyright: ignore[reportMissingImports]

        yield
        return
    except ImportError:
        pass
    leaves = ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc")
    names = [f"torchvision{x}" for x in (*leaves, ".datasets", ".models")]
    names.append("torchvision.models.feature_extraction")
    for name in names:
        sys.modules[name] = _Empty(name)
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], leaf, sys.modules[name])
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


with _torchvision():
    import open_clip
    import timm.models.vision_transformer
    from open_clip.model import CLIP, CustomTextCLIP

# of a trunk of timm the config says the name alone: the base's 12 heads
SIGLIP_TINY = huggingface.Sizes(
    huggingface.Tower(24, 2, 12, 28),
    8,
    4,
    huggingface.Tower(8, 2, 2, 12),
    64,
    12,
    24,
)
_PUBLISHED = "vit_base_patch16_siglip_224"


def clip(name: str, folder: pathlib.Path, size: str) -> dict[str, Expected]:
    """CLIP in one of three layouts.

    "quick_gelu": safetensors. "gelu": a pickle, and a mask among its tensors, as old
    ones have. "custom_text": safetensors with the text tower's tensors under `text.`.
    """
    sizes, form = huggingface.SIZES[size], name.partition("/")[2]
    config: dict[str, Any] = {
        "embed_dim": sizes.embedding,
        "vision_cfg": _vision(sizes),
        "text_cfg": _text(sizes),
    }
    if form == "quick_gelu":
        config["quick_gelu"] = True
    if form == "custom_text":
        config["custom_text"] = True
    build = CustomTextCLIP if form == "custom_text" else CLIP
    arguments = {k: v for k, v in config.items() if k != "custom_text"}
    model = observing.randomize(build(**arguments), name)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = model.state_dict()
    if form == "gelu":
        tensors["attn_mask"] = model.attn_mask
        torch.save(tensors, folder / "open_clip_pytorch_model.bin")
    else:
        safetensors.torch.save_file(tensors, folder / "open_clip_model.safetensors")
    _write_config(folder, config, huggingface.CLIP_MEAN, huggingface.CLIP_STD)
    tokenizers_of.write_clip(folder, sizes.vocabulary, sizes.context)
    sentences = tokenizers_of.clip_sentences(
        observing.seed(name), sizes.vocabulary, sizes.context, pad=0
    )
    model.double()
    blocks = model.visual.transformer.resblocks
    return {
        "image": _image(name, model, blocks, sizes, prompts_at=1),
        "text": observing.observe_text(name, model, model.encode_text, sentences),
    }


def siglip(name: str, folder: pathlib.Path, size: str) -> dict[str, Expected]:
    """SigLIP, its image tower a trunk of timm, both towers with the exact GELU."""
    sizes = SIGLIP_TINY if size == "tiny" else huggingface.SIGLIP_SIZES[size]
    vision = {
        "image_size": sizes.image,
        "timm_model_name": _PUBLISHED,
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    }
    text = _text(sizes) | {
        "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
    }
    config = {
        "embed_dim": sizes.embedding,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": vision,
        "text_cfg": text,
    }
    arguments = {k: v for k, v in config.items() if k != "custom_text"}
    with _trunks_of(sizes):
        model = CustomTextCLIP(**arguments)
    observing.randomize(model, name)
    folder.mkdir(parents=True, exist_ok=True)
    # no published trunk is tiny: its name says the patches and pictures it is for
    kind = "large" if size == "l16" else "base"
    vision["timm_model_name"] = f"vit_{kind}_patch{sizes.patch}_siglip_{sizes.image}"
    tensors = model.state_dict()
    safetensors.torch.save_file(tensors, folder / "open_clip_model.safetensors")
    squashed = {"interpolation": "bicubic", "resize_mode": "squash"}
    _write_config(folder, config, [0.5] * 3, [0.5] * 3, **squashed)
    tokenizers_of.write_siglip(folder, sizes.vocabulary, sizes.context)
    sentences = tokenizers_of.siglip_sentences(
        observing.seed(name), sizes.vocabulary, sizes.context
    )
    model.double()
    blocks = model.visual.trunk.blocks
    return {
        "image": _image(name, model, blocks, sizes, prompts_at=0),
        "text": observing.observe_text(name, model, model.encode_text, sentences, at=0),
    }


@contextlib.contextmanager
def _trunks_of(sizes: huggingface.Sizes) -> Iterator[None]:
    """Gives timm's models other sizes than their names say, as tiny ones need."""
    width, layers, heads, mlp = sizes.vision
    create = timm.create_model

    def resized(name: str, **options: Any) -> torch.nn.Module:
        return create(
            name,
            img_size=sizes.image,
            patch_size=sizes.patch,
            embed_dim=width,
            depth=layers,
            num_heads=heads,
            mlp_ratio=mlp / width,
            **options,
        )

    timm.create_model = resized
    try:
        yield
    finally:
        timm.create_model = create


def _vision(sizes: huggingface.Sizes) -> dict[str, Any]:
    width, layers, heads, mlp = sizes.vision
    config = {
        "image_size": sizes.image,
        "layers": layers,
        "width": width,
        "patch_size": sizes.patch,
    }
    # left out of published configs, where they are 64 and 4
    if width // heads != 64:
        config["head_width"] = width // heads
    return config | _ratio(width, mlp)


def _text(sizes: huggingface.Sizes) -> dict[str, Any]:
    width, layers, heads, mlp = sizes.text
    config = {
        "context_length": sizes.context,
        "vocab_size": sizes.vocabulary,
        "width": width,
        "heads": heads,
        "layers": layers,
    }
    return config | _ratio(width, mlp)


def _ratio(width: int, mlp: int) -> dict[str, float]:
    return {} if mlp == 4 * width else {"mlp_ratio": mlp / width}


def _write_config(
    folder: pathlib.Path, config: dict, mean: list, std: list, **other: str
) -> None:
    whole = {
        "model_cfg": config,
        "preprocess_cfg": {"mean": mean, "std": std, **other},
    }
    text = json.dumps(whole, indent=2)
    (folder / "open_clip_config.json").write_text(f"{text}\n")


def _image(
    name: str, model: Any, blocks: Any, sizes: huggingface.Sizes, prompts_at: int
) -> Expected:
    pixels: np.ndarray = observing.draw_pixels(name, 2, 1, sizes.image, sizes.image, 3)
    return observing.observe_pixels(
        name,
        model.encode_image,
        pixels,
        observing.channels_first(pixels)[:, 0],
        sizes.vision.width,
        sizes.vision.layers,
        lambda prompts: observing.prompted(blocks, prompts, prompts_at),
    )


VERSIONS = {"open_clip_torch": open_clip.__version__, "timm": timm.__version__}
