"""What is trained inside a frozen tower.

An adapter is a pytree with a fixed structure. Adapters of several modalities are
stacked on a leading axis; `blend` turns the stack and per-sample weights over it into
what a tower takes. Means over snapshots are arithmetic on the pytree.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.models.tower import Injection, LowRank, TowerSpec
from mmcl_jax.types import Key, PyTree


class Adapter(NamedTuple):
    """One kind of adapter.

    Attributes:
        init: `(key, spec) -> pytree` of one modality.
        blend: `(stack [m ...], weights [b m]) -> Injection`.
    """

    init: Callable[[Key, TowerSpec], PyTree]
    blend: Callable[[PyTree, Float[Array, "b m"]], Injection]


def deep_prompts(length: int, layers: int | None) -> Adapter:
    """Returns prompts for the first `layers` blocks (None: for all).

    Parameters of one modality: `[l, p, w]`, drawn from N(0, 0.02²). The blend is
    equation `P(x) = sum_m w_m(x) P_m`.

    References:
        Jia et al., Visual Prompt Tuning, 2022 (the deep variant).
    """

    def init(key: Key, spec: TowerSpec) -> PyTree:
        depth = min(layers or spec.layers, spec.layers)
        return {
            "prompts": 0.02 * jax.random.normal(key, (depth, length, spec.width)),
        }

    def blend(stack: PyTree, weights: Float[Array, "b m"]) -> Injection:
        return Injection(prompts=jnp.einsum("bm,mlpw->blpw", weights, stack["prompts"]))

    return Adapter(init, blend)


def low_rank(rank: int) -> Adapter:
    """Returns low-rank updates of the attention's qkv map and the MLP's first map.

    `up` starts at zero, so a new adapter leaves the tower as it is. The blend of
    updates `sum_m w_m(x) D_m U_m` is one product: the stack lies along the rank axis
    and the weights gate its coordinates, so no weight matrix is made per sample.

    References:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021.
    """

    def init(key: Key, spec: TowerSpec) -> PyTree:
        outputs = {"qkv": 3 * spec.width, "mlp_in": spec.mlp_width}
        return {
            name: LowRank(
                down=spec.width**-0.5
                * jax.random.normal(
                    jax.random.fold_in(key, i), (spec.layers, spec.width, rank)
                ),
                up=jnp.zeros((spec.layers, rank, out)),
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


ADAPTERS: dict[str, Callable[..., Adapter]] = {
    "deep_prompts": deep_prompts,
    "low_rank": low_rank,
}
