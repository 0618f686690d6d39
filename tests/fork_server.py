"""Starts programs as forks of one interpreter that has already imported what they need.

To import JAX and the rest of what a program needs takes longer than what most commands
do. A server imports it once, initialises no backend of JAX and defines no flags, and
forks for every command. In the fork the program runs as `python` would run it: with its
own arguments, variables, folder and streams, as `__main__`, to the end of the
interpreter. Variables that a library reads while it is imported are those that the
server was started with, and commands that want others have a server of their own.

Hashes of strings are alike in all forks of a server. A test that results do not depend
on them starts one of its programs afresh.
"""

import ast
import atexit
import gc
import importlib
import json
import os
import pathlib
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
# beginnings of the names of variables that are read on import
_ON_IMPORT = ("JAX_", "PYTHON", "HF_", "OMP_", "OPENBLAS_", "MPL", "HOME")


class Process:
    """A command on its way; of `subprocess.Popen` the part that tests need.

    What it prints is kept in files, so that nobody has to read while it runs.
    """

    def __init__(
        self,
        words: Sequence[str],
        cwd: str | os.PathLike[str],
        env: Mapping[str, str],
        merged: bool = False,
    ) -> None:
        """Starts `python *words`.

        Args:
            words: `-m MODULE`, `-c CODE` or a file, and arguments.
            cwd: folder that it runs in.
            env: all its variables.
            merged: whether errors go where the output goes.
        """
        self.args = ["python", *words]
        self.returncode: int | None = None
        self._output = tempfile.TemporaryFile()
        self._errors = self._output if merged else tempfile.TemporaryFile()
        self._said: dict[object, str] = {}
        line, theirs = socket.socketpair()
        with theirs:
            files = (theirs, self._output, self._errors)
            socket.send_fds(_server_for(env), [b"."], [f.fileno() for f in files])
        command = json.dumps([list(words), os.fspath(cwd), dict(env)])
        with line:  # it stays open as long as its file does
            line.sendall(command.encode() + b"\n")
            self._told = line.makefile("rb")
        self.pid = int(self._told.readline())

    def __enter__(self) -> "Process":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the end."""
        self.wait()

    def poll(self) -> int | None:
        """Returns the exit code, None while it runs."""
        if self.returncode is None and self._ended(0):
            self.returncode = int(self._told.readline())
            self._told.close()
            for file in {self._output, self._errors}:
                with file:
                    file.seek(0)
                    self._said[file] = file.read().decode()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the exit code, which is below 0 for a signal."""
        if self.returncode is None and not self._ended(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for the end and returns output and errors."""
        self.wait(timeout)
        return self._said[self._output], self._said[self._errors]

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Asks it to leave."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> bool:
        return bool(select.select([self._told], [], [], timeout)[0])


def run(
    words: Sequence[str],
    cwd: str | os.PathLike[str],
    env: Mapping[str, str],
    merged: bool = False,
    timeout: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Runs `python *words` to its end; see `Process`."""
    process = Process(words, cwd, env, merged)
    try:
        output, errors = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.wait(), output, errors)


# lines to servers by the variables that they were started with, the oldest first
_LINES: dict[tuple[tuple[str, str], ...], socket.socket] = {}
_MOST_SERVERS = 2


def _server_for(env: Mapping[str, str]) -> socket.socket:
    key = tuple(sorted(v for v in env.items() if v[0].startswith(_ON_IMPORT)))
    if key not in _LINES:
        while len(_LINES) >= _MOST_SERVERS:
            _LINES.pop(next(iter(_LINES))).close()
        _LINES[key] = _server(key)
    return _LINES[key]


@atexit.register
def _close_lines() -> None:
    for line in _LINES.values():
        line.close()


def _server(variables: tuple[tuple[str, str], ...]) -> socket.socket:
    """Starts a server and returns the line to it; it ends when that is closed."""
    ours, theirs = socket.socketpair()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_ON_IMPORT)}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
            cwd=ROOT,
            env=kept | dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    process.returncode = 0  # nobody waits for it
    return ours


# inside the server


def _serve(line: socket.socket) -> list[str]:
    """Forks for every command until the line is closed; returns its words in the fork.

    The server leaves by the end of the process, as do those who wait for a fork.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who wait are not waited for
    while True:
        _, files, _, _ = socket.recv_fds(line, 1, 3)
        if not files:
            os._exit(0)
        if not _fork():
            line.close()
            return _be(*files)
        for file in files:
            os.close(file)


def _fork() -> int:
    with warnings.catch_warnings():
        # of threads: the only ones are of OpenBLAS, which knows how to fork
        warnings.simplefilter("ignore")
        return os.fork()


def _be(line: int, output: int, errors: int) -> list[str]:
    """Becomes the command that `line` gives; another process says how it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(fileno=line) as told:
        with told.makefile("rb") as lines:
            words, folder, variables = json.loads(lines.readline())
        if child := _fork():
            os.close(output)
            os.close(errors)
            told.sendall(b"%d\n" % child)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            told.sendall(b"%d\n" % code)
            os._exit(0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for file, number in ((output, 1), (errors, 2)):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    np.random.seed()  # forks would draw the same; the module `random` knows of them
    return words


def _run(words: Sequence[str]) -> None:
    """Does what `python *words` does."""
    kind, *arguments = words
    if kind == "-m":
        sys.path[0] = os.getcwd()
        sys.argv = list(arguments)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.path[0] = ""
        code, *more = arguments
        sys.argv = ["-c", *more]
        exec(code, vars(sys.modules["__main__"]))
    else:
        sys.path[0] = str(pathlib.Path(kind).absolute().parent)
        sys.argv = list(words)
        runpy.run_path(kind, run_name="__main__")


# what the package imports where it uses it, since not every program does
_LATE = ("grain", "scipy.linalg", "scipy.special", "scipy.stats")


def _import_dependencies() -> None:
    """Imports what the programs import, but none of them: they define flags."""
    for name in _LATE:
        importlib.import_module(name)
    Image.init()  # imports a module for every format
    for path in sorted((ROOT / "mmcl_jax").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if 'if __name__ == "__main__":' in source:
            nodes = ast.walk(ast.parse(source))  # some are imported in functions
            imports = [n for n in nodes if isinstance(n, (ast.Import, ast.ImportFrom))]
            exec(compile(ast.Module(imports, []), str(path), "exec"), {})


if __name__ == "__main__":
    _line = socket.socket(fileno=int(sys.argv[1]))
    _import_dependencies()
    gc.freeze()  # what is there is left alone, and shared by all forks
    _run(_serve(_line))
