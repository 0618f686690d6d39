"""Data sets in the layouts that the library `datasets` and its Hub publish."""

import json
import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests import helpers

NAMES = ["ape", "bee"]
LABEL = {"names": NAMES, "_type": "ClassLabel"}
MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
KINDS = {"image": "Image", "audio": "Audio", "depth": "Image", "video": "Video"}


def media(folder: pathlib.Path, modality: str, number: int) -> list[dict[str, Any]]:
    paths = [
        pathlib.Path(helpers.write(folder / "files", modality, k % 3))
        for k in range(number)
    ]
    return [{"bytes": path.read_bytes(), "path": path.name} for path in paths]


def table_of(
    columns: dict[str, Any], features: dict[str, Any] | None, types: dict[str, Any]
) -> pa.Table:
    """Returns a table whose schema is as the library writes it."""
    table = pa.table(
        {n: pa.array(v, types.get(n)) for n, v in columns.items()},
    )
    if features is None:
        return table
    info = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": info})


def rows(folder: pathlib.Path, modality: str, number: int = 6, **features) -> pa.Table:
    held = {"media": {"_type": KINDS[modality]}, "label": LABEL} | features
    columns = {
        "media": media(folder, modality, number),
        "label": [k % 2 for k in range(number)],
    }
    return table_of(columns, held, {"media": MEDIA, "label": pa.int64()})


def texts(number: int = 6) -> pa.Table:
    held = {"text": {"dtype": "string", "_type": "Value"}, "label": LABEL}
    columns = {
        "text": [f"sentence {k}" for k in range(number)],
        "label": [k % 2 for k in range(number)],
    }
    return table_of(columns, held, {"label": pa.int64()})


def save_split(table: pa.Table, folder: pathlib.Path, split: str | None) -> None:
    """Writes what `Dataset.save_to_disk` writes, in two shards."""
    folder.mkdir(parents=True)
    half = len(table) // 2
    names = [f"data-{k:05}-of-00002.arrow" for k in range(2)]
    for name, part in zip(names, (table[:half], table[half:]), strict=True):
        with pa.OSFile(str(folder / name), "wb") as file:
            with pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(part, max_chunksize=2)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    info = {"citation": "", "description": "", "features": features, "homepage": ""}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0123456789abcdef",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    (folder / "state.json").write_text(json.dumps(state))


def save_to_disk(folder: pathlib.Path, **parts: pa.Table) -> pathlib.Path:
    """Writes what `DatasetDict.save_to_disk` writes."""
    for split, table in parts.items():
        save_split(table, folder / split, split)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": [*parts]}))
    return folder


def push_to_hub(folder: pathlib.Path, **parts: pa.Table) -> pathlib.Path:
    """Writes what a repository holds after `push_to_hub`, with two shards a split."""
    (folder / "data").mkdir(parents=True)
    for split, table in parts.items():
        half = len(table) // 2
        for k, part in enumerate((table[:half], table[half:])):
            name = f"{split}-{k:05}-of-00002.parquet"
            pq.write_table(part, folder / "data" / name, row_group_size=2)
    files = "".join(f"  - split: {s}\n    path: data/{s}-*\n" for s in parts)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        + files
        + "---\n# Data\n"
    )
    return folder


def plain(folder: pathlib.Path, **parts: pa.Table) -> pathlib.Path:
    folder.mkdir(parents=True)
    for split, table in parts.items():
        pq.write_table(table, folder / f"{split}.parquet", row_group_size=2)
    return folder


def in_folders(folder: pathlib.Path, **parts: pa.Table) -> pathlib.Path:
    for split, table in parts.items():
        (folder / "default" / split).mkdir(parents=True)
        pq.write_table(table, folder / "default" / split / "0000.parquet")
    return folder
