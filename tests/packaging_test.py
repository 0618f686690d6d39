"""The package as it is installed: from a wheel, without its repository."""

import json
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile

import pytest

import mmcl_jax
from mmcl_jax.training import build
from tests import helpers

PROJECT = tomllib.loads((helpers.REPOSITORY / "pyproject.toml").read_text())["project"]
COMMANDS = {name: target.split(":") for name, target in PROJECT["scripts"].items()}
HEAVY = ("torch", "transformers", "tensorflow", "jax", "flax", "optax", "orbax")


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, mmcl_jax; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=helpers.REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", sorted(module for module, _ in COMMANDS.values()))
def test_commands_explain_themselves(module: str, tmp_path: pathlib.Path) -> None:
    flags = ("--help",)
    # one of them as a person starts it
    fresh = module == "mmcl_jax.predict"
    done = helpers.start(
        "-m", module, flags=flags, workdir=tmp_path, fresh=fresh
    ).finish()
    named = ("--workdir", "--config", "--root", "--check")
    assert any(flag in done.output for flag in named)
    assert "Traceback" not in done.output + done.errors


def test_a_config_that_comes_with_the_package_is_known_by_name(
    tmp_path: pathlib.Path,
) -> None:
    done = helpers.run("--config=demmo:smoke", workdir=tmp_path / "run")
    assert done.code == 2
    assert "no file 'demmo'; give one, or one of clip, demo" in done.errors
    done = helpers.run("--config=demo:smok", workdir=tmp_path / "run")
    assert done.code == 2
    assert "'smok' is not one of smoke" in done.errors


def test_the_version_is_cited() -> None:
    cited = (helpers.REPOSITORY / "CITATION.cff").read_text()
    assert f"\nversion: {mmcl_jax.__version__}\n" in cited
    answers = (helpers.REPOSITORY / "docs" / "faq.md").read_text()
    assert f"  version = {{{mmcl_jax.__version__}}}\n" in answers
    assert f"\nlicense: {PROJECT['license']}\n" in cited


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A wheel of the files of the repository, built in a copy of them."""
    tree = tmp_path_factory.mktemp("wheel") / "tree"
    unwanted = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info")
    shutil.copytree(helpers.REPOSITORY, tree, symlinks=True, ignore=unwanted)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir=..", "."],
        cwd=tree,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (path,) = tree.parent.glob("*.whl")
    return path


@pytest.mark.full("wheel")
@pytest.mark.slow
def test_the_wheel_holds_what_a_run_needs(wheel: pathlib.Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assets = {path.name for path in build.BUILTIN_ENCODER.iterdir()}
    wanted = {f"models/assets/{name}" for name in assets}
    wanted |= {"models/words.txt", "py.typed", "configs/demo.py", "configs/tuned.json"}
    wanted |= {"streams/mmcl_real_1.json"}
    wanted |= {"models/imagenet_classes.npz", "models/imagenet_classes.txt"}
    assert {f"mmcl_jax/{name}" for name in wanted} <= names
    sources = (helpers.REPOSITORY / "mmcl_jax").rglob("*.py")
    for path in sources:
        assert path.relative_to(helpers.REPOSITORY).as_posix() in names
    assert not any(name.startswith("tests/") for name in names)


@pytest.fixture(scope="module")
def installed(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory):
    """Where the commands of the installed wheel are."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--no-deps"]
    subprocess.run([*pip, "--quiet", str(wheel)], check=True, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    # what the wheel needs is what these tests run with
    (site / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def run(*command: str | pathlib.Path, cwd: pathlib.Path) -> str:
    """Runs a command where nothing of the repository is found."""
    environment = helpers.environment()
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def real_files() -> dict[str, pathlib.Path]:
    """Returns a real file of each modality but text, which lies in tables there."""
    if (folder := helpers.shared_data()) is None:
        pytest.skip("the folder of development data is not beside the repository")
    places = {
        "image": "image/cifar10/test/*/*.jpg",
        "video": "video/tennis/test/*/*.mp4",
        "audio": "audio/fsdd/test/*/*.wav",
        "depth": "depth/asl_fingerspelling/test/*/*.png",
    }
    return {name: min(folder.glob(place)) for name, place in places.items()}


@pytest.mark.full("wheel")
@pytest.mark.slow
def test_an_installed_wheel_trains_and_labels(
    installed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    files = real_files()
    where = run(
        installed / "python", "-c", "import mmcl_jax; print(mmcl_jax)", cwd=tmp_path
    )
    assert str(installed.parent) in where
    # as in a clone, though there is no such file here
    config = "--config=configs/demo.py:smoke"
    run(installed / "mmcl-train", config, "--workdir=run", cwd=tmp_path)
    flags = ["--workdir=run", "--json", "--top=10", "--text=a falling mushroom"]
    said = run(installed / "mmcl-predict", *flags, *files.values(), cwd=tmp_path)
    sentence, *rows = [json.loads(line) for line in said.splitlines()]
    assert sentence["modality"] == sentence["taken_for"] == "text"
    assert sentence["labels"][0]["name"] == "falling mushroom"
    assert [row["modality"] for row in rows] == list(files)
    assert [row["source"] for row in rows] == [str(path) for path in files.values()]
    for row in [sentence, *rows]:
        shares = [label["probability"] for label in row["labels"]]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1)
