"""Encoders of every family: sizes, adapters, precision, placement, damage."""

import functools
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from mmcl_jax import config
from mmcl_jax.config import EncoderOptions
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models import pretrained, text
from mmcl_jax.models.injection import Injection
from mmcl_jax.models.pretrained import Encoder
from mmcl_jax.models.sizes import SIZES
from mmcl_jax.models.specs import EncoderSpec, TextSpec, with_trunks
from mmcl_jax.parallel import sharding
from mmcl_jax.training import build, experiment
from mmcl_jax.workdir import states
from tests.towers import KINDS

FIXTURES = pathlib.Path(__file__).parent / "parity" / "fixtures"
# as their authors give them; SigLIP's without the bias of its loss
PUBLISHED = {
    "b32": 151_277_313,
    "b16": 149_620_737,
    "l14": 427_616_513,
    "h14": 986_109_441,
    "siglip_b16": 203_155_969,
    "siglip_so400m": 877_960_497,
}
TINY = [name for name in SIZES if name.endswith("_tiny")]


def _weights(name: str):
    return encoders.shapes(SIZES[name])


@pytest.mark.parametrize("name", TINY)
def test_shapes_are_those_of_weights_that_are_drawn(name: str) -> None:
    key = jax.random.key(0)
    assert _weights(name) == jax.eval_shape(lambda: encoders.init(key, SIZES[name]))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    leaves = jax.tree.leaves(_weights(name))
    assert sum(leaf.size for leaf in leaves) == PUBLISHED[name]


def _inputs(encoder: Encoder, modality: str, rows: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    drawn = {}
    for key, (shape, dtype) in MODALITIES[modality].shapes(encoder.inputs).items():
        if dtype == np.float32:
            drawn[key] = rng.normal(size=(rows, *shape)).astype(dtype)
        else:
            drawn[key] = rng.integers(3, 300, (rows, *shape)).astype(dtype)
            drawn[key][:, 9:] = encoder.spec.text.end_token
    return drawn


@functools.cache
def _tiny(name: str) -> Encoder:
    return pretrained.load(f"random:{name}")


def _embed(
    encoder: Encoder,
    modality: str,
    injection: Injection | None = None,
    inputs: dict | None = None,
):
    inputs = inputs or _inputs(encoder, modality)
    embed = _program(encoder.spec)
    return np.asarray(embed(encoder.frozen, modality, inputs, injection))


@functools.cache
def _program(spec: EncoderSpec):
    return jax.jit(functools.partial(encoders.embed, spec), static_argnums=1)


@pytest.mark.parametrize("name", SIZES)
def test_full_sizes_are_well_formed(name: str) -> None:
    spec, frozen = SIZES[name], _weights(name)
    for modality, tower in spec.readers:
        reader = spec.reader(tower)
        if isinstance(reader, TextSpec):
            shape, dtype = (2, reader.context_length), jnp.int32
            inputs = {"tokens": jax.ShapeDtypeStruct(shape, dtype)}
        else:
            frames = reader.trunk.frames * reader.tube
            shape = (2, frames, *reader.image_size, reader.channels)
            inputs = {"pixels": jax.ShapeDtypeStruct(shape, jnp.float32)}
        out = jax.eval_shape(
            lambda f, x, m=modality, s=spec: encoders.embed(s, f, m, x), frozen, inputs
        )
        assert (out.shape, out.dtype) == ((2, spec.embedding), jnp.float32)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        # every kind in one tower, and one kind in that of video; all pairs take minutes
        pytest.param(
            name,
            kind,
            marks=[pytest.mark.full("encoders")]
            * ((name, kind) != ("languagebind_tiny", "deep_prompts"))
            * (name != TINY[0]),
        )
        for name in TINY
        for kind in KINDS
    ],
)
def test_every_adapter_moves_every_tower(name: str, kind: str) -> None:
    encoder = _tiny(name)
    for tower, _ in encoder.spec.towers:
        modality = next(m for m, own in encoder.spec.readers if own == tower)
        drawn = KINDS[kind].init(jax.random.key(1), encoder.spec.tower(tower))
        stack = jax.tree.map(lambda x: x[None] + 0.2 * jnp.sin(1.0 + x[None]), drawn)
        plain = _embed(encoder, modality)
        moved = _embed(encoder, modality, KINDS[kind].blend(stack, jnp.ones((2, 1))))
        assert np.isfinite(moved).all()
        np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-5)
        assert np.abs(moved - plain).max() > 1e-4


@pytest.mark.parametrize("name", TINY)
def test_prompts_of_one_sample_do_not_reach_another(name: str) -> None:
    encoder = _tiny(name)
    tower, reader = encoder.spec.towers[0]
    modality = next(m for m, own in encoder.spec.readers if own == tower)
    shape = (2, reader.trunk.layers, 3, reader.trunk.width)
    prompts = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    other = np.stack([prompts[0], -prompts[1]])
    one, two = (
        _embed(encoder, modality, Injection(prompts=jnp.asarray(p)))
        for p in (prompts, other)
    )
    np.testing.assert_allclose(one[0], two[0], atol=1e-6)
    assert np.abs(one[1] - two[1]).max() > 1e-4


