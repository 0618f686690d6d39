"""The sweeps that ship: each is whole, and treats methods alike."""

import collections
import functools
import operator
import pathlib
import typing
from typing import Any

import pytest

from mmcl_jax.config import Config, EncoderOptions, MethodOptions, to_json
from mmcl_jax.errors import ConfigError
from mmcl_jax.methods.comm.method import Options as CommOptions
from mmcl_jax.methods.registry import METHODS
from mmcl_jax.models.model import Model
from mmcl_jax.sweeps import runs
from mmcl_jax.training import build
from tests import helpers

WORLD = helpers.REPOSITORY / "configs" / "world.py"


def _shipped(name: str) -> Any:
    return runs.load_function(WORLD.parent / "sweeps" / name, "get_sweep")


@pytest.mark.parametrize("argument", ["", "smoke"])
@pytest.mark.parametrize("path", sorted((WORLD.parent / "sweeps").glob("*.py")))
def test_shipped_sweeps_are_whole(path: pathlib.Path, argument: str) -> None:
    made = _shipped(path.name)(argument)
    runs.check(made)
    assert made.baseline in {run.variant for run in made.runs}
    if argument == "smoke":
        assert len(made.runs) <= 8
        assert all(run.config.train.epochs == 1 for run in made.runs)


def test_sweeps_of_the_package_are_found_from_any_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "configs/sweeps/tuning.py"
    assert len(runs.load_sweep(f"{name}:smoke").runs) == 4
    # a file of one's own goes first
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("def get_sweep(argument): return argument")
    with pytest.raises(ConfigError, match="returns 'mine', which is not a Sweep"):
        runs.load_sweep(f"{name}:mine")


def test_every_method_is_tuned_alike() -> None:
    made = _shipped("tuning.py")("").runs
    tried = collections.defaultdict(set)
    for run in made:
        ((path, value),) = run.values.items()
        tried[run.config.method.name].add((path, value))
        stream = run.config.stream
        assert stream.first_tasks == 2
        assert (stream.concepts, stream.evaluate_on) == ("development", "validation")
    assert {len(values) for values in tried.values()} == {4}
    # a method that is left out, or whose learning rate is not tuned, trains nothing
    for name in METHODS:
        by_rate = {path for path, _ in tried[name]} == {"train.optimizer.learning_rate"}
        assert _trains(name) == by_rate, name


@pytest.mark.parametrize("sweep", ["capacity.py", "label_space.py", "strength.py"])
def test_every_method_has_as_many_values(sweep: str) -> None:
    # a head on the features as they are, and the encoder itself, have no size;
    # `sequential` is over all classes by its part, `rapf` has a label space of its
    # own, and `joint` has all classes at once
    number, methods = {
        "capacity.py": (
            3,
            METHODS.keys()
            - {"zero_shot", "ncm", "ridge", "linear_probe", "slda", "fecam"},
        ),
        "label_space.py": (
            2,
            {name for name in METHODS if _trains(name)}
            - {"sequential", "joint", "rapf"},
        ),
        "strength.py": (3, {"comm", "lwf", "zscl", "wise_ft", "ewc", "derpp", "slca"}),
    }[sweep]
    made = _shipped(sweep)("").runs
    tried = collections.defaultdict(list)
    for run in made:
        tried[run.config.method.name].append(run.values)
        stream = run.config.stream
        assert (stream.concepts, stream.evaluate_on) == ("development", "validation")
        for path, value in run.values.items():
            assert operator.attrgetter(path)(run.config) == value
    assert tried.keys() == methods
    assert {len(values) for values in tried.values()} == {number}
    for name, (first, *_) in tried.items():
        # the values of a method differ in the same fields, and begin at its default
        assert {frozenset(values) for values in tried[name]} == {frozenset(first)}
        default = Config(method=MethodOptions(name=name))
        for path, value in first.items():
            assert operator.attrgetter(path)(default) == value


@functools.cache
def _trains(name: str) -> bool:
    made = runs.make_config(WORLD, f"smoke,method={name}")
    return build.method_of(made)(_model()).trains


@functools.cache
def _model() -> Model:
    encoder = build.load_encoder(EncoderOptions("random:clip_tiny"))
    return build.build_model(encoder)


def test_ablations_change_comm_alone_and_each_something_else() -> None:
    made = _shipped("ablations.py")("").runs
    seen = {}
    for run in made:
        trains = run.variant != "nothing trained"
        assert run.config.method.name == ("comm" if trains else "comm_plus")
        seen[run.variant, run.stream, run.seed] = to_json(run.config)
    assert len(set(seen.values())) == len(seen)
    assert set(collections.Counter(run.variant for run in made).values()) == {5}
    real = _shipped("ablations.py")("root=DATA").runs
    assert [run.name for run in real] == [run.name for run in made]
    for run in real:
        stream = run.config.stream
        assert (stream.root, stream.protocol) == ("DATA", "mmcl_real_development")
        assert stream.evaluate_on == "validation"


def test_ablations_try_every_choice_of_the_main_switches() -> None:
    made = _shipped("ablations.py")("").runs
    for name, hint in typing.get_type_hints(CommOptions).items():
        if typing.get_origin(hint) is typing.Literal:
            tried = {getattr(run.config.method.comm, name) for run in made}
            assert tried == set(typing.get_args(hint)), name


def test_transfer_is_of_the_world_or_of_real_files() -> None:
    world, real = (_shipped("transfer.py")(each).runs for each in ("", "root=DATA"))
    assert [(run.name, run.beside) for run in world] == [
        (run.name, run.beside) for run in real
    ]
    for ours, others in zip(world, real, strict=True):
        shots = int(ours.stream.split()[1])
        assert ours.config.stream.train_per_class == shots
        assert others.config.stream.max_train_per_class == shots
        assert others.config.stream.root == "DATA"
        name = ours.stream.split()[0]
        assert ours.config.stream.transfer == name
        assert others.config.stream.protocol == f"mmcl_real_{name}"
