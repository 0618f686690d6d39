"""Depth maps: PNG, TIFF, NPY and PFM files, float32 `[h, w]` metres, 0 = no reading."""

import io
import math
import pathlib
import re

import numpy as np
from PIL import Image

from mmcl_jax.errors import DataError, check_bytes, reading
from mmcl_jax.modalities import imagebind, languagebind
from mmcl_jax.modalities.base import (
    Inputs,
    InputSpec,
    Modality,
    Storage,
    Style,
    check_pixels,
    still_shapes,
)
from mmcl_jax.modalities.image import MAX_BYTES, in_memory
from mmcl_jax.modalities.resizing import crop_box, fitted_shape, trim
from mmcl_jax.modalities.signatures import found_in, head_of, require

EXPECTED = (
    "a depth map: a 16-bit grey PNG or TIFF (in millimetres unless `depth_scale` says "
    "otherwise), or a TIFF of 32-bit floats, an NPY or a PFM file (in metres if they "
    "hold floats), 0 = no reading"
)
_PFM = re.compile(rb"Pf\s+(\d{1,9})\s+(\d{1,9})\s+([-+.\deE]{1,30})(?:\r\n|\s)")
_MIN_DEPTH = 0.01
_PERCENTILES = (2.0, 98.0)
# The scale spans at least this share of the nearest reading's disparity: otherwise the
# sensor noise of a flat wall would fill it.
_MIN_SPREAD = 0.1
# share of equal readings above which they may be a marker, and usual markers
_MARKED = 0.005
_MARKERS = (2**16 - 1, 2**15 - 1)
# readings whose stored values are looked at, and how many of those must differ
_LOOKED_AT, _DISTINCT = 4096, 32
# metres within which no whole scene is; share of a scaled map that should have readings
_CLOSE, _SPARSE = 0.5, 0.05


def decode(path: str, spec: InputSpec) -> np.ndarray:
    """Reads a depth map with all its bits and converts it to metres.

    Args:
        path: A PNG file of 16-bit grey; a TIFF file of grey, integers of more than 8
            bits or floating-point numbers; an NPY file `[h, w]`, `[h, w, 1]` or
            `[1, h, w]` of such numbers; a grey PFM file, whose scale tells the order of
            its bytes alone.
        spec: Input of the encoder: its `max_pixels` and `storage` are used.

    Returns:
        float32 `[h, w]`, metres, 0 where there is no reading.

    Raises:
        DataError: The file is no such map, is damaged or too large, or has not a single
            reading.
    """
    with reading(path, EXPECTED, found_in):
        form = require(path, _READERS, EXPECTED).format
        stored = _READERS[form](path, spec)
        depth = _metres(path, stored, spec.storage)
    if not depth.any():
        is_negative = bool((stored < 0).any())
        sign = ", whose values are negative: change their sign" * is_negative
        raise DataError(
            f"{path}: no reading in the whole map{sign}; expected {EXPECTED}"
        )
    return depth


def _metres(path: str, stored: np.ndarray, storage: Storage) -> np.ndarray:
    """Converts stored values to float32 metres, 0 where there is no reading."""
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    is_float = stored.dtype.kind == "f"
    with np.errstate(over="ignore"):
        # 0.1 as the file would store it
        kind = stored.dtype if is_float else np.float64
        lost = np.isin(stored, np.array(storage.depth_invalid, kind))
    if storage.depth_rotated:
        if stored.dtype != np.uint16:
            raise DataError(
                f"{path}: values of type {stored.dtype}; expected 16-bit integers, "
                "since the data set is said to be stored rotated (`depth_rotated`)"
            )
        stored = (stored >> 3) | (stored << 13)
    scale = storage.depth_scale or (1 if is_float else 1000)
    with np.errstate(over="ignore", invalid="ignore"):
        metres = stored.astype(np.float32)
        metres /= np.float32(scale)
        lost |= ~((metres > 0) & np.isfinite(metres))
    metres[lost] = 0
    return metres


def _from_pillow(path: str, spec: InputSpec) -> np.ndarray:
    with Image.open(in_memory(path), formats=("PNG", "TIFF")) as image:
        check_pixels(path, *image.size, spec)
        if not image.mode.startswith(("I", "F")):
            raise DataError(
                f"{path}: a {image.format} of mode {image.mode}, not of 16-bit grey; "
                f"expected {EXPECTED} (8-bit and colour maps have lost the distances)"
            )
        depth = np.asarray(image)
        return depth.astype(np.uint16) if image.mode.startswith("I;16") else depth


def _from_npy(path: str, spec: InputSpec) -> np.ndarray:
    check_bytes(path, MAX_BYTES)
    # in memory, so that a header cannot claim more bytes than there are
    file = io.BytesIO(head_of(path))
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    size = file.tell() + math.prod(shape) * dtype.itemsize
    sides = [n for n in shape if n != 1] if len(shape) == 3 else shape
    if len(sides) != 2 or min(shape, default=0) < 1:
        raise DataError(f"{path}: an array of shape {shape}; expected {EXPECTED}")
    if dtype.kind not in "iuf" or dtype.itemsize == 1:
        lost = " (8-bit maps have lost the distances)" * (dtype.kind in "iu")
        raise DataError(f"{path}: an array of type {dtype}; expected {EXPECTED}{lost}")
    check_pixels(path, sides[1], sides[0], spec)
    if size > (actual := pathlib.Path(path).stat().st_size):
        raise DataError(
            f"{path}: {actual} bytes where the header says {size}; the file is "
            "truncated"
        )
    return np.load(path, allow_pickle=False).reshape(sides)


