"""The frozen encoder: towers that read modalities, and one joint space."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmcl_jax.models import conse, text, visual
from mmcl_jax.models.injection import Injection
from mmcl_jax.models.specs import ConseSpec, EncoderSpec, TextSpec, VisualSpec
from mmcl_jax.types import Key, PyTree

# parts of names of weights that stay float32 in any encoder
_FLOAT32 = ("norm", "projection", "head", "scale", "stem")


def embed(
    spec: EncoderSpec,
    frozen: PyTree,
    modality: str,
    inputs: PyTree,
    injection: Injection | None = None,
) -> Float[Array, "b d"]:
    """Returns unit embeddings by the tower that reads `modality`.

    Args:
        spec: Shape of the encoder.
        frozen: Weights of the encoder.
        modality: Modality of the inputs.
        inputs: `pixels` or a stem's `features`, `[b f h w c]`, or `tokens [b n]`.
        injection: What an adapter adds, or None for the frozen encoder.
    """
    name = spec.tower_of(modality)
    reader = spec.reader(name)
    if isinstance(reader, TextSpec):
        return text.embed(reader, frozen[name], inputs["tokens"], injection)
    pictures = visual.frames_of(reader, frozen[name], inputs)
    if isinstance(reader, ConseSpec):
        return conse.embed(reader, frozen[name], pictures)
    return visual.embed(reader, frozen[name], pictures, injection)


def embed_names(
    spec: EncoderSpec,
    frozen: PyTree,
    ids: Int[Array, "C n"],
    context: Float[Array, "C p w"],
) -> Float[Array, "C d"]:
    """Returns unit embeddings of class names after learnt words.

    With `v_i` the embedding of the i-th word of a sentence and `c_i` its context, the
    tower reads `start, v_1 + c_1, ..., v_p + c_p, name, end`. So the learnt vectors are
    stored as offsets from the words that they start at.

    Args:
        spec: Shape of the encoder.
        frozen: Weights of the encoder.
        ids: Token ids of the sentences; the first `p` words precede the name.
        context: Learnt offsets of the words of each sentence.

    References:
        Zhou et al., Learning to Prompt for Vision-Language Models (CoOp), 2022,
        equation (2), initialised by words.
    """
    return text.embed(spec.text, frozen[spec.tower_of("text")], ids, context=context)


def embed_layers(
    spec: EncoderSpec,
    frozen: PyTree,
    modality: str,
    inputs: PyTree,
    injection: Injection | None,
    blocks: int,
) -> tuple[Float[Array, "b d"], Float[Array, "b features"]]:
    """Returns `embed`, and features of the last `blocks` blocks before the final one.

    For every block they are the mean of its tokens, each normalised to mean 0 and
    variance 1: information that the final embedding dropped because pre-training had no
    use for it. Prompts, the class or start token and everything after a sentence's end
    are left out. `features` is the width of the tower times `layer_blocks` of it.

    Raises:
        ConfigError: The tower has no transformer.

    References:
        K. Ahrens et al., "Read Between the Layers: Leveraging Multi-Layer
        Representations for Rehearsal-Free Continual Learning with Pre-Trained Models",
        TMLR 2024.
    """
    name = spec.tower_of(modality)
    spec.tower(name)  # a tower without a transformer is refused by name
    reader, weights = spec.reader(name), frozen[name]
    if isinstance(reader, TextSpec):
        return text.embed_layers(reader, weights, inputs["tokens"], injection, blocks)
    assert isinstance(reader, VisualSpec)
    pictures = visual.frames_of(reader, weights, inputs)
    return visual.embed_layers(reader, weights, pictures, injection, blocks)


def init(key: Key, spec: EncoderSpec) -> PyTree:
    """Returns random weights of all towers and the logarithm of the logit scale."""
    keys = jax.random.split(key, len(spec.towers))
    weights = {}
    for k, (name, reader) in zip(keys, spec.towers, strict=True):
        module = {TextSpec: text, ConseSpec: conse}.get(type(reader), visual)
        weights[name] = module.init(k, reader, spec.embedding)
    return weights | {"log_scale": jnp.log(1 / 0.07)}


def leaf_dtype(path: str, dtype: str) -> str:
    """Returns the data type of a weight in an encoder that computes in `dtype`.

    Layer norms, pooling heads and projections always compute in float32, as every
    softmax does.

    Args:
        path: Path of the leaf, with `/` between names.
        dtype: Either "float32" or "bfloat16".
    """
    return "float32" if any(name in path for name in _FLOAT32) else dtype
