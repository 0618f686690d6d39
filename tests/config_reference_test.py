"""docs/config.md names every key with its meaning, and what it may be is so."""

import dataclasses
import re
from typing import Any

import pytest

from mmcl_jax import config
from mmcl_jax.cli import reference
from mmcl_jax.config import Config, resolve
from mmcl_jax.errors import ConfigError
from mmcl_jax.streams.registry import SOURCES
from tests import helpers

config_reference = helpers.load_tool("config_reference")

STREAMS = {
    # of one modality, so that it may have one task
    "world": config.World(modalities=("image",)),
    "folders": config.Folders(root="DATA"),
    "manifest": config.Manifest(path="DATA/manifest.csv"),
    "tfds": config.Tfds(names=("mnist",)),
    "parquet": config.Parquet(paths=("DATA",)),
}
ROWS = [row for _, _, rows in reference.sections() for row in rows]


def keys(value: Any, path: str) -> list[str]:
    """Returns the paths of all values of nested dicts."""
    if not isinstance(value, dict):
        return [path]
    return [found for name in value for found in keys(value[name], f"{path}.{name}")]


def resolved(row: reference.Row, value: Any) -> Config:
    """Returns the checked config with one key changed, of the stream that has it."""
    *above, name = row.key.split(".")[1:]
    for stream in STREAMS.values():
        tree = section = dataclasses.asdict(Config(stream=stream))
        for part in above:
            section = section[part]
        if name in section:
            section[name] = value
            return resolve(tree)
    raise KeyError(row.key)


def test_every_stream_is_tried() -> None:
    assert STREAMS.keys() == SOURCES.keys()


def test_the_page_is_up_to_date() -> None:
    stored = (config_reference.ROOT / config_reference.PAGE).read_text("utf-8")
    advice = "run `python docs/tools/config_reference.py`"
    assert stored == config_reference.page(), advice


def test_every_key_is_there() -> None:
    wanted = {
        key
        for stream in STREAMS.values()
        for key in keys(dataclasses.asdict(Config(stream=stream)), "config")
    }
    assert {row.key for row in ROWS} == wanted


def test_every_key_has_a_meaning() -> None:
    for row in ROWS:
        assert len(row.meaning) > 5, row.key
        # a cell of a table
        assert not set("".join(row)) & {"|", "\n"}, row.key


def test_nothing_is_explained_that_is_not_there() -> None:
    sections = [Config, *(type(stream) for stream in STREAMS.values())]
    for kind in sections:
        names = [field.name for field in dataclasses.fields(kind)]
        assert list(reference.attributes(kind)) == names
        sections += [
            type(field.default)
            for field in dataclasses.fields(kind)
            if dataclasses.is_dataclass(field.default)
        ]
    assert len(sections) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_what_a_key_may_be_is_so(row: reference.Row) -> None:
    refused: list[Any] = [{}]
    taken: list[Any] = []
    (taken if row.kind.endswith("or `None`") else refused).append(None)
    bounds = r"(whole )?number (?:(from|above) (\S+)|between (\S+) and)(?: to (\S+))?"
    if found := re.match(bounds, row.kind.replace(",", "")):
        whole, word, low, open_low, high = found.groups()
        number = int if whole else float
        refused.append(number(low or open_low) - 1)
        (taken if word == "from" else refused).append(number(low or open_low))
        if high:
            taken.append(number(high))
            refused.append(number(high) + 1)
    if row.kind.startswith(("one of", "some of")) and row.key != "config.stream.kind":
        among = re.findall(r"`(\w+)`", row.kind)
        several = row.kind.startswith("some")
        taken += [(name,) if several else name for name in among]
        refused.append(("no such",) if several else "no such")
    if row.kind.startswith("`True`"):
        taken, refused = [True, False], [*refused, 1]
    if row.kind == "text":
        refused.append(1)
    assert taken or len(refused) > 1
    for value in taken:
        resolved(row, value)
    for value in refused:
        with pytest.raises(ConfigError, match=re.escape(row.key)):
            resolved(row, value)
