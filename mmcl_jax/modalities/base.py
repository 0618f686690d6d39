"""What a modality is: how a raw file becomes the tensor a tower takes."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from mmcl_jax.errors import DataError, reading

Media = Any
Inputs = dict[str, np.ndarray]
Shapes = dict[str, tuple[tuple[int, ...], type]]


@dataclasses.dataclass(frozen=True)
class TokenizerSpec:
    """The tokenizer of a text tower, and what it puts around a sentence.

    Tokens are given by their names; what their ids are, the file says.

    Attributes:
        path: the file that holds it, see `tokenization.load_tokenizer`.
        start: token in front of a sentence; None: there is none.
        end: token behind it.
        pad: token that fills the rest. CLIP's own code fills with `!`, whose id is 0.
        cleaning: what is done to a sentence first, see `tokenization.clean`.
    """

    path: str
    start: str | None = "<start>"
    end: str = "<end>"
    pad: str = "<pad>"
    cleaning: Literal["none", "clip", "siglip"] = "none"


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What the encoder wants to be fed; read from the files of the encoder.

    Attributes:
        image_size: side of the square input, pixels.
        frames: frames sampled from a video clip.
        mean: per-channel mean, in [0, 1] units.
        std: per-channel standard deviation, in [0, 1] units.
        sample_rate: rate that audio is resampled to, hertz.
        audio_seconds: length of one audio window, seconds.
        audio_mean: mean of the log-mel values.
        audio_std: standard deviation of the log-mel values.
        max_depth: depth that is mapped to 1, metres; larger ones are cut to it.
        context_length: tokens of a sentence, start and end included.
        tokenizer: of the text tower.
        max_pixels: largest decoded picture or frame, pixels.
        max_seconds: longest decoded clip, seconds.
        style: whose preprocessing it is, a key of `Modality.styles`.
        resize: pictures and frames of the style "clip" lose what stands out of a
            square, or are squashed into it.
        antialias: whether the other styles, where they shrink, look at every pixel;
            torchvision did not before 0.17.
        mel_bands: bands of a spectrogram of the other styles.
        mel_frames: its length, frames of 10 ms.
        disparity_scale: disparity times depth for the style "imagebind": the baseline
            of the depth camera, metres, times its focal length, pixels. The default is
            the first Kinect's, with which NYU Depth v2 was taken.
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
    resize: Literal["crop", "squash"] = "crop"
    antialias: bool = True
    mel_bands: int = 112
    mel_frames: int = 1036
    disparity_scale: float = 0.075 * 518.857901


class Style(NamedTuple):
    """How the encoders of one family want a modality to be prepared.

    Attributes:
        preprocess: `(media, spec) -> inputs` of one sample, deterministic;
            `{"pixels": float32 [..., f, h, w, c]}` or `{"tokens": int32 [n]}`.
        shapes: `spec -> {name: (shape, dtype)}` of what `preprocess` gives.
        version: changes whenever the numbers that `preprocess` gives change.
        choices: fields of `InputSpec` that choose between definitions of them.
    """

    preprocess: Callable[[Media, InputSpec], Inputs]
    shapes: Callable[[InputSpec], Shapes]
    version: str
    choices: tuple[str, ...] = ()


class Modality(NamedTuple):
    """One kind of raw input.

    Attributes:
        name: its name in streams, configs and results.
        tower: "visual" or "text": which frozen tower reads it.
        suffixes: lower-case file suffixes, with the dot.
        decode: `(path, spec) -> media`; raises `DataError` naming the path.
        templates: sentences with one `{}` for the class name.
        styles: how to prepare it, for each `InputSpec.style`.
        recognizes: whether a file of these first 64 KiB is of this modality, and so of
            none that is built in; None: such files are not told by their content.
    """

    name: str
    tower: str
    suffixes: tuple[str, ...]
    decode: Callable[[str, InputSpec], Media]
    templates: tuple[str, ...]
    styles: dict[str, Style]
    recognizes: Callable[[bytes], bool] | None = None

    def preprocess(self, media: Media, spec: InputSpec) -> Inputs:
        """Returns the inputs of one sample, see `Style`."""
        return self.styles[spec.style].preprocess(media, spec)

    def shapes(self, spec: InputSpec) -> Shapes:
        """Returns `{name: (shape, dtype)}` of what `preprocess` gives."""
        return self.styles[spec.style].shapes(spec)

    def version(self, spec: InputSpec) -> str:
        """Returns what changes whenever the numbers of `preprocess` do.

        It is the version of the style, and the choices that are not the default.
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
    """Where one sample comes from; small and picklable, holds no decoded data."""

    def load(self, modality: Modality, spec: InputSpec) -> Media:
        """Returns the decoded media; raises `DataError` naming the source."""
        ...

    def describe(self) -> str:
        """Returns a path or a phrase that a person can find the sample by."""
        ...

    def identity(self) -> str:
        """Returns what changes whenever the content of the sample does."""
        ...


@dataclasses.dataclass(frozen=True)
class FileReference:
    """A sample that is one file.

    Attributes:
        path: where the file is, absolute or relative to the working directory.
        name: the same place relative to the root of its data set, so that a
            description does not depend on where the data lie; empty = use the path.
    """

    path: str
    name: str = ""

    def load(self, modality: Modality, spec: InputSpec) -> Media:
        """Decodes the file."""
        return modality.decode(self.path, spec)

    def describe(self) -> str:
        """Returns the name, or the path where there is none."""
        return self.name or self.path

    def identity(self) -> str:
        """Returns a hash of the file's content, wherever the file lies.

        Raises:
            DataError: the file cannot be read.
        """
        with reading(self.path, "a file that can be read"):
            status = os.stat(self.path)
            return _content_hash(self.path, status.st_size, status.st_mtime_ns)


@dataclasses.dataclass(frozen=True)
class TextReference:
    """A sample that is one row of a table of sentences.

    Attributes:
        text: the sentence.
        path: path of the table, relative to the root of its data set.
        row: line of the table that the row begins on, counted from 1, header included.
    """

    text: str
    path: str
    row: int

    def load(self, modality: Modality, spec: InputSpec) -> Media:
        """Returns the sentence."""
        del modality, spec
        return self.text

    def describe(self) -> str:
        """Returns the table's path and the line."""
        return f"{self.path}:{self.row}"

    def identity(self) -> str:
        """Returns the sentence."""
        return self.text


@functools.cache
def _content_hash(path: str, size: int, modified: int) -> str:
    del size, modified  # a file of other ones is read again
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
