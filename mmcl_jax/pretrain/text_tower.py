"""The text tower: sentences of every kind, each with its target in the joint space."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import tokenizers
from jaxtyping import Array, Float, Int

from mmcl_jax.modalities import MODALITIES
from mmcl_jax.models import text
from mmcl_jax.models.specs import TextSpec
from mmcl_jax.ops import rngs
from mmcl_jax.types import Key, PyTree

# a cosine above it means the same sentence
_SAME = 0.999
_MAX_SCALE = 40.0
_WITHOUT_TEMPLATE = ("{}", "a {}")
# of the regression on words, as a share of the mean of its diagonal
_RIDGE = 0.03
# of an embedding of a token, root of the mean square
_INITIAL_SIZE = 0.1


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


def bag_of_words(
    kinds: dict[str, Sentences], vocabulary: int, width: int
) -> tuple[Float[np.ndarray, "v w"], Float[np.ndarray, "w d"]]:
    """Returns embeddings of tokens, and a projection of their mean to the targets.

    Ridge regression of the targets on the shares of tokens in a sentence, reduced to
    the principal components of what it foretells.

    Args:
        kinds: Sentences of each kind.
        vocabulary: Number of tokens.
        width: Width of an embedding.
    """
    shares, targets = [], []
    for kind in kinds.values():
        rows, places = np.nonzero(kind.ids)
        shape = len(kind.ids), vocabulary
        counts = (np.ones(len(rows)), (rows, kind.ids[rows, places]))
        found = scipy.sparse.csr_array(counts, shape=shape)
        shares.append(found.multiply(1 / found.sum(1)[:, None]).tocsr())
        targets.append(kind.targets[kind.owner])
    x, y = scipy.sparse.vstack(shares), np.concatenate(targets)
    gram = (x.T @ x).toarray()
    gram += _RIDGE * np.trace(gram) / vocabulary * np.eye(vocabulary)
    weights = np.linalg.solve(gram, x.T @ y)
    variance = weights.T @ (gram @ weights)
    components = np.linalg.eigh(variance)[1][:, ::-1][:, :width]
    return weights @ components, components.T


def init(
    key: Key, spec: TextSpec, embedding: int, kinds: dict[str, Sentences]
) -> PyTree:
    """Returns a text tower that begins as a bag of words, and a scale of its contrast.

    Its first block lets the end of a sentence attend to all tokens alike, and passes
    the embeddings of `bag_of_words` on; all else is random and small.

    Args:
        key: Random key.
        spec: Shape of the tower.
        embedding: Width of the joint space.
        kinds: Sentences of each kind.
    """
    weights, width = text.init(key, spec, embedding), spec.trunk.width
    words, projection = bag_of_words(kinds, spec.vocabulary, width)
    words *= _INITIAL_SIZE / np.sqrt(np.square(words).mean())
    # a tower wider than the joint space keeps its random columns beside them
    used = slice(len(projection))
    weights["tokens"] = weights["tokens"].at[:, used].set(words)
    weights["projection"] = weights["projection"].at[used].set(projection)
    same, blocks = jnp.eye(width), weights["blocks"]
    values = blocks["qkv"]["kernel"].at[0, :, 2 * width :].set(same)
    blocks["qkv"]["kernel"] = values
    blocks["out"]["kernel"] = blocks["out"]["kernel"].at[0].set(same)
    return weights | {"log_scale": jnp.log(20.0)}


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
