"""What an adapter puts into a frozen tower."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class LowRank(NamedTuple):
    """A low-rank update of one linear map, `x @ down * gate @ up`, stacked by layer."""

    down: Float[Array, "l fan_in r"]
    up: Float[Array, "l r fan_out"]


class Prefix(NamedTuple):
    """Keys and values that the attention of a run of blocks is given, per sample.

    They have no position, and every token sees them.

    Attributes:
        keys: behind the projection, as `values`.
        values: one for each key.
        residual: None: they stand in front of the tokens' own in one softmax; else
            they are attended to by themselves and the result, times this, is added.
    """

    keys: Float[Array, "b l p w"]
    values: Float[Array, "b l p w"]
    residual: Float[Array, " b"] | None = None


class Injection(NamedTuple):
    """What an adapter puts into a tower, per sample.

    Attributes:
        prompts: tokens that replace the prompt rows before each of the first layers.
        prefixes: of runs of blocks that follow each other, from the first block on.
        low_rank: updates of the linear maps, by the names `qkv` and `mlp_in`.
        gate: weight of each rank coordinate of `low_rank`.
    """

    prompts: Float[Array, "b l p w"] | None = None
    prefixes: tuple[Prefix, ...] = ()
    low_rank: dict[str, LowRank] | None = None
    gate: Float[Array, "b r"] | None = None

    def repeat(self, times: int) -> "Injection":
        """Returns the injection for samples that are `times` consecutive rows each."""
        if times == 1:
            return self
        per_sample = self._replace(low_rank=None)
        repeated = jax.tree.map(lambda x: jnp.repeat(x, times, axis=0), per_sample)
        return repeated._replace(low_rank=self.low_rank)
