"""Streams from data sets that TensorFlow Datasets has prepared, as array records.

They are read without TensorFlow, and without the code that has prepared them:
`features.json` describes the records. Nothing is ever downloaded.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmcl_jax.errors import DataError, reading
from mmcl_jax.files import Path, expanded, read_json
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import InputSpec, Media, Modality, Storage
from mmcl_jax.streams import contents, data_sets, tasks
from mmcl_jax.streams.base import Required, Stream, StreamSource
from mmcl_jax.streams.data_options import Selection
from mmcl_jax.streams.data_sets import DataSet

EXPECTED = "a data set that TensorFlow Datasets has prepared as array records"
_INFO = "dataset_info.json"
# The allowed features: the library imports, and so runs, any class that the file names.
_CLASSES = {
    f"tensorflow_datasets.core.features.{name}"
    for name in (
        "bounding_boxes.BBoxFeature",
        "class_label_feature.ClassLabel",
        "features_dict.FeaturesDict",
        "image_feature.Image",
        "labeled_image.LabeledImage",
        "scalar.Scalar",
        "sequence_feature.Sequence",
        "tensor_feature.Tensor",
        "text_feature.Text",
        "video_feature.Video",
    )
}
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_CHUNK = 1024  # records in memory at once


@dataclasses.dataclass(frozen=True)
class Tfds(Selection):
    """A stream of data sets that TensorFlow Datasets has prepared, see `streams.tfds`.

    Attributes:
        kind: Name of this kind of stream.
        names: Names of the data sets, with config and version if necessary: `mnist`,
            `coil100/1.0.0`.
        data_dir: Folder of the data sets; empty: the default of TensorFlow Datasets.
        train: Split that is trained on.
        test: Split that scores; empty: a part of the training split is split off.
    """

    kind: str = "tfds"
    names: tuple[str, ...] = ()
    data_dir: Path = ""
    train: str = "train"
    test: str = "test"


class _Opened(NamedTuple):
    """A split of a data set.

    Attributes:
        source: Folder and split, for messages.
        records: Serialized records by index.
        parse: Function that returns the stored medium and the class of a record, and
            ignores its other features.
        media: Name of the feature that holds the medium.
        label: Name of the feature that holds the class.
        modality: Name of the modality of the media.
        names: Names of the classes.
    """

    source: str
    records: Any
    parse: Callable[[bytes], Mapping[str, Any]]
    media: str
    label: str
    modality: str
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class RecordReference:
    """A sample that is one record of a prepared data set.

    Attributes:
        folder: Folder of the data set, with its `dataset_info.json`.
        name: Name of the data set, with its version.
        split: Name of the split.
        index: Index in the split.
        content: Hash of the stored medium.
        storage: How the medium is stored; None: as the `storage` of the input says.
    """

    folder: str
    name: str
    split: str
    index: int
    content: str
    storage: Storage | None = None

    def load(self, modality: Modality, spec: InputSpec) -> Media:
        """Decodes the record; pictures are decoded as files of the modality."""
        with reading(os.path.join(self.folder, _INFO), EXPECTED):
            opened = _open(self.folder, self.split)
            value = _media(opened, opened.parse(opened.records[self.index]))
        if modality.name == "text":
            return value.decode("utf-8", "replace")
        return contents.decode(
            value, self.describe(), modality, spec, storage=self.storage
        )

    def describe(self) -> str:
        """Returns data set, split and index."""
        return f"{self.name}/{self.split}:{self.index}"

    def identity(self) -> str:
        """Returns a hash of the stored medium, with its storage."""
        return contents.identity(self.content, self.storage)


def build(
    *,
    names: Sequence[str],
    data_dir: str = "",
    train: str = "train",
    test: str = "test",
    **selection: Any,
) -> Stream:
    """Reads a stream from prepared data sets; no sample is decoded.

    The labels are in the records, so every record is read once; only a hash of its
    medium is kept.

    Args:
        names: Names of data sets, such as `mnist` or `my_data/config/1.0.0`. Without a
            version the newest is taken.
        data_dir: Folder of the data sets; "": `TFDS_DATA_DIR`, or else
            `~/tensorflow_datasets`.
        train: Split that is trained on.
        test: Split that scores; "": a part of the training split is split off.
        **selection: Arguments of `tasks.build`.

    Returns:
        The stream.

    Raises:
        DataError: A data set is missing, not prepared as array records, or has not one
            medium and one class; the message names its folder. Or one split is given
            for training and for testing.
        ValueError: An argument is out of range.
    """
    if train == test:
        raise DataError(
            f"split {train!r} is given for training and for testing; give two splits, "
            "or an empty test split, so that a part is split off"
        )
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = pathlib.Path(data_dir or expanded(default))
    found = [_data_set(root, name, train, test) for name in names]
    return tasks.build(sorted(found, key=lambda d: d.path.split("/")), **selection)


def _data_set(root: pathlib.Path, name: str, train: str, test: str) -> DataSet:
    folder = _find(root, name)
    full = folder.relative_to(root).as_posix()
    parts, modality = {}, ""
    for part, split in (("train", train), ("test", test)):
        if not split:
            continue
        with reading(str(folder / _INFO), EXPECTED):
            opened = _open(str(folder), split)
            modality, classes = opened.modality, {}
            for index, (label, content) in enumerate(_samples(opened)):
                reference = RecordReference(str(folder), full, split, index, content)
                classes.setdefault(opened.names[label], []).append(reference)
        parts[part] = data_sets.by_class(opened.source, classes.items())
    # The name of a data set must not contain a slash.
    path = f"{modality}/{'-'.join(full.split('/')[:-1])}"
    return DataSet(str(folder), path, MODALITIES[modality], parts)


def _find(root: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the folder of the version in a data set's name, or of the newest one."""
    folder = root / name
    if pathlib.PurePosixPath(name).is_absolute() or ".." in name.split("/"):
        raise DataError(f"{name!r}: expected the name of a data set below {root}")
    if not (folder / _INFO).is_file():
        versions = [
            (tuple(map(int, path.name.split("."))), path)
            for path in (folder.iterdir() if folder.is_dir() else ())
            if _VERSION.fullmatch(path.name) and (path / _INFO).is_file()
        ]
        if not versions:
            raise DataError(
                f"{folder}: missing; expected {EXPECTED}. Nothing is downloaded; "
                "prepare it with tfds.builder(NAME, data_dir=..., "
                "file_format='array_record').download_and_prepare()"
            )
        _, folder = max(versions)
    return folder


