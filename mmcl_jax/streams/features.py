"""What the columns of a data set of the library `datasets` hold.

The library writes it into the schema of each file, into `dataset_info.json` and into
the header of README.md. It is only read: no class that it names is ever imported.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmcl_jax.errors import DataError, check_bytes, reading
from mmcl_jax.files import parse_yaml, read_json

README = "README.md"
INFO = "dataset_info.json"
_MAX_README = 4 * 2**20
_MEDIA = {"Image": "image", "Audio": "audio", "Video": "video"}


class Feature(NamedTuple):
    """What a column holds.

    Attributes:
        kind: "media", "text", "classes" (indices of names), "integer" or "other".
        modality: Modality of media, if that is known.
        names: Names of classes.
    """

    kind: str
    modality: str | None = None
    names: tuple[str, ...] = ()


def of_schema(
    schema: Any, path: pathlib.Path, folder: pathlib.Path
) -> dict[str, Feature]:
    """Returns what each column of a file holds.

    Args:
        schema: Schema of a Parquet or Arrow file.
        path: The file, for messages.
        folder: Folder of the data set, whose other files are asked if the schema says
            nothing.

    Raises:
        DataError: A description is damaged.
    """
    declared = _of_metadata(schema, path) or _of_files(folder)
    return {
        field.name: _feature(declared.get(field.name), field.type, path)
        for field in schema
    }


def class_names(schema: Any, path: pathlib.Path) -> dict[str, tuple[str, ...]]:
    """Returns the names of the classes of each column that holds indices of names.

    Args:
        schema: Schema of a file, which alone is asked.
        path: The file, for messages.

    Raises:
        DataError: The description in the schema is damaged.
    """
    declared = _of_metadata(schema, path)
    found = {
        field.name: _feature(declared.get(field.name), field.type, path)
        for field in schema
    }
    return {name: f.names for name, f in found.items() if f.kind == "classes"}


def header(folder: pathlib.Path) -> Mapping[str, Any]:
    """Returns the YAML header of README.md; empty if there is none.

    Raises:
        DataError: It is damaged.
    """
    path = folder / README
    if not path.is_file():
        return {}
    with reading(str(path), "a description with a YAML header"):
        check_bytes(path, _MAX_README)
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        if not lines or lines[0].strip() != "---" or "---" not in lines[1:]:
            return {}
        text = "\n".join(lines[1 : lines.index("---", 1)])
        found = parse_yaml(text)
    return found if isinstance(found, dict) else {}


def _of_metadata(schema: Any, path: pathlib.Path) -> Mapping[str, Any]:
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    try:
        found = json.loads(text)["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: the key 'huggingface' of its schema cannot be read ({error}); "
            "save the data set again"
        ) from error
    return found if isinstance(found, dict) else {}


def _of_files(folder: pathlib.Path) -> Mapping[str, Any]:
    if (folder / INFO).is_file():
        found = read_json(folder / INFO).get("features")
        return found if isinstance(found, dict) else {}
    infos = header(folder).get("dataset_info")
    infos = infos if isinstance(infos, list) else [infos]
    if len(infos) != 1 or not isinstance(infos[0], dict):
        return {}
    listed = infos[0].get("features")
    return {
        str(each["name"]): _of_yaml(each.get("dtype"))
        for each in (listed if isinstance(listed, list) else ())
        if isinstance(each, dict) and "name" in each
    }


def _of_yaml(dtype: Any) -> Mapping[str, Any]:
    """Returns a feature of a README's header as the schema of a file has it."""
    if isinstance(dtype, dict) and isinstance(dtype.get("class_label"), dict):
        names = dtype["class_label"].get("names")
        if isinstance(names, dict):
            names = [names[key] for key in sorted(names, key=int)]
        return {"_type": "ClassLabel", "names": names}
    if isinstance(dtype, str) and dtype.capitalize() in _MEDIA:
        return {"_type": dtype.capitalize()}
    return {"_type": "Value"}


def _feature(declared: Any, kind: Any, path: pathlib.Path) -> Feature:
    import pyarrow as pa

    named = declared.get("_type") if isinstance(declared, dict) else None
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if named == "ClassLabel" and pa.types.is_integer(kind):
        names = declared.get("names")
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise DataError(
                f"{path}: a ClassLabel without a list of names; save the data set "
                "with ClassLabel(names=[...])"
            )
        return Feature("classes", names=tuple(names))
    if named in _MEDIA:
        return Feature("media", _MEDIA[named])
    fields = {f.name for f in kind} if pa.types.is_struct(kind) else set()
    if {"bytes", "path"} <= fields or is_binary(kind):
        return Feature("media")
    if is_text(kind):
        return Feature("text")
    return Feature("integer" if pa.types.is_integer(kind) else "other")


def is_binary(kind: Any) -> bool:
    """Returns whether a type of Arrow holds bytes."""
    import pyarrow as pa

    types = pa.types
    return (
        types.is_binary(kind) or types.is_large_binary(kind) or kind == pa.binary_view()
    )


def is_text(kind: Any) -> bool:
    """Returns whether a type of Arrow holds text."""
    import pyarrow as pa

    types = pa.types
    return (
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
    )