def _from_pfm(path: str, spec: InputSpec) -> np.ndarray:
    check_bytes(path, MAX_BYTES)
    content = pathlib.Path(path).read_bytes()
    header = _PFM.match(content)
    if header is None:
        raise DataError(f"{path}: a damaged PFM header; expected {EXPECTED}")
    width, height, scale = int(header[1]), int(header[2]), float(header[3])
    check_pixels(path, width, height, spec)
    if len(content) - header.end() != 4 * width * height:
        raise DataError(
            f"{path}: {len(content) - header.end()} bytes of readings; expected "
            f"{4 * width * height} for {width} x {height} pixels"
        )
    values = np.frombuffer(content, "<f4" if scale < 0 else ">f4", offset=header.end())
    # the last row comes first
    return values.reshape(height, width)[::-1]


_READERS = {
    **{"png": _from_pillow, "tiff": _from_pillow},
    **{"npy": _from_npy, "pfm": _from_pfm},
}


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
        media: float32 `[h, w]`, metres, 0 = no reading.
        spec: Size, mean, std and `max_depth` of the input.

    Returns:
        `{"pixels": float32 [1, s, s, 3]}`, three equal channels before mean and std.

    References:
        Ranftl et al., Towards Robust Monocular Depth Estimation, 2020 (disparity up to
        scale and shift); Ke et al., Repurposing Diffusion-Based Image Generators for
        Monocular Depth Estimation, 2024 (percentiles 2 and 98).
    """
    metres = trim(media)
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


def oddities(media: np.ndarray, spec: InputSpec) -> tuple[str, ...]:
    """Returns signs that a map is stored otherwise than `spec.storage` says.

    Args:
        media: float32 `[h, w]`, metres, 0 = no reading.
        spec: `max_depth` and `storage`.
    """
    known = media[media > 0]
    if not len(known):
        return ()
    odd = []
    if len(known) < 0.5 * media.size and _share_left(media, spec) < _SPARSE:
        odd.append(
            "so few readings that the scaled map is nearly empty, as with those of a "
            "laser scanner; fill in its holes"
        )
    nearest, farthest = known.min(), known.max()
    if nearest == farthest:
        return (*odd, "a depth map whose readings are all equal")
    if (known > spec.max_depth).mean() > 0.5:
        odd.append(
            "most readings are farther than `max_depth`, to which they are clipped; is "
            "`depth_scale` right, and is it depth, not disparity?"
        )
    if (known < _MIN_DEPTH).mean() > 0.5:
        odd.append("most readings are nearer than 1 cm; is `depth_scale` right?")
    largest = known == farthest
    stored = round(float(farthest) * (spec.storage.depth_scale or 1000))
    is_apart = stored in _MARKERS or farthest > 2 * known[~largest].max()
    if largest.mean() > _MARKED and is_apart:
        odd.append(
            "many readings have one value, beyond all others; does it stand for 'no "
            "reading' (`depth_invalid`)?"
        )
    if spec.storage.depth_scale is None:
        odd += _unit_oddities(known[:: max(1, len(known) // _LOOKED_AT)], farthest)
    return tuple(odd)


def _share_left(media: np.ndarray, spec: InputSpec) -> float:
    """Returns the share of pixels of the scaled map that count as readings."""
    weight = _fit((trim(media) > 0).astype(np.float32), spec.image_size)
    return float((weight > 0.5).mean())


def _unit_oddities(some: np.ndarray, farthest: np.float32) -> list[str]:
    """Tells from how finely some readings are stored how they are stored."""
    if farthest < _CLOSE:
        return [
            "no reading is farther than half a metre, as where a map of 8 bits or of "
            "centimetres is stored; is `depth_scale` right?"
        ]
    units = np.rint(1000.0 * some)
    is_whole = np.abs(1000.0 * some - units).max() < 1e-3 * max(1, farthest)
    if not is_whole:
        relative = farthest == 1 and np.median(some) < 1
        return ["depths from 0 to 1; are they in metres?"] if relative else []
    step = np.gcd.reduce(units.astype(np.int64))
    if len(np.unique(units)) < _DISTINCT:
        return []
    if step % 1000 == 0:
        return [
            "all readings are whole metres, as where floating-point numbers are "
            "millimetres; is `depth_scale` right?"
        ]
    if step % 10 == 5:
        return [
            "all stored values are multiples of 5, as with 5000 units a metre; is "
            "`depth_scale` right?"
        ]
    if step % 8 == 0:
        return [
            "all stored values are multiples of 8, as with SUN RGB-D's rotated bits; "
            "is `depth_rotated` missing?"
        ]
    return []


DEPTH = Modality(
    name="depth",
    tower="visual",
    suffixes=(".png", ".tif", ".tiff", ".npy", ".pfm"),
    decode=decode,
    templates=("a depth map of a {}.", "a depth photo of a {}.", "the shape of a {}."),
    styles={
        "clip": Style(preprocess, still_shapes, "depth-1"),
        "languagebind": languagebind.DEPTH,
        "imagebind": imagebind.DEPTH,
    },
    oddities=oddities,
)
