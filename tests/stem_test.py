"""The convolutional stem: XLA's convolutions, PyTorch's layers, decoding, files."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import FileReference
from mmcl_jax.models import convolutional, pretrained
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models.pretrained import Encoder, efficientnet
from mmcl_jax.models.specs import TextSpec, TowerSpec, VisualSpec, two_towers
from mmcl_jax.models.stem_specs import StageSpec, StemSpec
from mmcl_jax.streams.base import Record
from mmcl_jax.streams.loader import Decoder, epoch
from mmcl_jax.training import stems
from tests import helpers

pytestmark = pytest.mark.full("encoders")

_STEM = StemSpec(4, (StageSpec(1, 3, 1, 1, 4), StageSpec(2, 5, 2, 3, 6)))
_POOLED = dataclasses.replace(_STEM, last=7)
_TRUNK = TowerSpec(16, 2, 2, 32, "quick_gelu", 1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A tiny encoder whose tower reads the features of a stem, in half precision."""
    folder = tmp_path_factory.mktemp("stem")
    helpers.make_encoder(folder)
    preprocessing = json.loads((folder / "config.json").read_text())["preprocessing"]
    words = pretrained.load(folder).spec.text
    assert isinstance(words, TextSpec)
    visual = VisualSpec(_TRUNK, (20, 20), 12, 8, stem=_STEM)
    spec = two_towers(visual, words, 16)
    frozen = encoders.init(jax.random.key(1), spec)
    pretrained.save(folder, spec, frozen, preprocessing, np.float16)
    return folder


@pytest.fixture(scope="module")
def encoder(folder: pathlib.Path) -> Encoder:
    return pretrained.load(folder)


def _by_xla(spec: StemSpec, weights: dict, x: jax.Array) -> jax.Array:
    """The stem as convolutions of XLA, which pads and strides by itself."""

    def convolve(x, kernel, stride, groups=1):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
            precision=jax.lax.Precision.HIGHEST,
        )

    def layer(x, part, size, stride=1, groups=1):
        kernel = part["kernel"].reshape(size, size, -1, part["kernel"].shape[-1])
        return convolve(x, kernel, stride, groups) + part["bias"]

    x = jax.nn.relu6(layer(x, weights["first"], 3, 2))
    for part, shape in zip(weights["residuals"], spec.blocks(), strict=True):
        h = jax.nn.relu6(layer(x, part["expand"], 1)) if "expand" in part else x
        channels = h.shape[-1]
        h = layer(h, part["filter"], shape.kernel, shape.stride, channels)
        h = layer(jax.nn.relu6(h), part["project"], 1)
        adds = shape.stride == 1 and shape.inputs == shape.channels
        x = x + h if adds else h
    if spec.last is None:
        return x
    return jax.nn.relu6(layer(x, weights["last"], 1)).mean((1, 2), keepdims=True)


