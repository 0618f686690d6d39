"""The joint space: principal components of a sentence encoder's embeddings.

Both towers are trained to the same fixed targets, so neither needs the other.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mmcl_jax.ops.losses import unit_norm


class Space(NamedTuple):
    """A centred projection.

    Attributes:
        mean: `[t]` of the teacher's embeddings.
        components: `[t d]`, orthonormal.
    """

    mean: Float[np.ndarray, " t"]
    components: Float[np.ndarray, "t d"]

    def __call__(self, embeddings: Float[np.ndarray, "n t"]) -> np.ndarray:
        """Returns unit vectors `[n d]`."""
        return np.asarray(unit_norm((embeddings - self.mean) @ self.components))


def fit(embeddings: Float[np.ndarray, "n t"], width: int) -> Space:
    """Returns the space of the first `width` principal components."""
    mean = embeddings.mean(0)
    _, _, components = np.linalg.svd(embeddings - mean, full_matrices=False)
    return Space(mean, components[:width].T)
