"""Notebooks run from end to end, and their two forms are one."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests import helpers

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "notebooks"
TEXTS = sorted(FOLDER.glob("*.py"))
ADVICE = "run `python launch/notebooks.py runs/demo`"


def cells(text: str) -> list[tuple[str, str]]:
    """Returns kind and source of each cell of a notebook in the percent format."""
    found = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        title, _, source = part.partition("\n")
        kind = "markdown" if "[markdown]" in title else "code"
        if kind == "markdown":
            source = re.sub(r"^# ?", "", source, flags=re.MULTILINE)
        found.append((kind, source.strip()))
    return found


def stored(path: pathlib.Path) -> dict:
    return json.loads(path.with_suffix(".ipynb").read_text("utf-8"))


def test_there_is_a_notebook() -> None:
    assert TEXTS
    notebooks = {path.stem for path in FOLDER.glob("*.ipynb")}
    assert notebooks == {path.stem for path in TEXTS}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_both_forms_have_the_same_cells(path: pathlib.Path) -> None:
    found = [(c["cell_type"], "".join(c["source"])) for c in stored(path)["cells"]]
    assert found == cells(path.read_text("utf-8")), ADVICE


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_what_is_stored_was_executed_and_is_small(path: pathlib.Path) -> None:
    code = [c for c in stored(path)["cells"] if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
    for cell in code:
        kinds = {output["output_type"] for output in cell["outputs"]}
        assert kinds <= {"stream", "display_data", "execute_result"}
        pictures = [o for o in cell["outputs"] if "image/png" in o.get("data", {})]
        assert len(pictures) == "".join(cell["source"]).count("plt.show()")
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                assert output["name"] == "stdout"
                # of whoever made it
                assert not re.search(r"(^|\s)/\w", "".join(output["text"]))
    assert path.with_suffix(".ipynb").stat().st_size < 150_000


@pytest.mark.full("notebooks")
@pytest.mark.slow
@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_a_notebook_runs(
    path: pathlib.Path, whole_run: helpers.Finished, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "run").symlink_to(whole_run.workdir)
    variables = {"WORKDIR": str(tmp_path / "run"), "MPLBACKEND": "Agg"}
    variables["PYTHONPATH"] = str(helpers.REPOSITORY)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=tmp_path,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("comm, 3 of 3 stages learnt\n")
    assert (tmp_path / "run-figures" / "report.html").is_file()
