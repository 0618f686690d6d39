"""COMM+: its two views and its discriminants."""

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.methods.comm_plus import log_probabilities, precisions
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models import visual as visuals
from mmcl_jax.models.pretrained import Encoder
from mmcl_jax.models.tower import trunk
from mmcl_jax.ops import gaussians


def _learnt(seed: int, classes: int, dim: int):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, dim)) * 2
    label = np.repeat(np.arange(classes), 30)
    x = centres[label] + rng.normal(size=(len(label), dim))
    return x.astype(np.float32), label.astype(np.int32)


def test_probabilities_are_those_of_gaussians_with_one_covariance_a_modality():
    x, label = _learnt(0, classes=6, dim=4)
    modality = jnp.array([0, 0, 0, 1, 1, 1])
    stats = gaussians.update(
        gaussians.init(6, 2, 4),
        jnp.asarray(x),
        jnp.asarray(label),
        jnp.ones(len(x)),
        modality,
    )
    found, jitter = precisions(stats, 0.1, modality)
    assert jitter == 0
    own = np.array([False, False, False, True, True, True])
    mine = x[label >= 3] - np.stack([x[label == c].mean(0) for c in label[label >= 3]])
    covariance = mine.T @ mine / (len(mine) - 3)
    covariance = 0.9 * covariance + 0.1 * np.trace(covariance) / 4 * np.eye(4)
    np.testing.assert_allclose(found[1], np.linalg.inv(covariance), rtol=1e-3)

    query = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    got = log_probabilities(jnp.asarray(query), stats, found[1], jnp.asarray(own))
    means = np.stack([x[label == c].mean(0) for c in (3, 4, 5)])
    gap = query[:, None] - means[None]
    score = -0.5 * np.einsum("bcd,de,bce->bc", gap, np.linalg.inv(covariance), gap)
    wanted = score - np.log(np.exp(score).sum(1, keepdims=True))
    np.testing.assert_allclose(got[:, 3:], wanted, rtol=1e-3, atol=1e-3)
    assert np.asarray(got[:, :3]).max() < -1e8


def test_precisions_of_nothing_are_finite():
    empty = gaussians.init(3, 2, 5)
    assert np.isfinite(precisions(empty, 0.05, jnp.array([0, 1, 1]))[0]).all()


def _normal(x: np.ndarray, epsilon: float) -> np.ndarray:
    variance = x.var(-1, keepdims=True)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(variance + epsilon)


def test_layer_features_are_means_of_normalised_tokens(encoder: Encoder):
    spec, weights = encoder.spec, jax.device_put(encoder.frozen["visual"])
    size = spec.reader("visual").image_size[0]
    pixels = np.random.default_rng(2).normal(size=(3, 2, size, size, 3))
    pixels = pixels.astype(np.float32)
    got = encoders.layer_features(
        spec,
        jax.device_put(encoder.frozen),
        "image",
        {"pixels": jnp.asarray(pixels)},
        9,
    )
    visual = spec.tower("visual")
    tokens, _ = visuals.tokens(spec.reader("visual"), weights, jnp.asarray(pixels))
    rows = []
    for layers in range(1, visual.layers):
        blocks = jax.tree.map(lambda leaf, n=layers: leaf[:n], weights["blocks"])
        after = np.asarray(trunk(visual, blocks, tokens))
        mean = _normal(after, visual.norm_epsilon)[:, 1:].mean(1)
        rows.append(mean.reshape(3, 2, -1).mean(1))
    np.testing.assert_allclose(got, np.concatenate(rows, 1), atol=1e-4)


def test_layer_features_of_text_do_not_see_behind_the_end(encoder: Encoder):
    spec = encoder.spec
    tokens = np.full((2, spec.text.context_length), 7, np.int32)
    tokens[:, 4] = spec.text.end_token
    tokens[1, 5:] = 9
    left, right = encoders.layer_features(
        spec, jax.device_put(encoder.frozen), "text", {"tokens": jnp.asarray(tokens)}, 1
    )
    np.testing.assert_allclose(left, right, atol=1e-5)
