"""Layer features: what they are, frozen and under an adapter."""

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.models import encoder as encoders
from mmcl_jax.models import visual as visuals
from mmcl_jax.models.injection import Injection
from mmcl_jax.models.pretrained import Encoder
from mmcl_jax.models.tower import trunk


def _normal(x: np.ndarray, epsilon: float) -> np.ndarray:
    variance = x.var(-1, keepdims=True)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(variance + epsilon)


def test_layer_features_are_means_of_normalised_tokens(encoder: Encoder):
    spec, weights = encoder.spec, jax.device_put(encoder.frozen["visual"])
    size = spec.reader("visual").image_size[0]
    pixels = np.random.default_rng(2).normal(size=(3, 2, size, size, 3))
    pixels = pixels.astype(np.float32)
    _, got = encoders.embed_layers(
        spec,
        jax.device_put(encoder.frozen),
        "image",
        {"pixels": jnp.asarray(pixels)},
        None,
        9,
    )
    visual = spec.tower("visual")
    tokens, _ = visuals.tokens(spec.reader("visual"), weights, jnp.asarray(pixels))
    rows = []
    for layers in range(1, visual.layers):
        blocks = jax.tree.map(lambda leaf, n=layers: leaf[:n], weights["blocks"])
        after = np.asarray(trunk(visual, blocks, tokens)[0])
        mean = _normal(after, visual.norm_epsilon)[:, 1:].mean(1)
        rows.append(mean.reshape(3, 2, -1).mean(1))
    np.testing.assert_allclose(got, np.concatenate(rows, 1), atol=1e-4)


def test_layer_features_of_text_do_not_see_behind_the_end(encoder: Encoder):
    spec = encoder.spec
    tokens = np.full((2, spec.text.context_length), 7, np.int32)
    tokens[:, 4] = spec.text.end_token
    tokens[1, 5:] = 9
    inputs = {"tokens": jnp.asarray(tokens)}
    _, (left, right) = encoders.embed_layers(
        spec, jax.device_put(encoder.frozen), "text", inputs, None, 1
    )
    np.testing.assert_allclose(left, right, atol=1e-5)


def test_prompts_are_no_part_of_layer_features(encoder: Encoder) -> None:
    spec, frozen = encoder.spec, jax.device_put(encoder.frozen)
    rng, visual = np.random.default_rng(3), encoder.spec.tower("visual")
    size = spec.reader("visual").image_size[0]
    pixels = jnp.asarray(rng.normal(size=(2, 1, size, size, 3)), jnp.float32)
    prompts = jnp.asarray(rng.normal(size=(2, 1, 3, visual.width)), jnp.float32)
    injection = Injection(prompts=prompts)
    inputs = {"pixels": pixels}
    embedding, got = encoders.embed_layers(spec, frozen, "image", inputs, injection, 1)
    whole = encoders.embed(spec, frozen, "image", inputs, injection)
    np.testing.assert_allclose(embedding, whole, atol=1e-6)
    weights = frozen["visual"]
    tokens, _ = visuals.tokens(spec.reader("visual"), weights, pixels)
    blocks = jax.tree.map(lambda leaf: leaf[: visual.layers - 1], weights["blocks"])
    after = np.asarray(trunk(visual, blocks, tokens, injection)[0])
    native = np.delete(after, [0, 1, 2, 3], axis=1)  # the class token, three prompts
    mean = _normal(native, visual.norm_epsilon).mean(1)
    np.testing.assert_allclose(got, mean, atol=1e-4)
