"""Convolutional stem of a visual tower: inverted residual blocks with ReLU6.

Batch norms are folded into the convolutions before them. Depthwise convolutions are
sums of shifted products and pointwise ones matrix products: on a CPU that is several
times faster than XLA's own depthwise convolution, and equal to float32 noise.

References:
    Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018; Tan
    and Le, EfficientNet, 2019, whose Lite variants have no squeeze-and-excitation.
"""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.models.stem_specs import StemSpec
from mmcl_jax.types import DrawNormal, Key, PyTree


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0, 6)


def _shifted(
    x: Float[Array, "b h w c"], kernel: int, stride: int
) -> Iterator[Float[Array, "b h_out w_out c"]]:
    """Yields the input under each position of a kernel, row by row.

    The padding is TensorFlow's `SAME`: of an odd number of rows, the last one is below.
    """
    sides = x.shape[1:3]
    out = [-(-side // stride) for side in sides]
    needed = [
        max((o - 1) * stride + kernel - side, 0)
        for o, side in zip(out, sides, strict=True)
    ]
    pads = [(n // 2, n - n // 2) for n in needed]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    for i, j in itertools.product(range(kernel), repeat=2):
        rows = slice(i, i + (out[0] - 1) * stride + 1, stride)
        columns = slice(j, j + (out[1] - 1) * stride + 1, stride)
        yield x[:, rows, columns]


def _pointwise(x: Float[Array, "b h w i"], weights: PyTree) -> Array:
    return x @ weights["kernel"] + weights["bias"]


def _depthwise(
    x: Float[Array, "b h w c"], weights: PyTree, kernel: int, stride: int
) -> Array:
    shifted = _shifted(x, kernel, stride)
    total = weights["bias"]
    for part, weight in zip(shifted, weights["kernel"], strict=True):
        total = total + part * weight
    return total


def _block(
    x: Float[Array, "b h w i"], weights: PyTree, kernel: int, stride: int
) -> Float[Array, "b h_out w_out o"]:
    """Returns an inverted residual block: expand, filter, project, and add."""
    h = x
    if "expand" in weights:
        h = _relu6(_pointwise(h, weights["expand"]))
    h = _relu6(_depthwise(h, weights["filter"], kernel, stride))
    h = _pointwise(h, weights["project"])
    return x + h if x.shape == h.shape else h


def _averaged(x: Float[Array, "b h w c"], factor: int) -> Array:
    """Returns means over squares of places; those at the end may be smaller."""
    pads = [(0, -side % factor) for side in x.shape[1:3]]
    pads = ((0, 0), *pads, (0, 0))
    window = (1, factor, factor, 1)

    def total(values: Array) -> Array:
        zero = jnp.zeros((), values.dtype)
        return jax.lax.reduce_window(values, zero, jax.lax.add, window, window, pads)

    return total(x) / total(jnp.ones_like(x[:1, :, :, :1]))


def stem(
    spec: StemSpec, weights: PyTree, pixels: Float[Array, "b h w 3"]
) -> Float[Array, "b h_out w_out c"]:
    """Returns the features after the last stages, or after the last convolution.

    Args:
        spec: Stages of the stem.
        weights: `first`, and `residuals`, a list of blocks with `expand` (unless they
            expand by 1), `filter` and `project`, and `last` if the stem has it; each
            has a `kernel` and a `bias`. Pointwise kernels are `[i o]`, depthwise ones
            `[k*k c]`, the first one `[27 c]`.
        pixels: Normalized pictures.
    """
    first = weights["first"]
    # a full convolution is a matrix product of all that its kernel covers
    covered = jnp.concatenate(list(_shifted(pixels, 3, 2)), axis=-1)
    x = _relu6(_pointwise(covered.astype(first["kernel"].dtype), first))
    ends, factor = [], 1
    for block, shape in zip(weights["residuals"], spec.blocks(), strict=True):
        x = _block(x, block, shape.kernel, shape.stride)
        ends.append(x)
    if spec.last is None:
        shown = [x]
        for stage in spec.stages[: -spec.outputs : -1]:
            factor *= stage.stride
            del ends[-stage.repeats :]
            shown.append(_averaged(ends[-1], factor))
        return jnp.concatenate(shown[::-1], axis=-1)
    return _relu6(_pointwise(x, weights["last"])).mean((1, 2), keepdims=True)


def init(key: Key, spec: StemSpec, normal: DrawNormal = jax.random.normal) -> PyTree:
    """Returns random weights with variances of 2 / fan-in and biases of zero."""
    drawn = jax.random.split(key, 1 + 3 * len(spec.blocks()))
    keys = iter([*drawn, jax.random.fold_in(key, 1)])

    def convolution(inputs: int, shape: tuple[int, int]) -> PyTree:
        kernel = (2 / inputs) ** 0.5 * normal(next(keys), shape)
        return {"kernel": kernel, "bias": jnp.zeros(shape[1])}

    residuals = []
    for shape in spec.blocks():
        inner, area = shape.inputs * shape.expansion, shape.kernel**2
        block = {
            "filter": convolution(area, (area, inner)),
            "project": convolution(inner, (inner, shape.channels)),
        }
        if shape.expansion != 1:
            block["expand"] = convolution(shape.inputs, (shape.inputs, inner))
        residuals.append(block)
    weights = {"first": convolution(27, (27, spec.first)), "residuals": residuals}
    if spec.last is not None:
        inputs = spec.stages[-1].channels
        weights["last"] = convolution(inputs, (inputs, spec.last))
    return weights
