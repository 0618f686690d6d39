"""Finds the folder of an encoder: on this machine, or on the Hugging Face Hub.

The Hub is asked only for a name that is no folder here. `huggingface_hub` keeps what it
fetched and then needs no network; the variables it knows apply: with HF_HUB_OFFLINE=1
nothing but its cache is looked at, HF_HOME says where that is, and HF_TOKEN opens
private repositories.
"""

import difflib
import os
import pathlib
import re
from typing import NamedTuple

from mmcl_jax.errors import DataError
from mmcl_jax.files import read_json

_SCHEME = "hf://"
_REPOSITORY = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"\w[\w./-]{0,199}", re.ASCII)

# no code, no weights
_SMALL_FILES = (
    *("config.json", "open_clip_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "spiece.model"),
)
# by library, the best first; the last pattern of a format is that of its shards
_TRANSFORMERS = (
    ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin"),
)
_OPEN_CLIP = (("open_clip_model.safetensors",), ("open_clip_pytorch_model.bin",))
_ELSEWHERE = ("*.safetensors", "*.npz", "*.pth", "*.pt", "*.bin")


class Source(NamedTuple):
    """Where an encoder was found.

    Attributes:
        folder: on this machine.
        source: the name of the repository with `hf://`, or the folder as it was named.
        revision: hash of the commit; None for a folder.
    """

    folder: pathlib.Path
    source: str
    revision: str | None


def resolve(name: str, revision: str | None = None) -> Source:
    """Returns the folder of an encoder; fetches it if it is a repository's.

    Args:
        name: a folder, which always wins; or `org/name`, `hf://org/name` or
            `hf://org/name@revision`, a repository.
        revision: a branch, a tag or the hash of a commit; None = the main branch.

    Raises:
        DataError: there is no such folder and no such repository, or it can neither be
            reached nor is in the cache, or holds no weights; the message says what to
            do.
    """
    folder = pathlib.Path(name)
    if folder.is_dir():
        if revision is not None:
            raise DataError(
                f"{name}: a folder here, of which there is no revision {revision!r}; "
                f"leave it out, or write {_SCHEME}{name}"
            )
        return Source(folder, name, None)
    repository, at, named = name.removeprefix(_SCHEME).partition("@")
    is_repository = _REPOSITORY.fullmatch(repository) and not folder.is_file()
    if not is_repository or (at and not name.startswith(_SCHEME)):
        raise DataError(f"{name}: {_explain(name)}")
    if at and revision not in (None, named):
        raise DataError(f"{name}: another revision than {revision!r}; name one of them")
    wanted = named if at else revision
    if wanted is not None and (not _REVISION.fullmatch(wanted) or ".." in wanted):
        raise DataError(f"{name}: {wanted!r} is no name of a revision")
    folder = _fetch(repository, wanted)
    return Source(folder, f"{_SCHEME}{repository}", folder.name)


def find_weights(folder: pathlib.Path) -> pathlib.Path:
    """Returns the one file of weights in a folder, or the index of several.

    Of those with the names that transformers or OpenCLIP give them, whichever the
    folder's config belongs to, safetensors are preferred; otherwise it is the only file
    that weights can be in.

    Raises:
        DataError: there is none, or one cannot tell which.
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
    """Returns the patterns of weights, by what the configs in the folder are of."""
    # repositories of timm hold another model of its own, next to OpenCLIP's
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
            f"{_SCHEME}{named}: neither config.json nor open_clip_config.json; expected"
            " an encoder of transformers or OpenCLIP"
        )
    formats = _formats(folder)
    for names in formats:
        # the commit that was found first: a branch may have moved since
        _download(repository, folder.name, named, names)
        if any((folder / name).is_file() for name in names):
            return folder
    raise DataError(
        f"{_SCHEME}{named}: no weights in {folder}; expected "
        f"{' or '.join(names[0] for names in formats)}; run once with a network and "
        "without HF_HUB_OFFLINE, or give a folder"
    )


def _download(
    repository: str, revision: str | None, named: str, patterns: tuple[str, ...]
) -> pathlib.Path:
    # reads its variables when it is imported, and takes long
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(patterns),
            # of the environment alone: none that a login left on the disk
            token=os.environ.get("HF_TOKEN") or False,
        )
    except Exception as error:  # of the library, of its client, of the disk
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{_SCHEME}{named}: neither a folder here, nor a repository that can be "
            f"fetched ({type(error).__name__}: {reason}); check the name, download it "
            "where there is a network and run with HF_HUB_OFFLINE=1, or give a folder"
        ) from error
    return pathlib.Path(folder)


def _explain(name: str) -> str:
    """Says what is wrong with what is neither a folder nor a repository's name."""
    path = pathlib.Path(name)
    if path.is_file():
        return f"a file; give the folder that it is in, {str(path.parent)!r}"
    if "://" in name and not name.startswith(_SCHEME):
        return f"no folder, and nothing that is fetched; write {_SCHEME}org/name"
    if not name.startswith(_SCHEME) and path.parent.is_dir():
        folders = [each.name for each in path.parent.iterdir() if each.is_dir()]
        if near := difflib.get_close_matches(path.name, folders, 1):
            return f"no such folder; did you mean {str(path.parent / near[0])!r}?"
    return f"no such folder; a repository of the Hub is written {_SCHEME}org/name"
