"""A tower that reads pictures by the classes that a convolutional classifier knows.

Nothing here was trained on pairs of pictures and texts. With `p` the probabilities of
the classes of a picture and `t_c` the embedding of the name of class `c`, a picture's
place among texts is the mean of the names of its most probable classes (ConSE),

    v = sum_(c in top T) p_c t_c,    z = unit [a unit v, unit h],

and the features `h` under the classes are kept beside it. A text, `[t, 0]`, is as near
to `z` as `t` is to `v`, but for a factor that all texts share. So texts are ranked as
ConSE ranks them, and what learns from pictures learns from all features.

References:
    Norouzi et al., Zero-Shot Learning by Convex Combination of Semantic Embeddings,
    2014.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.models import convolutional
from mmcl_jax.models.initial_weights import init_linear
from mmcl_jax.models.specs import ConseSpec
from mmcl_jax.models.tower import linear
from mmcl_jax.ops.losses import unit_norm
from mmcl_jax.types import DrawNormal, Key, PyTree


def embed(
    spec: ConseSpec, weights: PyTree, frames: Float[Array, "b *frames 1 1 features"]
) -> Float[Array, "b d"]:
    """Returns the unit embeddings `z`; a clip has the mean features of its frames.

    Args:
        spec: Shape of the tower.
        weights: Weights of the tower; `head/names [classes words]` are unit embeddings.
        frames: Features of each frame, by the stem.
    """
    features = frames.reshape(len(frames), -1, spec.stem.channels).mean(1)
    probabilities = jax.nn.softmax(linear(features, weights["head"]["classes"]))
    likely, which = jax.lax.top_k(probabilities, spec.top)
    named = jnp.einsum("bt,btw->bw", likely, weights["head"]["names"][which])
    parts = spec.share * unit_norm(named), unit_norm(features)
    return unit_norm(jnp.concatenate(parts, axis=1))


def init(
    key: Key, spec: ConseSpec, embedding: int, normal: DrawNormal = jax.random.normal
) -> PyTree:
    """Returns random weights."""
    del embedding  # that of the spec
    keys = jax.random.split(key, 3)
    shape, names = (spec.stem.channels, spec.classes), (spec.classes, spec.words)
    head = {
        "classes": init_linear(keys[1], shape, spec.stem.channels**-0.5, normal),
        "names": unit_norm(normal(keys[2], names)),
    }
    return {"stem": convolutional.init(keys[0], spec.stem, normal), "head": head}
