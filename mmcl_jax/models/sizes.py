"""Shapes of published encoders, and tiny ones of the same families.

References:
    Radford et al., CLIP, 2021; Cherti et al., OpenCLIP, 2023; Zhai et al., SigLIP,
    2023; Zhu et al., LanguageBind, 2024; Girdhar et al., ImageBind, 2023.
"""

import dataclasses

from mmcl_jax.models.specs import (
    EncoderSpec,
    TextSpec,
    TowerSpec,
    VisualSpec,
    clip,
    siglip,
)

_WORDS = {"vocabulary": 49408, "context_length": 77, "end_token": 49407}


def _trunk(
    width: int,
    layers: int,
    heads: int,
    activation: str = "quick_gelu",
    epsilon: float = 1e-5,
    mlp_width: int | None = None,
) -> TowerSpec:
    inner = mlp_width or 4 * width
    return TowerSpec(width, layers, heads, inner, activation, epsilon)


def _sentences(trunk: TowerSpec) -> TextSpec:
    words = TextSpec(trunk, _WORDS["vocabulary"], _WORDS["context_length"], 0)
    end = _WORDS["end_token"]
    return dataclasses.replace(words, end_token=end, pool="argmax")


def _clip(
    visual: TowerSpec, text: TowerSpec, embedding: int, patch: int, size: int = 224
) -> EncoderSpec:
    return clip(visual, text, embedding, size, patch, **_WORDS)


def _siglip(
    visual: TowerSpec, text: TowerSpec, size: int, patch: int, context: int
) -> EncoderSpec:
    return siglip(visual, text, (size, size), patch, 32000, context)


def _of_siglip(
    width: int, layers: int, heads: int, mlp_width: int | None = None
) -> TowerSpec:
    return _trunk(width, layers, heads, "gelu_tanh", 1e-6, mlp_width)


def _languagebind(
    trunk: TowerSpec,
    text: TowerSpec,
    embedding: int,
    patch: int,
    size: int,
    sound: tuple[int, int],
    frames: int,
) -> EncoderSpec:
    def tower(trunk: TowerSpec, sides: tuple[int, int]) -> VisualSpec:
        return VisualSpec(trunk, sides, patch, patch)

    towers = (
        ("image", tower(trunk, (size, size))),
        ("video", tower(dataclasses.replace(trunk, frames=frames), (size, size))),
        ("audio", tower(trunk, sound)),
        ("depth", tower(trunk, (size, size))),
        ("text", _sentences(text)),
    )
    return EncoderSpec(towers, tuple((name, name) for name, _ in towers), embedding)


def _imagebind(
    trunks: dict[str, TowerSpec],
    embedding: int,
    size: int,
    patch: dict[str, int],
    sound: tuple[int, int],
    stride: int,
) -> EncoderSpec:
    def keyed(name: str) -> TowerSpec:
        return dataclasses.replace(trunks[name], learned_key=True)

    stem = {"patch_norm": True, "pre_norm": False, "channels": 1, "unit_frames": True}
    vision, audio, depth = (patch[name] for name in ("vision", "audio", "depth"))
    towers = (
        (
            "vision",
            VisualSpec(
                trunks["vision"], (size, size), vision, vision, tube=2, unit_frames=True
            ),
        ),
        ("audio", VisualSpec(keyed("audio"), sound, audio, stride, **stem)),
        ("depth", VisualSpec(keyed("depth"), (size, size), depth, depth, **stem)),
        ("text", _sentences(trunks["text"])),
    )
    readers = {"image": "vision", "video": "vision"}
    readers |= {name: name for name in ("audio", "depth", "text")}
    return EncoderSpec(towers, tuple(readers.items()), embedding)


def _of_imagebind(width: int, layers: int, heads: int) -> TowerSpec:
    return _trunk(width, layers, heads, "gelu", 1e-6)


_TINY = _trunk(32, 2, 2)
_TINY_GELU = _trunk(32, 2, 2, "gelu")

SIZES: dict[str, EncoderSpec] = {
    "b32": _clip(_trunk(768, 12, 12), _trunk(512, 12, 8), 512, 32),
    "b16": _clip(_trunk(768, 12, 12), _trunk(512, 12, 8), 512, 16),
    "l14": _clip(_trunk(1024, 24, 16), _trunk(768, 12, 12), 768, 14),
    "h14": _clip(_trunk(1280, 32, 16, "gelu"), _trunk(1024, 24, 16, "gelu"), 1024, 14),
    "siglip_b16": _siglip(
        _of_siglip(768, 12, 12), _of_siglip(768, 12, 12), 224, 16, 64
    ),
    "siglip_so400m": _siglip(
        _of_siglip(1152, 27, 16, 4304), _of_siglip(1152, 27, 16, 4304), 384, 14, 64
    ),
    "languagebind": _languagebind(
        _trunk(1024, 24, 16, "gelu"),
        _trunk(768, 12, 12, "gelu"),
        768,
        14,
        224,
        (112, 1036),
        8,
    ),
    "imagebind": _imagebind(
        {
            "vision": _of_imagebind(1280, 32, 16),
            "text": _of_imagebind(1024, 24, 16),
            "audio": _of_imagebind(768, 12, 12),
            "depth": _of_imagebind(384, 12, 8),
        },
        1024,
        224,
        {"vision": 14, "audio": 16, "depth": 16},
        (128, 204),
        10,
    ),
    "clip_tiny": _clip(_TINY, _TINY, 32, 16, 32),
    "siglip_tiny": _siglip(_of_siglip(32, 2, 2), _of_siglip(32, 2, 2), 32, 16, 32),
    "languagebind_tiny": _languagebind(_TINY_GELU, _TINY_GELU, 32, 14, 28, (28, 56), 4),
    "imagebind_tiny": _imagebind(
        dict.fromkeys(("vision", "text", "audio", "depth"), _of_imagebind(32, 2, 2)),
        32,
        28,
        {"vision": 14, "audio": 16, "depth": 14},
        (32, 64),
        10,
    ),
}
