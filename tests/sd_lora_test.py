"""SD-LoRA by hand: unit directions with magnitudes that stay trainable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods.sd_lora import Options, direction
from mmcl_jax.methods.sd_lora import make as sd_lora
from mmcl_jax.models.injection import Injection, LowRank
from tests.tuned import GIVEN, SHARED, STAGES, Stream, with_options

IMAGE, DEPTH, AGAIN = 0, 1, 4
BUILD = with_options(sd_lora, Options(rank=2, magnitude=0.8))


def drawn(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(5).normal(size=shape), jnp.float32)


def test_a_direction_has_unit_norms_once_and_for_all() -> None:
    update = LowRank(drawn(3, 2, 6, 4), drawn(3, 2, 4, 9).at[1, 0].set(0))
    unit = direction(update)
    np.testing.assert_array_equal(unit.down, update.down)
    for slot in range(3):
        for layer in range(2):
            down, up = update.down[slot, layer], update.up[slot, layer]
            product = np.linalg.norm(down) * np.linalg.norm(up)
            expected = up / product if product else np.zeros_like(up)
            np.testing.assert_allclose(unit.up[slot, layer], expected, rtol=1e-5)
    np.testing.assert_allclose(direction(unit).up, unit.up, rtol=1e-5, atol=1e-7)


def by_hand(stream: Stream, stage: int, parts: list[tuple[int, float]]) -> np.ndarray:
    """Returns logits of the tower with the weighted updates of some slots in it."""

    def side_by_side(update: LowRank) -> LowRank:
        down = [update.down[slot] for slot, _ in parts]
        up = [weight * update.up[slot] for slot, weight in parts]
        return LowRank(jnp.concatenate(down, axis=2), jnp.concatenate(up, axis=1))

    batch, stack = stream.batch(stage), stream.params["updates"]["visual"]
    updates = {name: side_by_side(update) for name, update in stack.items()}
    gate = jnp.ones((len(batch.label), updates["qkv"].down.shape[2]))
    injection = Injection(low_rank=updates, gate=gate)
    given = stream.frozen, batch.modality, batch.inputs, injection
    embedding = np.asarray(stream.model.embed(*given))
    return 10 * embedding @ np.asarray(stream.context(stage).classes.text).T


@pytest.mark.full("methods")
def test_a_sample_passes_through_the_sum_of_its_modalitys_updates(encoder) -> None:
    stream = Stream(encoder, BUILD, GIVEN)
    stream.learn([IMAGE])
    magnitude = float(stream.params["magnitudes"]["visual"][IMAGE])
    assert magnitude != pytest.approx(0.8)
    expected = by_hand(stream, IMAGE, [(IMAGE, magnitude)])
    np.testing.assert_allclose(stream.logits(IMAGE, "predict"), expected, atol=1e-3)

    at = stream.context(IMAGE)._replace(phase="predict")
    (injected,) = stream.method.inject(stream.params, at, stream.batch(IMAGE))
    stream.begin(DEPTH)
    at = at._replace(memory=stream.memory)
    (again,) = stream.method.inject(stream.params, at, stream.batch(IMAGE))
    # so that answers about pictures are kept
    jax.tree.map(np.testing.assert_array_equal, injected, again)
    stream.move(0.5)
    stream.end(DEPTH)
    depth = np.asarray(stream.logits(DEPTH, "predict"))
    stream.begin(AGAIN)
    before = stream.params["updates"]["visual"]["qkv"]
    norms = np.linalg.norm(before.down, axis=(2, 3)) * np.linalg.norm(
        before.up, axis=(2, 3)
    )
    np.testing.assert_allclose(norms[IMAGE], 1, rtol=1e-5)
    assert (abs(norms[DEPTH] - 1) > 1e-3).all()
    # what is not a picture is answered as before
    np.testing.assert_allclose(stream.logits(DEPTH, "predict"), depth, atol=1e-5)
    magnitudes = np.asarray(stream.params["magnitudes"]["visual"])
    assert magnitudes[IMAGE] == np.float32(0.8)
    own = float(magnitudes[AGAIN])
    expected = by_hand(stream, AGAIN, [(IMAGE, 0.8), (AGAIN, own)])
    np.testing.assert_allclose(stream.logits(AGAIN, "train"), expected, atol=1e-3)


@pytest.mark.full("methods")
def test_a_stage_trains_its_own_update_and_its_modalitys_magnitudes(encoder) -> None:
    stream = Stream(encoder, BUILD, GIVEN)
    stream.learn([IMAGE, DEPTH])
    stream.begin(AGAIN)
    free = stream.method.trainable(stream.params, stream.context(AGAIN))
    slots = free["updates"]["visual"]["qkv"].up.ravel()
    assert np.flatnonzero(slots).tolist() == [AGAIN]
    assert np.flatnonzero(free["magnitudes"]["visual"]).tolist() == [IMAGE, AGAIN]
    assert not np.any(free["magnitudes"]["text"])
    assert not np.any(free["updates"]["text"]["qkv"].up)
    _, gradient = stream.gradient(AGAIN)
    moved = np.flatnonzero(gradient["magnitudes"]["visual"])
    assert set(moved) <= {IMAGE, AGAIN} and IMAGE in moved
    assert gradient["magnitudes"]["visual"].shape == (STAGES,)


@pytest.mark.full("methods")
def test_one_group_of_all_modalities_has_all_updates(encoder) -> None:
    stream = Stream(encoder, BUILD, SHARED)
    stream.learn([IMAGE, DEPTH])
    words = jax.tree.map(np.array, stream.params["updates"]["text"])
    stream.begin(AGAIN)
    update = stream.params["updates"]["visual"]["mlp_in"]
    norms = np.linalg.norm(update.down, axis=(2, 3)) * np.linalg.norm(
        update.up, axis=(2, 3)
    )
    np.testing.assert_allclose(norms[[IMAGE, DEPTH]], 1, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, stream.params["updates"]["text"], words)
    magnitudes = np.asarray(stream.params["magnitudes"]["visual"])
    np.testing.assert_array_equal(magnitudes[[IMAGE, DEPTH]], np.float32(0.8))
    free = stream.method.trainable(stream.params, stream.context(AGAIN))
    expected = [IMAGE, DEPTH, AGAIN]
    assert np.flatnonzero(free["magnitudes"]["visual"]).tolist() == expected
    parts = [(IMAGE, 0.8), (DEPTH, 0.8), (AGAIN, float(magnitudes[AGAIN]))]
    found = by_hand(stream, AGAIN, parts)
    np.testing.assert_allclose(stream.logits(AGAIN, "train"), found, atol=1e-3)
