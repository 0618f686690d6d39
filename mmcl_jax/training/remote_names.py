"""What a stored config names is read where it is local, and nothing is downloaded.

A workdir may come from anybody, and its config then names what they have chosen.
"""

import dataclasses
import pathlib

from mmcl_jax import config as configs
from mmcl_jax.errors import ConfigError
from mmcl_jax.models import pretrained
from mmcl_jax.streams import registry
from mmcl_jax.training import build


def with_encoder(
    config: configs.Config, encoder: str | None, source: pathlib.Path
) -> configs.Config:
    """Returns a stored config with the encoder that the user has named for it.

    What a stored config names may be somebody else's choice. It is read where it is
    local, and nothing is downloaded that the user has not named.

    Args:
        config: The stored config.
        encoder: Name of the encoder, of which the fingerprint is compared later; None:
            that of the config.
        source: Where the config is stored, for messages.

    Raises:
        ConfigError: The encoder of the config is not on this machine.
    """
    if encoder is not None:
        chosen = dataclasses.replace(config.encoder, path=encoder)
        return dataclasses.replace(config, encoder=chosen)
    if _encoder(config):
        raise ConfigError(
            f"{source}: the encoder {config.encoder.path!r} is not on this machine, "
            "and a stored config does not choose what is downloaded; name it by "
            f"--encoder={config.encoder.path}, or give a folder with the same encoder"
        )
    return config


def check(config: configs.Config, source: pathlib.Path) -> None:
    """Raises `ConfigError` if a stored config names what would be downloaded."""
    if remote := [*_encoder(config), *_data(config)]:
        raise ConfigError(
            f"{source}: {', '.join(remote)}: not on this machine, and a stored config "
            "does not choose what is downloaded; allow it by --allow_download, or give "
            "--config and its flags"
        )


def flags(config: configs.Config) -> list[str]:
    """Returns the flags for a run whose stored config the user has made."""
    return ["--allow_download"] if _encoder(config) or _data(config) else []


def check_data(config: configs.Config, source: pathlib.Path) -> None:
    """Raises `ConfigError` if a stored config names data that would be downloaded."""
    if remote := _data(config):
        raise ConfigError(
            f"{source}: the data {', '.join(remote)} are not on this machine, and a "
            "stored config does not choose what is downloaded; download them"
        )


def _encoder(config: configs.Config) -> list[str]:
    here = pretrained.is_here(build.encoder_name(config.encoder))
    return [] if here else [config.encoder.path]


def _data(config: configs.Config) -> list[str]:
    return registry.remote(config.stream)
