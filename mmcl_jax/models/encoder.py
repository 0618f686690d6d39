"""The frozen encoder: towers that read modalities, and one joint space."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmcl_jax.models import conse, text, visual
from mmcl_jax.models.initial_weights import no_draw
from mmcl_jax.models.injection import Injection
from mmcl_jax.models.specs import (
    ConseSpec,
    EncoderSpec,
    TextSpec,
    TowerSpec,
    VisualSpec,
)
from mmcl_jax.models.tower import Entered
from mmcl_jax.types import DrawNormal, Key, PyTree

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
        inputs: `pixels [b f h w c]` or `tokens [b n]`, or what `begin` makes of them.
        injection: What an adapter adds, or None for the frozen encoder.
    """
    name = spec.tower_of(modality)
    reader = spec.reader(name)
    if isinstance(reader, ConseSpec):
        pictures = visual.frames_of(reader, frozen[name], inputs)
        return conse.embed(reader, frozen[name], pictures)
    return _embed_layers(reader, frozen[name], inputs, injection, blocks=0)[0]


def begin(spec: EncoderSpec, frozen: PyTree, modality: str, inputs: PyTree) -> PyTree:
    """Returns what is computed of inputs before the first adapter acts.

    It is frozen, so it need be computed only once for each sample: a stem's `features
    [b f h w c]`; or `entered` and `means`, see `tower.Entered`, and the `tokens` of a
    sentence, which tell where it ends; or nothing, and the inputs stay as they are.

    Args:
        spec: Shape of the encoder.
        frozen: Weights of the encoder.
        modality: Modality of the inputs.
        inputs: `pixels [b f h w c]` or `tokens [b n]`.
    """
    name = spec.tower_of(modality)
    reader, weights = spec.reader(name), frozen[name]
    if not begins(spec, modality):
        return inputs
    if isinstance(reader, ConseSpec) or not _is_cut(reader.trunk):
        assert not isinstance(reader, TextSpec)
        return {"features": visual.features(reader, weights, inputs["pixels"])}
    entered = _enter(reader, weights, inputs)
    ids = {"tokens": inputs["tokens"]} if isinstance(reader, TextSpec) else {}
    return ids | {"entered": entered.tokens, "means": entered.means}


def begins(spec: EncoderSpec, modality: str) -> bool:
    """Returns whether `begin` computes anything."""
    reader = spec.reader(spec.tower_of(modality))
    if not isinstance(reader, ConseSpec) and _is_cut(reader.trunk):
        return True
    return not isinstance(reader, TextSpec) and reader.stem is not None


def weights_to_begin(spec: EncoderSpec, frozen: PyTree, tower: str) -> PyTree:
    """Returns the weights of a tower that `begin` reads, which a stem has few of."""
    reader = spec.reader(tower)
    if not isinstance(reader, ConseSpec) and _is_cut(reader.trunk):
        return frozen[tower]
    return {"stem": frozen[tower]["stem"]}


def _is_cut(trunk: TowerSpec) -> bool:
    # blocks that are gathered from several devices cost least in one pass through all
    return trunk.plain_layers > 0 and not trunk.sharded


def _enter(reader: VisualSpec | TextSpec, weights: PyTree, inputs: PyTree) -> Entered:
    if "entered" in inputs:
        return Entered(inputs["entered"], inputs["means"])
    if isinstance(reader, TextSpec):
        return text.enter(reader, weights, inputs["tokens"])
    return visual.enter(reader, weights, visual.frames_of(reader, weights, inputs))


def _embed_layers(
    reader: VisualSpec | TextSpec,
    weights: PyTree,
    inputs: PyTree,
    injection: Injection | None,
    blocks: int,
) -> tuple[Float[Array, "b d"], Float[Array, "b features"]]:
    entered = _enter(reader, weights, inputs)
    if isinstance(reader, TextSpec):
        ids = inputs["tokens"]
        return text.leave(reader, weights, ids, entered, injection, blocks)
    return visual.leave(reader, weights, entered, injection, blocks)


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
    reader = spec.reader(name)
    assert not isinstance(reader, ConseSpec)
    return _embed_layers(reader, frozen[name], inputs, injection, blocks)


def init(key: Key, spec: EncoderSpec, normal: DrawNormal = jax.random.normal) -> PyTree:
    """Returns random weights of all towers and the logarithm of the logit scale."""
    keys = jax.random.split(key, len(spec.towers))
    weights = {}
    for k, (name, reader) in zip(keys, spec.towers, strict=True):
        module = {TextSpec: text, ConseSpec: conse}.get(type(reader), visual)
        weights[name] = module.init(k, reader, spec.embedding, normal)
    return weights | {"log_scale": jnp.log(1 / 0.07)}


def shapes(spec: EncoderSpec) -> PyTree:
    """Returns shape and dtype of every weight, float32."""
    return jax.eval_shape(lambda: init(jax.random.key(0), spec, no_draw))


def leaf_dtype(path: str, dtype: str) -> str:
    """Returns the data type of a weight in an encoder that computes in `dtype`.

    Layer norms, pooling heads and projections always compute in float32, as every
    softmax does.

    Args:
        path: Path of the leaf, with `/` between names.
        dtype: Either "float32" or "bfloat16".
    """
    return "float32" if any(name in path for name in _FLOAT32) else dtype
