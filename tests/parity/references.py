"""Reference models: what builds each case, writes it and says what it returns.

Tiny ones are for tests; others are as large as those published, their weights random:

    python -m tests.parity.references clip/openai l14 FOLDER
"""

import argparse
import importlib
import pathlib

from tests.parity import cases
from tests.parity.cases import Expected

# module and function of a family, and of cases that are built otherwise
_BUILDERS = {
    "clip": ("huggingface", "clip"),
    "siglip": ("huggingface", "siglip"),
    "open_clip": ("openclip", "clip"),
    "open_clip/siglip": ("openclip", "siglip"),
    "languagebind": ("languagebind", "write"),
    "imagebind": ("imagebind", "write"),
    "sentence_bert": ("sentence_bert", "write"),
}


def write(name: str, folder: pathlib.Path, size: str = "tiny") -> dict[str, Expected]:
    """Builds the reference of a case, and writes it in its published layout.

    Args:
        name: a key of `cases.CASES`.
        folder: where to; of a family with a folder for each modality, what holds them.
        size: a size that the case's family has.

    Returns:
        What the reference returns for each modality.
    """
    case = cases.CASES[name]
    module, function = _BUILDERS.get(name) or _BUILDERS[case.family]
    family = importlib.import_module(f"tests.parity.{module}")
    folder.mkdir(parents=True, exist_ok=True)
    expected = getattr(family, function)(name, folder, size)
    assert tuple(expected) == case.modalities
    return expected


def main() -> None:
    """Writes one case and, beside it, what its reference returns."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=cases.CASES)
    parser.add_argument("size")
    parser.add_argument("folder", type=pathlib.Path)
    given = parser.parse_args()
    expected = write(given.name, given.folder, given.size)
    cases.save(cases.expectations(given.folder), expected)


if __name__ == "__main__":
    main()
