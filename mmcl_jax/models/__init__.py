"""The frozen encoder as a method sees it."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float

from mmcl_jax.models import dual
from mmcl_jax.models.tower import Injection
from mmcl_jax.types import PyTree

# an image-side tower is shared by every modality but text
TEXT_TOWER, VISUAL_TOWER = "text", "visual"


class Model(NamedTuple):
    """Static facts of the encoder and the stream, and the way to embed.

    Attributes:
        spec: shape of both towers.
        modalities: of the stream; a modality's index is its place.
        towers: tower of each modality.
        num_classes: class slots of the stream.
        num_stages: stages of the stream.
        logit_scale: cosines are multiplied by it.
        input_shapes: of one sample of each modality, a tree of `ShapeDtypeStruct`.
        embed: `(frozen, inputs, injection or None) -> unit embeddings [b d]`.
        layer_features: `(frozen, inputs, blocks) -> [b features]`, see
            `dual.layer_features`.
    """

    spec: dual.DualSpec
    modalities: tuple[str, ...]
    towers: tuple[str, ...]
    num_classes: int
    num_stages: int
    logit_scale: float
    input_shapes: tuple[PyTree, ...]
    embed: Callable[[PyTree, PyTree, Injection | None], Float[Array, "b d"]]
    layer_features: Callable[[PyTree, PyTree, int], Float[Array, "b features"]]

    def tower_of(self, modality: str) -> str:
        """Returns the tower that reads `modality`."""
        return self.towers[self.modalities.index(modality)]

    def members(self, tower: str) -> tuple[int, ...]:
        """Returns the indices of the modalities that `tower` reads."""
        return tuple(i for i, name in enumerate(self.towers) if name == tower)
