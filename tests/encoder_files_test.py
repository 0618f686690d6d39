"""The files that encoders come from."""

import hashlib
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from mmcl_jax import config
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.models import pretrained
from mmcl_jax.models.pretrained import Encoder
from mmcl_jax.training import build


def _tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(folder / "model.safetensors")


def test_saved_encoder_loads_exactly(
    encoder: Encoder, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    config = json.loads((encoder_folder / "config.json").read_text())
    pretrained.save(tmp_path, encoder.spec, encoder.frozen, config["preprocessing"])
    shutil.copy(encoder_folder / "tokenizer.json", tmp_path)
    again = pretrained.load(tmp_path)
    assert again.spec == encoder.spec
    jax.tree.map(np.testing.assert_array_equal, again.frozen, encoder.frozen)
    assert jax.tree.structure(again.frozen) == jax.tree.structure(encoder.frozen)
    before, after = _tensors(encoder_folder), _tensors(tmp_path)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(tensor, after[name])


def test_fingerprint_is_that_of_all_files(
    encoder: Encoder, encoder_folder: pathlib.Path
) -> None:
    names = ("config.json", "tokenizer.json", "model.safetensors")
    data = b"".join((encoder_folder / name).read_bytes() for name in names)
    assert encoder.fingerprint == hashlib.sha256(data).hexdigest()


def _without(tensors: dict, name: str) -> dict:
    return {key: value for key, value in tensors.items() if key != name}


_FC1, _SCALE = "text_model.encoder.layers.1.mlp.fc1.weight", "logit_scale"
DAMAGES = {
    "missing": (lambda t: _without(t, _FC1), rf"tensors missing: '{_FC1}'"),
    "extra": (
        lambda t: t | {"spare.bias": np.zeros(2)},
        r"without a use.*'spare.bias'",
    ),
    "transposed": (
        lambda t: t | {_FC1: np.ascontiguousarray(t[_FC1].T)},
        rf"tensor '{_FC1}' has shape \(16, 32\), expected \(32, 16\)",
    ),
    "NaN": (
        lambda t: t | {_FC1: np.full_like(t[_FC1], np.nan)},
        rf"tensor '{_FC1}' is not finite",
    ),
    "infinite": (
        lambda t: t | {_SCALE: np.array(np.inf, np.float32)},
        rf"tensor '{_SCALE}' is not finite",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_named(
    damage: str, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(encoder_folder, tmp_path, dirs_exist_ok=True)
    change, message = DAMAGES[damage]
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(change(_tensors(encoder_folder)), path)
    with pytest.raises(ValueError, match=message) as caught:
        pretrained.load(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_missing_files_are_named(
    name: str, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(encoder_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"{name}: no such file"):
        pretrained.load(tmp_path)


def test_a_folder_without_weights(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(encoder_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=f"{tmp_path}: no file of weights"):
        pretrained.load(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_files_are_named(
    name: str, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(encoder_folder, tmp_path, dirs_exist_ok=True)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=name):
        pretrained.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"projection_dim": "16"}, "projection_dim"),
        ({"model_type": "blip"}, "model_type"),
        ({"preprocessing": {"mean": 2}}, "mean"),
        ({"vision_config": {"hidden_act": "relu"}}, "hidden_act 'relu'"),
    ],
)
def test_fields_of_the_config_are_named(
    change: dict, message: str, encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(encoder_folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as caught:
        pretrained.load(tmp_path)
    assert str(path) in str(caught.value)


def test_builtin_encoder() -> None:
    folder = build.BUILTIN_ENCODER
    builtin = build.load_encoder(config.EncoderOptions())
    parameters = sum(leaf.size for leaf in jax.tree.leaves(builtin.frozen))
    assert 2e6 < parameters < 6e6
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size < 12 * 2**20
    sentences = ("a spinning star", "", "Ein völlig neuer Satz, 12 Mal.", "star " * 99)
    for sentence in sentences:
        tokens = MODALITIES["text"].preprocess(sentence, builtin.inputs)["tokens"]
        assert (tokens == builtin.spec.text.end_token).sum() == 1
        assert tokens.max() < builtin.spec.text.vocabulary
