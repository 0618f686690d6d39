"""EASE by hand: each sample in the sub-spaces of the stages of its modality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods.ease import Options
from mmcl_jax.methods.ease import make as ease
from tests.tuned import ADAPTER, GIVEN, ROWS, STAGES, Stream, with_options

pytestmark = pytest.mark.full("methods")

IMAGE, DEPTH, AGAIN = 0, 1, 4
OLD, NEW = [0, 1], [8, 9]  # classes of pictures


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def embedded(stream: Stream, stage: int, space: int) -> np.ndarray:
    """Returns what the tower makes of a batch of pictures under one adapter."""
    stack = jax.tree.map(lambda x: x[space : space + 1], stream.params["visual"])
    injection = ADAPTER.blend(stack, jnp.ones((ROWS, 1)))
    inputs = stream.batch(stage).inputs
    return np.asarray(stream.model.embed(stream.frozen, "image", inputs, injection))


def test_classes_have_means_in_the_spaces_of_their_modality(encoder) -> None:
    stream = Stream(encoder, with_options(ease, Options(0.1)), GIVEN)
    stream.learn([IMAGE])
    stream.learn([DEPTH, AGAIN], by=0.0)
    counts = np.asarray(stream.memory["counts"])
    expected = np.zeros((STAGES, 2 * STAGES))
    expected[IMAGE, OLD + NEW] = expected[AGAIN, NEW] = ROWS / 2
    expected[DEPTH, 2:4] = ROWS / 2
    np.testing.assert_array_equal(counts, expected)

    def means(stage: int, space: int) -> np.ndarray:
        found, label = embedded(stream, stage, space), stream.batch(stage).label
        return np.stack([found[label == c].mean(0) for c in np.unique(label)])

    old, new = means(IMAGE, IMAGE), means(AGAIN, IMAGE)
    share = np.exp(unit(old) @ unit(new).T)
    share /= share.sum(1, keepdims=True)
    later = means(AGAIN, AGAIN)
    whole = np.asarray(stream.memory["means"])
    np.testing.assert_allclose(whole[IMAGE, OLD + NEW], [*old, *new], atol=1e-5)
    np.testing.assert_allclose(whole[AGAIN, OLD], share @ later, atol=1e-5)
    first, second = (
        embedded(stream, AGAIN, space) @ unit(whole[space, OLD + NEW]).T
        for space in (IMAGE, AGAIN)
    )
    told = np.asarray(stream.logits(AGAIN, "predict"))
    own, other = np.array([1, 1, 0.1, 0.1]), np.array([0.1, 0.1, 1, 1])
    logits = 10 * (own * first + other * second)
    np.testing.assert_allclose(told[:, OLD + NEW], logits, atol=1e-3)
    # classes of depth maps, and those that were never learnt
    assert (np.delete(told, OLD + NEW, axis=1) < -1e8).all()


def test_a_stage_trains_its_own_adapter(encoder) -> None:
    stream = Stream(encoder, with_options(ease, Options()), GIVEN)
    stream.learn([IMAGE])
    stream.begin(AGAIN)
    _, gradient = stream.gradient(AGAIN)
    slots = np.abs(gradient["visual"]["prompts"]).reshape(STAGES, -1).max(1)
    assert np.flatnonzero(slots).tolist() == [AGAIN]
    assert (np.asarray(gradient["text"]["prompts"]) == 0).all()
