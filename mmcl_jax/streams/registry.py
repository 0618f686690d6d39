"""The table of all sources of streams by kind, and building a stream from it."""

import dataclasses
from typing import Any

from mmcl_jax.errors import ConfigError
from mmcl_jax.streams import folders, manifest, procedural, tfds
from mmcl_jax.streams.base import Stream, StreamSource

SOURCES: dict[str, StreamSource] = {
    "world": procedural.SOURCE,
    "folders": folders.SOURCE,
    "manifest": manifest.SOURCE,
    "tfds": tfds.SOURCE,
}


def check(options: Any) -> None:
    """Raises `ConfigError` for options of a source that cannot be built."""
    source = SOURCES[options.kind]
    if source.check is not None:
        source.check(options)
    required = source.required
    if required is not None and not getattr(options, required.field):
        field = f"config.stream.{required.field}"
        raise ConfigError(
            f"{field}: missing; give {required.what}, for instance "
            f"--{field}={required.example}"
        )


def build(options: Any, order_seed: int, data_seed: int) -> Stream:
    """Returns the stream that the options of a source describe.

    Args:
        options: An instance of `StreamSource.options`.
        order_seed: Seed of the grouping of classes into tasks, and of the order of
            tasks.
        data_seed: Seed of the choice of training samples.
    """
    fields = dataclasses.asdict(options)
    source = SOURCES[fields.pop("kind")]
    return source.build(**fields, order_seed=order_seed, data_seed=data_seed)
