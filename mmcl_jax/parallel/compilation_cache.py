"""Compiled programs that are stored on disk, for a second start of the same run."""

import os
import pathlib

import jax


def keep_compiled_programs() -> None:
    """Stores all compiled programs, in JAX_COMPILATION_CACHE_DIR if that is set."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = pathlib.Path.home() / ".cache" / "mmcl_jax" / "programs"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
