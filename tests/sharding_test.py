"""Cut over devices in any way, a run learns what it learns on one."""

import functools
import logging

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mmcl_jax import config
from mmcl_jax.models.pretrained import Encoder
from mmcl_jax.parallel import sharding
from mmcl_jax.training import build
from tests.contract import Bench, History, assert_near

STAGES = (0, 1, 2)  # the second is of the first one's modality
SOLVED = ("router", "of_queries", "of_layers", "of_adapted")
MESHES = [(2, 1), (1, 2), (4, 2), (8, 1)]
# of logits; those of COMM are behind a solve, whose condition multiplies the rounding
CASES = {"comm": 3e-5, "ranpac": 1e-5, "er": 1e-5}


def of_every_mesh() -> list:
    """Methods, layouts and shapes of the mesh, which take minutes together."""
    layouts = ("replicated", "sharded")
    chosen = [("comm", layout, shape) for layout in layouts for shape in MESHES]
    for case in ("ranpac", "er"):
        chosen += [(case, "sharded", (4, 2)), (case, "sharded", (1, 2))]
        chosen += [(case, "replicated", (8, 1))]
    return [(case, layout, *shape) for case, layout, shape in chosen]


@pytest.fixture(scope="module")
def alone(encoder: Encoder):
    """What a method learns on one device."""

    @functools.cache
    def learn(case: str) -> tuple[Bench, History]:
        bench = Bench(encoder, case)
        return bench, bench.learn(bench.learner.init(bench.room), STAGES)

    return learn


@pytest.mark.full("devices")
@pytest.mark.parametrize(("case", "layout", "data", "model"), of_every_mesh())
def test_any_mesh_learns_what_one_device_learns(
    alone, encoder: Encoder, case: str, layout: sharding.Layout, data: int, model: int
) -> None:
    one, wanted = alone(case)
    many = Bench(encoder, case, data * model, model, layout)
    assert dict(many.mesh.shape) == {"data": data, "model": model}
    found = many.learn(many.learner.init(many.room), STAGES)
    for stage in STAGES:
        assert_near(found.ended[stage].params, wanted.ended[stage].params, 1e-5)
        memories = [dict(history.ended[stage].memory) for history in (found, wanted)]
        # what is solved for: an inverse multiplies differences of rounding
        solved = [
            {name: memory.pop(name) for name in tuple(memory) if name in SOLVED}
            for memory in memories
        ]
        assert_near(*solved, 1e-4, least=1.0)
        # some of it is a small difference of large numbers
        assert_near(*memories, 1e-5, least=1.0)
        rows = one.rows(stage, test=True)
        left = many.predict(found.ended[stage], stage, rows)
        right = one.predict(wanted.ended[stage], stage, rows)
        assert_near(left, right, CASES[case])


def _mesh(data: int, model: int) -> jax.sharding.Mesh:
    return sharding.make_mesh(jax.devices()[: data * model], model)


def test_one_device_is_a_mesh() -> None:
    assert dict(_mesh(1, 1).shape) == {"data": 1, "model": 1}


def test_devices_must_be_a_multiple_of_the_model_axis() -> None:
    with pytest.raises(ValueError, match=r"config\.mesh\.model: 3 does not divide"):
        sharding.make_mesh(jax.devices()[:4], 3)


@pytest.mark.parametrize(
    ("path", "shape", "layout", "wanted"),
    [
        ("visual/blocks/qkv/kernel", (2, 16, 48), "sharded", P(None, "data", "model")),
        ("visual/blocks/qkv/kernel", (2, 16, 48), "replicated", P(None, None, "model")),
        (
            "a/blocks/over_frames/out/kernel",
            (2, 8, 8),
            "sharded",
            P(None, "model", "data"),
        ),
        ("text/blocks/mlp_in/bias", (2, 64), "sharded", P(None, "model")),
        # the bias of a partial sum is added once, by all
        ("text/blocks/mlp_out/bias", (2, 16), "sharded", P()),
        ("visual/blocks/norm1/scale", (2, 16), "sharded", P()),
        ("visual/head/qkv/kernel", (16, 48), "sharded", P()),
        ("log_scale", (), "sharded", P()),
        # 6 rows cannot be cut over 4 devices, 48 columns over 2
        ("visual/blocks/qkv/kernel", (2, 6, 48), "sharded", P(None, None, "model")),
    ],
)
def test_rules(path: str, shape: tuple, layout: sharding.Layout, wanted: P) -> None:
    assert sharding.of_weight(path, shape, _mesh(4, 2), layout).spec == wanted


def test_what_is_put_without_a_word_to_others_lies_as_what_is_put() -> None:
    tree = {"a": np.ones((2, 3), np.float32), "b": (np.array(1, np.int32),)}
    told, silent = (f(tree, _mesh(4, 2)) for f in (sharding.put, sharding.put_local))
    jax.tree.map(np.testing.assert_array_equal, silent, told)
    for a, b in zip(jax.tree.leaves(silent), jax.tree.leaves(told), strict=True):
        assert (a.sharding, a.dtype) == (b.sharding, b.dtype)


def test_weights_that_cannot_be_cut_are_named_once(encoder_folder, caplog) -> None:
    options = config.EncoderOptions(str(encoder_folder))
    with caplog.at_level(logging.WARNING, "absl"):
        # 16 rows and 48 columns do over 3 x 1, but for the rows
        loaded = build.load_encoder(options, _mesh(3, 1), "sharded")
    assert len(caplog.records) == 1
    assert "visual/blocks/qkv/kernel (2, 16, 48)" in caplog.text
    assert "norm1" not in caplog.text
    kernel = loaded.frozen["visual"]["blocks"]["qkv"]["kernel"]
    assert kernel.sharding.is_fully_replicated


def test_each_device_of_a_sharded_encoder_holds_its_part(encoder_folder) -> None:
    options = config.EncoderOptions(str(encoder_folder))
    loaded = build.load_encoder(options, _mesh(4, 2), "sharded")
    kernel = loaded.frozen["visual"]["blocks"]["mlp_out"]["kernel"]
    held = [shard.data.shape for shard in kernel.addressable_shards]
    assert kernel.shape == (2, 32, 16) and held == [(2, 16, 4)] * 8
    whole = build.load_encoder(options)
    jax.tree.map(np.testing.assert_array_equal, loaded.frozen, whole.frozen)
