"""What programs say of themselves: `--help`, `--version`, the list of all programs."""

import io
import pathlib
import subprocess
import sys
import tomllib

import pytest
from rich.console import Console

from mmcl_jax.cli import programs, reference
from mmcl_jax.cli.misspelt import nearest_key
from mmcl_jax.sweeps.methods import of_config
from mmcl_jax.sweeps.standing import Standing
from tests import helpers
from tests.programs import run_each

PROJECT = tomllib.loads((helpers.REPOSITORY / "pyproject.toml").read_text())["project"]
PAGES = ("mmcl_jax.report", "mmcl_jax.pretrain")  # packages that are programs
MOST_LINES, MOST_COLUMNS = 48, 100
# flags by which anybody can tell a program's screen
NAMED = {
    "mmcl-train": ("--config=FILE[:ARGUMENT]", "--workdir=PATH", "--stop_after=N"),
    "mmcl-predict": ("--reject=X", "--[no]json", "Number of classes shown"),
    "mmcl-compare": ("--workdirs=PATH,...", "--[no]embeddings", "--snapshots=A,B"),
    "mmcl-sweep": ("--methods=A,B", "--engine=local|slurm|jobset", "--mem=TEXT"),
}


def _module(command: str) -> str:
    module = programs.PROGRAMS[command]
    return f"{module}.__main__" if module in PAGES else module


def test_every_command_is_installed() -> None:
    starts = {name: f"{_module(name)}:cli" for name in programs.PROGRAMS}
    assert PROJECT["scripts"] == starts


@pytest.mark.parametrize("command", programs.PROGRAMS)
def test_help_fits_a_screen(command: str, tmp_path: pathlib.Path) -> None:
    asked = [["--help"], ["-h", "--nope"], ["--version"]]
    shown, again, version = run_each(_module(command), asked, tmp_path)
    lines = shown.output.splitlines()
    assert (shown.code, shown.errors, again.output) == (0, "", shown.output)
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= MOST_COLUMNS
    assert lines[0] == f"{command}, or python -m {programs.PROGRAMS[command]}"
    assert sum(line.startswith(f"  {command} ") for line in lines) == 2
    for part in NAMED.get(command, ()):
        assert part in shown.output
    assert "repeat this option" not in shown.output
    assert (version.code, version.output) == (0, f"{programs.version()}\n")
    assert len(programs.summary(programs.PROGRAMS[command])) <= 62


@pytest.mark.parametrize("module", ["main", "predict", "extend", "compare", "sweep"])
def test_help_does_not_wait_for_jax(module: str) -> None:
    code = (
        f"import sys, mmcl_jax.{module}; "
        "print([name for name in ('jax', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=helpers.REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_the_list_of_programs() -> None:
    listed = [line.split()[0] for line in programs.listed().splitlines()]
    assert listed == list(programs.PROGRAMS)


def test_no_message_asks_for_an_extra_of_a_package_without_an_index_entry() -> None:
    for path in (helpers.REPOSITORY / "mmcl_jax").rglob("*.py"):
        assert "mmcl_jax[" not in path.read_text("utf-8"), path


# keys of configs


def test_keys_of_a_config_have_values_and_meanings() -> None:
    tree = helpers.get_config(helpers.REPOSITORY / "configs/demo.py", "method=ridge")
    text = reference.of_config(tree)
    assert "  epochs=3\n      whole number from 1: Number of passes" in text
    assert "config.method.ridge: " in text and "config.method.comm: " not in text
    assert "  tasks=10\n" in text and "max_train_per_class" not in text
    assert "Default: 'comm'." in " ".join(text.split())  # lines are wrapped
    found = reference.of_config(tree, ["epochs"])
    assert "epochs=3" in found and "regularization" not in found
    assert reference.of_config(tree, ["no such word"]) == ""


def test_keys_of_the_config_of_pretraining_are_listed() -> None:
    tree = helpers.get_config(helpers.REPOSITORY / "configs/pretrain.py", "")
    assert "config.visual_training.steps=4400" in reference.of_config(tree)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("train.lr", "config.train.optimizer.learning_rate"),
        ("config.train.wd", "config.train.optimizer.weight_decay"),
        ("bs", "config.train.batch_size"),
        ("config.epoch", "config.train.epochs"),
        ("config.train.learning_rat", "config.train.optimizer.learning_rate"),
        ("nope", None),
    ],
)
def test_a_misspelt_key_is_guessed(given: str, meant: str | None) -> None:
    keys = [row.key for _, _, rows in reference.sections() for row in rows]
    assert nearest_key(given, keys) == meant


# comparing methods


def test_methods_of_any_config_are_compared() -> None:
    config = str(helpers.REPOSITORY / "configs" / "world.py")
    values = {"stream.tasks": 5}
    made = of_config(f"{config}:smoke", ["ridge", "ewc"], [0, 3], values)
    assert made.baseline == "ridge"
    assert [run.name for run in made.runs[:2]] == [
        "ridge/interleaved/0",
        "ewc/interleaved/0",
    ]
    assert [run.seed for run in made.runs] == [0, 0, 3, 3]
    # what is tuned for a method comes with `method=`
    assert made.runs[1].config.train.label_space == "all_seen"


def test_a_config_file_without_arguments_is_compared(tmp_path: pathlib.Path) -> None:
    plain = tmp_path / "plain.py"
    plain.write_text(
        "from mmcl_jax.config import Config, to_config_dict\n"
        "def get_config(argument=''):\n"
        "    assert not argument\n"
        "    return to_config_dict(Config())\n"
    )
    (run,) = of_config(str(plain), ["ncm"], [7], {}).runs
    assert run.config.method.name == "ncm"
    assert run.config.seeds.order == run.config.seeds.init == run.config.seeds.data == 7


def test_a_file_stands_for_its_methods(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMCL_JAX_MODULES", "")
    own = tmp_path / "mine.py"
    own.write_text(
        "from mmcl_jax.methods.zero_shot import make\n"
        "METHODS = {'mine': make, 'other': make}\n"
    )
    made = of_config(
        str(helpers.REPOSITORY / "configs/demo.py"), ["ncm", str(own)], [0], {}
    )
    assert [run.variant for run in made.runs] == ["ncm", "mine", "other"]
    assert [run.config.method.name for run in made.runs] == ["ncm", "mine", "other"]


def test_the_time_left_of_a_sweep(tmp_path: pathlib.Path) -> None:
    now = [0.0]
    console = Console(file=io.StringIO())
    with Standing(console, 4, 2, clock=lambda: now[0]) as standing:
        one, two, three = (tmp_path / name for name in "abc")
        standing.begun(one)
        standing.begun(two)
        assert standing.line() == "0 of 4 runs done, 2 running"
        now[0] = 60.0
        assert standing.ended(one) == 60.0
        standing.begun(three)
        # 3 runs of a minute, of which one is nearly done, on two processors
        assert standing.line() == "1 of 4 runs done, 2 running, about 0:01:00 left"
    assert console.file.getvalue() == ""
