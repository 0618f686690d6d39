"""Zip archives, in which torch and NumPy keep tensors."""

import io
import pathlib
import zipfile
import zlib
from typing import NamedTuple

from mmcl_jax.errors import DataError

# Room for 40,000 entries; `zipfile` takes a hundred times as much memory for them.
_MAX_DIRECTORY_BYTES = 4 * 2**20


class Entry(NamedTuple):
    """The place of an entry's bytes.

    Attributes:
        path: Path of the archive.
        offset: Offset of the first byte in the archive.
        stored: Number of bytes in the archive.
        size: Number of bytes of the content.
        crc: CRC-32 of the content.
        is_deflated: Whether the content is compressed.
    """

    path: pathlib.Path
    offset: int
    stored: int
    size: int
    crc: int
    is_deflated: bool

    def start(self, most: int) -> bytes:
        """Returns the first `most` bytes of the content, or all of a shorter one."""
        most = min(most, self.size)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            # Deflation makes incompressible data a little longer.
            data = file.read(min(self.stored, most + most // 1000 + 4096))
        if self.is_deflated:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, max(most, 1))
        return data[:most]

    def read(self) -> bytes:
        """Returns the content.

        Raises:
            ValueError: The checksum of the content is wrong.
        """
        content = self.start(self.size)
        if len(content) != self.size or zlib.crc32(content) != self.crc:
            raise ValueError("the checksum is wrong; the file is damaged")
        return content


class _BoundedReads(io.FileIO):
    """A file that refuses `zipfile` a directory of unlimited size.

    `zipfile` reads the whole directory at once, and its size is taken from the file.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY_BYTES:
            raise DataError(
                f"{self.name}: a directory of {size} bytes, more than the limit of "
                f"{_MAX_DIRECTORY_BYTES}"
            )
        return super().read(size)


def read_directory(path: pathlib.Path) -> dict[str, Entry]:
    """Returns the entries of an archive by name; none of them is read.

    Raises:
        DataError: The directory is too large or names an entry twice; an entry is
            compressed by another method than deflation, or reaches beyond the end.
        zipfile.BadZipFile: The file is not an archive, or is damaged.
    """
    entries = {}
    with _BoundedReads(path) as file, zipfile.ZipFile(file) as archive:
        size = file.seek(0, io.SEEK_END)
        for info in archive.infolist():
            name = info.filename
            if name in entries:
                raise DataError(f"{path}: two entries are named {name!r}")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(
                    f"{path}: entry {name!r} is compressed, but not deflated"
                )
            is_deflated = info.compress_type == zipfile.ZIP_DEFLATED
            with archive.open(info):  # checks that both headers of the entry agree
                pass
            file.seek(info.header_offset + 26)
            lengths = file.read(4)  # of the name and of the extra field, two bytes each
            offset = info.header_offset + 30
            offset += int.from_bytes(lengths[:2], "little")
            offset += int.from_bytes(lengths[2:], "little")
            if offset + info.compress_size > size:
                raise DataError(f"{path}: entry {name!r} reaches beyond the end")
            if not is_deflated and info.compress_size != info.file_size:
                raise DataError(f"{path}: entry {name!r} has two sizes")
            entries[name] = Entry(
                path, offset, info.compress_size, info.file_size, info.CRC, is_deflated
            )
    return entries
