"""Paths that users write in flags and configs: `~`, colons and commas."""

import ast
import dataclasses
import pathlib
import typing
from typing import Annotated, Any

import pytest
from absl import flags

from mmcl_jax import config as configs
from mmcl_jax import plugins
from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError
from mmcl_jax.fields import Range
from mmcl_jax.files import expanded, files_below, split_argument, split_paths
from mmcl_jax.parallel import compilation_cache
from mmcl_jax.streams.registry import SOURCES
from mmcl_jax.sweeps import runs
from mmcl_jax.training import feature_cache
from tests import programs

PACKAGE = pathlib.Path(configs.__file__).parent
# Flags of all programs whose value is text, and no path of this machine.
_TEXTS = {
    "retire",
    *("coordinator", "modality", "text", "devices", "snapshots"),
    "push",  # a repository
    "pods_out",  # expanded by the run inside the pod
    "name",  # of a flag of sbatch
    "expect",  # a published figure
    *("seeds", "methods"),  # a file of methods is expanded where it is run
}
_PATHS = {
    "cli/config": {"config"},
    "compare": {"workdirs", "encoder"},
    "export": {"workdir", "out", "encoder"},
    "extend": {"workdir", "data", "into"},
    "main": {"config", "workdir"},
    "manifest": {"root", "out"},
    "plan": {"config"},
    "predict": {"workdir", "model", "encoder"},
    "prepare": {"config", "out"},
    "pretrain/__main__": {"config", "out"},
    "report/__main__": {"workdirs", "out"},
    "reproduce": {"check"},
    "sweep": {"config", "sweep", "out", "choose", "manifest"},
    "verify": {"config", "out"},
    "zeroshot": {"config"},
}
_OF_PATHS = {"define_path", "define_paths", "define_config", "define_encoder"}


