"""Folders of Hugging Face as transformers writes them, and those that are refused."""

import json
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mmcl_jax.errors import DataError
from mmcl_jax.modalities import MODALITIES, image
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models import pretrained
from mmcl_jax.models.pretrained import big_vision, open_clip
from mmcl_jax.models.pretrained.inputs import CLIP_MEAN, CLIP_STD
from tests.parity.cases import FIXTURES

pytestmark = pytest.mark.full("encoders")

_SENTENCES = ["a photo of a cab.", "A BAD Cab", "abcdefgh " * 9]


def _second(folder: pathlib.Path) -> tuple[Any, Any]:
    """A tiny SigLIP 2 of one resolution, with a tokenizer like Gemma's."""
    transformers = pytest.importorskip("transformers")
    import tokenizers
    import torch

    words = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<mask>",
        "</s>",
        "▁",
        ".",
        *"abcdefgh",
    ]
    words += [*"ABCp", *"hot", "ab", "▁a", "▁cab"]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    merges = [("a", "b"), ("▁", "a")]
    tokenizer = transformers.Siglip2Tokenizer(vocab=vocabulary, merges=merges)
    tokenizer.backend_tokenizer.post_processor = (
        tokenizers.processors.TemplateProcessing(
            single="$A <eos>", special_tokens=[("<eos>", 1)]
        )
    )
    trunk = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    trunk |= {"intermediate_size": 24}
    torch.manual_seed(0)
    model = transformers.SiglipModel(
        transformers.SiglipConfig(
            text_config=trunk
            | {"vocab_size": 64, "max_position_embeddings": 16, "projection_size": 24},
            vision_config=trunk
            | {"hidden_size": 24, "image_size": 32, "patch_size": 8},
        )
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def _processor(folder: pathlib.Path, kind: str, tokenizer: Any, **changes: Any) -> Any:
    """Writes the processor of a family, and returns that of its pictures."""
    import transformers

    pictures = getattr(transformers, f"{kind}ImageProcessorPil")(**changes)
    pair = getattr(transformers, f"{kind}Processor")(pictures, tokenizer)
    pair.save_pretrained(folder)
    return pictures


def _drawn(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _check_pixels(folder: pathlib.Path, theirs: Any, size: tuple[int, int]) -> None:
    media = _drawn(*size)
    fed = pretrained.read_inputs(folder)
    ours = image.preprocess(media, fed)["pixels"][0]
    pixels = theirs(Image.fromarray(media), return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(ours, pixels.transpose(1, 2, 0), atol=1e-5)


# Where an odd number of pixels is cut off, our centre is that of CLIP's own code.
@pytest.mark.parametrize("size", [(40, 60), (60, 40), (8, 8)])
def test_clip_as_transformers_5_writes_it(
    size: tuple[int, int], tmp_path: pathlib.Path
) -> None:
    transformers = pytest.importorskip("transformers")
    folder = shutil.copytree(FIXTURES / "clip" / "sharded", tmp_path / "clip")
    (folder / "preprocessor_config.json").unlink()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = _processor(
        folder,
        "CLIP",
        tokenizer,
        size={"shortest_edge": 8},
        crop_size={"height": 8, "width": 8},
    )
    assert not (folder / "preprocessor_config.json").exists()
    fed = pretrained.load(folder).inputs
    assert (fed.mean, fed.std, fed.resize) == (CLIP_MEAN, CLIP_STD, "crop")
    _check_pixels(folder, theirs, size)


@pytest.mark.parametrize("resample", [2, 3])
def test_the_second_siglip_is_that_of_transformers(
    resample: int, tmp_path: pathlib.Path
) -> None:
    pytest.importorskip("torch")
    model, tokenizer = _second(tmp_path)
    theirs = _processor(
        tmp_path,
        "Siglip",
        tokenizer,
        size={"height": 32, "width": 32},
        resample=resample,
    )
    import torch

    ours = pretrained.load(tmp_path)
    assert ours.inputs.interpolation == {2: "bilinear", 3: "bicubic"}[resample]
    assert ours.inputs.resize == "squash"
    _check_pixels(tmp_path, theirs, (40, 56))
    _check_pixels(tmp_path, theirs, (20, 10))
    rows = [
        MODALITIES["text"].preprocess(each, ours.inputs)["tokens"]
        for each in _SENTENCES
    ]
    tokens = tokenizer(
        _SENTENCES,
        padding="max_length",
        max_length=16,
        truncation=True,
        padding_side="right",
        return_tensors="pt",
    )["input_ids"]
    np.testing.assert_array_equal(rows, tokens)
    pixels = image.preprocess(_drawn(40, 56), ours.inputs)["pixels"]
    with torch.no_grad():
        text = model.get_text_features(input_ids=tokens).pooler_output
        picture = model.get_image_features(
            pixel_values=torch.tensor(pixels.transpose(0, 3, 1, 2))
        ).pooler_output
    frozen = jax.tree.map(jnp.asarray, ours.frozen)
    given = {"text": {"tokens": np.stack(rows)}, "image": {"pixels": pixels[None]}}
    for modality, theirs in (("text", text), ("image", picture)):
        inputs = jax.tree.map(jnp.asarray, given[modality])
        mine = encoders.embed(ours.spec, frozen, modality, inputs)
        unit = theirs / theirs.norm(dim=-1, keepdim=True)
        np.testing.assert_allclose(mine, unit.numpy(), atol=2e-6)


def _with_block(folder: pathlib.Path, **changes: Any) -> pathlib.Path:
    """A CLIP whose `processor_config.json` holds its older file, with changes."""
    folder = shutil.copytree(FIXTURES / "clip" / "openai", folder)
    block = json.loads((folder / "preprocessor_config.json").read_text()) | changes
    (folder / "processor_config.json").write_text(
        json.dumps({"image_processor": block, "processor_class": "CLIPProcessor"})
    )
    return folder


def test_two_files_of_preprocessing_must_agree(tmp_path: pathlib.Path) -> None:
    older = FIXTURES / "clip" / "openai"
    same = _with_block(tmp_path / "same", size={"shortest_edge": 8})
    assert pretrained.read_inputs(same).mean == pretrained.read_inputs(older).mean
    other = _with_block(tmp_path / "other", image_mean=[0.5, 0.5, 0.5])
    with pytest.raises(DataError) as caught:
        pretrained.load(other)
    for part in ("preprocessor_config.json has", "processor_config.json has", "remove"):
        assert part in str(caught.value)
    (other / "preprocessor_config.json").unlink()
    assert pretrained.load(other).inputs.mean == (0.5, 0.5, 0.5)
    # files of transformers 4 name classes alone
    (other / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    with pytest.raises(DataError, match="neither preprocessor_config.json nor a block"):
        pretrained.load(other)


def test_a_damaged_block_is_named(tmp_path: pathlib.Path) -> None:
    folder = _with_block(tmp_path / "damaged")
    path = folder / "processor_config.json"
    for block in ([], {"image_mean": [0.5]}, None):
        path.write_text(json.dumps({"image_processor": block}))
        with pytest.raises(DataError, match=f"{path}.*image_"):
            pretrained.load(folder)


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("clip/openai", '"image_mean": [0.48145466, 0.4578275, 0.40821073]'),
        ("clip/openai", '"size": {"shortest_edge": 8}'),
        ("siglip/huggingface", '"image_mean": [0.5, 0.5, 0.5]'),
        ("siglip/huggingface", '"size": {"height": 8, "width": 8}, "resample": 3'),
    ],
)
def test_the_example_of_a_refusal_is_that_of_the_family(
    form: str, shown: str, tmp_path: pathlib.Path
) -> None:
    folder = shutil.copytree(FIXTURES / form, tmp_path / "folder")
    wanted = pretrained.read_inputs(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(DataError) as caught:
        pretrained.load(folder)
    message = str(caught.value)
    assert shown in message
    # what the message shows can be written as it is
    example = message[message.index("{") :]
    (folder / "preprocessor_config.json").write_text(example)
    assert pretrained.read_inputs(folder) == wanted


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "siglip2"}, "NaFlex.*google/siglip2-base-patch16-224"),
        ({"model_type": "metaclip_2"}, "'metaclip_2' is not supported; .*'siglip'"),
        ({"model_type": "chinese_clip"}, "'chinese_clip' is not supported"),
        ({"model_type": "clipseg"}, "'clipseg' is not supported"),
        ({"model_type": "altclip"}, "'altclip' is not supported"),
        ({"model_type": "align"}, "'align' is not supported"),
        ({"model_type": "blip"}, "'blip' is not supported"),
        ({"model_type": "LanguageBindThermal"}, "LanguageBind of image, video"),
        ({"model_type": None}, "None is not supported"),
        ({"model_type": ["clip"]}, "is not supported"),
        ({"model_type": "siglip_text_model"}, "A single tower.*whole model"),
        ({"auto_map": {"AutoModel": "a.B"}}, "'auto_map'.*code of its own"),
    ],
)
def test_other_families_are_refused_by_name(
    config: dict, message: str, tmp_path: pathlib.Path
) -> None:
    folder = shutil.copytree(FIXTURES / "clip" / "openai", tmp_path / "other")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(DataError, match=message) as caught:
        pretrained.load(folder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        (
            {"layers": [3, 4, 6, 3], "width": 64, "patch_size": None},
            "a ResNet; only Vi",
        ),
        ({"timm_model_name": "convnext_base", "timm_pool": ""}, "convnext_base.*only"),
        ({"timm_model_name": "eva02_base_patch16_clip_224"}, "eva02.*only the ViT"),
    ],
)
def test_other_towers_of_openclip_are_refused_by_name(
    vision: dict, message: str
) -> None:
    model = {"embed_dim": 1024, "vision_cfg": {"image_size": 224} | vision}
    model["text_cfg"] = {"width": 512, "heads": 8, "layers": 12}
    with pytest.raises(ValueError, match=message):
        open_clip.spec({"model_cfg": model})


def test_a_tokenizer_of_the_first_siglip_is_not_that_of_the_second(
    tmp_path: pathlib.Path,
) -> None:
    folder = shutil.copytree(FIXTURES / "siglip" / "huggingface", tmp_path / "second")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["vocab_size"] = 256_000
    path.write_text(json.dumps(config))
    with pytest.raises(DataError, match="no token '<eos>'.*siglip2-base-patch16-224"):
        pretrained.load(folder)


def test_big_vision_for_pictures_of_any_shape_is_refused() -> None:
    tensors = {"params/img/embedding/kernel": np.zeros((768, 16), np.float32)}
    with pytest.raises(DataError, match="second.npz: .*NaFlex"):
        big_vision.spec(tensors, "second.npz")
