"""What is compared: published layouts, and what a reference says of each of them.

Nothing here imports torch: fixtures are read where there is none.
"""

import importlib.util
import pathlib
from typing import NamedTuple

import numpy as np

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


class Case(NamedTuple):
    """A checkpoint in the layout in which models of its family are published.

    Attributes:
        name: family and variant, as in "clip/sharded".
        modalities: those whose embeddings are compared.
        repositories: of a family that publishes a folder for each modality, the folder
            of each; else empty, and the case is one folder.
        gelu: activation of its towers, by the name that a spec has for it.
        epsilon: that of its layer norms.
        pool: which token is a sentence's embedding, by the name a spec has for it.
        needs: packages that build the reference.
        stored: whether what its reference returns is kept as a fixture.
    """

    name: str
    modalities: tuple[str, ...]
    repositories: dict[str, str] = {}
    gelu: str = "gelu"
    epsilon: float = 1e-5
    pool: str = "argmax"
    needs: tuple[str, ...] = ("torch", "transformers")
    stored: bool = True

    @property
    def family(self) -> str:
        """The first part of the name."""
        return self.name.partition("/")[0]


_BOTH = ("image", "text")
_OPEN_CLIP = ("torch", "transformers", "open_clip")
_SIGLIP = {"gelu": "gelu_tanh", "epsilon": 1e-6, "pool": "last"}
_LANGUAGEBIND = {
    "image": "LanguageBind_Image",
    "video": "LanguageBind_Video_FT",
    "audio": "LanguageBind_Audio_FT",
    "depth": "LanguageBind_Depth",
}

CASES = {
    case.name: case
    for case in (
        # OpenAI's: quick GELU, and the end token is the highest id
        Case("clip/openai", _BOTH, gelu="quick_gelu"),
        # several files, and words with ids behind the end token's
        Case("clip/sharded", _BOTH, pool="end"),
        # towers alone: without a prefix, or with their projections
        Case("clip/vision", ("image",), gelu="quick_gelu", stored=False),
        Case("clip/text", ("text",), gelu="quick_gelu", pool="end", stored=False),
        Case("clip/vision_projection", ("image",), stored=False),
        Case("clip/text_projection", ("text",), pool="end", stored=False),
        Case("siglip/huggingface", _BOTH, **_SIGLIP),
        Case("siglip/big_vision", _BOTH, **_SIGLIP, stored=False),
        Case("siglip/big_vision_scan", _BOTH, **_SIGLIP),
        Case("open_clip/quick_gelu", _BOTH, gelu="quick_gelu", needs=_OPEN_CLIP),
        Case("open_clip/gelu", _BOTH, needs=_OPEN_CLIP),
        Case("open_clip/custom_text", _BOTH, needs=_OPEN_CLIP, stored=False),
        # SigLIP over a trunk of timm, which has the exact GELU
        Case("open_clip/siglip", _BOTH, {}, "gelu", 1e-6, "last", _OPEN_CLIP, False),
        Case("languagebind/tuned", (*_LANGUAGEBIND, "text"), _LANGUAGEBIND),
        Case(
            "languagebind/low_rank",
            ("video", "audio", "text"),
            {"video": "LanguageBind_Video", "audio": "LanguageBind_Audio"},
            stored=False,
        ),
        Case(
            "languagebind/video_1.5",
            ("video", "text"),
            {"video": "LanguageBind_Video_V1.5_FT"},
            stored=False,
        ),
        Case(
            "imagebind/huge",
            ("image", "video", "audio", "depth", "text"),
            epsilon=1e-6,
            needs=("torch",),
        ),
        Case("sentence_bert/mean", ("text",), epsilon=1e-12, pool="mean"),
    )
}

# in which a family's references can be built
SIZES = {
    "clip": ("tiny", "b16", "l14"),
    "siglip": ("tiny", "b16", "l16"),
    "open_clip": ("tiny", "b16", "l14"),
    "open_clip/siglip": ("tiny", "b16", "l16"),
    "languagebind": ("tiny", "l14"),
    "imagebind": ("tiny", "huge"),
    "sentence_bert": ("tiny", "minilm_l6"),
}


def sizes(case: Case) -> tuple[str, ...]:
    """Returns the sizes in which the reference of a case can be built."""
    return SIZES.get(case.name) or SIZES[case.family]


def missing(case: Case) -> str | None:
    """Returns why its reference cannot be built here, or None."""
    for package in case.needs:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    return None


class Expected(NamedTuple):
    """What a reference returns for one modality, all of it float32.

    Attributes:
        inputs: `{"pixels": [b, frames, h, w, c]}` or `{"tokens": int32 [b, n]}`.
        raw: embeddings as the reference returns them, `[b, d]`.
        unit: the same, L2-normalised.
        prompts: deep prompts, `[b, layers, p, width]`; of text the context vectors that
            replace the first words, `[b, p, width]`.
        prompted: unit embeddings with them, `[b, d]`.
        cotangent: `[b, d]`; the loss is the sum of `prompted` times it.
        gradient: of the loss with respect to `prompts`.
    """

    inputs: dict[str, np.ndarray]
    raw: np.ndarray
    unit: np.ndarray
    prompts: np.ndarray | None = None
    prompted: np.ndarray | None = None
    cotangent: np.ndarray | None = None
    gradient: np.ndarray | None = None


def save(path: pathlib.Path, expected: dict[str, Expected]) -> None:
    """Writes what a reference returns, for each modality, as one npz."""
    arrays = {}
    for modality, values in expected.items():
        for name, value in values._asdict().items():
            if name == "inputs":
                ((name, value),) = value.items()
            if value is not None:
                arrays[f"{modality}/{name}"] = value
    np.savez_compressed(path, **arrays)


def read(path: pathlib.Path) -> dict[str, Expected]:
    """Reads what `save` wrote."""
    grouped: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            modality, _, name = key.partition("/")
            grouped.setdefault(modality, {})[name] = arrays[key]
    return {
        modality: Expected(
            inputs={k: values.pop(k) for k in ("pixels", "tokens") if k in values},
            **values,
        )
        for modality, values in grouped.items()
    }


def expectations(folder: pathlib.Path) -> pathlib.Path:
    """Returns where the expectations of a case's folder are: beside it, not in it."""
    return folder.with_name(f"{folder.name}.expected.npz")