@pytest.fixture(autouse=True)
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A home folder, and an empty one in which nothing must appear."""
    folder, here = tmp_path / "home", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(here)
    return folder


def _flags(module: str) -> dict[str, str]:
    """Returns the function that defines each flag of a program."""
    found = {}
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            kind = node.func.attr
            if kind in ("define_config", "define_encoder"):
                found[kind.removeprefix("define_")] = kind
            elif kind.lower().startswith("define_"):
                name = node.args[0]
                found[
                    ast.literal_eval(name) if isinstance(name, ast.Constant) else "name"
                ] = kind
    return found


def test_the_flags_of_all_programs_are_known() -> None:
    defining = {
        path.relative_to(PACKAGE).with_suffix("").as_posix()
        for path in PACKAGE.rglob("*.py")
        if "flags.DEFINE_" in (text := path.read_text("utf-8")) or ".define_" in text
    }
    assert defining - {"cli/command_line"} == _PATHS.keys()


@pytest.mark.parametrize("module", _PATHS)
def test_every_flag_of_a_path_expands(module: str) -> None:
    for name, kind in _flags(module).items():
        if name in _PATHS[module] - {"sweep"}:  # whose file `load_sweep` expands
            assert kind in _OF_PATHS, name
        elif kind in ("DEFINE_string", "DEFINE_list", "DEFINE_multi_string"):
            assert name in _TEXTS | {"sweep"}, f"{name}: a path, or a text?"


def test_flags_of_paths(home: pathlib.Path) -> None:
    values = flags.FlagValues()
    one = command_line.define_path("one", "~/default", "", values)
    many = command_line.define_paths("many", "", values)
    values(["", "--one=~/runs/a", "--many=~/b,c", "--many=~/d"])
    assert one.value == f"{home}/runs/a"
    assert many.value == [[f"{home}/b", "c"], [f"{home}/d"]]
    with pytest.raises(flags.Error, match="no user has the home folder '~nobody-here'"):
        values(["", "--one=~nobody-here/a"])


def test_every_path_of_a_config_expands(home: pathlib.Path) -> None:
    found = set()

    def collect(value: Any, at: str) -> None:
        for name, hint in typing.get_type_hints(
            type(value), include_extras=True
        ).items():
            item = getattr(value, name)
            if dataclasses.is_dataclass(item):
                collect(item, f"{at}.{name}")
            elif typing.get_origin(hint) is Annotated and not isinstance(
                typing.get_args(hint)[1], Range
            ):
                found.add(f"{at}.{name}")

    collect(configs.Config(), "config")
    for source in SOURCES.values():
        collect(source.options(), "config.stream")
    assert found == {
        *("config.encoder.path", "config.resume"),
        *("config.stream.root", "config.stream.path", "config.stream.data_dir"),
        "config.stream.plan",
    }
    for field, stream in (
        ("root", configs.Folders(root="~/data")),
        ("path", configs.Manifest(path="~/data")),
        ("data_dir", configs.Tfds(names=("mnist",), data_dir="~/data")),
    ):
        config = configs.Config(
            stream=stream,
            encoder=configs.EncoderOptions("~/a+b + ~/c+org/name"),
            resume="branch:~/runs/one",
        )
        for tree in (configs.to_config_dict(config), dataclasses.asdict(config)):
            read = configs.resolve(tree)
            assert getattr(read.stream, field) == f"{home}/data"
            assert read.encoder.path == f"{home}/a+b + {home}/c+org/name"
            assert read.resume == f"branch:{home}/runs/one"


def test_an_unknown_user_is_an_error(tmp_path: pathlib.Path) -> None:
    config = configs.Config(stream=configs.Folders(root="~nobody-here/data"))
    with pytest.raises(ConfigError, match="config.stream.root: '~nobody-here/data'"):
        configs.resolve(dataclasses.asdict(config))
    # a file of such a name, of which editors leave many, is what is meant
    (tmp_path / "here" / "~nobody-here.txt").touch()
    assert expanded("~nobody-here.txt") == "~nobody-here.txt"


def test_files_of_user_defined_code(
    home: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # set before it is deleted, or what is added to it below would stay
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.delenv(plugins.VARIABLE)
    (home / "own.py").write_text("METHODS = {'mine': lambda *_: None}\n")
    config = configs.Config(method=configs.MethodOptions("mine", module="~/own.py"))
    reference = configs.resolve(dataclasses.asdict(config)).method.module
    assert reference.startswith("own.py#sha256=")
    monkeypatch.setenv(plugins.VARIABLE, "~/own.py")
    assert plugins.exported() == str(home / "own.py")


def test_folders_named_in_the_environment(
    home: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(feature_cache.FOLDER_VARIABLE, "~/features")
    assert feature_cache.default_folder() == home / "features"
    set_to = {}
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "~/programs")
    monkeypatch.setattr("jax.config.update", set_to.__setitem__)
    compilation_cache.keep_compiled_programs()
    assert set_to["jax_compilation_cache_dir"] == f"{home}/programs"


def test_files_to_label(home: pathlib.Path) -> None:
    (home / "pictures").mkdir()
    (home / "pictures" / "one.png").touch()
    assert [*files_below("~/pictures")] == [str(home / "pictures" / "one.png")]
    assert [*files_below("~/two.png")] == [str(home / "two.png")]


def test_colons_in_files(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    odd = tmp_path / "a:b"
    odd.mkdir()
    file, other = odd / "c.py", home / "c.py"
    for each in (file, other):
        each.write_text("")
    assert split_argument(f"{file}:smoke,weights=x:y") == (file, "smoke,weights=x:y")
    assert split_argument(f"{file}") == (file, "")
    assert split_argument("~/c.py:smoke") == (other, "smoke")
    assert split_argument("none.py:smoke:1") == (pathlib.Path("none.py"), "smoke:1")
    # the longest beginning that is a file
    (odd / "c.py:smoke").write_text("")
    assert split_argument(f"{file}:smoke:1") == (odd / "c.py:smoke", "1")
    file.write_text("def get_sweep(argument):\n    return argument\n")
    with pytest.raises(ConfigError, match="get_sweep returns '1:2'"):
        runs.load_sweep(f"{file}:1:2")


def test_commas_in_paths(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    odd, plain = tmp_path / "a,b", tmp_path / "c"
    odd.mkdir()
    plain.mkdir()
    assert split_paths(f"{plain},{odd},{plain}") == [str(plain), str(odd), str(plain)]
    assert split_paths(f"{odd}") == [str(odd)]
    assert split_paths(" none , other,,") == ["none", "other"]
    assert split_paths("") == []


@pytest.mark.slow
def test_a_config_and_a_workdir_at_home(
    home: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for folder in (home, tmp_path / "a:b"):
        folder.mkdir(exist_ok=True)
        (folder / "own.py").write_text(
            "from mmcl_jax.config import Config, to_config_dict\n"
            "def get_config(argument=''):\n"
            "    raise RuntimeError(f'argument {argument}')\n"
        )
    commands = [
        ["--config=~/own.py:x:1", "--workdir=~/runs"],
        ["--config", "~/own.py", "--workdir=~/runs"],
        [f"--config={tmp_path}/a:b/own.py:x:1", "--workdir=~/runs"],
        ["--config=~nobody-here/own.py", "--workdir=~/runs"],
        ["--config=demo:smoke", "--workdir=~/runs", "--config.encoder.path=~/none"],
    ]
    said = programs.run_each("mmcl_jax.main", commands, tmp_path / "here")
    assert f"{home}/own.py, line 3: RuntimeError: argument x:1" in said[0].errors
    assert f"{home}/own.py, line 3: RuntimeError: argument" in said[1].errors
    assert (
        f"{tmp_path}/a:b/own.py, line 3: RuntimeError: argument x:1" in said[2].errors
    )
    assert "--config: '~nobody-here/own.py': no user has" in said[3].errors
    assert f"{home}/none: no such folder" in said[4].errors
    assert not [*(tmp_path / "here").iterdir()]
