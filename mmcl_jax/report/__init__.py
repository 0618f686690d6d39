"""One page, and figures and tables for a paper, of what runs have left behind."""

import os
import pathlib

# Matplotlib lists the fonts it finds in a folder that is chosen when it is imported;
# runs write to their workdir and to one cache alone.
os.environ.setdefault(
    "MPLCONFIGDIR", str(pathlib.Path.home() / ".cache" / "mmcl_jax" / "matplotlib")
)
