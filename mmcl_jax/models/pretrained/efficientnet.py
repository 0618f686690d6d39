"""Weights of EfficientNet-Lite0 from PyTorch's names, with batch norms folded in."""

from collections.abc import Mapping

import numpy as np

from mmcl_jax.models.stem_specs import StageSpec, StemSpec
from mmcl_jax.types import PyTree

# until the features have a stride of 32 pixels: 192 of the last stage, which know what
# is seen, beside 112 of the stage before, which know better where and how it looks
TRUNK = StemSpec(
    32,
    (
        StageSpec(1, 3, 1, 1, 16),
        StageSpec(2, 3, 2, 6, 24),
        StageSpec(2, 5, 2, 6, 40),
        StageSpec(3, 3, 2, 6, 80),
        StageSpec(3, 5, 1, 6, 112),
        StageSpec(4, 5, 2, 6, 192),
    ),
    outputs=2,
)
# the whole classifier, up to the features under its 1,000 classes
LITE0 = StemSpec(
    TRUNK.first,
    (*TRUNK.stages, StageSpec(1, 3, 1, 6, 320)),
    last=1280,
)
_EPSILON = 1e-3


def _folded(
    tensors: Mapping[str, np.ndarray], convolution: str, norm: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a kernel `[o i k k]` and the bias `[o]` that include the batch norm."""
    kernel = tensors[f"{convolution}.weight"].astype(np.float64)
    scale, shift, mean, variance = (
        tensors[f"{norm}.{part}"].astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = scale / np.sqrt(variance + _EPSILON)
    return kernel * scale[:, None, None, None], shift - mean * scale


def stem_weights(tensors: Mapping[str, np.ndarray], spec: StemSpec) -> PyTree:
    """Returns the weights of `convolutional.stem` in float32.

    Args:
        tensors: Tensors by the names that PyTorch gives them.
        spec: Which blocks are wanted, from the first one on.
    """

    def pointwise(convolution: str, norm: str) -> PyTree:
        kernel, bias = _folded(tensors, convolution, norm)
        return _float32(kernel[:, :, 0, 0].T, bias)

    def depthwise(convolution: str, norm: str) -> PyTree:
        kernel, bias = _folded(tensors, convolution, norm)
        return _float32(kernel.reshape(len(kernel), -1).T, bias)

    kernel, bias = _folded(tensors, "_conv_stem", "_bn0")
    first = _float32(kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel)), bias)
    residuals = []
    for i, shape in enumerate(spec.blocks()):
        name = f"_blocks.{i}"
        block = {
            "filter": depthwise(f"{name}._depthwise_conv", f"{name}._bn1"),
            "project": pointwise(f"{name}._project_conv", f"{name}._bn2"),
        }
        if shape.expansion != 1:
            block["expand"] = pointwise(f"{name}._expand_conv", f"{name}._bn0")
        residuals.append(block)
    weights = {"first": first, "residuals": residuals}
    if spec.last is not None:
        weights["last"] = pointwise("_conv_head", "_bn1")
    return weights


def _float32(kernel: np.ndarray, bias: np.ndarray) -> PyTree:
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
