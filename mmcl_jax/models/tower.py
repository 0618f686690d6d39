"""One transformer trunk for every tower, as a pure function of its weights.

All layers are stacked on a leading axis, so a trunk of any depth is one `lax.scan`.
What is trained inside a frozen tower reaches it as an `Injection`.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.models.injection import Injection, LowRank, Prefix
from mmcl_jax.models.layers import ACTIVATIONS, attend, layer_norm
from mmcl_jax.models.specs import TowerSpec
from mmcl_jax.parallel import sharding
from mmcl_jax.types import PyTree

# What is stored for the backward pass of a block: all it needs (except gathered
# weights), the outputs of its linear maps (attention is recomputed), or its inputs.
REMAT: dict[str, Callable[..., bool]] = {
    "nothing": sharding.all_but_gathered,
    "attention": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "blocks": jax.checkpoint_policies.nothing_saveable,
}


def linear(
    x: Array,
    weights: PyTree,
    update: LowRank | None = None,
    gate: Array | None = None,
) -> Array:
    """Returns a linear map of the last axis, with its low-rank update if any."""
    y = x @ weights["kernel"] + weights["bias"]
    if update is not None and gate is not None:
        down, up, gate = (part.astype(x.dtype) for part in (*update, gate))
        y = y + (x @ down * gate[:, None, :]) @ up
    return y


def attend_with(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    mask: Bool[Array, "*rows m"] | None,
    prefix: Prefix,
) -> Float[Array, "b n h k"]:
    """Returns attention with the prefix of one block, its keys and values `[b p w]`."""
    rows, _, *heads = q.shape
    length = prefix.keys.shape[1]
    shape = (rows, length, *heads)
    keys, values = (
        x.reshape(shape).astype(q.dtype) for x in (prefix.keys, prefix.values)
    )
    if prefix.residual is None:
        if mask is not None:
            # a prefix has no position, so no mask may hide it
            free = jnp.ones((*mask.shape[:-1], length), bool)
            mask = jnp.concatenate([free, mask], axis=-1)
        k, v = jnp.concatenate([keys, k], 1), jnp.concatenate([values, v], 1)
        return attend(q, k, v, mask)
    mixed = attend(q, k, v, mask)
    # a softmax over no keys is NaN
    if length == 0:
        return mixed
    share = prefix.residual[:, None, None, None].astype(q.dtype)
    return mixed + share * attend(q, keys, values, None)


def split_heads(spec: TowerSpec, qkv: Float[Array, "b n w3"]) -> list[Array]:
    """Returns queries, keys and values, each `[b n h k]`."""
    rows, tokens, width = qkv.shape
    shape = rows, tokens, 3 * spec.heads, width // 3 // spec.heads
    return jnp.split(qkv.reshape(shape), 3, 2)


def _attend_over_frames(
    spec: TowerSpec, x: Float[Array, "b n w"], block: PyTree, prompts: slice
) -> Float[Array, "b n w"]:
    """Lets each position of a frame attend to the same position of all frames.

    Rows are the frames of one clip after another. Prompts belong to one frame each and
    take no part.
    """
    native = jnp.concatenate([x[:, : prompts.start], x[:, prompts.stop :]], axis=1)
    rows, tokens, width = native.shape
    clips = native.reshape(-1, spec.frames, tokens, width) + block["embedding"][:, None]
    by_position = clips.swapaxes(1, 2).reshape(-1, spec.frames, width)
    h = layer_norm(by_position, block["norm"], spec.norm_epsilon)
    q, k, v = split_heads(spec, linear(h, block["qkv"]))
    mixed = attend(q, k, v, None)
    mixed = linear(mixed.reshape(h.shape), block["out"])
    mixed = mixed.reshape(-1, tokens, spec.frames, width).swapaxes(1, 2)
    native = (clips + mixed).reshape(rows, tokens, width)
    parts = native[:, : prompts.start], x[:, prompts], native[:, prompts.start :]
    return jnp.concatenate(parts, axis=1)


def _block(
    spec: TowerSpec,
    x: Float[Array, "b n w"],
    block: PyTree,
    prefix: Prefix | None,
    low_rank: dict[str, LowRank],
    gate: Float[Array, "b r"] | None,
    mask: Bool[Array, "*rows n"] | None,
) -> Float[Array, "b n w"]:
    def norm(x: Array, name: str, is_output: bool) -> Array:
        is_due = is_output == spec.post_norm
        return layer_norm(x, block[name], spec.norm_epsilon) if is_due else x

    h = norm(x, "norm1", is_output=False)
    qkv = linear(h, block["qkv"], low_rank.get("qkv"), gate)
    q, k, v = split_heads(spec, qkv)
    if spec.learned_key:
        k, v = (
            jnp.concatenate([own, _learned(own, block[name])], axis=1)
            for own, name in ((k, "learned_key"), (v, "learned_value"))
        )
    if prefix is None:
        mixed = attend(q, k, v, mask)
    else:
        mixed = attend_with(q, k, v, mask, prefix)
    x = x + linear(mixed.reshape(x.shape), block["out"])
    x = norm(x, "norm1", is_output=True)
    h = norm(x, "norm2", is_output=False)
    h = linear(h, block["mlp_in"], low_rank.get("mlp_in"), gate)
    h = ACTIVATIONS[spec.activation](h)
    return norm(x + linear(h, block["mlp_out"]), "norm2", is_output=True)


def _learned(tokens: Float[Array, "b n h k"], weight: Float[Array, " w"]) -> Array:
    rows, _, heads, width = tokens.shape
    one = weight.reshape(1, 1, heads, width).astype(tokens.dtype)
    return jnp.broadcast_to(one, (rows, 1, heads, width))


def no_summary(tokens: Array) -> None:
    """Summarizes nothing."""
    del tokens


def trunk(
    spec: TowerSpec,
    blocks: PyTree,
    x: Float[Array, "b n w"],
    injection: Injection | None = None,
    mask: Bool[Array, "*rows n_out"] | None = None,
    prompts_at: int = 1,
    summarize: Callable[[Array], PyTree] = no_summary,
) -> tuple[Float[Array, "b n_out w"], PyTree]:
    """Runs all blocks.

    Prompt rows are inserted before the first layer and replaced before each of the
    next ones for which prompts are given (VPT-deep); after the last of them their
    outputs stay as ordinary tokens. The blocks between two changes of what is injected
    are one scan, so that blocks without a prefix or prompts compute nothing for them.

    Args:
        spec: Shape of the tower.
        blocks: Weights of the blocks, stacked by layer.
        x: Tokens; the frames of a clip are consecutive rows.
        injection: What an adapter adds, or None for the frozen tower.
        mask: Tokens that each token sees, prompts among them, see `layers.attend`.
        prompts_at: Number of native tokens that precede the prompts.
        summarize: Function of the tokens after each block, whose results are kept.

    Returns:
        Tokens of the last layer, `n_out = n + p`, and the summaries, stacked by layer.

    References:
        Visual Prompt Tuning, 2022; LoRA, 2021; Prefix-Tuning, 2021; DIKI, 2024.
    """
    injection = injection or Injection()
    prompts, prompted, length = injection.prompts, 0, 0
    if prompts is not None:
        _, prompted, length, _ = prompts.shape
        # overwritten by the first prompts before any block reads them
        empty = jnp.zeros((x.shape[0], length, x.shape[2]), x.dtype)
        x = jnp.concatenate([x[:, :prompts_at], empty, x[:, prompts_at:]], axis=1)

    def step(x, layer):
        block, low_rank, prompt, prefix = layer
        if spec.sharded:
            # inside the step, so that one block's whole weights exist at a time
            block = sharding.gathered(block)
        prefix = None if prefix is None else Prefix(*prefix)
        if prompt is not None:
            place = (0, prompts_at, 0)
            x = jax.lax.dynamic_update_slice(x, prompt.astype(x.dtype), place)
        if spec.frames > 1:
            rows = slice(prompts_at, prompts_at + length)
            x = _attend_over_frames(spec, x, block["over_frames"], rows)
        x = _block(spec, x, block, prefix, low_rank, injection.gate, mask)
        return x, summarize(x)

    if spec.remat != "nothing" or spec.sharded:
        step = jax.checkpoint(step, policy=REMAT[spec.remat])

    def between(tree: PyTree, first: int, last: int) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[first:last], tree)

    # a scan needs the same tree for every layer, so it is cut where the injection ends
    prefixes, ends = _by_layer(injection.prefixes)
    cuts = sorted({0, prompted, *ends, spec.layers})
    summaries = []
    for first, last in itertools.pairwise(cuts):
        layered = between((blocks, injection.low_rank or {}), first, last)
        prompt = None
        if prompts is not None and first < prompted:
            prompt = between(jnp.moveaxis(prompts, 1, 0), first, last)
        prefix = None
        run = next((i for i, end in enumerate(ends) if first < end), None)
        if run is not None:
            start = ends[run - 1] if run else 0
            prefix = between(prefixes[run], first - start, last - start)
        x, kept = jax.lax.scan(step, x, (*layered, prompt, prefix))
        summaries.append(kept)
    return x, jax.tree.map(lambda *parts: jnp.concatenate(parts), *summaries)


class Entered(NamedTuple):
    """What enters the first block that adapters act in.

    Attributes:
        tokens: Tokens of each sample; the frames of a clip on an axis of their own.
        means: Means of the tokens after each block before it, see `layer_features`.
    """

    tokens: Float[Array, "b *f n w"]
    means: Float[Array, "b *f k w"]


def plain_blocks(
    spec: TowerSpec,
    blocks: PyTree,
    x: Float[Array, "rows n w"],
    mask: Bool[Array, "*masks n"] | None,
    summarize: Callable[[Array], Float[Array, "rows w"]],
) -> tuple[Float[Array, "rows n w"], Float[Array, "rows k w"]]:
    """Runs the blocks that no adapter acts in.

    Args:
        spec: Shape of the tower.
        blocks: Weights of all its blocks, stacked by layer.
        x: Tokens that enter the first block.
        mask: Tokens that each token sees; None: all.
        summarize: Function of the tokens after each block, see `layer_features`.

    Returns:
        The tokens after them, and what `summarize` returned after each.
    """
    count = spec.plain_layers
    if not count:
        return x, jnp.zeros((x.shape[0], 0, x.shape[2]))
    lower = dataclasses.replace(spec, layers=count)
    blocks = jax.tree.map(lambda leaf: leaf[:count], blocks)
    x, means = trunk(lower, blocks, x, mask=mask, summarize=summarize)
    return x, jnp.moveaxis(means, 0, 1)


def adapted_blocks(
    spec: TowerSpec,
    blocks: PyTree,
    x: Float[Array, "rows n w"],
    injection: Injection | None,
    mask: Bool[Array, "*masks n_out"] | None,
    prompts_at: int,
    summarize: Callable[[Array], PyTree],
) -> tuple[Float[Array, "rows n_out w"], PyTree]:
    """Runs the other blocks; see `trunk`."""
    count = spec.plain_layers
    if count:
        blocks = jax.tree.map(lambda leaf: leaf[count:], blocks)
        spec = dataclasses.replace(spec, layers=spec.adapted_layers)
    return trunk(spec, blocks, x, injection, mask, prompts_at, summarize)


def _by_layer(prefixes: tuple[Prefix, ...]) -> tuple[list[PyTree], list[int]]:
    """Returns prefixes stacked by layer, and the first layer after each run."""
    layered = []
    for prefix in prefixes:
        layers, residual = prefix.keys.shape[1], prefix.residual
        if residual is not None:
            residual = jnp.broadcast_to(residual, (layers, *residual.shape))
        keys, values = (jnp.moveaxis(x, 1, 0) for x in (prefix.keys, prefix.values))
        layered.append((keys, values, residual))
    ends = itertools.accumulate(prefix.keys.shape[1] for prefix in prefixes)
    return layered, list(ends)
