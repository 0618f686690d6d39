"""Configs: what ships resolves, what is wrong is named, flags reach every field."""

import dataclasses
import json
import pathlib
import re
import sys
import typing
from collections.abc import Callable

import ml_collections
import pytest
from absl import flags
from ml_collections import config_flags

from mmcl_jax import config as configs
from mmcl_jax.cli import command_line  # noqa: F401  says how flags of lists are parsed
from mmcl_jax.config import Config, EncoderOptions, Folders, resolve, to_config_dict
from mmcl_jax.errors import ConfigError
from tests import helpers

# how ml_collections imports config files
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

FOLDER = helpers.REPOSITORY / "configs"
FILES = sorted(path.name for path in FOLDER.glob("*.py"))
EXPERIMENTS = [name for name in FILES if name != "pretrain.py"]


def _get_config(name: str, argument: str) -> ml_collections.ConfigDict:
    return helpers.get_config(FOLDER / name, argument)


def _flags(*overrides: str, file: str = "demo.py") -> ml_collections.ConfigDict:
    """What the command line makes of a config file and some flags."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", values)
    argv = ["main", f"--config={FOLDER / file}", *overrides]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        values(argv)
    return values.config


def _changed(path: str, value: object, config: Config | None = None) -> dict:
    """A valid config, as stored in a workdir, with one field changed."""
    tree = json.loads(configs.to_json(config or Config()))
    *sections, name = path.split(".")
    at = tree
    for section in sections:
        at = at[section]
    at[name] = value
    return tree


def _error(tree: dict | ml_collections.ConfigDict) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(tree)
    return str(caught.value)


@pytest.mark.parametrize("value", [10**400, float("inf"), float("nan")])
def test_numbers_are_finite(value: float) -> None:
    for path in ("data.memory_gib", "train.optimizer.learning_rate"):
        assert f"config.{path}: " in _error(_changed(path, value))


def test_skipping_needs_verification() -> None:
    tree = _changed("data.on_error", "skip")
    assert resolve(tree).data.on_error == "skip"
    tree["data"]["verify"] = False
    assert _error(tree).startswith("config.data.on_error: 'skip' needs")
    assert "did you mean 'skip'?" in _error(_changed("data.on_error", "skipp"))


# what ships


def test_there_are_configs() -> None:
    assert {"demo.py", "folders.py"} <= set(EXPERIMENTS)


@pytest.mark.parametrize("argument", ["", "smoke"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_shipped_configs_resolve(name: str, argument: str) -> None:
    tree = _get_config(name, argument)
    where = {"folders": "root", "manifest": "path", "tfds": "names", "parquet": "paths"}
    if field := where.get(tree.stream.kind):
        assert _error(tree).startswith(f"config.stream.{field}: missing")
        tree.stream[field] = ("data",) if field.endswith("s") else "data"
    config = resolve(tree)
    # what a workdir stores is the same config
    assert resolve(json.loads(configs.to_json(config))) == config


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_smoke_variants_are_smaller(name: str) -> None:
    whole, smoke = (_get_config(name, argument) for argument in ("", "smoke"))
    assert smoke.train.epochs < whole.train.epochs
    fewer = smoke.stream.classes_per_task < whole.stream.classes_per_task
    assert fewer or smoke.stream.first_tasks is not None


@pytest.mark.parametrize("argument", ["", "smoke"])
def test_pretraining_config_builds(argument: str) -> None:
    config = _get_config("pretrain.py", argument)
    assert config.visual_training.steps > 0
    with pytest.raises(ValueError, match="smok"):
        _get_config("pretrain.py", "smok")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_arguments_behind_the_colon(name: str) -> None:
    argument = "smoke, method=ridge, order=random,adapter=low_rank,seed=7"
    tree = _get_config(name, f"{argument},sharing=shared")
    assert tree.train.epochs == 1
    assert (tree.method.name, tree.stream.order) == ("ridge", "random")
    assert tree.method.sharing == "shared"
    assert _get_config(name, "stream=recurring").stream.order == "recurring"
    assert tree.method.adapter.kind == "low_rank"
    assert tree.seeds.to_dict() == {"order": 7, "init": 7, "data": 7}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("smok", "'smok' is not one of smoke; did you mean 'smoke'?"),
        ("metod=comm", "'metod' is not one of .*; did you mean 'method'?"),
        ("seed=one", "seed='one' is not a number"),
        ("seed=-1", "seed='-1' is not a number"),
        ("order=random,order=random", "'order' is given twice"),
        ("order=random,stream=random", "stream= and order= are the same"),
    ],
)
def test_wrong_arguments_are_named(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        _get_config("demo.py", argument)


# what is wrong is named


@pytest.mark.parametrize(
    ("path", "value", "near"),
    [
        ("method.name", "com", "comm"),
        ("method.adapter.kind", "deep_prompt", "deep_prompts"),
        ("method.comm.blend", "sof", "soft"),
        ("method.comm.aggregation", "running", "running_mean"),
        ("method.comm.aggregation", "lates", "latest"),
        ("method.comm.realignment", "view", "views"),
        ("train.label_space", "all_sen", "all_seen"),
        ("stream.order", "interleave", "interleaved"),
        ("stream.concepts", "novle", "novel"),
        ("stream.evaluate_on", "validate", "validation"),
        ("stream.kind", "wurld", "world"),
        ("stream.modalities", ["image", "vidoe"], "video"),
    ],
)
def test_unknown_names_get_the_nearest(path: str, value: object, near: str) -> None:
    message = _error(_changed(path, value))
    assert message.startswith(f"config.{path}")
    assert f"did you mean {near!r}?" in message


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("metod", "method"),
        ("train.epoch", "epochs"),
        ("train.optimizer.learning_rates", "learning_rate"),
        ("method.comm.self_wait", "self_weight"),
        ("stream.class_per_task", "classes_per_task"),
    ],
)
def test_unknown_keys_get_the_nearest(path: str, near: str) -> None:
    message = _error(_changed(path, 1))
    assert message.startswith(f"unknown key config.{path}:")
    assert f"did you mean {near!r}?" in message


def _fields(kind: type, path: str) -> typing.Iterator[tuple[str, type]]:
    for name, hint in typing.get_type_hints(kind).items():
        at = f"{path}{name}"
        if dataclasses.is_dataclass(hint):
            yield from _fields(hint, f"{at}.")
        elif at != "stream":
            yield at, hint


@pytest.mark.parametrize("path", [path for path, _ in _fields(Config, "")])
def test_missing_keys_are_named(path: str) -> None:
    tree = _changed(path, None)
    *sections, name = path.split(".")
    at = tree
    for section in sections:
        at = at[section]
    del at[name]
    assert _error(tree) == f"config.{path}: missing"


@pytest.mark.parametrize(("path", "hint"), [*_fields(Config, "")])
def test_wrong_types_are_named(path: str, hint: type) -> None:
    wrong: object = {str: 3, bool: 1}.get(hint, "many")
    message = _error(_changed(path, wrong))
    kind = "one of" if typing.get_origin(hint) is typing.Literal else "of type"
    assert message.startswith(f"config.{path}: {wrong!r} is not {kind} ")


@pytest.mark.parametrize("path", ["train.epochs", "seeds.init"])
@pytest.mark.parametrize("value", [True, 2.5, None, [2]])
def test_whole_numbers_are_whole(path: str, value: object) -> None:
    assert _error(_changed(path, value)).startswith(f"config.{path}: {value!r} is not")


@pytest.mark.parametrize("path", ["method", "train.optimizer", "seeds"])
def test_sections_are_sections(path: str) -> None:
    assert _error(_changed(path, 3)) == f"config.{path}: 3 is not a section"


def test_a_stream_is_needed() -> None:
    assert _error({}).startswith("config.stream: missing")
    assert _error({"stream": "world"}).startswith("config.stream: missing")


NAN = float("nan")
IMPOSSIBLE = [
    ("stream.classes_per_task", 0),
    ("stream.tasks", 0),
    ("stream.tasks", 4),  # of five modalities
    ("stream.train_per_class", 0),
    ("stream.test_per_class", 0),
    ("stream.first_tasks", 0),
    ("stream.modalities", []),
    ("stream.modalities", ["image", "image"]),
    ("seeds.order", -1),
    ("seeds.init", -1),
    ("seeds.data", -1),
    ("data.threads", 0),
    ("data.worker_processes", -1),
    ("data.memory_gib", -0.1),
    ("data.memory_gib", NAN),
    ("method.adapter.length", 0),
    ("method.adapter.layers", 0),
    ("method.adapter.rank", 0),
    ("method.comm.blocks", 0),
    ("method.comm.self_weight", 0.0),
    ("method.comm.self_weight", 1.0),
    ("method.comm.self_regularization", -1.0),
    ("method.comm.residual_share", -0.5),
    ("method.comm_plus.layer_share", 1.1),
    ("method.comm_plus.layer_share", NAN),
    ("method.comm.residual_share", -1e-3),
    ("method.ridge.regularization", -1.0),
    ("method.ridge.regularization", NAN),
    ("train.epochs", 0),
    ("train.batch_size", 0),
    ("train.log_every_steps", 0),
    ("train.optimizer.learning_rate", 0.0),
    ("train.optimizer.learning_rate", NAN),
    ("train.optimizer.weight_decay", -0.1),
    ("train.optimizer.clip_norm", 0.0),
]


@pytest.mark.parametrize(("path", "value"), IMPOSSIBLE)
def test_impossible_values_are_named(path: str, value: object) -> None:
    assert _error(_changed(path, value)).startswith(f"config.{path}")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("stream.root", ""),
        ("stream.max_train_per_class", 0),
        ("stream.test_fraction", 0.0),
        ("stream.test_fraction", 1.0),
        ("stream.validation_fraction", 0.0),
        ("stream.validation_fraction", 1.0),
        ("stream.first_tasks", 0),
        ("stream.classes_per_task", 0),
        ("stream.protocol", "b1"),
        ("stream.scenario", "blury"),
        ("stream.class_order", "seed"),
        ("stream.disjoint_share", 1.5),
        ("stream.blurry_share", -0.1),
        ("stream.online", 0),
    ],
)
def test_impossible_folders_are_named(path: str, value: object) -> None:
    config = Config(stream=Folders(root="data"))
    assert resolve(_changed("seeds.init", 3, config)).stream == config.stream
    assert _error(_changed(path, value, config)).startswith(f"config.{path}")


def test_fields_of_the_other_stream_are_unknown() -> None:
    message = _error(_changed("stream.kind", "folders"))
    assert re.match(
        r"unknown key config\.stream\.(tasks|modalities|clutter|concepts|\w+_class)",
        message,
    )


def test_a_whole_number_will_do_for_any_number() -> None:
    config = resolve(_changed("train.optimizer.learning_rate", 1))
    rate = config.train.optimizer.learning_rate
    assert (rate, type(rate)) == (1.0, float)


# flags


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.epochs=3", 3),
        ("train.optimizer.learning_rate=1e-4", 1e-4),
        ("train.optimizer.learning_rate=1", 1.0),
        ("method.comm.warm_start=False", False),
        ("method.comm.self_regularization=None", None),
        ("method.comm.self_regularization=2", 2.0),
        ("method.comm.self_regularization=0.5", 0.5),
        ("train.optimizer.clip_norm=None", None),
        ("method.adapter.layers=2", 2),
        ("stream.modalities=audio", ("audio",)),
        ("stream.modalities=image,audio", ("image", "audio")),
        ("stream.modalities=image, audio,", ("image", "audio")),
        ("stream.modalities=('image','audio')", ("image", "audio")),
        ("encoder.templates=a {}.,the {}.", ("a {}.", "the {}.")),
        ("encoder.templates='a {}, a pet.'", ("a {}, a pet.",)),
        ("encoder.templates=['a {}, a pet.', 'a {}.']", ("a {}, a pet.", "a {}.")),
    ],
)
def test_flags_reach_fields(override: str, value: object) -> None:
    found = resolve(_flags(f"--config.{override}"))
    for name in override.partition("=")[0].split("."):
        found = getattr(found, name)
    assert (found, type(found)) == (value, type(value))


def test_lists_of_config_files_are_left_as_they_are() -> None:
    templates = ("a photo of a {}, a type of pet.", " the {}. ")
    tree = to_config_dict(Config(encoder=EncoderOptions(templates=templates)))
    assert resolve(tree).encoder.templates == templates
    assert "config.stream.modalities[0]" in _error(
        _changed("stream.modalities", ["image,audio"])
    )


def test_repeated_flags_add_to_a_tuple() -> None:
    config = resolve(
        _flags("--config.stream.modalities=image", "--config.stream.modalities=text")
    )
    assert config.stream.modalities == ("image", "text")


@pytest.mark.parametrize(("flag", "value"), [("5", 5), ("None", None)])
def test_optional_fields_are_set_and_unset(flag: str, value: int | None) -> None:
    tree = _flags(
        "--config.stream.root=there",
        f"--config.stream.max_train_per_class={flag}",
        file="folders.py",
    )
    assert resolve(tree).stream.max_train_per_class == value


@pytest.mark.parametrize("value", ["abc", "[1]", "True"])
def test_optional_fields_keep_their_type(value: str) -> None:
    message = _error(_flags(f"--config.method.comm.self_regularization={value}"))
    assert message.startswith("config.method.comm.self_regularization: ")
    assert message.endswith("is not of type float")


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: setattr(tree.method, "nmae", "comm"),
        lambda tree: setattr(tree.train, "epochs", "many"),
    ],
)
def test_config_files_cannot_set_what_is_not_there(change: Callable) -> None:
    with pytest.raises((AttributeError, KeyError, TypeError)):
        change(to_config_dict(Config()))


def test_json_is_the_whole_config(tmp_path: pathlib.Path) -> None:
    config = Config(stream=Folders(root=str(tmp_path), include="image"))
    tree = json.loads(configs.to_json(config))
    assert tree == json.loads(json.dumps(dataclasses.asdict(config)))
    assert resolve(tree) == config
