"""Workdirs of runs that are made up, and what stands on the pages made of them."""

import html.parser
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mmcl_jax import config
from mmcl_jax.evaluation import metrics
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES
from mmcl_jax.report import figures, page
from mmcl_jax.report.run_data import RunData
from mmcl_jax.workdir import identity
from mmcl_jax.workdir.results import Results, plain
from mmcl_jax.workdir.schema import COSTS

MAX_BYTES = 3_000_000


VOID = {"meta", "input", "img", "br", "path", "use", "rect", "link"}


# docs/metrics.md works this one out by hand
EXAMPLE = np.array([[0.8, 0.1, np.nan], [0.9, 0.7, 0.3], [0.85, 0.75, 0.6]])


class Parsed(html.parser.HTMLParser):
    """Elements of a page, which must be balanced."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data) -> None:
        self.text.append(data)


def make_run(
    folder: pathlib.Path,
    matrix: np.ndarray,
    *,
    seed: int = 0,
    method: str = "comm",
    names: tuple[str, ...] | None = None,
    finished: bool = True,
    **changes: Any,
) -> pathlib.Path:
    """Writes the workdir of a run with one accuracy matrix in all spaces and routes."""
    tasks = len(matrix)
    names = names or tuple(f"class {i}" for i in range(tasks))
    modalities = [("image", "audio")[i % 2] for i in range(tasks)]
    results = Results.start(tasks)
    results.accuracy[:] = matrix
    results.zero_shot[:] = matrix / 2
    met = list(dict.fromkeys(modalities))
    true = np.array([met.index(m) for m in modalities])
    results.identification = metrics.modality_identification(
        true, np.zeros_like(true), len(met)
    )._asdict()
    listed = [
        {"name": n, "modality": m, "classes": [n], "train": 1, "test": 1}
        for n, m in zip(names, modalities, strict=True)
    ]
    slots = [
        {"name": n, "modality": m, "dataset": "d", "canonical": i}
        for i, (n, m) in enumerate(zip(names, modalities, strict=True))
    ]
    whole = {
        "method": method,
        "seeds": {"order": seed, "init": seed, "data": seed},
        "environment": {"jax": "1", "commit": None},
        "knowledge": "L0",
        "modalities": met,
        "tasks": listed,
        "skipped_samples": 0,
        "unscored": [],
        **results.report(),
        "cost": dict.fromkeys(COSTS, 7) | {"seconds": {"train": 1.5, "report": 0.5}},
    }
    stream = {
        "hash": f"hash {seed}",
        "contents": None,
        "encoder": "fingerprint",
        "preprocessing": {},
        "modalities": met,
        "towers": dict.fromkeys(met, "visual"),
        "stages": [[i] for i in range(tasks)],
        "classes": slots,
        "tasks": listed,
    }
    made = config.Config(
        seeds=config.Seeds(seed, seed, seed), method=config.MethodOptions(name=method)
    )
    (folder / "predictions").mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json(made))
    (folder / "stream.json").write_text(json.dumps(stream))
    if finished:
        seal(folder, plain(whole | changes))
    for stage in range(tasks):
        tested = min(stage + 2, tasks)
        predict(folder, stage, 1, np.zeros((len(ROUTES), tested), np.int32))
    text = np.eye(tasks, 4) + 0.1
    records = np.arange(tasks)
    np.savez(
        folder / "embeddings.npz",
        text=text,
        id=records,
        label=records,
        query=text + 0.1,
        run=run_id(folder),
        stage=tasks - 1,
    )
    return folder


def run_id(folder: pathlib.Path) -> str:
    """Returns the id of the run whose config and stream lie in a folder."""
    names = ("config.json", "stream.json")
    return identity.run_id(*(json.loads((folder / n).read_text()) for n in names))


def reseal(folder: pathlib.Path) -> None:
    """Gives the files of a run whose config or stream was changed its new id."""
    results = json.loads((folder / "results.json").read_text())
    seal(folder, {k: v for k, v in results.items() if k not in ("run", "checksum")})
    for path in (*folder.glob("predictions/*.npz"), *folder.glob("embeddings.npz")):
        with np.load(path) as columns:
            kept = dict(columns)
        np.savez(path, **kept | {"run": run_id(folder)})


def seal(folder: pathlib.Path, results: dict[str, Any]) -> None:
    """Writes the results of a run as the run itself does."""
    content = identity.sealed(results | {"run": run_id(folder)})
    (folder / "results.json").write_text(json.dumps(content))


def predict(
    folder: pathlib.Path, stage: int, each: int, chosen: np.ndarray
) -> dict[str, np.ndarray]:
    """Writes the predictions of a run of `make_run` after a stage; returns columns.

    Args:
        folder: of the run.
        stage: counted from 0; all tasks are tested up to the next one.
        each: test samples of a task, all of its one class.
        chosen: class slots `[routes, n]` among all classes met.
    """
    label = np.arange(chosen.shape[1]) // each
    columns = {"task": label, "id": np.arange(len(label)), "label": label}
    for space in SPACES:
        for route, row in zip(ROUTES, chosen, strict=True):
            columns[f"chosen/{space}/{route}"] = row
    owned = columns | {"run": run_id(folder), "stage": stage}
    np.savez(folder / "predictions" / f"{stage:03d}.npz", **owned)
    return columns


def heat(text: str, name: str) -> list[list[float]]:
    """Returns the numbers of one matrix of a page, NaN where a cell is empty."""
    inner = text.split(f'data-choice="{name}"')[1].split("</table>")[0]
    rows = re.findall(r"<tr><th scope=.row.*?</tr>", inner, re.DOTALL)
    cells = [
        re.findall(r"<td(?: class=q\d+| class=\"q\d+\")?>(.*?)</td>", r) for r in rows
    ]
    return [[float(c) if c else np.nan for c in row] for row in cells]


def values(text: str, title: str) -> list[list[float]]:
    """Returns the numbers that the rows of a table are sorted by."""
    inner = text.split(f"<figcaption>{title}")[1].split("</tbody>")[0]
    rows = inner.split("<tbody>")[1].split("</tr>")[:-1]
    return [[float(v) for v in re.findall(r'data-value="(.*?)"', row)] for row in rows]


def write_tables(runs: Sequence[RunData], out: pathlib.Path) -> None:
    """Writes a page and the tables beside it, without figures, which take long."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(figures, "save", lambda *_: None)
        page.write(runs, out)


def lines(path: pathlib.Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def check_page(text: str) -> Parsed:
    """Asserts what holds for every page."""
    parsed = Parsed(text)
    assert not parsed.open
    assert len(text.encode()) < MAX_BYTES
    assert [tag for tag, _ in parsed.elements].count("script") == 1
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in parsed.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "poster"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/", "data:audio/")), (tag, value)
    assert not re.search(r"url\((?!#)|@import", text)
    assert "prefers-color-scheme:dark" in text
    return parsed
