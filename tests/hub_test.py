"""Folders of encoders, and a cache of the Hub that was made by hand."""

import json
import os
import pathlib
import subprocess
import sys
from fnmatch import fnmatch

import huggingface_hub.constants
import pytest

from mmcl_jax.errors import DataError
from mmcl_jax.models.pretrained import hub
from tests import helpers
from tests.safety_test import GUARD

COMMIT, OLD = "0123456789abcdef" * 2 + "01234567", "f" * 40
CONFIG = json.dumps({"model_type": "clip"})


def cache(root: pathlib.Path, *files: str, commit: str = COMMIT, branch: str = "main"):
    """Puts a repository of empty files into a cache, as a download would."""
    repository = root / "models--org--name"
    snapshot = repository / "snapshots" / commit
    for name in files:
        blob = repository / "blobs" / f"{commit}-{name}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_text(CONFIG if name == "config.json" else "")
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blob)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / branch).write_text(commit)
    return snapshot


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("HF_HUB_OFFLINE", True),
        ("HF_HUB_CACHE", str(tmp_path / "c")),
    ):
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    return tmp_path / "c"


def refused(name: str, revision: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        hub.resolve(name, revision)
    message = str(caught.value)
    assert "\n" not in message
    return message


# folders


def test_a_folder_is_itself_and_wins(offline: pathlib.Path) -> None:
    cache(offline, "config.json", "model.safetensors")
    pathlib.Path("org/name").mkdir(parents=True)
    for name in ("org/name", ".", str(pathlib.Path.cwd() / "org")):
        assert hub.resolve(name) == (pathlib.Path(name), name, None)
    assert hub.resolve("hf://org/name").revision == COMMIT
    assert "write hf://org/name" in refused("org/name", "main")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder", "did you mean 'encoders'?"),
        ("./encoders/big", "hf://org/name"),
        ("encoders/clip/x", "no such folder"),
        ("encoders/clip.txt", "a file; give its folder, 'encoders'"),
        ("/absent/absent", "no such folder"),
        ("", "no such folder"),
        ("https://huggingface.co/org/name", "write hf://org/name"),
        ("hf://name", "hf://org/name"),
        ("hf://org/name/file", "hf://org/name"),
        ("hf://org/..", "hf://org/name"),
        ("hf://../name", "hf://org/name"),
        ("org/name@main", "hf://org/name"),
        ("hf://org/name@", "'' is not the name of a revision"),
        ("hf://org/name@../../x", "'../../x' is not the name of a revision"),
        ("hf://org/name@a/../b", "'a/../b' is not the name of a revision"),
        ("org/na me", "hf://org/name"),
        ("org/name\0", "hf://org/name"),
    ],
)
def test_names_of_neither(
    name: str, message: str, offline: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pathlib.Path("encoders").mkdir()
    pathlib.Path("encoders/clip.txt").touch()
    if name == "":
        monkeypatch.chdir("encoders")
        assert hub.resolve(name).folder == pathlib.Path()  # as everywhere in pathlib
        return
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)  # not called
    assert message in refused(name)


# repositories


SMALL = ("config.json", "preprocessor_config.json", "processor_config.json")
SMALL += ("tokenizer.json", "merges.txt")


def test_a_repository_of_the_cache(offline: pathlib.Path) -> None:
    snapshot = cache(offline, *SMALL, "model.safetensors")
    old = cache(offline, *SMALL, "pytorch_model.bin", commit=OLD, branch="v1.0")
    expected = (snapshot, "hf://org/name", COMMIT)
    for name in ("org/name", "hf://org/name", "hf://org/name@main"):
        assert hub.resolve(name) == expected
    assert hub.resolve("org/name", COMMIT) == expected
    assert hub.resolve("hf://org/name@v1.0", "v1.0") == (old, "hf://org/name", OLD)
    assert hub.resolve("org/name", OLD).folder == old
    assert "revision in the name is not 'main'" in refused("hf://org/name@v1.0", "main")


def test_what_is_not_in_the_cache(offline: pathlib.Path) -> None:
    message = refused("org/name")
    assert message.startswith("hf://org/name: neither a local folder")
    assert "HF_HUB_OFFLINE=1" in message and "give a folder" in message
    cache(offline, *SMALL)
    assert "no weights" in refused("org/name")
    assert "hf://org/name at v2" in refused("org/name", "v2")
    assert OLD in refused("org/name", OLD)
    cache(offline, "README.md", "model.safetensors", commit=OLD, branch="v1")
    assert "neither config.json nor open_clip_config.json" in refused("org/name", "v1")


