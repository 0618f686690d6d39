"""Compiled programs that are stored on disk, for a second start of the same run."""

import contextlib
import os
import pathlib
import zlib

import jax
from jax._src import compilation_cache

from mmcl_jax.files import expanded

_VARIABLE, _DEFAULT = "JAX_COMPILATION_CACHE_DIR", "~/.cache/mmcl_jax/programs"


def keep_compiled_programs() -> None:
    """Stores all compiled programs, in JAX_COMPILATION_CACHE_DIR if that is set.

    A stored program that is damaged later is compiled again at each start, which JAX
    says in a warning.
    """
    # JAX, which reads the variable as well, takes `~` for the name of a folder
    cache = expanded(os.environ.get(_VARIABLE, _DEFAULT))
    # JAX prefers zstandard where it is installed, but asks it for no checksum, which
    # zlib always has: what a flipped bit has made of a program would be run
    compilation_cache.zstandard = None  # pyright: ignore[reportPrivateImportUsage]
    if "://" not in cache:
        with contextlib.suppress(OSError):  # a folder that one may only read
            _forget_half_written(pathlib.Path(cache))
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _forget_half_written(folder: pathlib.Path) -> None:
    """Deletes what a process that was killed has left of a program.

    JAX writes a program under its final name. It could not read a half, and would not
    replace it either. Only programs that are newer than the last start are read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checked = folder / "checked"
    before = checked.stat().st_mtime_ns if checked.exists() else 0
    checked.touch()
    for path in folder.glob("*-cache"):
        if path.stat().st_mtime_ns >= before:
            try:
                zlib.decompress(path.read_bytes())
            except zlib.error:
                path.unlink(missing_ok=True)
