"""Code of the user's own runs where the user has named it, and nowhere else."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from mmcl_jax import config, plugins
from mmcl_jax.cli import command_line
from mmcl_jax.config import Config, MethodOptions, resolve, to_config_dict
from mmcl_jax.errors import ConfigError
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.streams.loader import Decoder
from mmcl_jax.sweeps import runs
from mmcl_jax.training.build import assemble
from tests import helpers

METHOD = """
import dataclasses, pathlib
from mmcl_jax.methods.zero_shot import make as zero_shot
from mmcl_jax.fields import NonNegative

pathlib.Path({mark!r}).write_text("it ran")

@dataclasses.dataclass(frozen=True)
class Options:
    strength: NonNegative = 4.0
    kind: str = "plain"

METHODS = {{"mine": zero_shot}}
"""
MODALITY = """
from mmcl_jax.modalities.base import Modality
from mmcl_jax.modalities.image import IMAGE, decode

MODALITIES = {"scan": Modality(
    "scan", "visual", (".scan",), decode, ("a scan of a {}.",), IMAGE.styles,
    lambda head: head.startswith(b"SCAN"),
)}
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has run, and nothing is named."""
    monkeypatch.setattr(plugins, "_modules", {})
    monkeypatch.setattr(plugins, "_added", [])
    # set, so that what is named in a test is forgotten at its end
    monkeypatch.setenv(plugins.VARIABLE, "")
    before = dict(MODALITIES)
    yield
    MODALITIES.clear()
    MODALITIES.update(before)


@pytest.fixture
def method(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "mine.py"
    path.write_text(METHOD.format(mark=str(tmp_path / "mark")))
    return path


def _config(path: pathlib.Path | str, *options: str, name: str = "mine") -> Config:
    chosen = MethodOptions(name, module=str(path), options=options)
    return resolve(to_config_dict(Config(method=chosen)))


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_modules", {})
    monkeypatch.setenv(plugins.VARIABLE, "")


@pytest.mark.parametrize(
    "written", [(), ("kind='other'",), {"strength": 1.0, "kind": "other"}]
)
def test_a_sweep_gives_options_of_the_file(
    written: tuple[str, ...] | dict, method: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    tree = to_config_dict(Config()).to_dict()
    tree["method"] |= {"name": "mine", "module": str(method), "options": written}
    # a plain dict, as much as a ConfigDict
    path = tmp_path / "own.py"
    path.write_text(f"def get_config(argument): return {tree!r}")
    values = {"method.options.strength": 2.0, "train.epochs": 3}
    made = runs.make_config(path, "", values)
    kind = "other" if written else "plain"
    assert (made.method.options.strength, made.method.options.kind) == (2.0, kind)
    assert made.train.epochs == 3


def test_options_are_those_of_the_file(method: pathlib.Path) -> None:
    found = _config(method, "strength=2", "kind=other").method
    assert (found.options.strength, found.options.kind) == (2.0, "other")
    assert found.module.startswith("mine.py#sha256=")
    assert _config(method).method.options.strength == 4.0
    # commas in them are theirs
    assert _config(method, "kind=a,strength=b").method.options.kind == "a,strength=b"
    assert _config(method, "kind='(3, 4)'").method.options.kind == "(3, 4)"


def test_one_flag_has_several_options(method: pathlib.Path) -> None:
    for text, wanted in (
        ("strength=1,kind=x", ("strength=1", "kind=x")),
        ("layers=(3, 4),kind=x", ("layers=(3, 4)", "kind=x")),
        ("strength=2.0", ("strength=2.0",)),
        ("('layers=(3, 4)',)", ("layers=(3, 4)",)),
    ):
        assert command_line.ListParser().parse(text) == wanted


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("strength=-1",), "config.method.options.strength: -1"),
        (("strenght=1",), "did you mean 'strength'"),
        (("strength",), "field=value"),
        (("strength=a",), "is not of type float"),
    ],
)
def test_a_wrong_option_is_named(method, options, words) -> None:
    with pytest.raises(ConfigError, match=words):
        _config(method, *options)


def test_a_wrong_name_is_an_error_with_the_nearest(method: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'mine'"):
        _config(method, name="mime")
    with pytest.raises(ConfigError, match="config.method.options: only a method in"):
        resolve(to_config_dict(Config(method=MethodOptions(options=("a=1",)))))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = 1\n1 / 0", r"own.py, line 2: ZeroDivisionError: division by zero"),
        ("x = 1\nimport (", r"own.py, line 2: SyntaxError: invalid syntax"),
        ("int('a' * 3)", r"own.py, line 1: ValueError"),
        ("METHODS = {'a': 3}", r"METHODS\['a'\] is 3; expected a function"),
        ("METHODS = {1: print}", r"METHODS\[1\]: its keys must be strings"),
        ("x = 1", "no dict METHODS"),
        ("METHODS = {'ridge': print}", "the name 'ridge' is taken"),
        ("METHODS = {'a': print}\nclass Options: pass", "no frozen dataclass"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, code, words) -> None:
    (tmp_path / "own.py").write_text(code)
    with pytest.raises(ConfigError, match=words):
        _config(tmp_path / "own.py", name="a")
    with pytest.raises(ConfigError, match="cannot be read"):
        _config(tmp_path / "none.py")


def test_who_runs_the_tower_needs_all_of_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / "own.py").write_text(
        "from mmcl_jax.methods.sequential import sequential\n"
        "METHODS = {'a': lambda model, options, common: "
        "sequential(model, common)._replace(drives_tower=True)}\n"
    )
    made = _config(tmp_path / "own.py", name="a")
    adapter = dataclasses.replace(made.method.adapter, first_block=1)
    method = dataclasses.replace(made.method, adapter=adapter)
    with pytest.raises(ConfigError, match="first_block: the method runs the tower"):
        assemble(dataclasses.replace(made, method=method), Console(quiet=True))


def test_a_stored_config_runs_nothing(method, tmp_path, monkeypatch) -> None:
    made, mark = _config(method), tmp_path / "mark"
    stored = tmp_path / "config.json"
    stored.write_text(config.to_json(made))
    assert config.load(stored) == made  # of this process
    _forget(monkeypatch)
    mark.unlink()
    with pytest.raises(ConfigError, match="runs nothing by itself: name the file"):
        config.load(stored)
    # nor does a path in it, with or without the right hash
    tree = json.loads(stored.read_text())
    for name in (str(method), f"{tmp_path}/{made.method.module}"):
        tree["method"]["module"] = name
        stored.write_text(json.dumps(tree))
        with pytest.raises(ConfigError, match=r"config\.method\.module"):
            config.load(stored)
    assert not mark.exists()


def test_it_goes_on_where_the_file_is_named_and_as_it_was(
    method, tmp_path, monkeypatch
) -> None:
    made = _config(method)
    (tmp_path / "config.json").write_text(config.to_json(made))
    _forget(monkeypatch)
    moved = tmp_path / "elsewhere.py"
    method.rename(moved)
    monkeypatch.setenv(plugins.VARIABLE, str(moved))
    # its Options are of another class, since the file has run again
    found = config.load(tmp_path / "config.json")
    assert config.to_json(found) == config.to_json(made)
    _forget(monkeypatch)
    moved.rename(method)
    method.write_text(method.read_text() + "\n# changed\n")
    (tmp_path / "mark").unlink()
    monkeypatch.setenv(plugins.VARIABLE, str(method))
    with pytest.raises(ConfigError, match=r"mine\.py has changed"):
        config.load(tmp_path / "config.json")
    assert not (tmp_path / "mark").exists()


def test_one_that_cannot_be_read_does_not_hide_the_others(
    method, tmp_path, monkeypatch
) -> None:
    made = _config(method)
    (tmp_path / "config.json").write_text(config.to_json(made))
    _forget(monkeypatch)
    gone = str(tmp_path / "gone.py")
    monkeypatch.setenv(plugins.VARIABLE, os.pathsep.join([gone, str(method)]))
    assert config.to_json(config.load(tmp_path / "config.json")) == config.to_json(made)
    # it is named if nothing else will do
    _forget(monkeypatch)
    method.write_text(method.read_text() + "\n# changed\n")
    monkeypatch.setenv(plugins.VARIABLE, os.pathsep.join([gone, str(method)]))
    with pytest.raises(ConfigError, match=r"mine\.py has changed"):
        config.load(tmp_path / "config.json")
    monkeypatch.setenv(plugins.VARIABLE, gone)
    with pytest.raises(ConfigError, match=r"gone\.py: cannot be read"):
        config.load(tmp_path / "config.json")


def test_a_path_that_other_processes_would_not_find_is_refused(
    method: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / f"a{os.pathsep}b"
    folder.mkdir()
    method.rename(folder / "mine.py")
    with pytest.raises(ConfigError, match="separates the paths of MMCL_JAX_MOD"):
        _config(folder / "mine.py")
    assert not (tmp_path / "mark").exists()


def test_another_file_is_another_config(method, tmp_path) -> None:
    from mmcl_jax.workdir import resuming

    (tmp_path / "config.json").write_text(config.to_json(_config(method)))
    resuming.check(tmp_path, _config(method))
    method.write_text(method.read_text() + "\n# changed\n")
    with pytest.raises(ConfigError, match=r"config\.method\.module is 'mine\.py#"):
        resuming.check(tmp_path, _config(method))


def _modality(tmp_path: pathlib.Path, code: str = MODALITY) -> Config:
    path = tmp_path / "scan.py"
    path.write_text(code)
    tree = to_config_dict(Config())
    tree.data.modality_modules = (str(path),)
    return resolve(tree)


def test_a_modality_is_added_with_the_hash_of_its_code(tmp_path: pathlib.Path) -> None:
    made = _modality(tmp_path)
    spec = helpers.make_spec(tmp_path)
    digest = made.data.modality_modules[0].partition("#sha256=")[2]
    assert MODALITIES["scan"].version(spec) == f"image-2 of scan.py {digest[:16]}"
    assert MODALITIES["image"].version(spec) == "image-2"
    with pytest.raises(ConfigError, match="modality 'scan': the name is taken"):
        _modality(tmp_path, MODALITY + "# changed")


def test_its_files_are_told_before_others(tmp_path: pathlib.Path) -> None:
    from mmcl_jax.serving import file_types

    (tmp_path / "a").write_text("SCAN of a fish")
    assert file_types.modality_of(tmp_path / "a") == "text"
    _modality(tmp_path)
    assert file_types.modality_of(tmp_path / "a") == "scan"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"scan": Mod', '"image": Mod', "no Modality of this name"),
        ('"visual"', '"sonar"', "names the tower 'sonar'; expected"),
        ("MODALITIES =", "OTHERS =", "no dict MODALITIES"),
    ],
)
def test_what_is_no_modality_is_said(tmp_path, old, new, words) -> None:
    with pytest.raises(ConfigError, match=words):
        _modality(tmp_path, MODALITY.replace(old, new))


def test_modalities_of_a_file_are_added_all_or_none(tmp_path: pathlib.Path) -> None:
    second = '\nMODALITIES["other"] = MODALITIES["scan"]._replace({})\n'
    before = dict(MODALITIES)
    for wrong in ('name="image"', 'name="other", tower="sonar"'):
        with pytest.raises(ConfigError, match=r"other"):
            _modality(tmp_path, MODALITY + second.format(wrong))
        assert before == MODALITIES
    _modality(tmp_path, MODALITY + second.format('name="other"'))
    assert MODALITIES.keys() - before.keys() == {"scan", "other"}
    with pytest.raises(ConfigError, match=r"MODALITIES\[1\]: its keys must be"):
        _modality(tmp_path, MODALITY.replace('"scan": Mod', "1: Mod"))


CHILD = """
import pickle, sys
decoder, record = pickle.load(sys.stdin.buffer)
print(decoder(record, "scan")["pixels"].sum())
"""


def test_a_process_that_decodes_finds_the_modality(tmp_path: pathlib.Path) -> None:
    import pickle

    from mmcl_jax.modalities.base import FileReference
    from mmcl_jax.streams.base import Record

    _modality(tmp_path)
    path = helpers.write(tmp_path, "image")
    record = Record(FileReference(path), 0, 0)
    decoder = Decoder(helpers.make_spec(tmp_path), 0)
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=pickle.dumps((decoder, record)),
        cwd=helpers.REPOSITORY,
        env=os.environ,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    wanted = decoder(record, "scan")["pixels"].sum()
    assert float(done.stdout) == pytest.approx(float(wanted), rel=1e-4)
    assert np.isfinite(wanted)