def test_frames_of_a_video_have_an_order_where_a_tower_attends_over_them() -> None:
    encoder = _tiny("languagebind_tiny")
    inputs = _inputs(encoder, "video")
    turned = {"pixels": inputs["pixels"][:, ::-1]}
    there, back = (_embed(encoder, "video", inputs=x) for x in (inputs, turned))
    assert np.abs(there - back).max() > 1e-5


# what the backward pass computes again changes nothing


@pytest.mark.parametrize("remat", ["attention", "blocks"])
def test_remat_changes_no_gradient(remat: str) -> None:
    encoder = _tiny("clip_tiny")
    inputs = jax.tree.map(jnp.asarray, _inputs(encoder, "image"))
    prompts = jnp.full((2, 2, 3, 32), 0.1)

    def slope(spec):
        def loss(prompts):
            injection = Injection(prompts=prompts)
            found = encoders.embed(spec, encoder.frozen, "image", inputs, injection)
            return jnp.sin(found).sum()

        return jax.jit(jax.grad(loss))(prompts)

    plain, again = (
        slope(encoder.spec),
        slope(with_trunks(encoder.spec, remat=remat)),
    )
    np.testing.assert_allclose(again, plain, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "name",
    [TINY[0], *(pytest.param(n, marks=pytest.mark.full("encoders")) for n in TINY[1:])],
)
def test_bfloat16_is_close(name: str) -> None:
    options = EncoderOptions(f"random:{name}", dtype="bfloat16")
    half = build.load_encoder(options, sharding.make_mesh(jax.devices()))
    types = {leaf.dtype for leaf in jax.tree.leaves(half.frozen)}
    assert types == {jnp.dtype("bfloat16"), jnp.dtype("float32")}
    for modality, _ in half.spec.readers:
        exact, rough = (_embed(e, modality) for e in (_tiny(name), half))
        assert rough.dtype == np.float32
        assert (exact * rough).sum(1).min() > 0.9995


# loading


def test_weights_are_placed_one_by_one() -> None:
    placed = []

    def place(path: str, leaf: np.ndarray) -> np.ndarray:
        placed.append(path)
        return leaf + 1

    folder = FIXTURES / "clip" / "sharded"
    moved, plain = pretrained.load(folder, place), pretrained.load(folder)
    assert len(placed) == len(set(placed)) == len(jax.tree.leaves(plain.frozen))
    assert "visual/blocks/qkv/kernel" in placed
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b + 1), moved.frozen, plain.frozen
    )


def test_the_summary_says_what_was_read() -> None:
    folder = FIXTURES / "siglip" / "huggingface"
    encoder = pretrained.load(folder)
    text = "\n".join(encoder.summary)
    for part in (str(folder), "gelu_tanh", "epsilon 1e-06", "squash", "last"):
        assert part in text
    assert encoder.fingerprint in text


def test_joined_encoders_share_a_text_tower(tmp_path: pathlib.Path) -> None:
    folder = FIXTURES / "languagebind" / "tuned"
    image, audio = (folder / f"LanguageBind_{n}" for n in ("Image", "Audio_FT"))
    joined = pretrained.load(f"{image}+{audio}")
    assert [name for name, _ in joined.spec.readers] == ["audio", "text", "image"]
    other = shutil.copytree(audio, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["text_config"]["hidden_act"] = "quick_gelu"
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="its text tower is not that of"):
        pretrained.load(f"{image}+{other}")


@pytest.mark.parametrize("name", ["random:b61", "random:", "no/such/thing/at/all"])
def test_names_that_are_no_encoder(name: str) -> None:
    with pytest.raises(ValueError, match=name.split(":")[0]):
        pretrained.load(name)


