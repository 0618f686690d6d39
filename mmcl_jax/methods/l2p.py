"""Learning to Prompt: each sample takes the prompts of a pool with the nearest keys."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmcl_jax.fields import Count, NonNegative
from mmcl_jax.methods import pool as selection
from mmcl_jax.methods.adapted import key_pulled
from mmcl_jax.methods.base import Common, Method
from mmcl_jax.methods.sharing import (
    group_weights,
    init_groups,
    routed,
    trainable_groups,
)
from mmcl_jax.models.adapters import shallow_prompts
from mmcl_jax.models.injection import Injection
from mmcl_jax.models.model import Model
from mmcl_jax.ops import rngs
from mmcl_jax.types import Batch, Capacity, Context, Key, Memory, Params, PyTree


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of L2P; the defaults are the paper's for CIFAR-100.

    Attributes:
        pool: Number of prompts of a group.
        length: Number of tokens of a prompt.
        top_k: Number of prompts that a sample takes, at most `pool`.
        key_pull: Weight of the cosines of queries and chosen keys in the loss.
        batchwise_vote: Whether the whole batch takes the prompts that most of its
            samples choose, in training and in prediction, as the published code does.
            A prediction then depends on the rest of the batch, and batches of one task
            reveal their task.
    """

    pool: Count = 10
    length: Count = 10
    top_k: Count = 4
    key_pull: NonNegative = 1.0
    batchwise_vote: bool = False


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns L2P with a pool for each group.

    A sample takes the k prompts whose keys have the largest cosine with its frozen
    query, all of them before the first block, and

        loss = CE(s z · u_c) - key_pull sum_(chosen k) cos(q, key_k).

    Deviation: the paper's head reads the mean of the prompts' outputs. Here the
    feature z is the class token's output, since the projection into the space of the
    class texts, which are the head, was pre-trained for that token alone. The paper's
    penalty on often chosen prompts is left out, as in its code.
    Only samples have prompts; class texts are embedded once, frozen.

    References:
        Wang et al., Learning to Prompt for Continual Learning, CVPR 2022.

    Raises:
        ValueError: A sample would take more prompts than a pool has.
    """
    if options.top_k > options.pool:
        raise ValueError(
            f"config.method.l2p.top_k: {options.top_k} is more than the "
            f"{options.pool} prompts of config.method.l2p.pool"
        )
    prompts, sharing = shallow_prompts(options.length), common.sharing

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        stacks = init_groups(key, model, prompts, sharing, options.pool)
        width = model.spec.embedding
        pools = {}
        for tower, stack in stacks.items():
            own = jax.random.split(rngs.named(key, tower))
            shapes = {
                "prompts": stack["prompts"].shape,
                "keys": (stack["prompts"].shape[0], width),
            }
            # as in the published code: all keys lie near one diagonal at first
            pools[tower] = {
                name: jax.random.uniform(draw, shape, maxval=0.01)
                for draw, (name, shape) in zip(own, shapes.items(), strict=True)
            }
        return pools, {}

    def visible(context: Context, batch: Batch) -> Bool[Array, "b s"]:
        groups = group_weights(model, sharing, context, batch)
        return jnp.repeat(groups > 0, options.pool, axis=1)

    def choose(
        params: Params, context: Context, batch: Batch
    ) -> tuple[Float[Array, "b s"], Int[Array, "b k"]]:
        keys = params[model.tower_of(batch.modality)]["keys"]
        scores = selection.cosines(batch.query, keys)
        chosen = selection.top_k(scores, visible(context, batch), options.top_k)
        if options.batchwise_vote:
            chosen = selection.majority(chosen, batch.weight, keys.shape[0])
        return scores, chosen

    def injection(
        params: Params, context: Context, batch: Batch, chosen: Int[Array, "b k"]
    ) -> Injection:
        del context
        pool = params[model.tower_of(batch.modality)]["prompts"]
        rows, width = chosen.shape[0], pool.shape[-1]
        return Injection(prompts=pool[chosen].reshape(rows, 1, -1, width))

    def trainable(params: Params, context: Context) -> PyTree:
        return trainable_groups(model, sharing, context, params, options.pool)

    method = key_pulled(
        model, init, choose, injection, options.key_pull, common.label_space
    )
    return routed(method._replace(trainable=trainable), model, sharing)
