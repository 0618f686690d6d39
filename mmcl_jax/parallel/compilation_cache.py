"""Compiled programs that are stored on disk, for a second start of the same run."""

import os

import jax

from mmcl_jax.files import expanded

_VARIABLE, _DEFAULT = "JAX_COMPILATION_CACHE_DIR", "~/.cache/mmcl_jax/programs"


def keep_compiled_programs() -> None:
    """Stores all compiled programs, in JAX_COMPILATION_CACHE_DIR if that is set."""
    # JAX, which reads the variable as well, takes `~` for the name of a folder
    cache = expanded(os.environ.get(_VARIABLE, _DEFAULT))
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
