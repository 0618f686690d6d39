"""The joint space: principal components of a sentence encoder's embeddings.

Both towers are trained to the same fixed targets, so neither needs the other.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


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
        placed = (embeddings - self.mean) @ self.components
        return placed / np.linalg.norm(placed, axis=1, keepdims=True)


def fit(embeddings: Float[np.ndarray, "n t"], width: int) -> Space:
    """Returns the space of the first `width` principal components."""
    mean = embeddings.mean(0)
    _, _, components = np.linalg.svd(embeddings - mean, full_matrices=False)
    return Space(mean, components[:width].T)
