"""The runs of a sweep, and their workdirs on disk."""

import contextlib
import copy
import importlib.util
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from rich.console import Console

from mmcl_jax.cli.shorthand import parse_argument
from mmcl_jax.config import Config, check_name, resolve
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.files import raised_in, shipped, split_argument
from mmcl_jax.workdir import layout
from mmcl_jax.workdir.reading import read_results, read_run
from mmcl_jax.workdir.resuming import has_config, write_config


class SweepRun(NamedTuple):
    """One run of a sweep.

    Attributes:
        variant: Method, or variant of one: the row of a table that the run counts for.
        stream: Order of the tasks: the table.
        seed: Seed; runs are paired by stream and seed.
        config: Config of the run.
        values: Fields that define the variant, by path, for choosing among variants.
        beside: Streams without the tasks of other modalities, or with other ones, by
            name: what the run has gained over them is transfer across modalities.
    """

    variant: str
    stream: str
    seed: int
    config: Config
    values: dict[str, Any] = {}
    beside: dict[str, str] = {}

    @property
    def name(self) -> str:
        """Returns the folder of the run, relative to that of all runs."""
        return f"{self.variant}/{self.stream}/{self.seed}"


class Sweep(NamedTuple):
    """Runs that are compared.

    Attributes:
        runs: Runs, in the order of their execution.
        baseline: Variant that the others are compared to.
    """

    runs: tuple[SweepRun, ...]
    baseline: str = "comm"


