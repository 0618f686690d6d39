"""From the workdir of a run to labels of files."""
