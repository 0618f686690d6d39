"""What a modality is: how a raw file becomes the tensor that a tower reads."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from mmcl_jax.errors import DataError, check_bytes, reading

# Of any sample: a sparse file of a terabyte costs its maker nothing, and its reader
# hours.
MAX_FILE_BYTES = 8 * 2**30

Media = Any
Inputs = dict[str, np.ndarray]
# from a modality and its preprocessed inputs to what a frozen stem makes of them
Stem = Callable[[str, Inputs], Inputs]
Shapes = dict[str, tuple[tuple[int, ...], type]]
Resize = Literal["crop", "squash"]
Interpolation = Literal["bicubic", "bilinear"]


@dataclasses.dataclass(frozen=True)
class TokenizerSpec:
    """The tokenizer of a text tower, and the special tokens around a sentence.

    Tokens are given by name; their ids are read from the file.

    Attributes:
        path: File of the tokenizer, see `tokenization.load_tokenizer`.
        start: Token before a sentence; None if there is none.
        end: Token after a sentence.
        pad: Token that fills the rest. CLIP's own code fills with `!`, whose id is 0.
        cleaning: Normalization of a sentence before it is encoded, see
            `tokenization.clean`.
    """

    path: str
    start: str | None = "<start>"
    end: str = "<end>"
    pad: str = "<pad>"
    cleaning: Literal["none", "clip", "siglip", "lower"] = "none"


@dataclasses.dataclass(frozen=True)
class Storage:
    """How files store what they hold, as far as the files do not say it themselves.

    It belongs to a data set, not to an encoder; a sample may have its own.

    Attributes:
        depth_scale: Stored units of a depth map in a metre; None: 1000 where they are
            integers, 1 where they are floating-point numbers.
        depth_invalid: Stored values that stand for "no reading", besides 0 and values
            that are not finite.
        depth_rotated: Whether the 16 bits of each reading are rotated to the left by
            three, as in SUN RGB-D.
        transparency: Whether transparent pixels are put on `white`, or transparency is
            dropped (`drop`), as the preprocessing of CLIP does, which shows whatever
            colour a hidden pixel has.
    """

    depth_scale: float | None = None
    depth_invalid: tuple[float, ...] = ()
    depth_rotated: bool = False
    transparency: Literal["white", "drop"] = "white"


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """The input that an encoder expects, read from the encoder's files.

    Attributes:
        image_size: Side of the square input, pixels.
        frames: Frames sampled from a video clip.
        mean: Per-channel mean, in [0, 1] units.
        std: Per-channel standard deviation, in [0, 1] units.
        sample_rate: Rate that audio is resampled to, hertz.
        audio_seconds: Length of one audio window, seconds.
        audio_mean: Mean of the log-mel values.
        audio_std: Standard deviation of the log-mel values.
        max_depth: Depth that is mapped to 1, metres; larger depths are clipped to it.
        context_length: Tokens of a sentence, start and end included.
        tokenizer: Tokenizer of the text tower.
        max_pixels: Largest decoded picture or frame, pixels.
        max_seconds: Longest decoded clip, seconds.
        style: Family of encoders whose preprocessing is used, a key of
            `Modality.styles`.
        resize: Whether pictures and frames of the style "clip" are cropped to their
            central square or squashed into a square.
        interpolation: How such pictures and frames are scaled.
        antialias: Whether the other styles average over all pixels when they shrink a
            picture; torchvision did not before 0.17.
        mel_bands: Bands of a spectrogram of the other styles.
        mel_frames: Length of such a spectrogram, frames of 10 ms.
        disparity_scale: Disparity times depth for the style "imagebind": the baseline
            of the depth camera, metres, times its focal length, pixels. The default is
            that of the first Kinect, which recorded NYU Depth v2.
        storage: How files are stored whose data set does not say otherwise.
    """

    image_size: int
    frames: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    sample_rate: int
    audio_seconds: float
    audio_mean: float
    audio_std: float
    max_depth: float
    context_length: int
    tokenizer: TokenizerSpec
    max_pixels: int = 64_000_000
    max_seconds: float = 600.0
    style: Literal["clip", "languagebind", "imagebind"] = "clip"
    resize: Resize = "crop"
    interpolation: Interpolation = "bicubic"
    antialias: bool = True
    mel_bands: int = 112
    mel_frames: int = 1036
    disparity_scale: float = 0.075 * 518.857901
    storage: Storage = Storage()


class Style(NamedTuple):
    """The preprocessing of a modality for one family of encoders.

    Attributes:
        preprocess: `(media, spec) -> inputs` of one sample, deterministic;
            `{"pixels": float32 [..., f, h, w, c]}` or `{"tokens": int32 [n]}`.
        shapes: `spec -> {name: (shape, dtype)}` of what `preprocess` returns.
        version: Name that changes whenever the output of `preprocess` changes.
        choices: Fields of `InputSpec` that select between definitions of the output.
    """

    preprocess: Callable[[Media, InputSpec], Inputs]
    shapes: Callable[[InputSpec], Shapes]
    version: str
    choices: tuple[str, ...] = ()


class Modality(NamedTuple):
    """One kind of raw input.

    Attributes:
        name: Name in streams, configs and results.
        tower: The frozen tower that reads it, "visual" or "text".
        suffixes: Lower-case file suffixes, with the dot.
        decode: `(path, spec) -> media`; raises `DataError` naming the path.
        templates: Sentences with one `{}` for the class name.
        styles: Preprocessing for each `InputSpec.style`.
        recognizes: Whether a file that begins with these bytes, at most 64 KiB, is of
            this modality and not of a built-in one; None if files cannot be recognized
            by their content.
        oddities: `(media, spec) -> phrases` on a sample that can be decoded but is
            probably not what its owner believes, such as a sound that is silent; None:
            nothing is looked for. Equal phrases are counted together.
    """

    name: str
    tower: str
    suffixes: tuple[str, ...]
    decode: Callable[[str, InputSpec], Media]
    templates: tuple[str, ...]
    styles: dict[str, Style]
    recognizes: Callable[[bytes], bool] | None = None
    oddities: Callable[[Media, InputSpec], tuple[str, ...]] | None = None

    def preprocess(self, media: Media, spec: InputSpec) -> Inputs:
        """Returns the inputs of one sample, see `Style`."""
        return self.styles[spec.style].preprocess(media, spec)

    def shapes(self, spec: InputSpec) -> Shapes:
        """Returns `{name: (shape, dtype)}` of what `preprocess` returns."""
        return self.styles[spec.style].shapes(spec)

    def version(self, spec: InputSpec) -> str:
        """Returns a name that changes whenever the output of `preprocess` does.

        It consists of the version of the style and of the choices that differ from the
        default.
        """
        style = self.styles[spec.style]
        changed = [
            f"{name}={getattr(spec, name)}"
            for name in style.choices
            if getattr(spec, name) != getattr(InputSpec, name)
        ]
        return " ".join([style.version, *changed])


def still_shapes(spec: InputSpec, frames: int = 1) -> Shapes:
    """Returns the shapes of pictures."""
    return {"pixels": ((frames, spec.image_size, spec.image_size, 3), np.float32)}


class Reference(Protocol):
    """The origin of one sample; small and picklable, without decoded data."""

    def load(self, modality: Modality, spec: InputSpec) -> Media:
        """Returns the decoded media; raises `DataError` naming the source."""
        ...

    def describe(self) -> str:
        """Returns a path or a phrase by which a person can find the sample."""
        ...

    def identity(self) -> str:
        """Returns a text that changes whenever the content of the sample does."""
        ...


@dataclasses.dataclass(frozen=True)
class FileReference:
    """A sample that is one file.

    Attributes:
        path: Path of the file, absolute or relative to the working directory.
        name: Path relative to the root of its data set, so that a description does not
            depend on where the data are stored; empty: the path is used.
        storage: How the file is stored; None: as the `storage` of the input says.
    """

    path: str
    name: str = ""
    storage: Storage | None = None

    def load(self, modality: Modality, spec: InputSpec) -> Media:
        """Decodes the file."""
        if self.storage is not None:
            spec = dataclasses.replace(spec, storage=self.storage)
        return modality.decode(self.path, spec)

    def describe(self) -> str:
        """Returns the name, or the path if there is no name."""
        return self.name or self.path

    def identity(self) -> str:
        """Returns a hash of the file's content, which does not depend on its path.

        How the file is stored is part of it, unless that is the default.

        Raises:
            DataError: The file cannot be read.
        """
        with reading(self.path, "a file that can be read"):
            status = os.stat(self.path)
            content = _content_hash(self.path, status.st_size, status.st_mtime_ns)
        default = self.storage is None or self.storage == Storage()
        return content if default else f"{content} {self.storage}"


@dataclasses.dataclass(frozen=True)
class UnreadableReference:
    """A sample that is known to be unreadable before it is decoded.

    It takes the place of a row without a sentence or of a file of another kind, so that
    such samples are reported, or skipped, together with files that are damaged.

    Attributes:
        place: Path of the file, or the line of a table, relative to the root.
        fault: What is wrong with it and what to do, for a message.
    """

    place: str
    fault: str

    def load(self, modality: Modality, spec: InputSpec) -> Media:
        """Raises `DataError`."""
        del modality, spec
        raise DataError(f"{self.place}: {self.fault}")

    def describe(self) -> str:
        """Returns the place."""
        return self.place

    def identity(self) -> str:
        """Returns a text that no other sample has."""
        return f"unreadable {self.place}"


@dataclasses.dataclass(frozen=True)
class TextReference:
    """A sample that is one row of a table of sentences.

    Attributes:
        text: The sentence.
        path: Path of the table, relative to the root of its data set; empty: it is of
            no table.
        row: Line of the table on which the row begins, counted from 1, header included.
    """

    text: str
    path: str = ""
    row: int = 0

    def load(self, modality: Modality, spec: InputSpec) -> Media:
        """Returns the sentence."""
        del modality, spec
        return self.text

    def describe(self) -> str:
        """Returns the table's path and the line, or the sentence if it is of none."""
        return f"{self.path}:{self.row}" if self.path else self.text

    def identity(self) -> str:
        """Returns the sentence."""
        return self.text


@functools.cache
def _content_hash(path: str, size: int, modified: int) -> str:
    del size, modified  # keys of the cache only: a file that changes is read again
    check_bytes(path, MAX_FILE_BYTES)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_pixels(path: str, width: int, height: int, spec: InputSpec) -> None:
    """Raises `DataError` if a picture or frame is larger than `spec.max_pixels`."""
    if width * height > spec.max_pixels:
        raise DataError(
            f"{path}: {width} x {height} = {width * height} pixels, more than the limit"
            f" of {spec.max_pixels}; shrink it or raise `max_pixels`"
        )


def check_seconds(path: str, seconds: float, spec: InputSpec) -> None:
    """Raises `DataError` if a clip is longer than `spec.max_seconds`."""
    if seconds > spec.max_seconds:
        raise DataError(
            f"{path}: {seconds:.1f} s long, more than the limit of "
            f"{spec.max_seconds:.1f} s; cut it or raise `max_seconds`"
        )
