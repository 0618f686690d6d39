"""An export where others use it: over HTTP, on the command line, on the Hub."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from fnmatch import fnmatch
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import soundfile
from PIL import Image

import mmcl_jax
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.serving import exported, remote
from tests import helpers

pytestmark = pytest.mark.xdist_group("export")

EXAMPLE = helpers.REPOSITORY / "docs" / "examples" / "serve.py"
PAGE = helpers.REPOSITORY / "docs" / "predict.md"
COMMIT = "0123456789abcdef" * 2 + "01234567"


def test_a_sample_may_be_a_file_or_in_memory(
    export_of_all: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    paths = {name: helpers.write(tmp_path / name, name) for name in helpers.WRITERS}
    with Image.open(paths["image"]) as picture, Image.open(paths["depth"]) as depth:
        picture.load()
        depth.load()
    forms = {
        "image": [picture, np.asarray(picture)],
        "video": [],  # whose codec has lost something
        "audio": [soundfile.read(paths["audio"], dtype="float32")],
        "depth": [depth, np.asarray(depth), np.asarray(depth) / np.float32(1000)],
        "text": [mmcl_jax.TextReference(pathlib.Path(paths["text"]).read_text())],
    }
    model = exported.load(export_of_all)
    for modality, others in forms.items():
        path = pathlib.Path(paths[modality])
        first, *rest = model.predict([path, path.read_bytes(), *others])
        assert len(rest) == 1 + len(others)
        assert first.source == str(path)
        for i, said in enumerate(rest[: 1 + len(others)], 1):
            assert said.source == f"samples[{i}]" or modality == "text"
            assert said.modality == first.modality == modality
            probabilities = dict(said.labels)
            assert probabilities == pytest.approx(dict(first.labels), abs=1e-4)
    clip = np.zeros((5, 32, 48, 3), np.uint8)
    assert model.predict([clip])[0].modality == "video"
    # several windows, in order, and one that cannot be read
    many = [paths["image"], b"\x7fEL\2\1\1", paths["text"]] * 12
    each = [said for _, said in model.predict_each(many)]
    assert [isinstance(said, DataError) for said in each] == [False, True, False] * 12
    assert str(each[34]).startswith("samples[34]: begins with")
    assert {said.modality for said in each[2::3]} == {"text"}


# over HTTP


def answer(port: int, content: bytes, query: str = "") -> dict[str, Any]:
    """Returns what the server says of a file; waits for it to start."""
    request = urllib.request.Request(
        f"http://localhost:{port}/label{query}",
        content,
        {"Content-Type": "application/octet-stream"},
    )
    for _ in range(1200):
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            return {"status": error.code, **json.load(error)}
        except urllib.error.URLError:  # nobody listens yet
            time.sleep(0.1)
    raise TimeoutError


@pytest.mark.slow
@pytest.mark.skipif(
    not (find_spec("fastapi") and find_spec("uvicorn")),
    reason="the example needs fastapi and uvicorn, of the extra 'test'",
)
def test_the_example_labels_a_file_of_each_modality_over_http(
    export_of_all: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (port,) = helpers.free_ports(1)
    # the code of the export alone is there
    variables = helpers.environment() | {
        "PYTHONPATH": str(export_of_all),
        "EXPORT": str(export_of_all),
    }
    command = ["-m", "uvicorn", "serve:app", "--host=localhost", f"--port={port}"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, *command, f"--app-dir={EXAMPLE.parent}"],
            cwd=tmp_path,
            env=variables,
            stdout=log,
            stderr=log,
        )
    try:
        model = exported.load(export_of_all)
        for modality in helpers.WRITERS:
            content = pathlib.Path(helpers.write(tmp_path, modality)).read_bytes()
            said = answer(port, content, "?top=2&reject=0.05")
            (own,) = model.predict([content], top=2, reject=0.05)
            assert said["modality"] == modality
            assert said["labels"] == [
                {"name": label.name, "probability": pytest.approx(label.probability)}
                for label in own.labels
            ]
            assert own.novelty
            assert said["percentile"] == pytest.approx(own.novelty.percentile)
        damaged = answer(port, b"\x7fEL\2\1\1")
        assert damaged["status"] == 422
        assert damaged["error"].startswith("samples[0]: begins with")
    finally:
        server.kill()
        server.wait()


def test_the_page_shows_the_example() -> None:
    assert EXAMPLE.read_text("utf-8") in PAGE.read_text("utf-8")


# on the command line


@pytest.mark.slow
def test_the_program_labels_by_an_export(
    run_of_all: helpers.Finished, export_of_all: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    files = tuple(helpers.write(tmp_path, modality) for modality in helpers.WRITERS)
    rows = []
    for source in (f"--workdir={run_of_all.workdir}", f"--model={export_of_all}"):
        flags = (source, "--json", "--reject=0.1", "--text=a star", *files)
        main = ("-m", "mmcl_jax.predict")
        done = helpers.start(*main, flags=flags, workdir=tmp_path).finish()
        assert (done.code, done.errors) == (0, "")
        rows.append([json.loads(line) for line in done.output.splitlines()])
    assert len(rows[0]) == len(files) + 1
    for by_run, by_export in zip(*rows, strict=True):
        for row in (by_run, by_export):
            row["labels"] = {x["name"]: x["probability"] for x in row["labels"]}
        labels = by_export.pop("labels")
        assert labels == pytest.approx(by_run.pop("labels"), abs=1e-5)
        numbers = {name: by_run.pop(name) for name in ("novelty", "percentile")}
        for name, number in numbers.items():
            assert by_export.pop(name) == pytest.approx(number, rel=1e-4)
        assert by_export == by_run


# on the Hub


class Hub:
    """Stands for the Hub: a folder that has one revision, and remembers calls."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root, self.calls = root, []

    def api(self, token: str) -> SimpleNamespace:
        self.calls.append({"token": token})
        return SimpleNamespace(create_repo=self.create, upload_folder=self.upload)

    def create(self, repository: str, **options: Any) -> None:
        self.calls.append({"create": repository, **options})
        (self.root / repository).mkdir(parents=True, exist_ok=True)

    def upload(self, repo_id: str, folder_path: pathlib.Path, **_: Any) -> Any:
        target = self.root / repo_id
        if not target.is_dir():
            raise OSError("404 not found")
        shutil.copytree(folder_path, target, dirs_exist_ok=True)
        return SimpleNamespace(oid=COMMIT)

    def download(self, repository: str, **options: Any) -> str:
        self.calls.append({"download": repository, **options})
        source, folder = self.root / repository, self.root / "cache" / COMMIT
        for path in (path for path in source.rglob("*") if path.is_file()):
            name = path.relative_to(source).as_posix()
            if any(fnmatch(name, each) for each in options["allow_patterns"]):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).symlink_to(path)  # as the cache of the library
        return str(folder)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Hub:
    fake = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", fake.api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.download)
    monkeypatch.setenv("HF_TOKEN", "secret")
    return fake


