"""Pre-training: its sources, and a training of a few steps that is interrupted."""

import csv
import io
import pathlib
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mmcl_jax.config import EncoderOptions
from mmcl_jax.configs.pretrain import get_config
from mmcl_jax.errors import DataError
from mmcl_jax.models import convolutional, pretrained
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models.pretrained.efficientnet import TRUNK
from mmcl_jax.pretrain import pictures, sentences, space, teachers, text_tower
from mmcl_jax.pretrain.towers import train
from mmcl_jax.training import build

_CLASSES = {"n1": "tench", "n2": "grand piano"}


def _write_wordnet(folder: pathlib.Path) -> pathlib.Path:
    """A WordNet of four synsets, in its own format."""
    folder.mkdir()
    header = "  1 This is a licence.  \n"
    nouns = (
        "00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which is known; "
        '"no entity was ever seen here"  \n'
        "00001930 03 n 02 physical_thing 0 thing 1 000 | a thing with substance  \n"
        "00002000 18 n 01 Newton 0 000 | an English mathematician of note  \n"
    )
    (folder / "data.noun").write_text(header + nouns)
    verb = (
        '00003000 29 v 01 breathe 0 000 | draw air in and out; "I can breathe now"  \n'
    )
    (folder / "data.verb").write_text(header + verb)
    adjective = "00004000 00 a 01 able 0 000 | having the means to do something  \n"
    (folder / "data.adj").write_text(header + adjective)
    counts = (("entity%1:03:00::", 9), ("thing%1:03:00::", 3), ("breathe%2:29:00::", 2))
    counts += (("able%3:00:00::", 5), ("at%4:02:00::", 99))
    lines = (f"{key} 1 {count}\n" for key, count in counts)
    (folder / "cntlist.rev").write_text("".join(lines))
    return folder


def _write_pictures(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir()
    with (folder / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "wnid", "name"])
        writer.writerows([i, *row] for i, row in enumerate(_CLASSES.items()))
    rng = np.random.default_rng(0)
    for name, count in (("train-0", 5), ("samples", 1), ("val", 3)):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for wnid in _CLASSES:
                for i in range(count):
                    pixels = rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)
                    file = io.BytesIO()
                    Image.fromarray(pixels).save(file, "PNG")
                    archive.writestr(f"{wnid}/{i}.png", file.getvalue())
    return folder


def _embed(texts) -> np.ndarray:
    """A teacher that tells sentences apart, and nothing else."""
    rows = [np.random.default_rng([*text.encode()]).normal(size=24) for text in texts]
    return np.stack(rows).astype(np.float32)


def _classify(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features = squares.reshape(len(squares), -1)[:, :20].astype(np.float32)
    return features, features[:, : len(_CLASSES)] / 100


def _config(tmp_path: pathlib.Path):
    config = get_config("smoke")
    config.sources.pictures = str(_write_pictures(tmp_path / "pictures"))
    config.sources.wordnet = str(_write_wordnet(tmp_path / "wordnet"))
    return config


def _teachers(config) -> teachers.Teachers:
    table = pathlib.Path(config.sources.pictures) / "samples.csv"
    stem = convolutional.init(jax.random.key(0), TRUNK)
    return teachers.Teachers(stem, pictures.read_classes(table), _classify, _embed)


@pytest.mark.full("encoders")
def test_an_interrupted_training_ends_as_an_undisturbed_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(tmp_path)
    taught_by = _teachers(config)
    train(config, taught_by, tmp_path / "whole")

    real, calls = text_tower.evaluate, []

    def interrupted(*args):
        measure = real(*args)

        def counted(weights):
            calls.append(None)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return measure(weights)

        return counted

    monkeypatch.setattr(text_tower, "evaluate", interrupted)
    for _ in range(2):
        try:
            train(config, taught_by, tmp_path / "parts")
        except KeyboardInterrupt:
            assert len(calls) == 2
    whole, parts = ((tmp_path / name) for name in ("whole", "parts"))
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name

    encoder = build.load_encoder(EncoderOptions(str(whole)))
    visual = encoder.spec.reader("visual")
    assert visual.stem == TRUNK and visual.grid == (3, 3)
    pixels = jnp.zeros((1, 1, 112, 112, 3))
    embedded = encoders.embed(encoder.spec, encoder.frozen, "image", {"pixels": pixels})
    np.testing.assert_allclose(np.linalg.norm(embedded), 1, rtol=1e-5)
    assert pretrained.load(whole).inputs.image_size == 112


def test_sources_of_sentences_are_read(tmp_path: pathlib.Path) -> None:
    folder = _write_wordnet(tmp_path / "wordnet")
    assert sentences.glosses(folder, "noun") == [
        ("entity", "that which is known", ["no entity was ever seen here"]),
        ("physical thing", "a thing with substance", []),
        ("Newton", "an English mathematician of note", []),
    ]
    assert sentences.nouns(folder) == ["entity", "physical thing"]
    words = sentences.common_words(folder, 1)
    assert words == {"noun": ["entity"], "verb": ["breathe"], "adjective": ["able"]}
    asked = sentences.requests(words, 50, seed=0)
    assert len(set(asked)) > 20
    assert "please breathe my entity" in asked
    assert not any("{" in request for request in asked)


def test_templates_stand_around_half_of_the_names() -> None:
    filled, owner = text_tower.in_templates(["dog", "violin"], 400, seed=0)
    assert owner.tolist() == [0] * 400 + [1] * 400
    bare = sum(text in ("dog", "a dog", "violin", "a violin") for text in filled)
    assert 0.4 < bare / 800 < 0.6
    assert "a photo of a dog." in filled


def test_the_space_keeps_the_first_components() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 6)) * [5, 4, 3, 0.1, 0.1, 0.1] + 7
    joint = space.fit(rows, 3)
    np.testing.assert_allclose(np.linalg.norm(joint(rows), axis=1), 1, rtol=1e-5)
    centred = rows - rows.mean(0)
    cosine = centred @ centred.T / np.outer(*[np.linalg.norm(centred, axis=1)] * 2)
    np.testing.assert_allclose(joint(rows) @ joint(rows).T, cosine, atol=0.05)


def test_sources_that_are_missing_are_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"no val\.zip"):
        pictures.archives(tmp_path, "val.zip")
    table = tmp_path / "samples.csv"
    table.write_text("index,wnid,name\n1,n1,tench\n")
    with pytest.raises(DataError, match="column 'index' is not 0, 1, 2"):
        pictures.read_classes(table)
