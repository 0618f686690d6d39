"""The visual tower after its frozen stem: what it is taught by each pool of samples."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mmcl_jax.models import visual
from mmcl_jax.models.specs import VisualSpec
from mmcl_jax.ops import rngs
from mmcl_jax.ops.losses import unit_norm
from mmcl_jax.pretrain.pools import Pool
from mmcl_jax.types import Key, PyTree

PICTURES = "pictures"
_MAX_SCALE = 60.0
# a teacher's distribution is softened by it, and has half of the weight of a label
_TEMPERATURE = 1.5
_TAUGHT = 0.5


class Labelled(NamedTuple):
    """Samples with a name each, and optionally coarser names.

    Attributes:
        pool: The samples.
        anchors: Targets `[names d]` in the joint space.
        parts: Further anchors `[parts d]`, each with the part `[names]` of each name.
    """

    pool: Pool
    anchors: Float[np.ndarray, "names d"]
    parts: tuple[tuple[np.ndarray, np.ndarray], ...] = ()


class Taught(NamedTuple):
    """What a classifier says of the pictures.

    Attributes:
        logits: float16 `[n classes]`.
        features: float16 `[n f]`, principal components of its features.
    """

    logits: np.ndarray
    features: np.ndarray


def batches(
    pictures: Labelled,
    taught: Taught,
    others: dict[str, Labelled],
    counts: dict[str, int],
    seed: int,
) -> Callable[[int], Iterator[PyTree]]:
    """Returns a function from the first step to endless batches from there on.

    Half of the pictures are blends of two; `share` is that of the first.
    """

    def drawn(start: int) -> Iterator[PyTree]:
        step = start
        while True:
            rng = np.random.default_rng(rngs.host_seed(seed, "samples", step))
            count = counts[PICTURES]
            rows = rng.integers(len(pictures.pool.labels), size=count)
            share = np.where(rng.random(count) < 0.5, 1.0, rng.uniform(0.5, 1, count))
            batch = {
                PICTURES: _rows(pictures.pool, rows),
                "logits": taught.logits[rows],
                "features": taught.features[rows],
                "share": share.astype(np.float32),
            }
            for name, labelled in others.items():
                pool = labelled.pool
                rows = rng.integers(len(pool.labels), size=counts[name])
                batch[name] = _rows(pool, rows)
            yield batch
            step += 1

    return drawn


def _rows(pool: Pool, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(pool.features[rows]), pool.labels[rows]


def init(key: Key, spec: VisualSpec, width: int, features: int) -> PyTree:
    """Returns random weights of the tower without its stem, and of what teaches it.

    Args:
        key: Random key.
        spec: Shape of the tower.
        width: Width of the joint space.
        features: Number of a classifier's features that an embedding must foretell.
    """
    keys = jax.random.split(key)
    tower = visual.init(keys[0], spec, width)
    del tower["stem"]
    # a stem's features are about four times as large as normalized pixels
    tower["patch"] = tower["patch"] / 4
    foretold = 0.05 * jax.random.normal(keys[1], (width, features))
    return {
        "tower": tower,
        "log_scale": jnp.log(15.0),
        "features": {"kernel": foretold, "bias": jnp.zeros(features)},
    }


def make_loss(
    spec: VisualSpec, pictures: Labelled, others: dict[str, Labelled], pace: float
) -> Callable[[PyTree, PyTree], tuple[Array, dict[str, Array]]]:
    """Returns the loss of a batch.

    Pictures: cross-entropy among all names with the blend of label and teacher; the
    distance to the convex combination of the names by that blend (ConSE); the distance
    of a linear map of the embedding to the teacher's features. Other samples:
    cross-entropy among the names of their pool, and among their parts.

    Args:
        spec: Shape of the tower.
        pictures: Pictures.
        others: Other pools.
        pace: Number of samples of another pool that weigh as much as the pictures.

    References:
        Hinton et al., Distilling the Knowledge in a Neural Network, 2015; Norouzi et
        al., Zero-Shot Learning by Convex Combination of Semantic Embeddings, 2014;
        Zhang et al., mixup, 2018.
    """

    def log_shares(weights: PyTree, z: Array, anchors: Array) -> Array:
        scale = jnp.exp(jnp.minimum(weights["log_scale"], jnp.log(_MAX_SCALE)))
        return jax.nn.log_softmax(scale * z @ anchors.T)

    def taught(weights: PyTree, z: Array, batch: PyTree) -> dict[str, Array]:
        names = jnp.asarray(pictures.anchors)
        soft = jax.nn.softmax(batch["logits"].astype(jnp.float32) / _TEMPERATURE)
        hard = jax.nn.one_hot(batch[PICTURES][1], len(names))
        share = batch["share"][:, None]
        goal = _blended(share, _TAUGHT * soft + (1 - _TAUGHT) * hard)
        entropy = -(goal * log_shares(weights, z, names)).sum(1)
        combined = unit_norm(goal @ names)
        features = unit_norm(_blended(share, batch["features"].astype(jnp.float32)))
        told = z @ weights["features"]["kernel"] + weights["features"]["bias"]
        return {
            PICTURES: entropy.mean(),
            "conse": 1 - (z * combined).sum(1).mean(),
            "features": 1 - (unit_norm(told) * features).sum(1).mean(),
        }

    def named(weights: PyTree, z: Array, labels: Array, of: Labelled) -> Array:
        def entropy(anchors: np.ndarray, targets: Array) -> Array:
            shares = log_shares(weights, z, jnp.asarray(anchors))
            return -jnp.take_along_axis(shares, targets[:, None], 1).mean()

        whole = entropy(of.anchors, labels)
        if not of.parts:
            return whole
        parts = [entropy(a, jnp.asarray(part)[labels]) for a, part in of.parts]
        return (whole + jnp.stack(parts).sum()) / 2

    def loss(weights: PyTree, batch: PyTree) -> tuple[Array, dict[str, Array]]:
        share = batch["share"][:, None, None, None]
        maps = [_blended(share, _as_float(batch[PICTURES]))]
        maps += [_as_float(batch[name]) for name in others]
        ends = np.cumsum([len(x) for x in maps])[:-1]
        rows = jnp.concatenate(maps)[:, None]
        z = visual.embed(spec, weights["tower"], rows)
        first, *rest = jnp.split(z, ends)
        values = taught(weights, first, batch)
        total = values[PICTURES] + 2 * values["conse"] + 2 * values["features"]
        for (name, of), own in zip(others.items(), rest, strict=True):
            values[name] = named(weights, own, batch[name][1], of)
            total += len(own) / pace * values[name]
        return total, values

    return loss


def _as_float(rows: tuple[Array, Array]) -> Array:
    return rows[0].astype(jnp.float32)


def _blended(share: Array, rows: Array) -> Array:
    return share * rows + (1 - share) * rows[::-1]


def make_embed(
    spec: VisualSpec,
) -> Callable[[PyTree, np.ndarray], Float[np.ndarray, "n d"]]:
    """Returns `(weights, features [n h w c]) -> unit embeddings`."""
    compiled = jax.jit(
        lambda tower, x: visual.embed(spec, tower, x[:, None].astype(jnp.float32))
    )

    def embed(weights: PyTree, features: np.ndarray) -> np.ndarray:
        size = 200
        starts = range(0, len(features), size)
        parts = [compiled(weights["tower"], features[i : i + size]) for i in starts]
        return np.concatenate(parts)

    return embed


def evaluate(
    embed: Callable[[PyTree, np.ndarray], np.ndarray], probes: dict[str, Labelled]
) -> Callable[[PyTree], dict[str, Any]]:
    """Returns a function of the weights: zero-shot accuracy on each probe."""

    def measure(weights: PyTree) -> dict[str, Any]:
        found = {}
        for name, probe in probes.items():
            z = embed(weights, probe.pool.features)
            hits = (z @ probe.anchors.T).argmax(1) == probe.pool.labels
            found[f"accuracy_{name}"] = round(float(hits.mean()), 4)
        return found

    return measure
