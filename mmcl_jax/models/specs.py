"""Shapes of encoders: towers, the modalities they read, and families of encoders."""

import dataclasses
from collections.abc import Collection
from typing import Any, Literal

from mmcl_jax.errors import ConfigError
from mmcl_jax.models.stem_specs import StemSpec

PICTURES = ("image", "video", "audio", "depth")


@dataclasses.dataclass(frozen=True)
class TowerSpec:
    """Shape of one tower.

    Attributes:
        width: Width of a token.
        layers: Number of blocks.
        heads: Number of attention heads, which divides `width`.
        mlp_width: Width of the hidden layer of the MLP.
        activation: A key of `layers.ACTIVATIONS`.
        norm_epsilon: Epsilon of every layer norm.
        frames: Number of frames that every block attends over first, one position of
            the picture at a time (LanguageBind's video tower); 1 turns it off.
        post_norm: Whether each half of a block is normalised after it is added to the
            tokens (BERT), or else its input before.
        learned_key: Whether every attention has one more key and value, which are
            weights (ImageBind's audio and depth towers).
        remat: What the backward pass recomputes, a key of `tower.REMAT`.
        sharded: Whether the weights of a block are gathered when it is computed, see
            `sharding.gathered`.
        first_adapted: Number of blocks in which nothing is injected. A tower that has
            no more of them lets adapters act in its last block.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str
    norm_epsilon: float
    frames: int = 1
    post_norm: bool = False
    learned_key: bool = False
    remat: str = "nothing"
    sharded: bool = False
    first_adapted: int = 0

    @property
    def plain_layers(self) -> int:
        """Number of blocks before the first one that an adapter acts in."""
        return min(self.first_adapted, self.layers - 1)

    @property
    def adapted_layers(self) -> int:
        """Number of blocks that adapters may act in: the last ones."""
        return self.layers - self.plain_layers


@dataclasses.dataclass(frozen=True)
class VisualSpec:
    """Shape of a visual tower.

    Attributes:
        trunk: Transformer of the tower.
        image_size: Height and width of a picture in pixels.
        patch_size: Side of a patch in pixels.
        stride: Distance of neighbouring patches in pixels.
        channels: Channels of a picture.
        tube: Depth of a patch in frames; a still is repeated as often.
        class_token: Whether a learned token precedes the patches.
        class_frames: Number of frames with a class token each; 1: all frames share one.
        patch_bias: Whether the patch embedding has a bias.
        patch_norm: Whether patch embeddings are normalised before positions are added.
        pre_norm: Whether tokens are normalised after positions are added.
        pool: What represents a picture: its class token, or attention of a learned
            query to its tokens (SigLIP).
        unit_frames: Whether the embedding of a clip is the mean of unit vectors.
        stem: Convolutions whose features are cut into patches in place of pixels;
            their stride divides `patch_size` and `stride`. None: there are none.
    """

    trunk: TowerSpec
    image_size: tuple[int, int]
    patch_size: int
    stride: int
    channels: int = 3
    tube: int = 1
    class_token: bool = True
    class_frames: int = 1
    patch_bias: bool = False
    patch_norm: bool = False
    pre_norm: bool = True
    pool: Literal["class", "attention"] = "class"
    unit_frames: bool = False
    stem: StemSpec | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Patches in a column and in a row of a picture; what is in excess is dropped.

        A stem's features may reach beyond the picture, whose last side they round up.
        """
        unit, sides = 1, self.image_size
        if self.stem is not None:
            unit, sides = self.stem.stride, self.stem.sides(self.image_size)
        patch, stride = self.patch_size // unit, self.stride // unit
        rows, columns = ((side - patch) // stride + 1 for side in sides)
        return rows, columns

    @property
    def patches(self) -> int:
        """Number of patches of one picture."""
        return self.grid[0] * self.grid[1]

    @property
    def patch_inputs(self) -> int:
        """Number of values of a patch: of its pixels, or of features of the stem."""
        if self.stem is None:
            return self.channels * self.tube * self.patch_size**2
        return self.stem.channels * (self.patch_size // self.stem.stride) ** 2

    @property
    def native_first(self) -> int:
        """Number of tokens that precede the patches."""
        return int(self.class_token)


@dataclasses.dataclass(frozen=True)
class TextSpec:
    """Shape of a text tower.

    Attributes:
        trunk: Transformer of the tower.
        vocabulary: Number of token ids.
        context_length: Number of positions.
        end_token: Id of the token that ends a sentence.
        causal: Whether a token sees earlier ones only.
        pool: What represents a sentence: the first `end_token`, the token of the
            highest id (the rule of OpenAI's first code, which encoders whose config
            names a wrong end token rely on), the last position, padding or not, or the
            mean of all tokens up to the end, which then see no padding (BERT).
        projection_bias: Whether the projection has a bias.
    """

    trunk: TowerSpec
    vocabulary: int
    context_length: int
    end_token: int
    causal: bool = True
    pool: Literal["end", "argmax", "last", "mean"] = "end"
    projection_bias: bool = False

    @property
    def native_first(self) -> int:
        """Number of tokens that precede the prompts: a start token, if there is one."""
        return int(self.pool != "last")


@dataclasses.dataclass(frozen=True)
class ConseSpec:
    """Shape of a tower that places pictures by the classes they are of, see `conse`.

    Attributes:
        stem: The classifier up to its features; it has a last convolution.
        image_size: Height and width of a picture in pixels.
        classes: Number of classes that the classifier knows.
        words: Width of the embeddings of their names.
        top: Number T of the most probable classes that place a picture.
        share: Length a of a picture's place beside that of its features, which is 1.
    """

    stem: StemSpec
    image_size: tuple[int, int]
    classes: int
    words: int
    top: int
    share: float

    @property
    def embedding(self) -> int:
        """Width of the joint space."""
        return self.words + self.stem.channels


ReaderSpec = VisualSpec | TextSpec | ConseSpec


@dataclasses.dataclass(frozen=True)
class EncoderSpec:
    """Shape of an encoder.

    Attributes:
        towers: Name and shape of each tower.
        readers: Modalities, each with the name of the tower that reads it.
        embedding: Width of the joint space.
    """

    towers: tuple[tuple[str, ReaderSpec], ...]
    readers: tuple[tuple[str, str], ...]
    embedding: int

    def reader(self, name: str) -> ReaderSpec:
        """Returns the shape of the tower called `name`."""
        return dict(self.towers)[name]

    def tower(self, name: str) -> TowerSpec:
        """Returns the shape of the transformer of the tower called `name`.

        Raises:
            ConfigError: It has none, so nothing can be trained inside it.
        """
        reader = self.reader(name)
        if isinstance(reader, ConseSpec):
            raise ConfigError(
                f"config.encoder.path: the tower {name!r} is a convolutional network, "
                "which has no blocks that something could be trained in or read from; "
                "choose a method that learns from embeddings, such as ridge, or an "
                "encoder of transformers"
            )
        return reader.trunk

    def tower_of(self, modality: str) -> str:
        """Returns the name of the tower that reads `modality`."""
        return dict(self.readers)[modality]

    @property
    def text(self) -> TextSpec:
        """The tower that reads class names."""
        spec = self.reader(self.tower_of("text"))
        assert isinstance(spec, TextSpec)
        return spec


def two_towers(
    visual: VisualSpec | ConseSpec, text: TextSpec, embedding: int
) -> EncoderSpec:
    """Returns an encoder that reads everything but text with one visual tower."""
    readers = (*((name, "visual") for name in PICTURES), ("text", "text"))
    return EncoderSpec((("visual", visual), ("text", text)), readers, embedding)


def clip(
    visual: TowerSpec,
    text: TowerSpec,
    embedding: int,
    image_size: int,
    patch_size: int,
    vocabulary: int,
    context_length: int,
    end_token: int,
) -> EncoderSpec:
    """Returns the shape of an encoder of the CLIP family.

    Args:
        visual: Transformer of the visual tower.
        text: Transformer of the text tower.
        embedding: Width of the joint space.
        image_size: Side of a picture in pixels.
        patch_size: Side of a patch in pixels.
        vocabulary: Number of token ids.
        context_length: Number of positions of the text tower.
        end_token: Id of the token whose output is the sentence's embedding.

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language
        Supervision, 2021.
    """
    return two_towers(
        VisualSpec(visual, (image_size, image_size), patch_size, patch_size),
        TextSpec(text, vocabulary, context_length, end_token),
        embedding,
    )


def siglip(
    visual: TowerSpec,
    text: TowerSpec,
    image_size: tuple[int, int],
    patch_size: int,
    vocabulary: int,
    context_length: int,
) -> EncoderSpec:
    """Returns the shape of an encoder of the SigLIP family.

    References:
        Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023.
    """
    return two_towers(
        VisualSpec(
            visual,
            image_size,
            patch_size,
            patch_size,
            class_token=False,
            patch_bias=True,
            pre_norm=False,
            pool="attention",
        ),
        TextSpec(
            text,
            vocabulary,
            context_length,
            end_token=1,
            causal=False,
            pool="last",
            projection_bias=True,
        ),
        visual.width,
    )


def layer_blocks(tower: TowerSpec, blocks: int) -> int:
    """Returns the number of blocks before the final one, `blocks` at most."""
    return min(blocks, tower.layers - 1)


def layer_width(tower: TowerSpec, blocks: int) -> int:
    """Returns the width of the features of so many blocks, side by side."""
    return layer_blocks(tower, blocks) * tower.width


def with_trunks(
    spec: EncoderSpec, names: Collection[str] | None = None, **changes: Any
) -> EncoderSpec:
    """Returns `spec` with changed transformers of the towers `names`, or of all."""

    def changed(reader: ReaderSpec) -> ReaderSpec:
        if isinstance(reader, ConseSpec):
            return reader
        trunk = dataclasses.replace(reader.trunk, **changes)
        return dataclasses.replace(reader, trunk=trunk)

    towers = tuple(
        (name, changed(reader) if names is None or name in names else reader)
        for name, reader in spec.towers
    )
    return dataclasses.replace(spec, towers=towers)
