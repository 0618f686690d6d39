"""Tokenizers of files, each in a process of its own that can be ended.

What a `tokenizer.json` says decides how long a sentence takes: a regular expression
that backtracks, words of any length for WordPiece, a dictionary of words that are each
other's beginnings, a million steps in a row. No check of the file finds all of that,
and nothing stops native code in a thread. So a process encodes, and the kernel ends it
once it has used too much processor time, of which a busy machine does not take more.
It costs about 0.04 ms a sentence, and 0.05 s once.

This file is the program of that process as well, where it imports little.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import tokenizers

from mmcl_jax.errors import DataError

# of processor time; a sentence takes milliseconds, a file of 64 MiB seconds
SECONDS, LOADING_SECONDS = 10.0, 300.0
_MAX_BYTES = 2 * 2**30  # of memory; the tokenizer of Gemma takes an eighth of it
_EXPECTED = "expected a tokenizer that the library tokenizers or sentencepiece reads"


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


def load(path: str) -> Loaded:
    """Reads a tokenizer in a process, which lives as long as `encode` does.

    Args:
        path: `spiece.model` in a model's folder, or a file of the tokenizers library.

    Raises:
        DataError: The file cannot be read, or takes too much time or memory. `encode`
            raises it as well, and can be called again.
    """
    process = _Process(path)
    vocabulary, special = process.start()
    return Loaded(process.encode, vocabulary, set(special))


def loaded(tokenizer: tokenizers.Tokenizer) -> Loaded:
    """Returns what the tokenizers library has read or made in this process."""
    added = tokenizer.get_added_tokens_decoder()
    return Loaded(
        lambda sentence: tokenizer.encode(sentence, add_special_tokens=False).ids,
        tokenizer.get_vocab(),
        {id for id, token in added.items() if token.special},
    )


class _Process:
    """The process of a tokenizer, which threads take turns to ask."""

    def __init__(self, path: str) -> None:
        self._path, self._lock = path, threading.Lock()
        self._absolute = os.path.abspath(path)  # it may start from another folder

    def start(self) -> Any:
        """Starts the process; returns its vocabulary and the ids of special tokens."""
        # it finds the packages that this process finds
        found = os.pathsep.join(map(os.path.abspath, sys.path))
        self._owner = os.getpid()
        self._child = subprocess.Popen(
            [sys.executable, "-P", __file__, self._absolute, str(SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # of panics, which are answers as well
            env=os.environ | {"PYTHONPATH": found, "TOKENIZERS_PARALLELISM": "false"},
            # Ctrl-C asks this process alone to leave, which may finish a task first
            start_new_session=True,
        )
        self._stop = weakref.finalize(self, _stop, self._child, self._owner)
        return self._ask(b"", "reading it", LOADING_SECONDS)

    def encode(self, sentence: str) -> list[int]:
        """Returns the ids of the words of a sentence."""
        with self._lock:
            # it was ended; or this is a fork, which would take its parent's answers
            if not self._stop.alive or self._owner != os.getpid():
                self.start()
            what = f"a sentence of {len(sentence)} characters ({sentence[:40]!r})"
            return self._ask(json.dumps(sentence).encode() + b"\n", what, SECONDS)

    def _ask(self, line: bytes, what: str, seconds: float) -> Any:
        child = self._child
        assert child.stdin and child.stdout
        try:
            with contextlib.suppress(BrokenPipeError):  # its code tells why
                child.stdin.write(line)
                child.stdin.flush()
            answer = child.stdout.readline()
        except BaseException:  # Ctrl-C: the next sentence must not get this answer
            self._stop()
            raise
        if answer.endswith(b"\n"):
            value, error = json.loads(answer)
            if error:
                raise DataError(f"{self._path}: {what} fails ({error}); {_EXPECTED}")
            return value
        code = child.wait()
        self._stop()
        if code == -signal.SIGPROF:
            how = f"takes more than {seconds:g} s of processor time"
        else:
            memory = f"{_MAX_BYTES / 2**30:g} GiB of memory"
            how = f"ends its process, which may have {memory}, with code {code}"
        raise DataError(
            f"{self._path}: {what} {how}; expected a tokenizer as published with its "
            "encoder: download the file again"
        )


def _stop(child: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() == owner:
        child.kill()
        child.wait()
        assert child.stdin and child.stdout
        for stream in (child.stdin, child.stdout):
            with contextlib.suppress(BrokenPipeError):  # what it has not read
                stream.close()


# inside the process


def _serve(path: str, seconds: float) -> None:
    """Says what the tokenizer holds, and then to each line the ids of its sentence."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY or most > _MAX_BYTES:
        resource.setrlimit(resource.RLIMIT_DATA, (_MAX_BYTES, _MAX_BYTES))
    # no handler, which Python would call when the library has returned
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # for what a library may print

    def say(value: Any, error: str | None) -> None:
        answers.write(json.dumps([value, error]).encode() + b"\n")
        answers.flush()

    read, error = _within(LOADING_SECONDS, _read, path)
    say(read and [read.vocabulary, sorted(read.special)], error)
    for line in sys.stdin.buffer if read else ():
        say(*_within(seconds, read.encode, json.loads(line)))


def _within(
    seconds: float, make: Callable[[str], Any], argument: str
) -> tuple[Any, str | None]:
    """Returns what a function returns, or else its error; ends the process in time."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return make(argument), None
    except BaseException as error:  # a panic in Rust is no `Exception`
        return None, f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _read(path: str) -> Loaded:
    if path.endswith(".model"):
        from mmcl_jax.modalities import auto_tokenizer

        return Loaded(*auto_tokenizer.load(path))
    tokenizer = tokenizers.Tokenizer.from_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return loaded(tokenizer)


if __name__ == "__main__":
    _serve(sys.argv[1], float(sys.argv[2]))
