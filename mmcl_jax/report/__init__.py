"""A page, and figures and tables for a paper, made from the workdirs of runs."""

import os
import pathlib

# Matplotlib writes its list of fonts to a folder that is chosen at import; runs write
# only to their workdir and to one cache.
os.environ.setdefault(
    "MPLCONFIGDIR", str(pathlib.Path.home() / ".cache" / "mmcl_jax" / "matplotlib")
)
