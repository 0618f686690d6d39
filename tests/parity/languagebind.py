"""LanguageBind, written again from what its published code does.

Its own code needs `transformers` 4.30 and `peft` 0.4. The blocks are CLIP's, of
`transformers`; what is LanguageBind's own is written here: pictures that are not
square, time inside the blocks, low-rank updates that are not folded, and the tubes of
version 1.5. Repository PKU-YuanGroup/LanguageBind, commit 7070c53, the files
`languagebind/*/modeling_*.py` and `configuration_*.py`.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from tests.parity import huggingface, observing, tokenizers_of
from tests.parity.cases import CASES, Expected

# fields of `vision_config` beside CLIP's, at the values of its configuration class
DEFAULTS = {
    "add_time_attn": False,
    "num_frames": 1,
    "force_patch_dropout": 0.0,
    "lora_r": 2,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "num_mel_bins": 0.0,
    "target_length": 0.0,
    "video_decode_backend": "decord",
}
_TINY = huggingface.Sizes(
    huggingface.Tower(8, 2, 2, 12), 8, 4, huggingface.Tower(4, 1, 2, 6), 64, 12, 10
)
SIZES = {"tiny": _TINY, "l14": huggingface.SIZES["l14"]}
# frames of a clip, bins and frames of a spectrogram, and a rank
_EXTENTS = {"tiny": (3, 8, 20, 3), "l14": (8, 112, 1036, 16)}


def _fields(repository: str, size: str) -> dict[str, Any]:
    """Returns the fields of a repository's `vision_config` beside CLIP's."""
    frames, bins, length, rank = _EXTENTS[size]
    if "_FT" in repository or repository == "LanguageBind_Image":
        rank = 0
    fields = DEFAULTS | {"lora_r": rank}
    if "Video" in repository:
        fields |= {"add_time_attn": True, "num_frames": frames}
        fields |= {"force_patch_dropout": 0.5}  # of training
    if "V1.5" in repository:
        fields |= {"clip_type": "vl_new"}
    if "Audio" in repository:
        fields |= {"num_mel_bins": bins, "target_length": length}
        fields |= {"audio_sample_rate": 16000}
        fields |= {"audio_mean": -4.2677393, "audio_std": 4.5689974}
    if "Depth" in repository:
        fields |= {"max_depth": 10.0, "lora_r": 2}
    return fields


class _Embeddings(nn.Module):
    """Patches behind a class token, and positions, of frames `[b t c h w]`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        extent = (config.image_size, config.image_size)
        if config.num_mel_bins and config.target_length:
            extent = (config.num_mel_bins, config.target_length)
        patch = config.patch_size
        positions = 1 + (extent[0] // patch) * (extent[1] // patch)
        self.tubes = getattr(config, "clip_type", "") == "vl_new"
        width, colors = config.hidden_size, config.num_channels
        options = {"bias": False, "padding": 0}
        if self.tubes:  # each frame has a class token of its own
            extent = (1, patch, patch)
            self.class_embedding = nn.Parameter(torch.empty(config.num_frames, width))
            self.patch_embedding = nn.Conv3d(colors, width, extent, extent, **options)
        else:
            self.class_embedding = nn.Parameter(torch.empty(width))
            self.patch_embedding = nn.Conv2d(colors, width, patch, patch, **options)
        self.position_embedding = nn.Embedding(positions, width)
        # stored in files of that time
        self.register_buffer("position_ids", torch.arange(positions)[None])

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        rows, frames = pixels.shape[:2]
        if self.tubes:
            patches = self.patch_embedding(pixels.transpose(1, 2))  # b w t h w
            patches = patches.flatten(3).permute(0, 2, 3, 1).flatten(0, 1)
            first = self.class_embedding.repeat(rows, 1)[:, None]
        else:
            patches = self.patch_embedding(pixels.flatten(0, 1))
            patches = patches.flatten(2).transpose(1, 2)
            first = self.class_embedding.expand(rows * frames, 1, -1)
        return torch.cat([first, patches], 1) + self.position_embedding.weight


class _Block(CLIPEncoderLayer):
    """A block of CLIP; a video's has attention over time in front of it."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.frames = config.num_frames if config.add_time_attn else None
        self.prompts: torch.Tensor | None = None
        if self.frames:
            width, epsilon = config.hidden_size, config.layer_norm_eps
            self.temporal_embedding = nn.Parameter(torch.empty(1, self.frames, width))
            self.temporal_attn = CLIPEncoderLayer(config).self_attn
            self.temporal_layer_norm1 = nn.LayerNorm(width, eps=epsilon)

    def over_time(self, x: torch.Tensor) -> torch.Tensor:
        """Each token sees itself in the other frames; `x` is `[b t, n, width]`."""
        tokens, width = x.shape[1:]
        # [b t, n, w] -> [b n, t, w]
        x = x.reshape(-1, self.frames, tokens, width).transpose(1, 2).flatten(0, 1)
        if self.frames != 1:
            x = x + self.temporal_embedding
        x = x + self.temporal_attn(self.temporal_layer_norm1(x))[0]
        x = x.reshape(-1, tokens, self.frames, width)
        return x.transpose(1, 2).flatten(0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.frames:
            x = self.over_time(x)
        if self.prompts is None:
            return super().forward(x, None)
        # prompts see pictures alone, not time
        rows = self.prompts.repeat_interleave(len(x) // len(self.prompts), 0)
        x = super().forward(torch.cat([x[:, :1], rows, x[:, 1:]], 1), None)
        return torch.cat([x[:, :1], x[:, 1 + rows.shape[1] :]], 1)


class _LowRank(nn.Linear):
    """A linear map and an update of it, `W x + b + alpha / r * B A x`."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        fan_in, fan_out = linear.in_features, linear.out_features
        super().__init__(fan_in, fan_out)
        down, up = (nn.Linear(fan_in, rank, False), nn.Linear(rank, fan_out, False))
        self.lora_A = nn.ModuleDict({"default": down})
        self.lora_B = nn.ModuleDict({"default": up})
        self.scaling = alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        update = self.lora_B["default"](self.lora_A["default"](x))
        return super().forward(x) + self.scaling * update


class _Named(nn.Module):
    """Modules under the names that a file has for them."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


class _Vision(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        width, epsilon = config.hidden_size, config.layer_norm_eps
        self.embeddings = _Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(width, eps=epsilon)
        self.blocks = [_Block(config) for _ in range(config.num_hidden_layers)]
        self.encoder = _Named(layers=nn.ModuleList(self.blocks))
        self.post_layernorm = nn.LayerNorm(width, eps=epsilon)
        if config.lora_r:
            for block in self.blocks:
                target = block.temporal_attn if config.add_time_attn else None
                _update(target or block.self_attn, config.lora_r, config.lora_alpha)
            # the names that `peft` gives
            self.encoder = _Named(base_model=_Named(model=self.encoder))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.pre_layrnorm(self.embeddings(pixels))
        for block in self.blocks:
            x = block(x)
        x = self.post_layernorm(x[:, 0])
        return x.reshape(*pixels.shape[:2], -1).mean(1)

    @contextlib.contextmanager
    def prompted(self, prompts: torch.Tensor) -> Iterator[None]:
        for i, block in enumerate(self.blocks):
            block.prompts = prompts[:, i]
        try:
            with observing.recomputed(self.blocks):
                yield
        finally:
            for block in self.blocks:
                block.prompts = None


def _update(attention: nn.Module, rank: int, alpha: float) -> None:
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        linear = getattr(attention, name)
        setattr(attention, name, _LowRank(linear, rank, alpha))


def write(name: str, folder: pathlib.Path, size: str) -> dict[str, Expected]:
    """Writes a folder for each modality, as the family is published.

    Every one of them holds the same text tower.
    """
    sizes = SIZES[size]
    expected = {}
    for modality, repository in CASES[name].repositories.items():
        inside = folder / repository
        inside.mkdir(parents=True, exist_ok=True)
        model, config = _build(f"{name}/{modality}", repository, size)
        (inside / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        tensors = dict(model.state_dict())
        positions = torch.arange(sizes.context)[None]
        tensors["text_model.embeddings.position_ids"] = positions
        torch.save(tensors, inside / "pytorch_model.bin")
        tokenizers_of.write_clip(inside, sizes.vocabulary, sizes.context)
        model.double()
        rows = 2 if size == "tiny" else 1  # large ones take long
        expected[modality] = _pixels(f"{name}/{modality}", model, config, rows)
    sentences = tokenizers_of.clip_sentences(
        observing.seed(name), sizes.vocabulary, sizes.context, pad=0
    )
    expected["text"] = observing.observe_text(
        name, model, _text_embed(model), sentences
    )
    return expected


def _build(name: str, repository: str, size: str) -> tuple[nn.Module, dict]:
    """Returns the model of a repository and what its `config.json` says."""
    sizes = SIZES[size]
    options: dict[str, Any] = {"hidden_act": "gelu", "attn_implementation": "sdpa"}
    fields = _fields(repository, size)
    vision = transformers.CLIPVisionConfig(
        **huggingface.vision_config(sizes, **options, **fields)
    )
    # the end token of configs of that time; its code takes the highest id anyway
    tokens = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    text = transformers.CLIPTextConfig(
        **huggingface.text_config(sizes, **options, **tokens)
    )
    model = _Named(
        text_model=transformers.CLIPTextModel(text),
        vision_model=_Vision(vision),
        visual_projection=nn.Linear(sizes.vision.width, sizes.embedding, bias=False),
        text_projection=nn.Linear(sizes.text.width, sizes.embedding, bias=False),
    )
    model.logit_scale = nn.Parameter(torch.empty(()))
    observing.randomize(model, name)
    for part in model.modules():
        if isinstance(part, _LowRank):
            part.lora_B["default"].weight /= 2 * part.scaling  # half the map's own size
    for part in (model.text_model, model.text_projection):
        observing.randomize(part, "languagebind/text")
    kind = repository.split("_")[1]
    config = {
        "architectures": [f"LanguageBind{kind}"],
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "model_type": f"LanguageBind{kind}",
        "projection_dim": sizes.embedding,
        "text_config": _plain(text) | {"add_time_attn": False},
        "torch_dtype": "float32",
        "transformers_version": None,
        "vision_config": _plain(vision) | fields,
    }
    return model, config


def _plain(config: Any) -> dict:
    dropped = ("transformers_version", "architectures", "_attn_implementation_autoset")
    return {k: v for k, v in config.to_dict().items() if k not in dropped}


def _text_embed(model: Any) -> observing.Embed:
    return lambda x: model.text_projection(model.text_model(input_ids=x).pooler_output)


def _pixels(name: str, model: Any, config: dict, rows: int) -> Expected:
    vision = config["vision_config"]
    side = vision["image_size"]
    extent = (vision["num_mel_bins"], vision["target_length"])
    if not all(extent):
        extent = (side, side)
    pixels = observing.draw_pixels(name, rows, vision["num_frames"], *extent, 3)
    return observing.observe_pixels(
        name,
        lambda x: model.visual_projection(model.vision_model(x)),
        pixels,
        observing.channels_first(pixels),
        vision["hidden_size"],
        vision["num_hidden_layers"],
        model.vision_model.prompted,
    )
