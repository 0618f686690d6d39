"""Depth maps: 16-bit grey PNG files, uint16 `[h, w]` millimetres, 0 = no reading."""

import numpy as np
from PIL import Image

from mmcl_jax.errors import DataError, reading
from mmcl_jax.modalities import imagebind, languagebind
from mmcl_jax.modalities.base import (
    Inputs,
    InputSpec,
    Modality,
    Style,
    check_pixels,
    still_shapes,
)
from mmcl_jax.modalities.image import in_memory
from mmcl_jax.modalities.resizing import crop_box, fitted_shape, trim

EXPECTED = "a 16-bit grey PNG of depth in millimetres, 0 = no reading"
_MIN_DEPTH = 0.01
_PERCENTILES = (2.0, 98.0)
# The scale spans at least this share of the nearest reading's disparity: otherwise the
# sensor noise of a flat wall would fill it.
_MIN_SPREAD = 0.1


def decode(path: str, spec: InputSpec) -> np.ndarray:
    """Reads a depth map with all its bits.

    Args:
        path: A 16-bit grey PNG file.
        spec: Input of the encoder: its `max_pixels` is used.

    Returns:
        uint16 `[h, w]`, millimetres, 0 where there is no reading.

    Raises:
        DataError: The file is not a 16-bit grey PNG, is damaged or too large, or has
            not a single reading.
    """
    with (
        reading(path, EXPECTED),
        Image.open(in_memory(path), formats=("PNG",)) as image,
    ):
        check_pixels(path, *image.size, spec)
        if not image.mode.startswith("I;16"):
            raise DataError(
                f"{path}: a PNG of mode {image.mode}, not of 16-bit grey; expected "
                f"{EXPECTED} (8-bit and colour maps have lost the distances)"
            )
        depth = np.asarray(image).astype(np.uint16)
    if not depth.any():
        raise DataError(f"{path}: no reading in the whole map; expected {EXPECTED}")
    return depth


def preprocess(media: np.ndarray, spec: InputSpec) -> Inputs:
    r"""Normalizes disparity per map; holes count as infinitely far.

    With depth $z$ in metres, clipped to 0.01 and `max_depth`, and its disparity
    $1 / z$, a pixel is $(1 / z - q_2) / (q_{98} - q_2)$ clipped to 0 and 1, where
    $q_p$ is the p-th percentile over the map's readings: near is bright, and the
    scale does not depend on the distance of the object. Only readings are averaged
    when the map is resampled, so a hole does not darken its rim. A pixel that is more
    hole than reading is a hole; holes are 0, as the farthest readings are, since most
    holes of a depth camera are shadows beside an object or lie beyond its range.

    Deviation: LanguageBind divides depth by a fixed 10 m, which leaves objects at arm's
    length between 0.05 and 0.1, nearly black and nearly flat.

    Args:
        media: uint16 `[h, w]`, millimetres.
        spec: Size, mean, std and `max_depth` of the input.

    Returns:
        `{"pixels": float32 [1, s, s, 3]}`, three equal channels before mean and std.

    References:
        Ranftl et al., Towards Robust Monocular Depth Estimation, 2020 (disparity up to
        scale and shift); Ke et al., Repurposing Diffusion-Based Image Generators for
        Monocular Depth Estimation, 2024 (percentiles 2 and 98).
    """
    metres = trim(media).astype(np.float32) / 1000
    known = metres > 0
    inverse = np.where(known, 1 / np.clip(metres, _MIN_DEPTH, spec.max_depth), 0)
    weight = _fit(known.astype(np.float32), spec.image_size)
    total = _fit(inverse.astype(np.float32), spec.image_size)
    known = weight > 0.5
    disparity = np.where(known, total / np.maximum(weight, 0.5), 0)
    low, high = np.percentile(disparity[known], _PERCENTILES) if known.any() else (0, 1)
    spread = max(high - low, _MIN_SPREAD * high)
    low -= (spread - (high - low)) / 2
    grey = np.clip((disparity - low) / spread, 0, 1) * known
    grey = grey.astype(np.float32)
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    return {"pixels": (grey[None, ..., None] - mean) / std}


def _fit(values: np.ndarray, size: int) -> np.ndarray:
    # Bilinear weights are positive, so the quotient of two results is an average.
    height, width = values.shape
    height, width = fitted_shape(height, width, size)
    image = Image.fromarray(values)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image.crop(crop_box(height, width, size)))


DEPTH = Modality(
    name="depth",
    tower="visual",
    suffixes=(".png",),
    decode=decode,
    templates=("a depth map of a {}.", "a depth photo of a {}.", "the shape of a {}."),
    styles={
        "clip": Style(preprocess, still_shapes, "depth-1"),
        "languagebind": languagebind.DEPTH,
        "imagebind": imagebind.DEPTH,
    },
)
