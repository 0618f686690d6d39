"""Rows of Parquet and Arrow files, read on demand."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mmcl_jax.errors import DataError, reading
from mmcl_jax.modalities.base import InputSpec, Media, Modality, Storage
from mmcl_jax.modalities.signatures import require_content
from mmcl_jax.streams import contents, features

EXPECTED = "a Parquet file, or an Arrow file of the library datasets"
_MAX_GROUP = 2**30  # bytes of a row group, which is in memory as a whole
_MAX_ROWS = 10_000_000  # of a file; a few bytes can stand for any number of equal ones
_OPENED = 4  # row groups in memory at once
_FILE_FORMAT = b"ARROW1"


class Version(NamedTuple):
    """A file at a time: another version of it is read again.

    Attributes:
        path: Path of the file.
        size: Its size, bytes.
        modified: Time of its last change, nanoseconds.
    """

    path: str
    size: int
    modified: int


def version(path: str) -> Version:
    """Returns the version of a file that is there now."""
    status = os.stat(path)
    return Version(path, status.st_size, status.st_mtime_ns)


@dataclasses.dataclass(frozen=True)
class RowReference:
    """A sample whose medium is stored in one row of a file.

    Attributes:
        path: Path of the file.
        name: Path relative to the data set, after the name of that.
        group: Index of its row group, or batch.
        row: Index of the row in that.
        number: Number of the row in the file, counted from 1.
        media: Column of the medium.
        suffix: Suffix of the name under which the medium was stored.
        storage: How the medium is stored; None: as the `storage` of the input says.
    """

    path: str
    name: str
    group: int
    row: int
    number: int
    media: str
    suffix: str = ""
    storage: Storage | None = None

    def load(self, modality: Modality, spec: InputSpec) -> Media:
        """Decodes the medium as a file of the modality."""
        with reading(self.path, EXPECTED):
            values = _group(version(self.path), self.group, self.media)
            value = values[self.row].as_py()
        if value is None:
            raise DataError(f"{self.describe()}: no content; remove the row")
        return contents.decode(
            value, self.describe(), modality, spec, self.suffix, self.storage
        )

    def describe(self) -> str:
        """Returns data set, file and number of the row."""
        return f"{self.name}:{self.number}"

    def identity(self) -> str:
        """Returns a hash of the medium, with its storage."""
        with reading(self.path, EXPECTED):
            digests = _digests(version(self.path), self.group, self.media)
        return contents.identity(digests[self.row], self.storage)


def schema(path: pathlib.Path) -> Any:
    """Returns the schema of a file; raises `DataError` if there is none."""
    with reading(str(path), EXPECTED):
        require_content(str(path), EXPECTED)
        if _is_parquet(path):
            import pyarrow.parquet as pq

            return pq.read_schema(path)
        return _batches(version(str(path)))[0]


def columns(
    path: pathlib.Path, names: Sequence[str], media: str = ""
) -> Iterator[tuple[Any, Any]]:
    """Yields a table of columns for each row group, and whether rows hold a medium.

    Args:
        path: Path of the file.
        names: Columns that are read whole.
        media: A column of media whose bytes are not read if that can be avoided; of
            structs, the field `path` is in the table.

    Yields:
        The table, and a list of whether each row has bytes; None if there is no column
        of media.

    Raises:
        DataError: The file is damaged, or a row group is too large.
    """
    with reading(str(path), EXPECTED):
        read = _parquet_columns if _is_parquet(path) else _arrow_columns
        yield from read(path, names, media)


def _is_parquet(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _parquet_columns(
    path: pathlib.Path, names: Sequence[str], media: str
) -> Iterator[tuple[Any, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        if file.metadata.num_rows > _MAX_ROWS:
            raise DataError(
                f"{path}: {file.metadata.num_rows} rows, more than the limit of "
                f"{_MAX_ROWS}; cut it into several files"
            )
        leaves = [file.schema.column(i).path for i in range(len(file.schema))]
        for group in range(file.num_row_groups):
            filled = None
            if media:
                filled = _filled(path, file, group, media, leaves)
            wanted = [*names, *([f"{media}.path"] if f"{media}.path" in leaves else [])]
            yield file.read_row_group(group, columns=wanted), filled


def _filled(
    path: pathlib.Path, file: Any, group: int, media: str, leaves: list[str]
) -> list[bool]:
    """Returns whether each row of a row group has bytes."""
    leaf = f"{media}.bytes" if f"{media}.bytes" in leaves else media
    if leaf not in leaves:  # paths alone
        return [False] * file.metadata.row_group(group).num_rows
    chunk = file.metadata.row_group(group).column(leaves.index(leaf))
    statistics = chunk.statistics
    if statistics and statistics.has_null_count and not statistics.null_count:
        return [True] * file.metadata.row_group(group).num_rows
    return _group(version(str(path)), group, media).is_valid().to_pylist()


def _arrow_columns(
    path: pathlib.Path, names: Sequence[str], media: str
) -> Iterator[tuple[Any, Any]]:
    import pyarrow as pa

    for batch in _batches(version(str(path)))[1]:
        chosen, filled = batch.select(list(names)), None
        chosen.validate(full=True)
        table = pa.Table.from_batches([chosen])
        if media:
            column = batch.column(batch.schema.names.index(media))
            column.validate(full=True)
            is_struct = pa.types.is_struct(column.type)
            held = {field.name for field in column.type} if is_struct else set()
            filled = [False] * len(batch)
            if "bytes" in held or not is_struct:
                filled = _bytes(column).is_valid().to_pylist()
            if "path" in held:
                paths = pa.StructArray.from_arrays([column.field("path")], ["path"])
                table = table.append_column(media, paths)
        yield table, filled


def _bytes(column: Any) -> Any:
    """Returns the bytes of a column of media, as one array."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        one = column.num_chunks == 1
        column = column.chunk(0) if one else column.combine_chunks()
    if pa.types.is_struct(column.type):
        # with the nulls of the structs, which a field has not of its own
        names = [field.name for field in column.type]
        column = column.flatten()[names.index("bytes")]
    if not features.is_binary(column.type):
        raise DataError(f"a column of {column.type} in place of bytes")
    return column


