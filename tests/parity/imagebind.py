"""ImageBind, written again from what its published code does.

Its own code needs packages that do not install beside today's. It is short: a stem, a
trunk, a head and a scale for each modality. Repository facebookresearch/ImageBind,
commit 53680b0, `imagebind/models/*.py`; its weights are under CC-BY-NC-SA 4.0.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from tests.parity import observing, tokenizers_of
from tests.parity.cases import Expected


class Tower(NamedTuple):
    """Shape of a trunk; its MLP is four times as wide."""

    width: int
    layers: int
    heads: int


class Sizes(NamedTuple):
    """Shapes of all towers.

    Attributes:
        towers: by their names in the file.
        image: side of a picture.
        patch: side of its patches.
        depth_patch: side of a depth map's patches.
        kernel: side of a spectrogram's patches.
        stride: between them, less than `kernel`: they overlap.
        spectrogram: mel bins and frames.
        motion: what a trunk of motion takes: samples in a row.
        vocabulary: number of ids.
        context: length of a sentence.
        embedding: width of the joint space.
    """

    towers: dict[str, Tower]
    image: int
    patch: int
    depth_patch: int
    kernel: int
    stride: int
    spectrogram: tuple[int, int]
    motion: int
    vocabulary: int
    context: int
    embedding: int


# not all of one width or number of heads, as in the published model
_TINY = {
    "vision": Tower(8, 2, 2),
    "text": Tower(4, 2, 2),
    "audio": Tower(6, 2, 3),
    "depth": Tower(4, 2, 2),
    "thermal": Tower(2, 1, 1),
    "imu": Tower(2, 1, 1),
}
_HUGE = {
    "vision": Tower(1280, 32, 16),
    "text": Tower(1024, 24, 16),
    "audio": Tower(768, 12, 12),
    "depth": Tower(384, 12, 8),
    "thermal": Tower(768, 12, 12),
    "imu": Tower(512, 6, 8),
}
SIZES = {
    "tiny": Sizes(_TINY, 8, 4, 4, 16, 10, (27, 47), 16, 64, 12, 10),
    "huge": Sizes(_HUGE, 224, 14, 16, 16, 10, (128, 204), 2000, 49408, 77, 1024),
}
_SCALES = {"audio": 20.0, "depth": 5.0, "thermal": 10.0, "imu": 5.0}
_CLIPS = {"video": 3, "audio": 3}  # of a video and of a sound
_EPSILON = 1e-6
_PARTS = ("preprocessors", "trunks", "heads", "postprocessors")


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, bias_kv: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(
            width, heads, add_bias_kv=bias_kv, batch_first=True
        )
        self.norm_1 = nn.LayerNorm(width, eps=_EPSILON)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )
        self.norm_2 = nn.LayerNorm(width, eps=_EPSILON)
        self.mask: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm_1(x)
        # torch takes a mask of float32 beside float64 and reads it wrongly
        mask = None if self.mask is None else self.mask.to(x.dtype)
        x = x + self.attn(h, h, h, need_weights=False, attn_mask=mask)[0]
        h = nn.functional.gelu(self.mlp["fc1"](self.norm_2(x)))
        return x + self.mlp["fc2"](h)


class _Positions(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, width))


class _Stem(nn.Module):
    """Patches `[rows, n, width]`, normalised but of pictures."""

    def __init__(self, proj: nn.Module, width: int | None) -> None:
        super().__init__()
        self.proj = proj
        if width:
            self.norm_layer = nn.LayerNorm(width)  # epsilon 1e-5, unlike the others

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj(x).flatten(2).transpose(1, 2)
        return self.norm_layer(x) if hasattr(self, "norm_layer") else x


class _Still(nn.Module):
    """Shows a still picture twice, since patches are two frames deep."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim == 4:
            x = x[:, :, None]
        return x.repeat(1, 1, 2, 1, 1) if x.shape[2] == 1 else x


