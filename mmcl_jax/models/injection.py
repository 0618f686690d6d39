"""What an adapter injects into a frozen tower."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class LowRank(NamedTuple):
    """Low-rank updates of one linear map, `x @ down * gate @ up`, stacked by layer."""

    down: Float[Array, "l fan_in r"]
    up: Float[Array, "l r fan_out"]


class Prefix(NamedTuple):
    """Keys and values added to the attention of a run of blocks, per sample.

    They have no position, and every token sees them.

    Attributes:
        keys: Keys as they enter the attention, after the projection.
        values: Values, likewise, one for each key.
        residual: Weight of a separate attention to the prefix, whose result is added;
            None: the prefix precedes the tokens' own keys in one softmax.
    """

    keys: Float[Array, "b l p w"]
    values: Float[Array, "b l p w"]
    residual: Float[Array, " b"] | None = None


class Injection(NamedTuple):
    """What an adapter injects into a tower, per sample.

    Attributes:
        prompts: Tokens that replace the prompt rows before each of the first layers.
        prefixes: Prefixes of consecutive runs of blocks, from the first block on.
        low_rank: Updates of the linear maps `qkv` and `mlp_in`, by name.
        gate: Weight of each rank coordinate of `low_rank`.
    """

    prompts: Float[Array, "b l p w"] | None = None
    prefixes: tuple[Prefix, ...] = ()
    low_rank: dict[str, LowRank] | None = None
    gate: Float[Array, "b r"] | None = None

    def repeat(self, times: int) -> "Injection":
        """Returns the injection for samples that are `times` consecutive rows each."""
        if times == 1:
            return self
        # low-rank updates are weights without a batch axis; only their gate has one
        per_sample = self._replace(low_rank=None)
        repeated = jax.tree.map(lambda x: jnp.repeat(x, times, axis=0), per_sample)
        return repeated._replace(low_rank=self.low_rank)


def prompt_length(injection: Injection | None) -> int:
    """Returns the number of prompts that an injection adds to the tokens of a row."""
    if injection is None or injection.prompts is None:
        return 0
    return injection.prompts.shape[2]
