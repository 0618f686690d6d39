"""Short arguments and tuned values of a config."""

import json
import pathlib

import pytest

from mmcl_jax.cli.shorthand import replace_at, with_arguments, with_tuned
from mmcl_jax.config import Config, MethodOptions, World, resolve
from mmcl_jax.errors import ConfigError
from mmcl_jax.methods.registry import METHODS
from tests import helpers

WORLD = helpers.REPOSITORY / "configs" / "world.py"


def test_tuned_values_are_for_their_method_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tuned.json"
    values = {"train.optimizer.learning_rate": 0.5, "method.ridge.regularization": 2.0}
    path.write_text(json.dumps({"chosen": {"ridge": values}}))
    config = Config(method=MethodOptions(name="ridge"))
    tuned = with_tuned(config, path)
    assert tuned.train.optimizer.learning_rate == 0.5
    assert tuned.method.ridge.regularization == 2.0
    other = Config(method=MethodOptions(name="zero_shot"))
    assert with_tuned(other, path) == other
    path.write_text(json.dumps({"chosen": {"ridge": {"train.epoch": 2}}}))
    with pytest.raises(ConfigError, match=r"'epoch' is not one .* mean 'epochs'\?"):
        with_tuned(config, path)


def test_shipped_tuned_values_resolve() -> None:
    chosen = json.loads((WORLD.parent / "tuned.json").read_text())["chosen"]
    assert set(chosen) <= set(METHODS)
    for name in METHODS:
        config = resolve(helpers.get_config(WORLD, f"method={name}"))
        for path, value in chosen.get(name, {}).items():
            at = config
            for field in path.split("."):
                at = getattr(at, field)
            assert at == value


def test_what_is_asked_for_goes_before_what_was_found() -> None:
    config = resolve(helpers.get_config(WORLD, "method=comm,adapter=prefix"))
    assert config.method.adapter.kind == "prefix"
    tuned = json.loads((WORLD.parent / "tuned.json").read_text())["chosen"]["comm"]
    assert tuned["method.adapter.kind"] != "prefix"
    rate = tuned["train.optimizer.learning_rate"]
    assert config.train.optimizer.learning_rate == rate


def test_fields_are_replaced_by_their_path() -> None:
    changed = replace_at(Config(), "stream.tasks", 7)
    assert changed.stream == World(tasks=7)
    assert replace_at(changed, "stream.tasks", 10) == Config()
    for path in ("method.comm.blendd", "seeds.init.x", "nothing"):
        with pytest.raises(ConfigError, match="field of the config"):
            replace_at(Config(), path, 1)


def test_arguments_change_what_they_name() -> None:
    pairs = {"method": "ridge", "stream": "random", "sharing": "shared", "seed": "3"}
    config = with_arguments(Config(), pairs)
    assert (config.method.name, config.method.sharing) == ("ridge", "shared")
    assert config.stream.order == "random"
    assert (config.seeds.order, config.seeds.init, config.seeds.data) == (3, 3, 3)
