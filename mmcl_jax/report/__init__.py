"""The report of a run, or of many: one page that needs no network."""

import os
import pathlib

# Matplotlib lists the fonts it finds in a folder of its own, chosen when it is imported.
# Runs write to their workdir and to one cache alone.
os.environ.setdefault(
    "MPLCONFIGDIR", str(pathlib.Path.home() / ".cache" / "mmcl_jax" / "matplotlib")
)
