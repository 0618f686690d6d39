"""Resizing as in published encoders: crop boxes, and resampling as a matrix."""

import math
from typing import Literal

import numpy as np

Kernel = Literal["linear", "cubic"]
Box = tuple[int, int, int, int]

_REACH = {"linear": 1, "cubic": 2}
# Longer pictures lose their ends before the resize, which would otherwise allocate
# without bound for a picture of a single row.
_MAX_ASPECT = 16
# Rows of a product that are computed together: neighbouring rows use nearly the same
# pixels, and most of the matrix is zero.
_BLOCK = 8


def crop_box(height: int, width: int, size: int) -> Box:
    """Returns left, top, right, bottom of the centred square of `size` pixels."""
    left, top = round((width - size) / 2), round((height - size) / 2)
    return left, top, left + size, top + size


def fitted_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Returns height and width with the short side scaled to `size`."""
    short = min(height, width)
    return int(size * height / short), int(size * width / short)


def trim(picture: np.ndarray) -> np.ndarray:
    """Cuts the ends of a picture that is many times longer than it is wide."""
    height, width = picture.shape[:2]
    limit = _MAX_ASPECT * min(height, width)
    top, left = max(0, height - limit) // 2, max(0, width - limit) // 2
    return picture[top : top + limit, left : left + limit]


def resampling_matrix(
    size_in: int,
    size_out: int,
    kernel: Kernel = "cubic",
    a: float = -0.5,
    antialias: bool = True,
    rows: slice = slice(None),
) -> np.ndarray:
    r"""Returns the linear map that resamples one axis of a picture or a table.

    With $s$ = `size_in / size_out`, result $i$ lies at $x_i = (i + 1/2) s - 1/2$ among
    the given values and is $\sum_j k((j - x_i) / t) v_j / \sum_j k((j - x_i) / t)$.
    The kernel is stretched by $t = \max(s, 1)$ with `antialias`, so that every value
    counts, and by $t = 1$ without. Beyond the ends, values have no weight with
    `antialias`; without it, the outermost values are repeated.

    $k(x)$ is $1 - |x|$ up to 1 for "linear". For "cubic" it is
    $(a + 2) |x|^3 - (a + 3) |x|^2 + 1$ up to 1 and
    $a |x|^3 - 5 a |x|^2 + 8 a |x| - 4 a$ up to 2.

    Arguments that reproduce a reference, with `align_corners=False`:

    | reference | kernel | a | antialias |
    |---|---|---|---|
    | `torch` bicubic, antialias; `jax.image` cubic; Pillow BICUBIC of floats | cubic | -0.5 | yes |
    | `torch` bicubic, the default | cubic | -0.75 | no |
    | `torch` bilinear, antialias; Pillow BILINEAR of floats | linear | | yes |
    | `torch` bilinear, the default | linear | | no |

    A table `[h, w, d]` of positions becomes `[p, q, d]` by
    `np.einsum("ph,qw,hwd->pqd", resampling_matrix(h, p), resampling_matrix(w, q), table)`.

    Args:
        size_in: Length of the axis.
        size_out: Length of the resampled axis.
        kernel: Shape of the kernel.
        a: Parameter of the cubic kernel.
        antialias: Whether the kernel is stretched where the axis shrinks.
        rows: Rows of the result that are returned, in order.

    Returns:
        float32 `[rows, size_in]`; every row sums to 1.

    References:
        Keys, Cubic Convolution Interpolation for Digital Image Processing, 1981.

    >>> resampling_matrix(4, 2, "linear", antialias=False).tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """  # noqa: E501
    scale = size_in / size_out
    stretch = max(scale, 1.0) if antialias else 1.0
    reach = _REACH[kernel] * stretch
    # Rounded to single precision where torch rounds, which moves places by some 1e-5
    # of a pixel and decides ties as torch does.
    places = (np.arange(size_out)[rows] + 0.5) * float(np.float32(scale))
    shift = 0.0 if antialias else 0.5
    places = (places - shift).astype(np.float32).astype(float) - (0.5 - shift)
    taps = np.floor(places - reach).astype(int)[:, None]
    taps = taps + np.arange(math.ceil(2 * reach) + 2)
    weights = _kernel(np.abs(taps - places[:, None]) / stretch, kernel, a)
    if antialias:
        weights = np.where((taps >= 0) & (taps < size_in), weights, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((len(places), size_in))
    row = np.arange(len(places))[:, None]
    np.add.at(matrix, (row, np.clip(taps, 0, size_in - 1)), weights)
    return matrix.astype(np.float32)


def _kernel(x: np.ndarray, kernel: Kernel, a: float) -> np.ndarray:
    if kernel == "linear":
        return np.maximum(0, 1 - x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def resize_as_torch(
    pictures: np.ndarray,
    shape: tuple[int, int],
    box: Box,
    kernel: Kernel,
    antialias: bool,
) -> np.ndarray:
    """Resizes floats as `torch.nn.functional.interpolate` does, and crops a box.

    Args:
        pictures: `[f, h, w, c]` of any type.
        shape: Height and width of the resized pictures.
        box: Left, top, right, bottom of the crop; no pixel outside is computed.
        kernel: "cubic" (bicubic) or "linear" (bilinear).
        antialias: Argument of torch of that name; the cubic kernel depends on it, too.

    Returns:
        float32 `[f, bottom - top, right - left, c]`; cubic values can overshoot.
    """
    a = -0.5 if antialias else -0.75
    left, top, right, bottom = box
    _, height, width, _ = pictures.shape
    down = resampling_matrix(height, shape[0], kernel, a, antialias, slice(top, bottom))
    across = resampling_matrix(
        width, shape[1], kernel, a, antialias, slice(left, right)
    )
    results = []
    for picture in pictures:
        columns = _apply(down, picture).swapaxes(0, 1)
        results.append(_apply(across, columns).swapaxes(0, 1))
    return np.stack(results)


def _apply(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    result = np.empty((len(matrix), *values.shape[1:]), np.float32)
    for i in range(0, len(matrix), _BLOCK):
        rows = matrix[i : i + _BLOCK]
        used = np.flatnonzero(rows.any(axis=0))
        part = values[used].astype(np.float32)
        result[i : i + _BLOCK] = np.tensordot(rows[:, used], part, axes=1)
    return result
