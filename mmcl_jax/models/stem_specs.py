"""Shapes of convolutional stems."""

import dataclasses
import math
from typing import NamedTuple


class StageSpec(NamedTuple):
    """Shape of equal inverted residual blocks in a row, all but the first of stride 1.

    Attributes:
        repeats: Number of blocks.
        kernel: Side of their depthwise kernels.
        stride: Stride of the first of them.
        expansion: How many times wider they are inside than their input.
        channels: Channels that they put out.
    """

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


class BlockSpec(NamedTuple):
    """Shape of one inverted residual block; see `StageSpec`."""

    inputs: int
    kernel: int
    stride: int
    expansion: int
    channels: int


@dataclasses.dataclass(frozen=True)
class StemSpec:
    """Shape of a convolutional stem.

    Attributes:
        first: Channels of the first convolution, of 3 x 3 pixels and stride 2.
        stages: The blocks after it.
        last: Channels of a last pointwise convolution, of whose features the mean over
            all places is taken, as classifiers do; None: there is neither.
        outputs: Number of last stages whose features are put out side by side, those
            of earlier ones averaged over the places that the last one covers.
    """

    first: int
    stages: tuple[StageSpec, ...]
    last: int | None = None
    outputs: int = 1

    def blocks(self) -> list[BlockSpec]:
        """Returns the shapes of all blocks."""
        blocks, inputs = [], self.first
        for stage in self.stages:
            for i in range(stage.repeats):
                stride = stage.stride if i == 0 else 1
                shape = stage.kernel, stride, stage.expansion, stage.channels
                blocks.append(BlockSpec(inputs, *shape))
                inputs = stage.channels
        return blocks

    @property
    def stride(self) -> int:
        """Distance of neighbouring features in pixels."""
        return 2 * math.prod(stage.stride for stage in self.stages)

    def sides(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Returns height and width of the map of features of a picture."""
        if self.last is not None:
            return 1, 1
        height, width = (-(-side // self.stride) for side in image_size)
        return height, width

    @property
    def channels(self) -> int:
        """Number of features."""
        shown = self.stages[-self.outputs :]
        return self.last or sum(stage.channels for stage in shown)
