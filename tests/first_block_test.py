"""Blocks before the first adapter: computed once, and the same as in one pass."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.modalities.base import TextReference
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models.adapters import ADAPTERS, AdapterOptions, make_adapter
from mmcl_jax.models.sizes import SIZES
from mmcl_jax.models.specs import EncoderSpec, TextSpec, with_trunks
from mmcl_jax.planning import flops
from mmcl_jax.streams import kept
from mmcl_jax.streams.base import Record
from mmcl_jax.training import build, stems
from tests import helpers

# towers that attend over frames, that see no padding, and that have no class token
FAMILIES = {
    "languagebind_tiny": ("video", "text"),
    "siglip_tiny": ("image", "text"),
}

begin = jax.jit(encoders.begin, static_argnums=(0, 2))
embed_layers = jax.jit(encoders.embed_layers, static_argnums=(0, 2, 5))


def _spec(name: str, first: int) -> EncoderSpec:
    return with_trunks(SIZES[name], layers=3, first_adapted=first)


@functools.cache
def _drawn(name: str, modality: str):
    """Returns weights of three blocks, and inputs of two samples."""
    spec, rng = _spec(name, 0), np.random.default_rng(0)
    weights = jax.jit(encoders.init, static_argnums=1)(jax.random.key(0), spec)
    reader = spec.reader(spec.tower_of(modality))
    if isinstance(reader, TextSpec):
        ids = np.full((2, reader.context_length), 5, np.int32)
        ids[0, 3:], ids[1, 6:] = reader.end_token, reader.end_token
        return weights, {"tokens": jnp.asarray(ids)}
    shape = (2, reader.trunk.frames, *reader.image_size, reader.channels)
    return weights, {"pixels": jnp.asarray(rng.normal(size=shape), jnp.float32)}


ALWAYS = ("deep_prompts", "prefix")


@pytest.mark.parametrize(
    ("name", "modality", "kind"),
    [
        # every kind in the tower that attends over frames, and one in every tower; in
        # every suite those there that put tokens and keys into the attention
        pytest.param(
            *(name, modality, kind),
            marks=[pytest.mark.full("methods")]
            * (modality != "video" or kind not in ALWAYS),
        )
        for name, read in FAMILIES.items()
        for modality in read
        for kind in (ADAPTERS if modality == "video" else ("deep_prompts",))
    ],
)
def test_what_was_begun_is_carried_on(name: str, modality: str, kind: str) -> None:
    weights, inputs = _drawn(name, modality)
    spec = _spec(name, 2)
    tower = spec.tower(spec.tower_of(modality))
    adapter = make_adapter(AdapterOptions(kind, length=2, rank=2))

    @jax.jit
    def blended():
        one = adapter.init(jax.random.key(1), tower)
        one = jax.tree.map(lambda x: x + 0.1, one)  # updates that start at zero, too
        return adapter.blend(jax.tree.map(lambda x: x[None], one), jnp.ones((2, 1)))

    injection = blended()
    begun = begin(spec, weights, modality, inputs)
    assert "pixels" not in begun and begun["means"].shape[-2] == 2
    whole, cut = (
        embed_layers(spec, weights, modality, given, injection, 2)
        for given in (inputs, begun)
    )
    np.testing.assert_allclose(whole[0], cut[0], atol=1e-5)
    np.testing.assert_allclose(whole[1], cut[1], atol=1e-5)
    frozen = embed_layers(spec, weights, modality, begun, None, 2)
    at_once = embed_layers(_spec(name, 0), weights, modality, inputs, None, 2)
    np.testing.assert_allclose(frozen[0], at_once[0], atol=1e-5)
    np.testing.assert_allclose(frozen[1], at_once[1], atol=1e-5)
    assert np.abs(whole[0] - frozen[0]).max() > 1e-3
    # both means are of blocks in which nothing was injected
    np.testing.assert_allclose(whole[1], frozen[1], atol=1e-5)


def test_no_gradient_passes_the_first_blocks() -> None:
    weights, inputs = _drawn("siglip_tiny", "image")
    begun = encoders.begin(_spec("siglip_tiny", 2), weights, "image", inputs)

    def operations(first: int, given) -> float:
        spec = _spec("siglip_tiny", first)
        adapter = make_adapter(AdapterOptions("low_rank", rank=2))
        one = adapter.init(jax.random.key(1), spec.tower("visual"))

        def loss(one):
            stack = jax.tree.map(lambda x: x[None], one)
            injection = adapter.blend(stack, jnp.ones((2, 1)))
            return encoders.embed(spec, weights, "image", given, injection).sum()

        compiled = jax.jit(jax.grad(loss)).lower(one).compile()
        costs = compiled.cost_analysis()
        assert costs is not None
        return costs["flops"]

    # a scan is counted once, however often it runs: so one block of three costs as
    # much as three, less the patches
    assert operations(2, begun) < operations(0, inputs)


def test_adapters_are_as_deep_as_the_blocks_that_are_left() -> None:
    for first, left in ((0, 3), (1, 2), (2, 1), (7, 1)):
        tower = _spec("siglip_tiny", first).tower("visual")
        assert tower.plain_layers + tower.adapted_layers == 3
        for kind in ("deep_prompts", "prefix", "residual_prefix", "low_rank"):
            made = make_adapter(AdapterOptions(kind)).init(jax.random.key(0), tower)
            assert {leaf.shape[0] for leaf in jax.tree.leaves(made)} == {left}


def test_decoding_begins_with_the_first_blocks(encoder) -> None:
    spec = with_trunks(encoder.spec, first_adapted=1)
    stem = stems.make_stem(spec, encoder.frozen)
    assert stem is not None
    shapes = build.input_shapes(encoder.inputs, ["image", "text"])
    decoded = stems.decoded_shapes(spec, encoder.frozen, ["image", "text"], shapes)
    for name, before, after in zip(("image", "text"), shapes, decoded, strict=True):
        given = {key: np.ones(s.shape, s.dtype) for key, s in before.items()}
        got = stem(name, given)
        assert {key: x.shape for key, x in got.items()} == {
            key: s.shape for key, s in after.items()
        }
        assert all(got[key].dtype == s.dtype for key, s in after.items())
    # blocks that are gathered from several devices are left to the whole pass
    assert stems.make_stem(with_trunks(spec, sharded=True), encoder.frozen) is None


def test_steps_are_planned_without_the_first_blocks() -> None:
    def planned(first: int) -> float:
        spec = _spec("siglip_tiny", first)
        return flops.backward(spec, "image", frames=1, prompts=0)

    assert planned(1) == planned(0) * 2 / 3 and planned(2) == planned(0) / 3


def test_a_run_learns_behind_the_first_blocks(
    encoder_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = helpers.run(
        "--config=configs/demo.py:smoke",
        f"--config.encoder.path={encoder_folder}",
        "--config.stream.modalities=image,text",
        "--config.stream.tasks=2",
        "--config.method.adapter.first_block=1",
        "--config.evaluation.keep=inputs",
        "--config.report=off",
        workdir=tmp_path / "run",
    )
    assert done.code == 0, done.errors
    file = next((tmp_path / "run").rglob("kept/*.npz"))
    with np.load(file) as columns:
        assert {"inputs/entered", "inputs/means"} <= set(columns)


def test_inputs_in_half_precision_are_kept_as_they_are(tmp_path: pathlib.Path) -> None:
    entered = np.asarray(jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3) / 7)
    inputs = [{"entered": row, "tokens": np.arange(4)} for row in entered]
    rows = [Record(TextReference(name), 0, i) for i, name in enumerate("ab")]
    kept.write(tmp_path / "0.npz", rows, np.zeros((2, 1)), inputs, "producer")
    stored = kept.references(tmp_path / "0.npz", rows)
    assert stored is not None
    for row, wanted in zip(stored, inputs, strict=True):
        assert isinstance(row.reference, kept.KeptReference)
        found = row.reference.inputs()
        assert found.keys() == wanted.keys()
        for name, values in wanted.items():
            assert found[name].dtype == values.dtype
            np.testing.assert_array_equal(found[name], values)
