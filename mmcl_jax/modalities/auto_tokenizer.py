"""The one door to transformers, for tokenizers that the tokenizers library lacks."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple


class Loaded(NamedTuple):
    """What is needed of a tokenizer, whichever library it is from.

    Attributes:
        encode: a sentence -> the ids of its words, nothing around them.
        vocabulary: ids by token.
        special: ids of special tokens.
    """

    encode: Callable[[str], list[int]]
    vocabulary: dict[str, int]
    special: set[int]


def load(folder: pathlib.Path) -> Loaded:
    """Reads a tokenizer of a model's folder with `AutoTokenizer`.

    Nothing is downloaded, and no code of the folder is run. Importing transformers
    takes seconds where torch is installed, so it is done here and nowhere else.

    Raises:
        ImportError: sentencepiece is not installed; says how it is.
    """
    try:
        import sentencepiece  # noqa: F401 # pyright: ignore[reportMissingImports]
    except ImportError as error:  # of which transformers says no extra
        raise ImportError(
            f"{error}: pip install 'mmcl_jax[sentencepiece]', or put the tokenizer.json"
            " of the same model beside it"
        ) from error
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(
        str(folder), trust_remote_code=False, local_files_only=True
    )
    return Loaded(
        lambda sentence: tokenizer.encode(
            sentence, add_special_tokens=False, verbose=False
        ),
        tokenizer.get_vocab(),
        set(tokenizer.all_special_ids),
    )
