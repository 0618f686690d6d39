"""The frozen encoder as a method sees it."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float

from mmcl_jax.models.injection import Injection
from mmcl_jax.models.specs import EncoderSpec
from mmcl_jax.types import PyTree


class Model(NamedTuple):
    """Static facts of the encoder, and the functions that embed.

    Attributes:
        spec: Shape of the encoder.
        modalities: Modalities that the encoder reads, whether or not a stream has them
            (yet); the position of one is its index.
        logit_scale: Factor of cosines in logits.
        input_shapes: Tree of `ShapeDtypeStruct` of one sample of each modality.
        embed: Function `(frozen, modality, inputs, injection or None) -> unit [b d]`.
        embed_layers: Function `(frozen, modality, inputs, injection or None, blocks) ->
            unit [b d], [b features]`, see `encoder.embed_layers`.
    """

    spec: EncoderSpec
    modalities: tuple[str, ...]
    logit_scale: float
    input_shapes: tuple[PyTree, ...]
    embed: Callable[[PyTree, str, PyTree, Injection | None], Float[Array, "b d"]]
    embed_layers: Callable[
        [PyTree, str, PyTree, Injection | None, int],
        tuple[Float[Array, "b d"], Float[Array, "b features"]],
    ]

    @property
    def towers(self) -> tuple[str, ...]:
        """Returns the tower that reads each modality of the stream."""
        return tuple(self.spec.tower_of(name) for name in self.modalities)

    def tower_of(self, modality: str) -> str:
        """Returns the tower that reads `modality`."""
        return self.spec.tower_of(modality)

    def members(self, tower: str) -> tuple[int, ...]:
        """Returns the indices of the modalities that `tower` reads."""
        return tuple(i for i, name in enumerate(self.towers) if name == tower)
