"""Shapes of encoders: towers, what they read, and the families they are made like."""

import dataclasses
from collections.abc import Collection
from typing import Any, Literal

PICTURES = ("image", "video", "audio", "depth")


@dataclasses.dataclass(frozen=True)
class TowerSpec:
    """Shape of one tower.

    Attributes:
        width: token width.
        layers: number of blocks.
        heads: attention heads; divides `width`.
        mlp_width: width of the hidden layer of the MLP.
        activation: a key of `layers.ACTIVATIONS`.
        norm_epsilon: epsilon of every layer norm.
        frames: above 1: every block attends over as many frames first, a position of
            the picture at a time (LanguageBind's video tower).
        learned_key: every attention has one more key and value, which are weights
            (ImageBind's audio and depth towers).
        remat: what the backward pass computes again, a key of `REMAT`.
        sharded: whether the weights of a block are gathered when it is computed, see
            `sharding.gathered`.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str
    norm_epsilon: float
    frames: int = 1
    learned_key: bool = False
    remat: str = "nothing"
    sharded: bool = False


@dataclasses.dataclass(frozen=True)
class VisualSpec:
    """Shape of a visual tower.

    Attributes:
        trunk: its transformer.
        image_size: height and width of a picture, pixels.
        patch_size: side of a patch, pixels.
        stride: pixels between two patches.
        channels: of a picture.
        tube: frames that a patch is deep. A still is repeated as often.
        class_token: whether a learned token stands in front of the patches.
        class_frames: frames that have class tokens of their own, else 1.
        patch_bias: whether patches are shifted when they become tokens.
        patch_norm: whether patches are normalised, before positions are added.
        pre_norm: whether tokens are normalised, after that.
        pool: what stands for a picture: its class token, or what a learned query
            attends to among its tokens (SigLIP).
        unit_frames: whether the embedding of a clip is the mean of unit vectors.
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

    @property
    def grid(self) -> tuple[int, int]:
        """Patches in a column and in a row of a picture; a rest of pixels is left."""
        rows, columns = (
            (s - self.patch_size) // self.stride + 1 for s in self.image_size
        )
        return rows, columns

    @property
    def patches(self) -> int:
        """Patches of one picture."""
        return self.grid[0] * self.grid[1]

    @property
    def native_first(self) -> int:
        """Tokens that stand in front of the patches."""
        return int(self.class_token)


@dataclasses.dataclass(frozen=True)
class TextSpec:
    """Shape of a text tower.

    Attributes:
        trunk: its transformer.
        vocabulary: number of token ids.
        context_length: positions.
        end_token: id of the token that ends a sentence.
        causal: whether a token sees earlier ones only. Such a tower begins with a start
            token, behind which prompts stand; else they stand in front of all.
        pool: the token that stands for a sentence: the first `end_token`, that of the
            highest id (the rule of OpenAI's first code, which encoders whose config
            names a wrong end token rely on), or the last position, padding or not.
        projection_bias: whether the projection shifts.
    """

    trunk: TowerSpec
    vocabulary: int
    context_length: int
    end_token: int
    causal: bool = True
    pool: Literal["end", "argmax", "last"] = "end"
    projection_bias: bool = False

    @property
    def native_first(self) -> int:
        """Tokens that stand in front of the prompts."""
        return int(self.causal)


ReaderSpec = VisualSpec | TextSpec


@dataclasses.dataclass(frozen=True)
class EncoderSpec:
    """Shape of an encoder.

    Attributes:
        towers: each tower's name and shape.
        readers: each modality and the name of the tower that reads it.
        embedding: width of the joint space.
    """

    towers: tuple[tuple[str, ReaderSpec], ...]
    readers: tuple[tuple[str, str], ...]
    embedding: int

    def reader(self, name: str) -> ReaderSpec:
        """Returns the tower of a name."""
        return dict(self.towers)[name]

    def tower(self, name: str) -> TowerSpec:
        """Returns the transformer of a tower."""
        return self.reader(name).trunk

    def tower_of(self, modality: str) -> str:
        """Returns the name of the tower that reads `modality`."""
        return dict(self.readers)[modality]

    @property
    def text(self) -> TextSpec:
        """The tower that reads class names."""
        spec = self.reader(self.tower_of("text"))
        assert isinstance(spec, TextSpec)
        return spec


def two_towers(visual: VisualSpec, text: TextSpec, embedding: int) -> EncoderSpec:
    """Returns an encoder that takes everything but text for pictures."""
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
    """Returns an encoder as CLIP is made.

    Args:
        visual: transformer of the visual tower.
        text: transformer of the text tower.
        embedding: width of the joint space.
        image_size: side of a picture, pixels.
        patch_size: side of a patch, pixels.
        vocabulary: number of token ids.
        context_length: positions of the text tower.
        end_token: id of the token whose output is the sentence's embedding.

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
    """Returns an encoder as SigLIP is made.

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
    """Returns how many of `blocks` blocks a tower has before its final one."""
    return min(blocks, tower.layers - 1)


def with_trunks(
    spec: EncoderSpec, names: Collection[str] | None = None, **changes: Any
) -> EncoderSpec:
    """Returns the shape with fields of some towers' transformers changed; None: all."""

    def changed(reader: ReaderSpec) -> ReaderSpec:
        trunk = dataclasses.replace(reader.trunk, **changes)
        return dataclasses.replace(reader, trunk=trunk)

    towers = tuple(
        (name, changed(reader) if names is None or name in names else reader)
        for name, reader in spec.towers
    )
    return dataclasses.replace(spec, towers=towers)
