"""Media that are stored inside of larger files, such as the records of a data set."""

import dataclasses
import tempfile

from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import InputSpec, Media, Modality, Storage


def decode(
    content: bytes,
    source: str,
    modality: Modality,
    spec: InputSpec,
    suffix: str = "",
    storage: Storage | None = None,
) -> Media:
    """Decodes a stored file as if it lay in a folder.

    Args:
        content: The file.
        source: Origin of it, for messages.
        modality: Its modality.
        spec: Input that an encoder expects.
        suffix: Suffix of its name; the first of the modality in place of another one.
        storage: How it is stored; None: as `spec` says.

    Raises:
        DataError: It cannot be decoded; the message names the source.
    """
    if storage is not None:
        spec = dataclasses.replace(spec, storage=storage)
    if suffix.lower() not in modality.suffixes:
        suffix = modality.suffixes[0]
    # Decoders take paths; this way a stored file passes the same checks as any other.
    with tempfile.NamedTemporaryFile(suffix=suffix.lower()) as file:
        file.write(content)
        file.flush()
        try:
            return modality.decode(file.name, spec)
        except DataError as error:
            raise DataError(str(error).replace(file.name, source)) from error


def identity(content: str, storage: Storage | None) -> str:
    """Returns the identity of a medium by the hash of its content.

    How it is stored is part of it, unless that is the default.
    """
    default = storage is None or storage == Storage()
    return content if default else f"{content} {storage}"