class _Preprocessor(nn.Module):
    """A class token, patches and positions."""

    def __init__(self, stem: str, proj: nn.Module, tokens: int, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        normed = None if isinstance(proj, nn.Sequential) else width
        setattr(self, stem, _Stem(proj, normed))
        self.pos_embedding_helper = _Positions(1 + tokens, width)
        self.stem = stem

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = getattr(self, self.stem)(x)
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1)
        return x + self.pos_embedding_helper.pos_embed


class _Text(nn.Module):
    def __init__(self, vocabulary: int, context: int, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.empty(1, context, width))
        # stored, and not finite
        mask = torch.full((context, context), -torch.inf).triu(1)
        self.register_buffer("mask", mask)
        self.token_embedding = nn.Embedding(vocabulary, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.token_embedding(x) + self.pos_embed


class _Scale(nn.Module):
    def __init__(self, scale: float | None) -> None:
        super().__init__()
        if scale is None:
            self.log_logit_scale = nn.Parameter(torch.empty(()))
        else:
            self.register_buffer("log_logit_scale", torch.tensor(scale).log())


class ImageBind(nn.Module):
    """All six modalities, with the tensor names of `imagebind_huge.pth`."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.modality_preprocessors = nn.ModuleDict(_preprocessors(sizes))
        self.modality_trunks = nn.ModuleDict()
        self.modality_heads = nn.ModuleDict()
        self.modality_postprocessors = nn.ModuleDict()
        for name, (width, layers, heads) in sizes.towers.items():
            normed = name == "vision"
            first = nn.LayerNorm(width, eps=_EPSILON) if normed else nn.Identity()
            bias_kv = name not in ("vision", "text")
            blocks = [_Block(width, heads, bias_kv) for _ in range(layers)]
            self.modality_trunks[name] = nn.ModuleDict(
                {
                    "pre_transformer_layer": nn.Sequential(first),
                    "blocks": nn.ModuleList(blocks),
                }
            )
            norm = nn.LayerNorm(width, eps=_EPSILON)
            projection = nn.Linear(width, sizes.embedding, bias=False)
            between = {"imu": [nn.Identity(), nn.Identity()], "text": []}
            between = between.get(name, [nn.Identity()])  # selection, and dropout
            head = nn.Sequential(norm, *between, projection)
            if name == "text":
                head = nn.ModuleDict({"proj": head})
            self.modality_heads[name] = head
            if name != "vision":
                scale = _Scale(_SCALES.get(name))
                after = nn.Sequential(nn.Identity(), scale)
                self.modality_postprocessors[name] = after
        for block in self.modality_trunks["text"]["blocks"]:
            block.mask = self.modality_preprocessors["text"].mask

    def embed(self, name: str, x: torch.Tensor, clips: int | None) -> torch.Tensor:
        """Returns scaled embeddings; of clips `[b, s, ...]`, their mean."""
        if clips:
            x = x.flatten(0, 1)
        ids = x
        x = self.modality_preprocessors[name](x)
        trunk = self.modality_trunks[name]
        x = trunk["pre_transformer_layer"](x)
        for block in trunk["blocks"]:
            x = block(x)
        head = self.modality_heads[name]
        if name == "text":
            x = head["proj"](x[torch.arange(len(x)), ids.argmax(-1)])
        else:
            x = head(x)[:, 0]
        x = nn.functional.normalize(x, dim=-1)
        if name != "vision":
            scale = self.modality_postprocessors[name][1].log_logit_scale
            x = torch.clip(scale.exp(), max=100) * x
        return x.unflatten(0, (-1, clips)).mean(1) if clips else x


def _preprocessors(sizes: Sizes) -> dict[str, nn.Module]:
    width = {name: tower.width for name, tower in sizes.towers.items()}
    patches = (sizes.image // sizes.patch) ** 2
    depth_patches = (sizes.image // sizes.depth_patch) ** 2
    bins, frames = (
        (extent - sizes.kernel) // sizes.stride + 1 for extent in sizes.spectrogram
    )
    tube = (2, sizes.patch, sizes.patch)
    still = {"padding": 0, "bias": False}

    def square(channels: int, name: str, kernel: int, stride: int) -> nn.Module:
        return nn.Conv2d(channels, width[name], kernel, stride, **still)

    side = sizes.depth_patch
    return {
        "vision": _Preprocessor(
            "rgbt_stem",
            nn.Sequential(_Still(), nn.Conv3d(3, width["vision"], tube, tube, **still)),
            patches,
            width["vision"],
        ),
        "text": _Text(sizes.vocabulary, sizes.context, width["text"]),
        "audio": _Preprocessor(
            "rgbt_stem",
            square(1, "audio", sizes.kernel, sizes.stride),
            bins * frames,
            width["audio"],
        ),
        "depth": _Preprocessor(
            "depth_stem", square(1, "depth", side, side), depth_patches, width["depth"]
        ),
        "thermal": _Preprocessor(
            "rgbt_stem",
            square(1, "thermal", side, side),
            depth_patches,
            width["thermal"],
        ),
        "imu": _Preprocessor(
            "imu_stem",
            nn.Linear(48, width["imu"], bias=False),
            sizes.motion // 8,
            width["imu"],
        ),
    }


def write(name: str, folder: pathlib.Path, size: str) -> dict[str, Expected]:
    """Writes `imagebind_huge.pth` and, of a tiny one, what shapes cannot say.

    The published file comes without a config: how many heads a trunk has and what its
    pictures measure does not follow from the shapes of its tensors, and is known. A
    tiny model's are in a `config.json` beside it.
    """
    sizes = SIZES[size]
    model = observing.randomize(ImageBind(sizes), name)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "imagebind_huge.pth")
    if size != "huge":
        heads = {tower: shape.heads for tower, shape in sizes.towers.items()}
        squares = dict.fromkeys(("vision", "depth"), [sizes.image, sizes.image])
        config = {"heads": heads, "sizes": squares | {"audio": [*sizes.spectrogram]}}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizers_of.write_clip(folder, sizes.vocabulary, sizes.context)
    rows = 2 if size == "tiny" else 1  # the large one takes long
    expected = {
        modality: _pixels(f"{name}/{modality}", model, sizes, modality, rows)
        for modality in ("image", "video", "audio", "depth")
    }
    sentences = tokenizers_of.clip_sentences(
        observing.seed(name), sizes.vocabulary, sizes.context, pad=0
    )
    with _in_float64(model, "text"):
        expected["text"] = observing.observe_text(
            name, model, lambda x: model.embed("text", x, None), sentences
        )
    return expected


@contextlib.contextmanager
def _in_float64(model: ImageBind, name: str) -> Iterator[None]:
    """Runs one tower in float64; all of them at once would take 10 GB."""
    every = (getattr(model, f"modality_{kind}") for kind in _PARTS)
    parts = [modules[name] for modules in every if name in modules]
    for part in parts:
        part.double()
    try:
        yield
    finally:
        for part in parts:
            part.float()


def _pixels(
    name: str, model: ImageBind, sizes: Sizes, modality: str, rows: int
) -> Expected:
    clips = _CLIPS.get(modality)
    side, tower = sizes.image, modality
    if modality == "audio":
        shape = (clips, *sizes.spectrogram, 1)
    elif modality == "video":  # of each clip two frames, one clip behind the other
        shape, tower = (2 * clips, side, side, 3), "vision"
    elif modality == "image":
        shape, tower = (1, side, side, 3), "vision"
    else:
        shape = (1, side, side, 1)
    pixels = observing.draw_pixels(name, rows, *shape)
    prepared = observing.channels_first(pixels)
    if modality == "video":  # [b, clip, 3, 2, h, w]
        prepared = prepared.unflatten(1, (clips, 2)).transpose(2, 3)
    elif not clips:
        prepared = prepared[:, 0]
    blocks = model.modality_trunks[tower]["blocks"]
    width, layers, _ = sizes.towers[tower]
    with _in_float64(model, tower):
        return observing.observe_pixels(
            name,
            lambda x: model.embed(tower, x, clips),
            pixels,
            prepared,
            width,
            layers,
            lambda prompts: observing.prompted(blocks, prompts, 1),
        )