class Hub:
    """Stands for the Hub: copies what is asked for into a folder and remembers it."""

    def __init__(self, root: pathlib.Path, files: dict[str, str]) -> None:
        self.folder, self.files, self.calls = root / COMMIT, files, []
        self.folder.mkdir()

    def snapshot_download(self, repository: str, **options: object) -> str:
        self.calls.append({"repository": repository, **options})
        for name, content in self.files.items():
            if any(fnmatch(name, each) for each in options["allow_patterns"]):
                (self.folder / name).write_text(content)
        return str(self.folder)

    def fetched(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


CODE = {"modeling_clip.py": "", "README.md": "", "pytorch_model.pkl": "", "x.onnx": ""}
BOTH = {"model.safetensors": "", "pytorch_model.bin": "", "flax_model.msgpack": ""}
OPEN_CLIP = {"open_clip_model.safetensors": "", "open_clip_pytorch_model.bin": ""}
SHARDS = {f"pytorch_model{i}": "" for i in ("-00001-of-2.bin", "-00002-of-2.bin")} | {
    "pytorch_model.bin.index.json": ""
}
REPOSITORIES = {
    "transformers": ({"config.json": CONFIG} | BOTH, {"model.safetensors"}),
    # both layouts of one model
    "laion": (
        {"config.json": CONFIG, "open_clip_config.json": "{}"} | BOTH | OPEN_CLIP,
        {"model.safetensors"},
    ),
    # timm's config and weights are of another model
    "timm": (
        {"config.json": "{}", "open_clip_config.json": "{}"} | BOTH | OPEN_CLIP,
        {"open_clip_model.safetensors"},
    ),
    "open_clip": (
        {"open_clip_config.json": "{}", "open_clip_pytorch_model.bin": ""},
        {"open_clip_pytorch_model.bin"},
    ),
    "shards": ({"config.json": CONFIG} | SHARDS, set(SHARDS)),
}


@pytest.mark.parametrize("case", REPOSITORIES)
def test_only_what_is_needed_is_fetched(
    case: str, offline: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, weights = REPOSITORIES[case]
    fake = Hub(offline.parent, files | CODE | dict.fromkeys(SMALL, CONFIG) | files)
    if "config.json" not in files:
        del fake.files["config.json"]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    monkeypatch.setenv("HF_TOKEN", "secret")
    found = hub.resolve("org/name", "v1")
    assert found == (fake.folder, "hf://org/name", COMMIT)
    small = {name for name in files if name.endswith("config.json")} | {*SMALL[1:]}
    assert fake.fetched() - weights - {"config.json"} == small - {"config.json"}
    assert weights <= fake.fetched()
    assert hub.find_weights(found.folder).name in weights
    first, *others = fake.calls
    assert first["revision"] == "v1"
    # a branch may move between two calls
    assert {call["revision"] for call in others} == {COMMIT}
    assert {call["token"] for call in fake.calls} == {"secret"}
    monkeypatch.delenv("HF_TOKEN")
    hub.resolve("org/name", "v1")
    assert fake.calls[-1]["token"] is False  # none that lies on the disk


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.safetensors", "pytorch_model.bin", "b.npz"], "model.safetensors"),
        (
            [
                "model.safetensors.index.json",
                "model-1.safetensors",
                "pytorch_model.bin",
            ],
            "model.safetensors.index.json",
        ),
        (["pytorch_model.bin", "imagebind.pth"], "pytorch_model.bin"),
        (["siglip.npz"], "siglip.npz"),
        (["imagebind_huge.pth"], "imagebind_huge.pth"),
        (["a.safetensors", "imagebind_huge.pth"], "a.safetensors"),
    ],
)
def test_weights_of_a_folder(
    names: list[str], expected: str, tmp_path: pathlib.Path
) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert hub.find_weights(tmp_path) == tmp_path / expected


def test_weights_that_one_cannot_tell(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="expected model.safetensors"):
        hub.find_weights(tmp_path)
    for name in ("a.npz", "b.npz"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="which of a.npz, b.npz are"):
        hub.find_weights(tmp_path)


# in a process of its own, in which every connection is refused


RESOLVE = """
import sys
from mmcl_jax.modalities.base import DataError
from mmcl_jax.models.pretrained import hub
assert "huggingface_hub" not in sys.modules
for name in sys.argv[1:]:
    try:
        print(*hub.resolve(name))
    except DataError as error:
        print(error)
"""


def _resolve(
    *names: str, home: pathlib.Path, **variables: str
) -> tuple[list[str], str]:
    """Returns a line a name, and what was written to standard error."""
    (home / "guard").mkdir()
    (home / "guard" / "sitecustomize.py").write_text(GUARD)
    paths = [str(home / "guard"), str(helpers.REPOSITORY)]
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, *names],
        cwd=home,
        env=os.environ
        | {"HOME": str(home), "HF_HOME": str(home)}
        | {"PYTHONPATH": os.pathsep.join(paths)}
        | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_offline_no_connection_is_tried(tmp_path: pathlib.Path) -> None:
    snapshot = cache(tmp_path / "hub", *SMALL, "model.safetensors")
    names = ("org/name", "org/other")
    lines, errors = _resolve(*names, home=tmp_path, HF_HUB_OFFLINE="1")
    assert lines[0] == f"{snapshot} hf://org/name {COMMIT}"
    assert lines[1].startswith("hf://org/other: neither a local folder")
    assert len(lines) == 2
    assert "network: " not in errors


def test_without_a_network(tmp_path: pathlib.Path) -> None:
    lines, errors = _resolve("org/name", home=tmp_path, HF_TOKEN="secret-of-mine")
    assert "network: " in errors  # a repository was named, and it was tried
    [line] = lines
    assert line.startswith("hf://org/name: neither a local folder")
    assert "secret-of-mine" not in line + errors
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"secret-of-mine" in path.read_bytes() for path in everything)
