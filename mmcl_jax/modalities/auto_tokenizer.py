"""The only use of transformers: tokenizers that the tokenizers library cannot read."""

import pathlib
from collections.abc import Callable


def load(path: str) -> tuple[Callable[[str], list[int]], dict[str, int], set[int]]:
    """Reads the tokenizer in the folder of a `spiece.model` with `AutoTokenizer`.

    Nothing is downloaded, and no code of the folder is run. Importing transformers
    takes seconds where torch is installed, so it is imported here and nowhere else.

    Returns:
        What `tokenizer_process.Loaded` holds.

    Raises:
        ImportError: sentencepiece is not installed; the message says how to install it.
    """
    try:
        import sentencepiece  # noqa: F401 # pyright: ignore[reportMissingImports]
    except ImportError as error:  # transformers names no extra to install
        raise ImportError(
            f"{error}: pip install sentencepiece protobuf, or put the tokenizer.json "
            "of the same model beside it"
        ) from error
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(
        str(pathlib.Path(path).parent), trust_remote_code=False, local_files_only=True
    )

    def encode(sentence: str) -> list[int]:
        return tokenizer.encode(sentence, add_special_tokens=False, verbose=False)

    return encode, tokenizer.get_vocab(), set(tokenizer.all_special_ids)
