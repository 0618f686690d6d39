"""The table of all sources of streams by kind, and building a stream from it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import logging

from mmcl_jax.errors import ConfigError, Faults
from mmcl_jax.streams import (
    data_options,
    folders,
    manifest,
    parquet,
    procedural,
    tfds,
)
from mmcl_jax.streams.base import Stream, StreamSource

SOURCES: dict[str, StreamSource] = {
    "world": procedural.SOURCE,
    "folders": folders.SOURCE,
    "manifest": manifest.SOURCE,
    "tfds": tfds.SOURCE,
    "parquet": parquet.SOURCE,
}

_NAMED = 3  # of what is not used


def check(options: Any) -> None:
    """Raises `ConfigError` for options of a source that cannot be built."""
    source = SOURCES[options.kind]
    if isinstance(options, data_options.Selection):
        data_options.check(options)
    if source.check is not None:
        source.check(options)
    required = source.required
    if required is not None and not getattr(options, required.field):
        field = f"config.stream.{required.field}"
        raise ConfigError(
            f"{field}: missing; give {required.what}, for instance "
            f"--{field}={required.example}"
        )


def remote(options: Any) -> list[str]:
    """Returns the names in the options of a source that would be downloaded."""
    source = SOURCES[options.kind]
    return source.remote(options) if source.remote else []


def build(
    options: Any, order_seed: int, data_seed: int, faults: Faults | None = None
) -> Stream:
    """Returns the stream that the options of a source describe.

    Args:
        options: An instance of `StreamSource.options`.
        order_seed: Seed of the grouping of classes into tasks, and of the order of
            tasks.
        data_seed: Seed of the choice of training samples.
        faults: Receives the faults of the data, and the stream is made of the rest;
            None: a fault is an error, and what is not used or notable is logged.

    Raises:
        DataError: There are faults, or nothing is left to make a stream of.
    """
    fields = dataclasses.asdict(options)
    source = SOURCES[fields.pop("kind")]
    found = Faults() if faults is None else faults
    if source.of_files:
        fields["faults"] = found
    stream = source.build(**fields, order_seed=order_seed, data_seed=data_seed)
    if faults is None:
        found.check()
        if found.unused:
            logging.warning("%s", _unused(found.unused))
        for note in found.notes:
            logging.warning("%s", note)
    return stream


def _unused(found: Sequence[str]) -> str:
    shown = "; ".join(found[:_NAMED])
    more = len(found) - _NAMED
    rest = f"; and {more} more, which mmcl_jax.prepare lists" if more > 0 else ""
    return f"not used of the data: {shown}{rest}"
