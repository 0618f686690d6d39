"""What is trained inside a frozen tower.

An adapter is a pytree with a fixed structure. Adapters of several modalities are
stacked on a leading axis; `blend` turns the stack and per-sample weights over it into
an injection into a tower. Means over snapshots are arithmetic on the pytree.
"""

import dataclasses
from collections.abc import Callable
from inspect import signature
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.fields import Count, NonNegativeInt
from mmcl_jax.models.injection import Injection, LowRank, Prefix
from mmcl_jax.models.specs import TowerSpec
from mmcl_jax.types import Key, PyTree


@dataclasses.dataclass(frozen=True)
class AdapterOptions:
    """What is trained inside the frozen towers.

    Attributes:
        kind: Kind of adapter; each reads some of the other keys.
        first_block: Number of blocks, from the first, that no adapter acts in. They are
            frozen, so what they compute of a sample is computed once, when it is
            decoded. In a tower with no more blocks, adapters act in the last one.
        length: Number of prompt tokens of a layer, or of keys and values of a prefix.
        layers: Number of layers with prompts or a prefix, from the first that adapters
            act in; None: all.
        rank: Rank of low-rank updates.
        context: Number of learnt vectors in front of class names, see
            `methods.class_context`; None: names stand in templates, embedded once.
    """

    kind: str = "deep_prompts"
    first_block: NonNegativeInt = 0
    length: Count = 8
    layers: Count | None = None
    rank: Count = 4
    context: Count | None = None


class Adapter(NamedTuple):
    """One kind of adapter.

    Attributes:
        init: Function `(key, spec) -> pytree` of one modality.
        blend: Function `(stack [m ...], weights [b m]) -> Injection`.
    """

    init: Callable[[Key, TowerSpec], PyTree]
    blend: Callable[[PyTree, Float[Array, "b m"]], Injection]


def deep_prompts(length: int, layers: int | None) -> Adapter:
    """Returns prompts for the first `layers` adapted blocks (None: for all).

    The parameters of one modality are `[l, p, w]`, drawn from N(0, 0.02²); the blend is
    `P(x) = sum_m w_m(x) P_m`.

    References:
        Jia et al., Visual Prompt Tuning, 2022 (the deep variant).
    """

    def init(key: Key, spec: TowerSpec) -> PyTree:
        depth = min(layers or spec.adapted_layers, spec.adapted_layers)
        return {
            "prompts": 0.02 * jax.random.normal(key, (depth, length, spec.width)),
        }

    def blend(stack: PyTree, weights: Float[Array, "b m"]) -> Injection:
        return Injection(prompts=jnp.einsum("bm,mlpw->blpw", weights, stack["prompts"]))

    return Adapter(init, blend)


def shallow_prompts(length: int) -> Adapter:
    """Returns prompts before the first block only; later ones see their outputs.

    References:
        Jia et al., Visual Prompt Tuning, 2022 (the shallow variant).
    """
    return deep_prompts(length, layers=1)


def prefix(length: int, layers: int | None) -> Adapter:
    """Returns keys and values in front of those of the first `layers` blocks.

    The parameters of one modality are twice `[l, p, w]` (None: for all blocks), drawn
    from N(0, 0.02²). They enter the attention after its projections, and are blended
    like prompts.

    References:
        Li & Liang, Prefix-Tuning, 2021. Wang et al., DualPrompt, 2022, equation (5).
    """

    def init(key: Key, spec: TowerSpec) -> PyTree:
        most = spec.adapted_layers
        depth = most if layers is None else min(layers, most)
        shape = (2, depth, length, spec.width)
        keys, values = 0.02 * jax.random.normal(key, shape)
        return {"keys": keys, "values": values}

    def blend(stack: PyTree, weights: Float[Array, "b m"]) -> Injection:
        return Injection(prefixes=(_blended_prefix(stack, weights),))

    return Adapter(init, blend)


def residual_prefix(length: int, layers: int | None) -> Adapter:
    """Returns keys and values that the first `layers` blocks attend to separately.

    `out = Attn(q, K, V) + w Attn(q, P_k, P_v)` with w = 1, which a method may replace
    by a weight per sample. `P_k` is drawn from U(-1, 1) and `P_v` starts at zero, so a
    new adapter leaves the tower unchanged.

    References:
        Tang et al., Mind the Interference: Retaining Pre-trained Knowledge in
        Parameter Efficient Continual Learning of Vision-Language Models, 2024.
    """

    def init(key: Key, spec: TowerSpec) -> PyTree:
        most = spec.adapted_layers
        depth = most if layers is None else min(layers, most)
        shape = (depth, length, spec.width)
        return {
            "keys": jax.random.uniform(key, shape, minval=-1.0, maxval=1.0),
            "values": jnp.zeros(shape),
        }

    def blend(stack: PyTree, weights: Float[Array, "b m"]) -> Injection:
        blended = _blended_prefix(stack, weights)
        whole = jnp.ones(weights.shape[0])
        return Injection(prefixes=(blended._replace(residual=whole),))

    return Adapter(init, blend)


def _blended_prefix(stack: PyTree, weights: Float[Array, "b m"]) -> Prefix:
    keys, values = (
        jnp.einsum("bm,mlpw->blpw", weights, stack[name]) for name in ("keys", "values")
    )
    return Prefix(keys, values)


def low_rank(rank: int) -> Adapter:
    """Returns low-rank updates of the attention's qkv map and the MLP's first map.

    `up` starts at zero, so a new adapter leaves the tower unchanged. The blend of
    updates `sum_m w_m(x) D_m U_m` is one product: the stack lies along the rank axis
    and the weights gate its coordinates, so no weight matrix is formed per sample.

    References:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021.
    """

    def init(key: Key, spec: TowerSpec) -> PyTree:
        outputs = {"qkv": 3 * spec.width, "mlp_in": spec.mlp_width}
        return {
            name: LowRank(
                down=spec.width**-0.5
                * jax.random.normal(
                    jax.random.fold_in(key, i), (spec.adapted_layers, spec.width, rank)
                ),
                up=jnp.zeros((spec.adapted_layers, rank, out)),
            )
            for i, (name, out) in enumerate(outputs.items())
        }

    def blend(stack: PyTree, weights: Float[Array, "b m"]) -> Injection:
        def side_by_side(update: LowRank) -> LowRank:
            m, l, w, r = update.down.shape  # noqa: E741
            return LowRank(
                down=update.down.transpose(1, 2, 0, 3).reshape(l, w, m * r),
                up=update.up.transpose(1, 0, 2, 3).reshape(l, m * r, -1),
            )

        return Injection(
            low_rank={name: side_by_side(update) for name, update in stack.items()},
            gate=jnp.repeat(weights, rank, axis=1),
        )

    return Adapter(init, blend)


# the parameters of each are fields of `AdapterOptions`, those that it reads
ADAPTERS: dict[str, Callable[..., Adapter]] = {
    "deep_prompts": deep_prompts,
    "shallow_prompts": shallow_prompts,
    "prefix": prefix,
    "residual_prefix": residual_prefix,
    "low_rank": low_rank,
}


def make_adapter(options: AdapterOptions) -> Adapter:
    """Returns the adapter that the options name."""
    make = ADAPTERS[options.kind]
    return make(**{name: getattr(options, name) for name in signature(make).parameters})