@pytest.mark.parametrize("side", [16, 17, 22])
@pytest.mark.parametrize("spec", [_STEM, _POOLED], ids=["map", "pooled"])
def test_a_stem_is_a_chain_of_convolutions(spec: StemSpec, side: int) -> None:
    weights = convolutional.init(jax.random.key(0), spec)
    weights = jax.tree.map(lambda w: w + 0.1, weights)  # biases that are not zero
    pixels = jax.random.normal(jax.random.key(1), (2, side, side, 3))
    ours = convolutional.stem(spec, weights, pixels)
    assert ours.shape == (2, *spec.sides((side, side)), spec.channels)
    np.testing.assert_allclose(
        ours, _by_xla(spec, weights, pixels), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("side", [16, 17, 22])
def test_earlier_stages_stand_beside_the_last_one(side: int) -> None:
    both = dataclasses.replace(_STEM, outputs=2)
    first = StemSpec(_STEM.first, _STEM.stages[:1])
    weights = convolutional.init(jax.random.key(0), both)
    pixels = jax.random.normal(jax.random.key(1), (2, side, side, 3))
    found = np.asarray(convolutional.stem(both, weights, pixels))
    assert found.shape == (2, *both.sides((side, side)), both.channels)
    np.testing.assert_array_equal(
        found[..., 4:], convolutional.stem(_STEM, weights, pixels)
    )
    begun = weights | {"residuals": weights["residuals"][:1]}
    before = np.asarray(convolutional.stem(first, begun, pixels))
    for i, j in np.ndindex(found.shape[1:3]):
        square = before[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        np.testing.assert_allclose(
            found[:, i, j, :4], square.mean((1, 2)), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("spec", [_STEM, _POOLED], ids=["map", "pooled"])
def test_batch_norms_are_folded_as_torch_computes_them(spec: StemSpec) -> None:
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    tensors = torch_tensors(spec, rng)
    pixels = rng.standard_normal((2, 21, 21, 3)).astype(np.float32)
    theirs = by_torch(spec, tensors, pixels)
    weights = efficientnet.stem_weights(tensors, spec)
    ours = convolutional.stem(spec, weights, jnp.asarray(pixels))
    if spec.last is not None:
        ours = ours[:, 0, 0]
    assert np.abs(ours - theirs).max() < 2e-6 * np.abs(theirs).max()


def by_torch(spec: StemSpec, tensors: dict, pixels: np.ndarray) -> np.ndarray:
    """EfficientNet-Lite after its source, by its own tensors, batch norms apart."""
    import torch

    def layer(x, convolution, norm, stride=1, groups=1):
        kernel = torch.as_tensor(tensors[f"{convolution}.weight"])
        side, size = x.shape[-1], kernel.shape[-1]
        needed = max((-(-side // stride) - 1) * stride + size - side, 0)
        low, high = needed // 2, needed - needed // 2
        x = torch.nn.functional.pad(x, (low, high, low, high))
        x = torch.nn.functional.conv2d(x, kernel, None, stride, 0, 1, groups)
        mean, variance, scale, shift = (
            torch.as_tensor(tensors[f"{norm}.{part}"])
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return torch.nn.functional.batch_norm(x, mean, variance, scale, shift, eps=1e-3)

    relu6 = torch.nn.functional.relu6
    x = torch.tensor(pixels).permute(0, 3, 1, 2)
    x = relu6(layer(x, "_conv_stem", "_bn0", 2))
    for i, shape in enumerate(spec.blocks()):
        at, h = f"_blocks.{i}.", x
        if shape.expansion != 1:
            h = relu6(layer(h, f"{at}_expand_conv", f"{at}_bn0"))
        groups = h.shape[1]
        h = layer(h, f"{at}_depthwise_conv", f"{at}_bn1", shape.stride, groups)
        h = layer(relu6(h), f"{at}_project_conv", f"{at}_bn2")
        x = x + h if h.shape == x.shape else h
    if spec.last is None:
        return x.numpy().transpose(0, 2, 3, 1)
    return relu6(layer(x, "_conv_head", "_bn1")).mean((2, 3)).numpy()


def torch_tensors(spec: StemSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random tensors by EfficientNet's own names."""
    tensors = {}

    def add(convolution: str, norm: str, *shape: int) -> None:
        draw = rng.standard_normal
        tensors[f"{convolution}.weight"] = draw(shape) / np.sqrt(np.prod(shape[1:]))
        tensors[f"{norm}.weight"] = 1 + 0.3 * draw(shape[0])
        tensors[f"{norm}.bias"] = draw(shape[0])
        tensors[f"{norm}.running_mean"] = 0.3 * draw(shape[0])
        tensors[f"{norm}.running_var"] = rng.uniform(0.5, 2, shape[0])

    add("_conv_stem", "_bn0", spec.first, 3, 3, 3)
    for i, shape in enumerate(spec.blocks()):
        at, inner = f"_blocks.{i}.", shape.inputs * shape.expansion
        if shape.expansion != 1:
            add(f"{at}_expand_conv", f"{at}_bn0", inner, shape.inputs, 1, 1)
        size = (shape.kernel, shape.kernel)
        add(f"{at}_depthwise_conv", f"{at}_bn1", inner, 1, *size)
        add(f"{at}_project_conv", f"{at}_bn2", shape.channels, inner, 1, 1)
    if spec.last is not None:
        add("_conv_head", "_bn1", spec.last, spec.stages[-1].channels, 1, 1)
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def test_an_encoder_with_a_stem_is_written_and_read(
    encoder: Encoder, folder: pathlib.Path
) -> None:
    visual = encoder.spec.reader("visual")
    assert isinstance(visual, VisualSpec) and visual.stem == _STEM
    assert (visual.patch_size, visual.stride, visual.grid) == (12, 8, (2, 2))
    stored = encoders.init(jax.random.key(1), encoder.spec)["visual"]["stem"]
    for read, written in zip(
        jax.tree.leaves(encoder.frozen["visual"]["stem"]),
        jax.tree.leaves(stored),
        strict=True,
    ):
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, np.float32(np.float16(written)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": []}, "is not a list of stages"),
        ({"stages": [[1, 3, 1, 1, 4]]}, "is not a block"),
        ({"first": 0}, "'first'"),
        ({"first": 2**40}, "'first'"),
        ({"stages": [StageSpec(1, 3, 4, 1, 4)._asdict()]}, "stride 8 does not divide"),
        ({"stages": [{"repeats": 1}]}, "'kernel' is missing"),
        ({"outputs": 9}, "9 is above the number of stages, 2"),
    ],
)
def test_a_stem_that_cannot_be_is_refused(
    change: dict, message: str, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["stem"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=message):
        pretrained.load(tmp_path)


def _pictures(folder: pathlib.Path) -> list[Record]:
    paths = [folder / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        helpers.write_picture(path, i)
    return [
        Record(FileReference(str(path), path.name), 0, i)
        for i, path in enumerate(paths)
    ]


def test_decoders_give_the_features_that_the_tower_would_compute(
    encoder: Encoder, tmp_path: pathlib.Path
) -> None:
    records = _pictures(tmp_path)
    plain = Decoder(encoder.inputs, 0)
    stemmed = Decoder(
        encoder.inputs, 2**20, stems.make_stem(encoder.spec, encoder.frozen)
    )
    for record in records:
        pixels, features = plain(record, "image"), stemmed(record, "image")
        assert features["features"].shape == (1, 5, 5, 6)
        assert stemmed(record, "image") is features  # computed once
        embedded = [
            encoders.embed(
                encoder.spec,
                encoder.frozen,
                "image",
                {name: jnp.asarray(x[None]) for name, x in inputs.items()},
            )
            for inputs in (pixels, features)
        ]
        np.testing.assert_allclose(*embedded, atol=1e-5)


def test_worker_processes_change_no_feature(
    encoder: Encoder, tmp_path: pathlib.Path
) -> None:
    records = _pictures(tmp_path)
    decoder = Decoder(
        encoder.inputs, 2**20, stems.make_stem(encoder.spec, encoder.frozen)
    )
    batches = [
        list(epoch(records, "image", decoder, 2, seed=0, worker_processes=workers))
        for workers in (0, 1)
    ]
    for own, other in zip(*batches, strict=True):
        np.testing.assert_array_equal(own.inputs["features"], other.inputs["features"])


def test_sentences_pass_by_a_stem(encoder: Encoder) -> None:
    stem = stems.make_stem(encoder.spec, encoder.frozen)
    assert stem is not None
    tokens = {"tokens": np.arange(4)}
    assert stem("text", tokens) is tokens
    without = dataclasses.replace(encoder.spec.reader("visual"), stem=None)
    bare = two_towers(without, encoder.spec.text, 16)
    assert stems.make_stem(bare, encoder.frozen) is None