@functools.lru_cache(maxsize=_OPENED)
def _group(file: Version, group: int, media: str) -> Any:
    """Returns the bytes of a row group."""
    path = pathlib.Path(file.path)
    if not _is_parquet(path):
        batch = _batches(file)[1][group]
        column = batch.column(batch.schema.names.index(media))
        column.validate(full=True)
        return _bytes(column)
    import pyarrow.parquet as pq

    # Opened anew: threads must not share the file.
    with pq.ParquetFile(path) as opened:
        size = opened.metadata.row_group(group).total_byte_size
        if size > _MAX_GROUP:
            raise DataError(
                f"{path}: row group {group} takes {size} bytes, more than the limit of "
                f"{_MAX_GROUP}; write it with a smaller row_group_size"
            )
        return _bytes(opened.read_row_group(group, columns=[media]).column(media))


@functools.cache
def _digests(file: Version, group: int, media: str) -> tuple[str, ...]:
    """Returns a hash of each medium of a row group, which is read once for all."""
    values = (value.as_buffer() for value in _group(file, group, media))
    return tuple(
        hashlib.sha256(b"" if value is None else value).hexdigest() for value in values
    )


@functools.lru_cache(maxsize=64)
def _batches(file: Version) -> tuple[Any, tuple[Any, ...]]:
    """Returns schema and batches of an Arrow file, which is mapped into memory."""
    import pyarrow as pa

    source = pa.memory_map(file.path)
    if source.read(len(_FILE_FORMAT)) == _FILE_FORMAT:
        reader = pa.ipc.open_file(source)
        found = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        return reader.schema, tuple(found)
    source.seek(0)
    stream = pa.ipc.open_stream(source)
    return stream.schema, tuple(stream)
