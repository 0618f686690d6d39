"""The text tower: sentences of every kind, each with its target in the joint space."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from jaxtyping import Array, Float, Int

from mmcl_jax.modalities import MODALITIES
from mmcl_jax.models import text
from mmcl_jax.models.specs import TextSpec
from mmcl_jax.ops import rngs
from mmcl_jax.types import PyTree

# a cosine above it means the same sentence
_SAME = 0.999
_MAX_SCALE = 40.0
_WITHOUT_TEMPLATE = ("{}", "a {}")


class Sentences(NamedTuple):
    """Sentences of one kind.

    Attributes:
        ids: Token ids `[n length]`.
        targets: Unit vectors `[t d]` of the joint space.
        owner: Index `[n]` of each sentence's target.
    """

    ids: Int[np.ndarray, "n length"]
    targets: Float[np.ndarray, "t d"]
    owner: Int[np.ndarray, " n"]


def in_templates(
    names: Sequence[str], count: int, seed: int
) -> tuple[list[str], np.ndarray]:
    """Returns `count` sentences of each name, and the index of its name.

    Half of them are the name alone: a template must not change what a name means.
    """
    templates = [t for kind in MODALITIES.values() for t in kind.templates]
    templates += _WITHOUT_TEMPLATE * (len(templates) // len(_WITHOUT_TEMPLATE))
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(names)), count)
    drawn = rng.integers(len(templates), size=len(owner)).tolist()
    filled = zip(drawn, owner.tolist(), strict=True)
    return [templates[t].format(names[i]) for t, i in filled], owner


def encode(
    tokenizer: tokenizers.Tokenizer, sentences: Sequence[str], length: int
) -> Int[np.ndarray, "n length"]:
    """Returns token ids, padded with 0; longer sentences are cut before their end."""
    tokenizer.enable_truncation(length)
    ids = np.zeros((len(sentences), length), np.int32)
    for row, encoded in zip(ids, tokenizer.encode_batch(list(sentences)), strict=True):
        row[: len(encoded.ids)] = encoded.ids
    tokenizer.no_truncation()
    return ids


def batches(
    kinds: dict[str, Sentences], counts: dict[str, int], seed: int
) -> Callable[[int], Iterator[PyTree]]:
    """Returns a function from the first step to endless batches from there on."""

    def drawn(start: int) -> Iterator[PyTree]:
        step = start
        while True:
            rng = np.random.default_rng(rngs.host_seed(seed, "sentences", step))
            batch = {}
            for name, count in counts.items():
                kind = kinds[name]
                rows = rng.integers(len(kind.ids), size=count)
                batch[name] = (kind.ids[rows], kind.targets[kind.owner[rows]])
            yield batch
            step += 1

    return drawn


def make_loss(spec: TextSpec) -> Callable[[PyTree, PyTree], tuple[Array, dict]]:
    """Returns the loss of a batch: four times 1 - cosine, and a contrast.

    The contrast is the cross-entropy of finding a sentence's own target among those of
    the batch.
    """

    def loss(weights: PyTree, batch: PyTree) -> tuple[Array, dict[str, Array]]:
        embedded = {n: text.embed(spec, weights, ids) for n, (ids, _) in batch.items()}
        cosines = {n: (embedded[n] * t).sum(1) for n, (_, t) in batch.items()}
        z = jnp.concatenate([embedded[name] for name in batch])
        targets = jnp.concatenate([t for _, t in batch.values()])
        scale = jnp.exp(jnp.minimum(weights["log_scale"], jnp.log(_MAX_SCALE)))
        logits = scale * z @ targets.T
        own = jnp.where(targets @ targets.T > _SAME, logits, -jnp.inf)
        contrast = jax.nn.logsumexp(logits, 1) - jax.nn.logsumexp(own, 1)
        distance = 1 - jnp.concatenate(list(cosines.values()))
        value = 4 * distance.mean() + contrast.mean()
        means = {f"cosine_{name}": x.mean() for name, x in cosines.items()}
        return value, means | {"contrast": contrast.mean()}

    return loss


def make_embed(spec: TextSpec) -> Callable[[PyTree, np.ndarray], np.ndarray]:
    """Returns `(weights, ids [n length]) -> unit embeddings [n d]`."""
    compiled = jax.jit(lambda weights, ids: text.embed(spec, weights, ids))

    def embed(weights: PyTree, ids: np.ndarray) -> np.ndarray:
        parts = [compiled(weights, ids[i : i + 500]) for i in range(0, len(ids), 500)]
        return np.concatenate(parts)

    return embed


def evaluate(
    embed: Callable[[PyTree, np.ndarray], np.ndarray], probes: dict[str, Sentences]
) -> Callable[[PyTree], dict[str, Any]]:
    """Returns a function of the weights: mean cosine, and share of nearest targets."""

    def measure(weights: PyTree) -> dict[str, Any]:
        found = {}
        for name, probe in probes.items():
            z = embed(weights, probe.ids)
            cosine = (z * probe.targets[probe.owner]).sum(1).mean()
            hits = (z @ probe.targets.T).argmax(1) == probe.owner
            found[f"cosine_{name}"] = round(float(cosine), 4)
            found[f"nearest_{name}"] = round(float(hits.mean()), 4)
        return found

    return measure
