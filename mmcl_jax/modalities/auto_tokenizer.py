"""The only use of transformers: tokenizers that the tokenizers library cannot read."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple


class Loaded(NamedTuple):
    """A tokenizer, whichever library has read it.

    Attributes:
        encode: Maps a sentence to the ids of its words, without special tokens.
        vocabulary: Id of each token.
        special: Ids of special tokens.
    """

    encode: Callable[[str], list[int]]
    vocabulary: dict[str, int]
    special: set[int]


def load(folder: pathlib.Path) -> Loaded:
    """Reads the tokenizer in a model's folder with `AutoTokenizer`.

    Nothing is downloaded, and no code of the folder is run. Importing transformers
    takes seconds where torch is installed, so it is imported here and nowhere else.

    Raises:
        ImportError: sentencepiece is not installed; the message says how to install it.
    """
    try:
        import sentencepiece  # noqa: F401 # pyright: ignore[reportMissingImports]
    except ImportError as error:  # transformers names no extra to install
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
