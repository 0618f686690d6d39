"""Configs of encoders: what they say is computed, or refused by name."""

import json
import pathlib
import shutil

import pytest

from mmcl_jax.models import pretrained
from mmcl_jax.models.pretrained import huggingface, open_clip
from tests.parity.cases import FIXTURES

_OLDER = {
    "both": {
        "text_config_dict": {"num_hidden_layers": 3, "hidden_act": "gelu"},
        "vision_config_dict": {"patch_size": 8, "hidden_size": 384},
    },
    "the older alone": {
        "text_config": None,
        "text_config_dict": {"eos_token_id": 2, "intermediate_size": 64},
    },
    "none of them": {"text_config_dict": None, "vision_config_dict": None},
}


@pytest.mark.full("encoders")
@pytest.mark.parametrize("case", _OLDER)
def test_older_blocks_are_merged_as_in_transformers(case: str) -> None:
    import transformers  # takes seconds, and one test needs it

    config = {
        "text_config": {"num_hidden_layers": 5, "eos_token_id": 2, "hidden_size": 256},
        "vision_config": {"patch_size": 4, "hidden_act": "gelu", "image_size": 32},
        "projection_dim": 24,
        **_OLDER[case],
    }
    theirs = transformers.CLIPConfig(**json.loads(json.dumps(config)))
    merged = {
        "text_config": theirs.text_config.to_dict(),
        "vision_config": theirs.vision_config.to_dict(),
        "projection_dim": theirs.projection_dim,
    }
    assert huggingface.clip_spec(config) == huggingface.clip_spec(merged)


def _open_clip(folder: pathlib.Path, form: str, **changes: dict) -> pathlib.Path:
    """A stored encoder of OpenCLIP, with some fields of its config changed."""
    folder = shutil.copytree(FIXTURES / "open_clip" / form, folder / form)
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    for name, fields in changes.items():
        at = config["model_cfg"] if name != "preprocess_cfg" else config
        if name == "model_cfg":
            at |= fields
        else:
            at[name] |= fields
    path.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_cfg": {"quick_gelu": "false"}}, "'quick_gelu': 'false' is neither"),
        ({"model_cfg": {"multimodal_cfg": {"width": 8}}}, "multimodal_cfg"),
        ({"model_cfg": {"nonscalar_logit_scale": True}}, "nonscalar_logit_scale"),
        ({"vision_cfg": {"norm_kwargs": {"bias": False}}}, "'norm_kwargs'"),
        ({"text_cfg": {"norm_kwargs": {"eps": 0}}}, "'eps'"),
        ({"text_cfg": {"norm_kwargs": "1e-6"}}, "'norm_kwargs': '1e-6'"),
        ({"text_cfg": {"act_kwargs": {"approximate": "other"}}}, "'act_kwargs'"),
        ({"vision_cfg": {"act_kwargs": {"inplace": True}}}, "'act_kwargs'"),
        ({"vision_cfg": {"pool_type": "avg"}}, "'pool_type': 'avg', expected 'tok'"),
        ({"vision_cfg": {"no_ln_pre": True}}, "no_ln_pre"),
        ({"vision_cfg": {"qk_norm": True}}, "qk_norm"),
        ({"vision_cfg": {"ls_init_value": 1e-4}}, "ls_init_value"),
        ({"text_cfg": {"pool_type": "eos"}}, "'pool_type': 'eos', expected 'argmax'"),
        ({"text_cfg": {"no_causal_mask": True}}, "'no_causal_mask': True"),
        ({"text_cfg": {"proj_type": "none"}}, "'proj_type': 'none'"),
        ({"text_cfg": {"proj_bias": 1}}, "'proj_bias': 1 is neither"),
        ({"text_cfg": {"tokenizer_kwargs": {"clean": "canonicalize"}}}, "tokenizer_kw"),
        ({"preprocess_cfg": {"size": 99}}, "'size': 99; the encoder reads 8"),
        ({"preprocess_cfg": {"mode": "L"}}, "'mode': 'L', expected 'RGB'"),
    ],
)
def test_what_openclip_would_compute_otherwise_is_refused(
    changes: dict, message: str, tmp_path: pathlib.Path
) -> None:
    folder = _open_clip(tmp_path, "gelu", **changes)
    with pytest.raises(ValueError, match=message) as caught:
        pretrained.load(folder)
    assert str(folder / "open_clip_config.json") in str(caught.value)


def test_what_openclip_lets_choose_is_read(tmp_path: pathlib.Path) -> None:
    folder = _open_clip(
        tmp_path,
        "gelu",
        model_cfg={"quick_gelu": False, "init_logit_bias": None},
        vision_cfg={
            "norm_kwargs": {"eps": 1e-6},
            "pool_type": "tok",
            "qk_norm": False,
            "patch_dropout": 0.5,
        },
        text_cfg={"act_kwargs": {"approximate": "tanh"}, "pool_type": "argmax"},
        preprocess_cfg={"size": [8, 8], "mode": "RGB"},
    )
    spec = pretrained.load(folder).spec
    assert spec.tower("visual").norm_epsilon == 1e-6
    assert spec.tower("text").norm_epsilon == 1e-5
    assert spec.tower("visual").activation == "gelu"
    assert spec.tower("text").activation == "gelu_tanh"
    quick = {"quick_gelu": True}
    none = {"act_kwargs": {}}
    refused = _open_clip(tmp_path / "2", "gelu", model_cfg=quick, text_cfg=none)
    with pytest.raises(ValueError, match="'act_kwargs'.*without quick_gelu"):
        pretrained.load(refused)


def _timm(name: str, vision: dict | None = None, text: dict | None = None) -> dict:
    model = {
        "embed_dim": 768,
        "vision_cfg": {"image_size": 224, "timm_model_name": name} | (vision or {}),
        "text_cfg": {
            "context_length": 64,
            "vocab_size": 32000,
            "width": 768,
            "heads": 12,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "norm_kwargs": {"eps": 1e-6},
        }
        | (text or {}),
    }
    return {"model_cfg": model}


def test_trunks_of_timm_have_the_activation_of_their_name() -> None:
    base, wide = (
        open_clip.spec(_timm(f"vit_base_{end}"))
        for end in ("patch16_siglip_224", "patch32_siglip_256")
    )
    assert base.tower("visual").activation == "gelu"
    assert wide.tower("visual").activation == "gelu_tanh"
    tanh = {"act_kwargs": {"approximate": "tanh"}}
    second = _timm("vit_base_patch16_siglip_224", text=tanh)
    assert open_clip.spec(second).tower("text").activation == "gelu_tanh"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (_timm("vit_base_patch16_siglip_gap_224"), "timm_model_name"),
        (_timm("vit_base_patch16_clip_224"), "timm_model_name"),
        (_timm("vit_base_patch16_siglip_224", {"timm_pool": "avg"}), "'timm_pool'"),
        (_timm("vit_base_patch16_siglip_224", {"timm_proj": "linear"}), "'timm_proj'"),
        (_timm("vit_base_patch16_siglip_224", text={"pool_type": None}), "'pool_type'"),
        (_timm("vit_base_patch16_siglip_224", text={"tokenizer_kwargs": {}}), "'token"),
    ],
)
def test_other_trunks_of_timm_are_refused(config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_clip.spec(config)
