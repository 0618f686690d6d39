"""Adapters are tuned once, and heads read what they make of a sample."""

import jax
import numpy as np
import pytest

from mmcl_jax.methods.aper import make as aper
from mmcl_jax.methods.ranpac import Options as RanpacOptions
from mmcl_jax.methods.ranpac import make as ranpac
from tests.tuned import GIVEN, SHARED, Stream, common, tuned, with_options

pytestmark = pytest.mark.full("methods")

RANPAC = with_options(ranpac, RanpacOptions(width=24, regularization=0.1))
# pictures, depth maps, sentences, and pictures again
IMAGE, DEPTH, TEXT, AGAIN = 0, 1, 3, 4


def tunes(stream: Stream, stage: int) -> dict[str, list[int]]:
    mask = stream.method.trainable(stream.params, stream.context(stage))
    return {
        tower: np.asarray(stack["prompts"]).ravel().astype(int).tolist()
        for tower, stack in mask.items()
    }


@pytest.mark.parametrize(
    ("sharing", "visual"),
    [
        (GIVEN, {IMAGE: [1, 0, 0], DEPTH: [0, 1, 0], TEXT: [0, 0, 0]}),
        (SHARED, {IMAGE: [1], DEPTH: [0], TEXT: [0]}),
    ],
)
def test_a_group_is_tuned_by_the_first_task_that_it_meets(encoder, sharing, visual):
    stream, plain = (Stream(encoder, build, sharing) for build in (RANPAC, tuned))
    for stage in (IMAGE, DEPTH, TEXT, AGAIN):
        for each in (stream, plain):
            each.begin(stage)
        expected = visual.get(stage, [0] * len(visual[IMAGE]))
        assert tunes(stream, stage) == {"visual": expected, "text": [stage == TEXT]}
        (value, metrics), gradient = stream.gradient(stage)
        if any(expected) or stage == TEXT:
            (wanted, _), slope = plain.gradient(stage)
            np.testing.assert_allclose(value, wanted, rtol=1e-6)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
                gradient,
                slope,
            )
        else:
            assert value == metrics["accuracy"] == 0
            assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))
        stream.end(stage)
        plain.end(stage)


def learnt(stream: Stream) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Learns two tasks of pictures; returns queries, embeddings and labels."""
    stream.learn([IMAGE])
    stream.learn([AGAIN], by=0.0)
    queries, embeddings, labels = [], [], []
    for stage in (IMAGE, AGAIN):
        batch, at = stream.batch(stage), stream.context(stage)
        (own,) = stream.method.inject(stream.params, at, batch)
        found = stream.model.embed(stream.frozen, "image", batch.inputs, own.injection)
        queries.append(batch.query)
        embeddings.append(found)
        labels.append(batch.label)
    return tuple(np.concatenate(x) for x in (queries, embeddings, labels))


def test_ranpac_is_a_ridge_on_random_features_of_tuned_ones(encoder):
    stream = Stream(encoder, RANPAC, GIVEN)
    query, z, label = learnt(stream)
    assert np.abs(query - z).max() > 0.01
    projection = np.asarray(stream.memory["projection"], float)
    x, y = np.maximum(z @ projection, 0), np.eye(16)[label]
    gram = x.T @ x
    head = np.linalg.solve(gram + 0.1 * np.trace(gram) / 24 * np.eye(24), x.T @ y)
    own = [0, 1, 8, 9]
    np.testing.assert_allclose(stream.memory["head"][:, own], head[:, own], atol=1e-4)
    told = np.asarray(stream.logits(AGAIN, "predict"))[:, own]
    np.testing.assert_allclose(told, x[4:] @ head[:, own], atol=1e-4)


def test_without_a_first_session_nothing_is_trained(encoder):
    options = RanpacOptions(width=24, first_session=False)
    method = Stream(encoder, with_options(ranpac, options)).method
    assert not method.trains and not method.needs_inputs and not method.observes


def test_aper_is_the_cosine_with_means_of_both_features(encoder):
    stream = Stream(
        encoder, lambda model, sharing: aper(model, None, common(sharing)), GIVEN
    )
    query, z, label = learnt(stream)
    both = np.concatenate([query, z], axis=1)
    means = np.stack([both[label == c].mean(0) for c in (0, 1, 8, 9)])

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    told = np.asarray(stream.logits(AGAIN, "predict"))[:, [0, 1, 8, 9]]
    np.testing.assert_allclose(told, 10 * unit(both[4:]) @ unit(means).T, atol=1e-4)
