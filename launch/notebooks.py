"""`python launch/notebooks.py runs/demo`: regenerates docs/notebooks/*.ipynb.

Each is made from the `.py` beside it, and executed on a workdir. Needs
`pip install '.[notebooks]'`.
"""

import os
import pathlib
import sys

import jupytext
import nbclient
import nbformat

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "notebooks"


def main(workdir: str) -> None:
    """Executes all notebooks on a workdir."""
    os.environ["WORKDIR"] = str(pathlib.Path(workdir).expanduser().resolve())
    for path in sorted(FOLDER.glob("*.py")):
        notebook = jupytext.read(path)
        # times would change with every execution
        nbclient.NotebookClient(notebook, record_timing=False).execute()
        for i, cell in enumerate(notebook.cells):
            cell.id = f"{path.stem}-{i}"
        nbformat.write(notebook, path.with_suffix(".ipynb"))


if __name__ == "__main__":
    main(sys.argv[1])