def test_an_export_goes_to_the_hub_and_comes_back(
    hub: Hub, export_of_all: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert remote.push(export_of_all, "org/name") == f"hf://org/name@{COMMIT}"
    assert hub.calls == [
        {"token": "secret"},
        {"create": "org/name", "private": True, "exist_ok": True},
    ]
    card = (hub.root / "org/name/README.md").read_text()
    assert "library_name: mmcl_jax\n" in card
    assert "spinning drop, growing key" in card  # classes
    model = mmcl_jax.load_model("hf://org/name@v1")
    call = hub.calls[-1]
    assert (call["download"], call["revision"]) == ("org/name", "v1")
    assert call["repo_type"] == "model"
    fetched = {path.name for path in (hub.root / "cache" / COMMIT).iterdir()}
    here = {path.name for path in export_of_all.iterdir()}
    # neither code nor what a person reads
    assert here - fetched == {"README.md", "mmcl_jax", "requirements.txt"}
    path = helpers.write(tmp_path, "text")
    assert model.predict([path]) == exported.load(export_of_all).predict([path])


def test_what_the_hub_refuses_is_named(
    hub: Hub, export_of_all: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "create", lambda *_, **__: None)
    with pytest.raises(DataError, match="org/name: cannot be written to .OSError: 404"):
        remote.push(export_of_all, "hf://org/name")
    for name in ("name", "org/name@v1", "../name", ""):
        with pytest.raises(ConfigError, match="is no repository of the Hugging Face"):
            remote.push(export_of_all, name)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="no token; set the variable HF_TOKEN"):
        remote.push(export_of_all, "org/name")


def test_the_hub_is_asked_for_a_name_of_its_own_alone(
    hub: Hub, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="expected an export"):
        mmcl_jax.load_model(os.path.join("org", "name"))
    with pytest.raises(DataError, match="is written hf://org/name"):
        mmcl_jax.load_model("hf://name")
    assert not hub.calls
