"""Pre-training: its sources, and a training of a few steps that is interrupted."""

import csv
import io
import itertools
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
from mmcl_jax.models import convolutional, pretrained, text
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models.pretrained.efficientnet import TRUNK
from mmcl_jax.models.specs import TextSpec, TowerSpec
from mmcl_jax.pretrain import (
    pictures,
    sentences,
    space,
    teachers,
    text_tower,
    training,
)
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
    assert len(set(sentences.requests(words, 50, seed=0))) > 20
    asked = sentences.requests(words, 500, seed=0)
    assert "please breathe my entity" in asked
    assert not any("{" in request for request in asked)


def test_templates_stand_around_half_of_the_names() -> None:
    filled, owner = text_tower.in_templates(["dog", "violin"], 400, seed=0)
    assert owner.tolist() == [0] * 400 + [1] * 400
    bare = sum(text in ("dog", "a dog", "violin", "a violin") for text in filled)
    assert 0.4 < bare / 800 < 0.6
    assert "a photo of a dog." in filled


def _sentences(vocabulary: int) -> tuple[text_tower.Sentences, np.ndarray]:
    """Sentences between tokens 1 and 2 whose targets are the sums of their words."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(vocabulary, 8))
    vectors[:3] = 0
    ids = np.zeros((4000, 9), np.int32)
    for row in ids:
        length = rng.integers(1, 7)
        row[: length + 2] = [1, *rng.integers(3, vocabulary, length), 2]
    targets = vectors[ids].sum(1)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    return text_tower.Sentences(ids, targets, np.arange(len(ids))), targets


def test_a_text_tower_begins_as_a_bag_of_words() -> None:
    known, targets = _sentences(20)
    words, projection = text_tower.bag_of_words({"all": known}, 20, 8)
    shares = (known.ids[:, :, None] == np.arange(1, 20)).sum(1)
    told = shares @ (words @ projection)[1:]
    cosines = (told * targets).sum(1) / np.linalg.norm(told, axis=1)
    assert cosines.mean() > 0.97
    # fewer components, those that foretell most
    narrow = text_tower.bag_of_words({"all": known}, 20, 5)
    assert [part.shape for part in narrow] == [(20, 5), (5, 8)]
    np.testing.assert_allclose(narrow[1] @ narrow[1].T, np.eye(5), atol=1e-6)

    trunk = TowerSpec(64, 2, 2, 128, "quick_gelu", 1e-5)
    spec = TextSpec(trunk, 20, 9, end_token=2)

    def cosine(weights) -> float:
        found = text.embed(spec, weights, jnp.asarray(known.ids[:500]))
        return float((found * targets[:500]).sum(1).mean())

    weights = text_tower.init(jax.random.key(0), spec, 8, {"all": known})
    del weights["log_scale"]
    # norms and the random parts keep it from being exact
    assert cosine(weights) > 0.6
    assert abs(cosine(text.init(jax.random.key(0), spec, 8))) < 0.3


def test_pictures_are_seen_whole_and_then_in_cuts(tmp_path: pathlib.Path) -> None:
    folder = _write_pictures(tmp_path / "pictures")
    classes = pictures.read_classes(folder / "samples.csv")
    (path,) = pictures.archives(folder, "samples.zip")
    whole = list(pictures.read([pictures.Archives([path])], classes))
    seen = list(pictures.read([pictures.Archives([path], 5)], classes, seed=3))
    assert [label for _, label in seen] == [0] * 5 + [1] * 5
    for place, (picture, _) in enumerate(whole):
        first, *cuts = (shown for shown, _ in seen[5 * place : 5 * place + 5])
        np.testing.assert_array_equal(first, picture)
        pixels = {tuple(pixel) for row in picture for pixel in row}
        for cut in cuts:
            assert 18 <= cut.shape[0] == cut.shape[1] <= 30
            assert {tuple(pixel) for row in cut for pixel in row} <= pixels
    again = list(pictures.read([pictures.Archives([path], 5)], classes, seed=3))
    assert all((a == b).all() for (a, _), (b, _) in zip(seen, again, strict=True))


def test_a_finished_training_is_not_trained_further(tmp_path: pathlib.Path) -> None:
    def loss(weights, batch):
        return (weights - batch) ** 2, {"distance": jnp.abs(weights - batch)}

    def batches(start):
        return itertools.repeat(jnp.ones(()))

    def fit():
        optimizer = training.optimizer(6, 0.1, 1, 0.0)
        at = tmp_path / "checkpoint.npz"
        arguments = (batches, 6, lambda weights: {}, 4, at)
        return training.fit(loss, jnp.zeros(()), optimizer, *arguments)

    first, curve = fit()
    again, same = fit()
    assert first == again and curve == same
    assert [row["step"] for row in curve] == [4, 6]


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