DAMAGES = {
    "model_type": (
        {"model_type": "clip_vision_model"},
        "'clip_vision_model' .*A single tower is not enough.*Give the whole model",
    ),
    "activation": ({"vision_config": {"hidden_act": "relu"}}, "hidden_act"),
    "end token": ({"text_config": {"eos_token_id": 10**6}}, "eos_token_id"),
    "heads": ({"vision_config": {"num_attention_heads": 7}}, "num_attention_heads"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_config_says_is_checked(damage: str, tmp_path: pathlib.Path) -> None:
    change, message = DAMAGES[damage]
    folder = shutil.copytree(FIXTURES / "clip" / "openai", tmp_path / "openai")
    config = json.loads((folder / "config.json").read_text())
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as caught:
        pretrained.load(folder)
    assert str(folder) in str(caught.value)


def test_mean_and_deviation_are_never_guessed(tmp_path: pathlib.Path) -> None:
    folder = shutil.copytree(FIXTURES / "clip" / "openai", tmp_path / "openai")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="preprocessor_config.json.*image_mean"):
        pretrained.load(folder)


@pytest.mark.parametrize("change", ["missing", "extra", "NaN", "integers"])
def test_weights_are_read_strictly(change: str, tmp_path: pathlib.Path) -> None:
    folder = shutil.copytree(FIXTURES / "siglip" / "huggingface", tmp_path / "siglip")
    path, name = folder / "model.safetensors", "vision_model.head.probe"
    tensors = safetensors.numpy.load_file(path)
    changed = {
        "missing": {},
        "extra": {name: tensors[name], "spare": np.zeros(3, np.float32)},
        "NaN": {name: np.full_like(tensors[name], np.nan)},
        "integers": {name: tensors[name].astype(np.int32)},
    }[change]
    del tensors[name]
    safetensors.numpy.save_file(tensors | changed, path)
    with pytest.raises(ValueError, match="spare" if change == "extra" else name):
        pretrained.load(folder)


def test_a_repository_may_hold_two_layouts(tmp_path: pathlib.Path) -> None:
    folder = shutil.copytree(FIXTURES / "clip" / "openai", tmp_path / "both")
    other = FIXTURES / "open_clip" / "gelu"
    shutil.copy(other / "open_clip_config.json", folder)
    both = pretrained.load(folder)
    plain = pretrained.load(FIXTURES / "clip" / "openai")
    jax.tree.map(np.testing.assert_array_equal, both.frozen, plain.frozen)
    # the weights of the other library alone, beside a config of transformers
    (folder / "model.safetensors").unlink()
    for path in other.glob("open_clip_*"):
        shutil.copy(path, folder)
    again, alone = pretrained.load(folder), pretrained.load(other)
    jax.tree.map(np.testing.assert_array_equal, again.frozen, alone.frozen)


def test_a_modality_is_read_once(tmp_path: pathlib.Path) -> None:
    folder = FIXTURES / "languagebind" / "tuned" / "LanguageBind_Image"
    twice = shutil.copytree(folder, tmp_path / "LanguageBind_Image")
    with pytest.raises(ValueError, match=f"reads image, as {folder}"):
        pretrained.load(f"{folder}+{twice}")
    with pytest.raises(ValueError, match="no encoder on one side"):
        pretrained.load(f"{folder}+")


@pytest.mark.parametrize(
    "change",
    [
        {"do_normalize": False},
        {"do_center_crop": False},
        {"rescale_factor": 1 / 127.5},
        {"crop_size": {"height": 4, "width": 4}},
        {"size": [8, 8]},
        {"resample": 0},
        {"do_pad": True},
    ],
)
def test_steps_that_would_not_be_done_are_refused(
    change: dict, tmp_path: pathlib.Path
) -> None:
    folder = shutil.copytree(FIXTURES / "clip" / "openai", tmp_path / "openai")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=f"preprocessor_config.json.*{[*change][0]}"):
        pretrained.load(folder)


@pytest.mark.parametrize(
    "change", [{"heads": 3}, {"heads": {"vision": 7}}, {"sizes": {"vision": 5}}]
)
def test_what_no_tensor_tells_is_checked(change: dict, tmp_path: pathlib.Path) -> None:
    folder = shutil.copytree(FIXTURES / "imagebind" / "huge", tmp_path / "huge")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=f"{path}.*{[*change][0]}"):
        pretrained.load(folder)


def test_padding_of_siglip_is_no_word() -> None:
    spec = SIZES["siglip_tiny"].text
    ids = jnp.asarray([[5, 6, 1, 1, 1], [5, 6, 7, 8, 9]])
    found = np.asarray(text.words(spec, ids))
    np.testing.assert_array_equal(found.sum(1), [3, 5])


# streams; every kind once, every family with two

STREAMS = {
    "clip_tiny": (("image", "text"), ("shallow_prompts", "prefix")),
    "siglip_tiny": (("depth", "text"), ("deep_prompts", "low_rank")),
    "languagebind_tiny": (("video", "audio"), ("deep_prompts", "residual_prefix")),
    "imagebind_tiny": (("video", "depth"), ("prefix", "low_rank")),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(
            name,
            kind,
            marks=pytest.mark.full("encoders"),
        )
        for name, (_, own) in STREAMS.items()
        for kind in own
    ],
)
def test_comm_learns_two_tasks(name: str, kind: str, tmp_path: pathlib.Path) -> None:
    made = config.Config(
        stream=config.World(
            modalities=STREAMS[name][0],
            tasks=2,
            classes_per_task=2,
            train_per_class=8,
            test_per_class=8,
        ),
        encoder=EncoderOptions(f"random:{name}"),
        method=config.MethodOptions(
            adapter=config.AdapterOptions(kind=kind, length=2, rank=2)
        ),
        train=config.TrainOptions(epochs=2, batch_size=16),
        report="off",
    )
    results = experiment.run(made, tmp_path)
    assert results["refused_steps"] == 0
    first, last = (states.read(tmp_path / "snapshots" / n) for n in ("000", "001"))
    for path, array in last.items():
        assert np.isfinite(array).all(), path
    # the second task has trained the adapter of its own modality
    moved = [path for path in last if not np.array_equal(first[path], last[path])]
    assert any(path.startswith("params/") for path in moved)
    assert (tmp_path / "encoder.txt").read_text().startswith(f"random:{name}")