def load_function(file: str | pathlib.Path, name: str) -> Callable[[str], Any]:
    """Returns a function of a Python file, such as `get_config`.

    Raises:
        ConfigError: There is no such file or function.
    """
    path = shipped(file)
    spec = importlib.util.spec_from_file_location(f"_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"no Python file {str(file)!r}")
    module = importlib.util.module_from_spec(spec)
    with raising_by_line(path):
        spec.loader.exec_module(module)
    if not hasattr(module, name):
        raise ConfigError(f"{file}: no function {name!r} in it")
    return getattr(module, name)


@contextlib.contextmanager
def raising_by_line(path: str | pathlib.Path) -> Iterator[None]:
    """Turns any error of a user's Python file into a `ConfigError` with its line."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(raised_in(path, error) or f"{path}: {error!r}") from error


def load_sweep(name: str) -> Sweep:
    """Returns what `get_sweep` of `FILE.py:ARGUMENT` returns.

    Raises:
        ConfigError: It does not return a `Sweep`, or fails; names the line.
    """
    file, argument = split_argument(name)
    get_sweep = load_function(file, "get_sweep")
    with raising_by_line(file):
        sweep = get_sweep(argument)
    if not isinstance(sweep, Sweep):
        raise ConfigError(f"{file}: get_sweep returns {sweep!r}, which is not a Sweep")
    return sweep


def make_config(
    file: str | pathlib.Path, argument: str, values: dict[str, Any] | None = None
) -> Config:
    """Returns the checked config of a config file, with some fields changed.

    Args:
        file: File with a function `get_config`.
        argument: Argument that would follow the colon of `--config`.
        values: Fields by path, such as `train.epochs`.

    Raises:
        ConfigError: The config cannot be run.
    """
    tree = load_function(file, "get_config")(argument)
    tree = tree.to_dict() if isinstance(tree, ConfigDict) else copy.deepcopy(tree)
    if isinstance(tree, dict):
        # checked as a whole: a value may fill a field that the file leaves out
        for path, value in (values or {}).items():
            _put(tree, path, value)
    return resolve(tree)


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    section = tree
    for part in sections:
        check_name("field of the config", part, section)
        parent, section = section, section[part]
        if sections == ["method", "options"] and isinstance(section, tuple):
            # options stay pairs until the file of a user-defined method has run
            parent[part] = (*section, f"{name}={value!r}")
            return
        if not isinstance(section, dict):
            raise ConfigError(f"config.{path}: {part!r} has no fields")
    section[name] = value


def grid(
    file: str | pathlib.Path,
    variants: dict[str, tuple[str, dict[str, Any]]],
    streams: Iterable[str],
    seeds: Iterable[int],
    argument: str = "",
    values: dict[str, Any] | None = None,
) -> tuple[SweepRun, ...]:
    """Returns a run of every variant over every stream under every seed.

    Args:
        file: Config file that all start from.
        variants: Method and values of each variant.
        streams: Orders of the tasks.
        seeds: Seeds; each sets the seeds of order, initial values and data.
        argument: More arguments of the config file.
        values: Fields of all runs.
    """
    runs = []
    # all variants of a seed first: even a sweep that is cut short has complete pairs
    for stream, seed, (variant, (method, own)) in itertools.product(
        streams, seeds, variants.items()
    ):
        more = f"method={method},stream={stream},seed={seed}"
        config = make_config(file, f"{argument},{more}", (values or {}) | own)
        runs.append(SweepRun(variant, stream, seed, config, own))
    return tuple(runs)


def search(
    file: str | pathlib.Path,
    candidates: dict[str, dict[str, dict[str, Any]]],
    argument: str,
    short: str,
    values: dict[str, Any],
    long: dict[str, Any],
) -> Sweep:
    """Returns a run of every candidate of some methods, to choose among them.

    Args:
        file: Config file that all start from.
        candidates: Values of each variant, by method and name of the variant.
        argument: Argument with `smoke`, `methods=` and `seeds=`; several are separated
            by `+`.
        short: Method that `smoke` tries.
        values: Fields of all runs.
        long: Fields of all runs but `smoke`, which has a stream of its own.

    Raises:
        ConfigError: The argument names a method without candidates, or an unknown key.
    """
    variant, pairs = parse_argument(argument)
    smoke = variant == "smoke"
    chosen = {"methods": [short] if smoke else list(candidates), "seeds": ["0"]}
    for key, value in pairs.items():
        check_name("sweep argument", key, chosen)
        chosen[key] = value.split("+")
    for name in chosen["methods"]:
        check_name("method to tune", name, candidates)
    variants = {
        name: (method, own)
        for method in chosen["methods"]
        for name, own in candidates[method].items()
    }
    seeds = [int(seed) for seed in chosen["seeds"]]
    fields = values if smoke else values | long
    runs = grid(file, variants, ["interleaved"], seeds, variant, fields)
    return Sweep(runs, baseline=next(iter(variants)))


def check(sweep: Sweep) -> None:
    """Raises `ConfigError` for a sweep without runs, or with two in one folder."""
    if not sweep.runs:
        raise ConfigError("the sweep has no runs")
    names = [run.name for run in sweep.runs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two runs of the sweep are named {name!r}")


def prepare_workdir(run: SweepRun, folder: pathlib.Path) -> bool:
    """Writes the config of a run where `mmcl_jax.main` finds it.

    Returns:
        Whether the run is unfinished.

    Raises:
        ConfigError: There is a run of another config.
        DataError: Its config cannot be read.
    """
    workdir = folder / run.name
    there = has_config(workdir, run.config)
    if there is False:
        raise ConfigError(
            f"{workdir} was made with another config; remove it or choose another --out"
        )
    if layout.is_finished(workdir):
        return False
    workdir.mkdir(parents=True, exist_ok=True)
    write_config(workdir, run.config)
    return True


def prepare(
    sweep: Sweep, folder: pathlib.Path, console: Console
) -> tuple[list[SweepRun], dict[str, str]]:
    """Writes the configs of the runs that are not finished.

    Args:
        sweep: The runs.
        folder: Folder of all runs.
        console: Console for one line.

    Returns:
        The runs to start, and the errors of runs that cannot be started, by name.

    Raises:
        ConfigError: There are no runs, or two of one name.
    """
    check(sweep)
    todo, failures = [], {}
    for each in sweep.runs:
        try:
            if prepare_workdir(each, folder):
                todo.append(each)
        except (ConfigError, DataError) as error:
            failures[each.name] = str(error)
    total = len(sweep.runs)
    console.print(f"{total} runs, {len(todo)} of them to do", highlight=False)
    return todo, failures


def finished(
    runs: Sequence[SweepRun], folder: pathlib.Path
) -> list[tuple[SweepRun, dict[str, Any]]]:
    """Returns the finished runs, and the content of their `results.json`.

    Args:
        runs: Runs of the sweep.
        folder: Folder of all runs.

    Raises:
        WorkdirError, DataError: A run cannot be read; names the file and the field.
    """
    ended = [run for run in runs if layout.is_finished(folder / run.name)]
    read = [(run, read_results(read_run(folder / run.name))) for run in ended]
    return [(run, results) for run, results in read if results is not None]


def last_line(workdir: pathlib.Path) -> str:
    """Returns the last line that a run of a sweep has printed, "" if there is none."""
    path = workdir / layout.OUTPUT
    if not path.is_file():
        return ""
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