@functools.lru_cache(maxsize=64)
def _open(folder: str, split: str) -> _Opened:
    _check_features(folder)
    import tensorflow_datasets as tfds  # takes a second, and is rarely needed

    builder: Any = tfds.builder_from_directory(folder)
    info, features = builder.info, builder.info.features
    if split not in info.splits:
        raise DataError(
            f"{folder}: no split {split!r}; there are {', '.join(info.splits)}"
        )
    if str(info.file_format.value) != "array_record":
        raise DataError(
            f"{folder}: prepared as {info.file_format.value}; expected {EXPECTED}"
        )
    media = {name: m for name in features if (m := _modality(features[name]))}
    labels = [n for n in features if type(features[n]).__name__ == "ClassLabel"]
    if info.supervised_keys and len(info.supervised_keys) == 2:
        first, second = map(str, info.supervised_keys)
        media = {n: m for n, m in media.items() if n == first}
        labels = [name for name in labels if name == second]
    if len(media) != 1 or len(labels) != 1:
        raise DataError(
            f"{folder}: features {', '.join(features)}; expected one picture, depth "
            "map or text and one class label, or supervised keys that name them"
        )
    ((name, modality),), (label,) = media.items(), labels
    names = tuple(features[label].names)
    needed = tfds.features.FeaturesDict({n: features[n] for n in (name, label)})
    read: Any = needed.deserialize_example_np
    parse = functools.partial(read, decoders={name: tfds.decode.SkipDecoding()})
    records = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    return _Opened(f"{folder}/{split}", records, parse, name, label, modality, names)


def _check_features(folder: str) -> None:
    """Raises `DataError` for features that are not in `_CLASSES`.

    `features.json` is parsed into the library's own message, so that a class is found
    in every spelling in which the library would find it.
    """
    from google.protobuf import json_format
    from tensorflow_datasets.core.proto import feature_pb2

    message: Any = feature_pb2
    tree = read_json(pathlib.Path(folder) / "features.json", EXPECTED)
    if "type" in tree:
        raise DataError(
            f"{folder}: features.json is in an obsolete format, which may name any "
            "class; prepare the data set again"
        )
    _check_feature(json_format.ParseDict(tree, message.Feature()), folder)


def _check_feature(feature: Any, folder: str) -> None:
    name, content = feature.python_class_name, feature.WhichOneof("content")
    if content == "audio":
        raise DataError(
            f"{folder}: sounds, which cannot be read without TensorFlow; write them to "
            "files and list them in a manifest"
        )
    # The library reads free JSON in the obsolete format, which may name any class too.
    if name not in _CLASSES or content == "json_feature":
        known = ", ".join(sorted(known.rpartition(".")[2] for known in _CLASSES))
        raise DataError(
            f"{folder}: feature of {name!r}; expected those of TensorFlow Datasets, "
            f"one of {known}"
        )
    below = [*feature.features_dict.features.values()]
    if content == "sequence":
        below.append(feature.sequence.feature)
    for each in below:
        _check_feature(each, folder)


def _modality(feature: Any) -> str | None:
    """Returns the modality of a feature, or None if it is not a medium."""
    kind = type(feature).__name__
    if kind == "Image":
        return "depth" if feature.np_dtype == np.uint16 else "image"
    return "text" if kind == "Text" else None


def _samples(opened: _Opened) -> Iterator[tuple[int, str]]:
    """Yields class and hash of each record; every record is read once."""
    for start in range(0, len(opened.records), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(opened.records)))
        for row, raw in zip(rows, opened.records.__getitems__(rows), strict=True):
            record = opened.parse(raw)
            label = int(record[opened.label])
            if not 0 <= label < len(opened.names):
                raise DataError(
                    f"{opened.source}:{row}: label {label}; expected 0 to "
                    f"{len(opened.names) - 1}"
                )
            yield label, hashlib.sha256(_media(opened, record)).hexdigest()


def _media(opened: _Opened, record: Mapping[str, Any]) -> bytes:
    value = record[opened.media]
    return value.encode() if isinstance(value, str) else bytes(value)


SOURCE = StreamSource(
    Tfds, build, Required("names", "data sets that are prepared", "mnist")
)
