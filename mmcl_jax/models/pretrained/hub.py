"""Finds encoders and data sets: on this machine, or on the Hugging Face Hub.

The Hub is contacted only for a name that is not a local folder. `huggingface_hub`
caches what it downloads and then needs no network. Its environment variables apply:
HF_HUB_OFFLINE=1 restricts it to the cache, HF_HOME is the folder of the cache, and
HF_TOKEN gives access to private repositories.
"""

import difflib
import os
import pathlib
import re
from typing import Literal, NamedTuple

from mmcl_jax.errors import DataError
from mmcl_jax.files import read_json

SCHEME = "hf://"
# what a repository is one of
Kind = Literal["model", "dataset"]
_REPOSITORY = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"\w[\w./-]{0,199}", re.ASCII)

# Files other than weights; code is never downloaded.
_SMALL_FILES = (
    *("config.json", "open_clip_config.json", "1_Pooling/config.json"),
    *("preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "spiece.model"),
)
# Weights by library, the preferred format first; the last pattern matches shards.
_TRANSFORMERS = (
    ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin"),
)
_OPEN_CLIP = (("open_clip_model.safetensors",), ("open_clip_pytorch_model.bin",))
_ELSEWHERE = ("*.safetensors", "*.npz", "*.pth", "*.pt", "*.bin")


class Source(NamedTuple):
    """Where an encoder was found.

    Attributes:
        folder: Folder on this machine.
        source: Name of the repository with `hf://`, or the folder as it was given.
        revision: Hash of the commit; None for a folder.
    """

    folder: pathlib.Path
    source: str
    revision: str | None


def resolve(name: str, revision: str | None = None) -> Source:
    """Returns the folder of an encoder; downloads a repository.

    Args:
        name: A folder, which takes precedence; or a repository: `org/name`,
            `hf://org/name` or `hf://org/name@revision`.
        revision: A branch, a tag or the hash of a commit; None: the main branch.

    Raises:
        DataError: There is neither such a folder nor such a repository, or the
            repository is neither reachable nor in the cache, or it holds no weights;
            the message names the remedy.
    """
    folder = pathlib.Path(name)
    if folder.is_dir():
        if revision is not None:
            raise DataError(
                f"{name}: a local folder, which has no revision {revision!r}; leave it "
                f"out, or write {SCHEME}{name}"
            )
        return Source(folder, name, None)
    repository, at, named = name.removeprefix(SCHEME).partition("@")
    known = is_repository(repository) and not folder.is_file()
    if not known or (at and not name.startswith(SCHEME)):
        raise DataError(f"{name}: {_explain(name)}")
    if at and revision not in (None, named):
        raise DataError(
            f"{name}: the revision in the name is not {revision!r}; give one of them"
        )
    wanted = named if at else revision
    if wanted is not None and (not _REVISION.fullmatch(wanted) or ".." in wanted):
        raise DataError(f"{name}: {wanted!r} is not the name of a revision")
    folder = _fetch(repository, wanted)
    return Source(folder, f"{SCHEME}{repository}", folder.name)


def is_repository(name: str) -> bool:
    """Returns whether a name may be that of a repository, `org/name`."""
    return _REPOSITORY.fullmatch(name) is not None


def resolve_files(name: str, patterns: tuple[str, ...], kind: Kind) -> Source:
    """Returns the folder of files other than an encoder's; downloads a repository.

    Args:
        name: A folder, which takes precedence; or a repository: `org/name`,
            `org/name@revision`, each perhaps after `hf://`.
        patterns: Globs of the files that are downloaded.
        kind: What the repository is one of.

    Raises:
        DataError: There is neither such a folder nor such a repository, or the
            repository is neither reachable nor in the cache.
    """
    folder = pathlib.Path(name).expanduser()
    if folder.is_dir():
        return Source(folder, name, None)
    repository, at, revision = name.removeprefix(SCHEME).partition("@")
    # The name of a folder that is misspelt must not be sent to the Hub.
    local = not name.startswith(SCHEME) and (folder.parent.is_dir() or folder.exists())
    if local or not is_repository(repository):
        raise DataError(f"{name}: {_explain(name)}")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise DataError(f"{name}: {revision!r} is not the name of a revision")
    folder = _download(repository, revision or None, repository, patterns, kind)
    return Source(folder, f"{SCHEME}{repository}", folder.name)


def find_weights(folder: pathlib.Path) -> pathlib.Path:
    """Returns the file of weights in a folder, or the index of several.

    Among files with the names of transformers or OpenCLIP, depending on the config in
    the folder, safetensors are preferred; otherwise it is the only file whose suffix is
    that of weights.

    Raises:
        DataError: There is no such file, or the choice is ambiguous.
    """
    for names in _formats(folder):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    for pattern in _ELSEWHERE:
        match sorted(folder.glob(pattern)):
            case [path]:
                return path
            case [_, *_] as paths:
                raise DataError(
                    f"{folder}: which of {', '.join(p.name for p in paths)} are the "
                    f"weights? call them {_formats(folder)[0][0]}"
                )
    raise DataError(f"{folder}: no file of weights; expected {_formats(folder)[0][0]}")


def _formats(folder: pathlib.Path) -> tuple[tuple[str, ...], ...]:
    """Returns the patterns of weights, by the libraries of the folder's configs."""
    # Repositories of timm also hold a model of timm's own, next to that of OpenCLIP.
    if (folder / "open_clip_config.json").is_file() and (
        not (folder / "config.json").is_file()
        or "model_type" not in read_json(folder / "config.json")
    ):
        return _OPEN_CLIP
    if (folder / "open_clip_config.json").is_file():
        return (*_TRANSFORMERS, *_OPEN_CLIP)
    return _TRANSFORMERS


def _fetch(repository: str, revision: str | None) -> pathlib.Path:
    """Returns the folder of the cache that holds a repository's files."""
    named = repository if revision is None else f"{repository} at {revision}"
    folder = _download(repository, revision, named, _SMALL_FILES)
    if not any((folder / name).is_file() for name in _SMALL_FILES[:2]):
        raise DataError(
            f"{SCHEME}{named}: neither config.json nor open_clip_config.json; expected"
            " an encoder of transformers or OpenCLIP"
        )
    formats = _formats(folder)
    for names in formats:
        # From the commit of the small files: the branch may have moved since.
        _download(repository, folder.name, named, names)
        if any((folder / name).is_file() for name in names):
            return folder
    raise DataError(
        f"{SCHEME}{named}: no weights in {folder}; expected "
        f"{' or '.join(names[0] for names in formats)}; run once with a network and "
        "without HF_HUB_OFFLINE, or give a folder"
    )


def _download(
    repository: str,
    revision: str | None,
    named: str,
    patterns: tuple[str, ...],
    kind: Kind = "model",
) -> pathlib.Path:
    # Imported late: it reads its environment variables then, and takes long.
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            repository,
            repo_type=kind,
            revision=revision,
            allow_patterns=list(patterns),
            # Only from the environment, not from an earlier login on this machine.
            token=os.environ.get("HF_TOKEN") or False,
        )
    except Exception as error:  # of the library, its HTTP client or the disk
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{SCHEME}{named}: neither a local folder nor a repository that can be "
            f"downloaded ({type(error).__name__}: {reason}); check the name, download "
            "it on a network and run with HF_HUB_OFFLINE=1, or give a folder"
        ) from error
    return pathlib.Path(folder)


def _explain(name: str) -> str:
    """Returns why a name is neither that of a folder nor that of a repository."""
    path = pathlib.Path(name)
    if path.is_file():
        return f"a file; give its folder, {str(path.parent)!r}"
    if "://" in name and not name.startswith(SCHEME):
        return f"neither a folder nor a repository; write {SCHEME}org/name"
    if not name.startswith(SCHEME) and path.parent.is_dir():
        folders = [each.name for each in path.parent.iterdir() if each.is_dir()]
        if near := difflib.get_close_matches(path.name, folders, 1):
            return f"no such folder; did you mean {str(path.parent / near[0])!r}?"
    return f"no such folder; a repository of the Hub is written {SCHEME}org/name"
