"""Exports on the Hugging Face Hub: sent to it, and read from it.

The Hub is contacted only where a user has named a repository. Nothing is pickled, and
no code of a repository is downloaded: an export that is read from it is read by this
package's own code.
"""

import os
import pathlib

from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.models.pretrained import hub
from mmcl_jax.serving.exported import DESCRIPTION, TOKENIZER

PATTERNS = (DESCRIPTION, "*.safetensors", "*.stablehlo", f"{TOKENIZER}/*")


def fetch(name: str) -> pathlib.Path:
    """Returns the folder of an export; downloads a repository.

    Args:
        name: A folder; or `hf://org/name` or `hf://org/name@revision`.

    Raises:
        DataError: The repository is neither reachable nor in the cache.
    """
    if not name.startswith(hub.SCHEME):
        return pathlib.Path(name)
    return hub.resolve_files(name, PATTERNS, "model").folder


def check_push(name: str) -> None:
    """Raises `ConfigError` if nothing can be sent to a repository of this name."""
    if not hub.is_repository(name.removeprefix(hub.SCHEME)):
        raise ConfigError(
            f"--push: {name!r} is no repository of the Hugging Face Hub; write org/name"
        )
    if not os.environ.get("HF_TOKEN"):
        raise ConfigError(
            "--push: no token; set the variable HF_TOKEN to one that may write to "
            f"{name}"
        )


def push(folder: pathlib.Path, name: str) -> str:
    """Sends an export to a repository; returns its name with the new revision.

    A repository that is not there yet is made, and is private. Files that it has
    besides those of the export stay as they are.

    Args:
        folder: The export.
        name: `org/name`, perhaps after `hf://`.

    Raises:
        ConfigError: There is no such name or no token.
        DataError: The Hub cannot be reached, or refuses it.
    """
    check_push(name)
    # imported late: it reads its environment variables then, and takes long
    import huggingface_hub

    repository = name.removeprefix(hub.SCHEME)
    try:
        api = huggingface_hub.HfApi(token=os.environ["HF_TOKEN"])
        api.create_repo(repository, private=True, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Export by mmcl_jax",
        )
    except Exception as error:  # of the library, its HTTP client or the disk
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{hub.SCHEME}{repository}: cannot be written to "
            f"({type(error).__name__}: {reason}); check the name and what the token "
            f"may do; the export is in {folder}"
        ) from error
    return f"{hub.SCHEME}{repository}@{done.oid}"
