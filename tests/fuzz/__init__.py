"""Mutation fuzzing of every decoder and parser: `python -m tests.fuzz --help`."""

from typing import NamedTuple

DECODERS = ("image", "video", "audio", "depth", "text", "table", "manifest")
DECODERS += ("parquet", "encoder", "shards", "torch", "npz", "tokenizer")
DECODERS += ("config", "results")


class Work(NamedTuple):
    """What a child has to do.

    Attributes:
        decoder: one of `DECODERS`.
        seed: of all draws, together with the decoder and the number of an input.
        start: number of the first input.
        stop: number behind that of the last one.
        memory_mib: what may be taken on top of the imported program.
        seconds: of a processor for one input.
    """

    decoder: str
    seed: int
    start: int
    stop: int
    memory_mib: int
    seconds: float
