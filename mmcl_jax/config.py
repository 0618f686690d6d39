"""The options of an experiment: frozen dataclasses with the only defaults there are.

Config files build a `ConfigDict` from them, flags override its fields, and `resolve`
turns it back into dataclasses, checking every value before anything expensive starts.
"""

import dataclasses
import functools
import json
import pathlib
import typing
from typing import Annotated, Any, Literal

import ml_collections
from ml_collections import config_dict

from mmcl_jax import plugins
from mmcl_jax.errors import CodeError, ConfigError, DataError
from mmcl_jax.fields import (
    Count,
    NonNegative,
    Seed,
    Sharing,
    build,
    check_name,
    with_defaults,
)
from mmcl_jax.files import expanded, read_json
from mmcl_jax.methods.base import LabelSpace
from mmcl_jax.methods.registry import METHODS, available
from mmcl_jax.models.adapters import ADAPTERS, AdapterOptions
from mmcl_jax.ops.optim import OptimizerOptions
from mmcl_jax.parallel.sharding import Layout
from mmcl_jax.streams import registry
from mmcl_jax.streams.base import ORDERS
from mmcl_jax.streams.data_options import DataOptions
from mmcl_jax.streams.folders import Folders as Folders
from mmcl_jax.streams.manifest import Manifest as Manifest
from mmcl_jax.streams.parquet import Parquet as Parquet
from mmcl_jax.streams.procedural import World as World
from mmcl_jax.streams.tfds import Tfds as Tfds

_OWN_METHOD = (
    "for a method of your own, name its file by config.method.module, as "
    "docs/extending.md says"
)
# texts that hold paths
_Encoders = Annotated[str, functools.partial(expanded, before=r"\+\s*")]
_Branch = Annotated[str, functools.partial(expanded, before="branch:")]


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Separate seeds.

    Attributes:
        order: Seed of the classes that form a task, and of the order of tasks.
        init: Seed of initial values and of every later draw of the method.
        data: Seed of training draws and of their order.
    """

    order: Seed = 0
    init: Seed = 0
    data: Seed = 0


@dataclasses.dataclass(frozen=True)
class EncoderOptions:
    """The frozen encoder, see `docs/encoders.md`.

    Attributes:
        path: Source of the weights: `builtin` for the encoder in the package; a folder,
            a file of weights or `org/name` of a repository; or several of them joined
            by `+`, for different modalities.
        dtype: Data type that the towers compute in; layer norms, softmax, projections
            and everything trained stay float32.
        remat: What the backward pass of a block recomputes to save memory: `nothing`,
            its `attention`, or the whole of `blocks`.
        templates: Sentences with `{}` for the name of a class, whose embeddings are
            averaged; empty: the default templates of each modality.
    """

    path: _Encoders = "builtin"
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["nothing", "attention", "blocks"] = "nothing"
    templates: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class MeshOptions:
    """How arrays are laid out over the devices, see `docs/clusters.md`.

    Except for rounding, results do not depend on it, so a run may resume with another
    layout.

    Attributes:
        model: Number of devices in a group that splits the linear maps of the frozen
            towers and sees the same rows; the groups split the rows of a batch.
        encoder: Whether each group holds the encoder (`replicated`), or all devices
            hold it together and a block is gathered when it is computed (`sharded`).
    """

    model: Count = 1
    encoder: Layout = "replicated"


@dataclasses.dataclass(frozen=True)
class MethodChoice:
    """The method; it reads the section of its own name, if it has one.

    Attributes:
        name: A method of the table in `methods.registry`, or of `METHODS` in `module`.
        module: A Python file with user-defined methods, see `docs/extending.md`; empty:
            none.
        options: Options of a method in `module`: `field=value` for fields of its
            `Options`.
        sharing: Whether all modalities of a tower share what is trained (`shared`), or
            each has its own, chosen by the modality where it is given
            (`per_modality_given`) or always by a router (`per_modality_routed`). Not
            read by `comm`, `comm_plus` and `zero_shot`, which have no choice.
        adapter: What is trained inside the towers; not read by `l2p`, `dualprompt`,
            `coda_prompt` and `diki`, which bring their own.
    """

    name: str = "comm"
    module: str = ""
    options: Any = ()
    sharing: Sharing = "per_modality_given"
    adapter: AdapterOptions = AdapterOptions()

    def options_of(self, kind: type | None) -> Any:
        """Returns the options of the chosen method, an instance of `kind`, or None."""
        if kind is None:
            return None
        return getattr(self, self.name) if self.name in METHODS else self.options


_SECTIONS = {
    name: entry.options for name, entry in METHODS.items() if entry.options is not None
}
# `MethodChoice` with a section for each method of the package that has options
MethodOptions = dataclasses.make_dataclass(
    "MethodOptions",
    [
        (name, options, dataclasses.field(default=options()))
        for name, options in _SECTIONS.items()
    ],
    bases=(MethodChoice,),
    frozen=True,
    namespace={
        "__doc__": "The method; it reads the section of its own name, if it has one."
        "\n\nAttributes:\n"
        + "".join(f"    {name}: Options of `{name}`.\n" for name in _SECTIONS)
    },
)


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """How each task is trained.

    Attributes:
        epochs: Number of passes over a task's samples; 1 where `stream.online` is set.
        batch_size: Number of samples of a step over all devices.
        label_space: Classes that the training loss is over: those of the `task`, those
            seen so far in the sample's modality (`modality_seen`), or all seen so far.
        optimizer: Optimizer of the trained parameters.
        log_every_steps: Number of steps between two lines of `metrics.jsonl`.
        on_nonfinite: What to do about a step whose loss or gradient is not finite:
            `stop` with the state before it, or `skip_step` and count it.
    """

    epochs: Count = 8
    batch_size: Count = 32
    label_space: LabelSpace = "task"
    optimizer: OptimizerOptions = OptimizerOptions()
    log_every_steps: Count = 10
    on_nonfinite: Literal["stop", "skip_step"] = "stop"


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
    """How often state is saved inside a task; each finished task is saved anyway.

    The last two checkpoints are kept; they are written while training continues.

    Attributes:
        every_minutes: Minutes between two checkpoints.
        every_steps: Number of steps after which one is written as well; None: by time
            alone.
    """

    every_minutes: NonNegative = 10.0
    every_steps: Count | None = None


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """What is evaluated, and how predictions are checked.

    Attributes:
        batch_dependence: What to do when a sample is predicted differently in another
            batch: `stop` with an error, or `report` how many in `results.json`, for
            published code that is reproduced with this fault.
        upcoming: Tasks not yet learnt that are evaluated after each stage: those of the
            `next` one, or `all`, which takes longer and which `transfer_zscl` and
            `average_zscl` need.
        keep: What a run keeps of its test samples, to score them when their files are
            gone: where they are (`references`), the frozen encoder's `features`, which
            suffice for methods on frozen features, or also the encoder's `inputs`.
    """

    batch_dependence: Literal["stop", "report"] = "stop"
    upcoming: Literal["next", "all"] = "next"
    keep: Literal["references", "features", "inputs"] = "references"


@dataclasses.dataclass(frozen=True)
class LoggingOptions:
    """Where a run is logged besides its workdir.

    Attributes:
        wandb_project: Project of Weights & Biases; empty: none. `WANDB_MODE=offline`
            keeps everything in the workdir; else it is sent to the server that the
            program is configured for.
    """

    wandb_project: str = ""


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment.

    Attributes:
        stream: Stream of tasks: options of a source, see `streams.registry`.
        seeds: Seeds of everything that is drawn.
        encoder: The frozen encoder.
        mesh: How arrays are laid out over the devices.
        data: How samples are read.
        method: The method that learns the stream.
        train: How each task is trained.
        evaluation: What is evaluated, and how predictions are checked.
        checkpoint: How often state is saved.
        logging: Where the run is logged.
        resume: Empty: a workdir resumes only under the config it was made with;
            `branch:DIR`: a new workdir resumes from the snapshots of another one, whose
            config may differ in everything but the stream.
        report: When `report.html` is written: at the end and after `each_task`, skipped
            while that has taken more than a twentieth of the time; at the `end` alone;
            or never (`off`).
    """

    stream: Any = World()
    seeds: Seeds = Seeds()
    encoder: EncoderOptions = EncoderOptions()
    mesh: MeshOptions = MeshOptions()
    data: DataOptions = DataOptions()
    method: MethodChoice = MethodOptions()
    train: TrainOptions = TrainOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    checkpoint: CheckpointOptions = CheckpointOptions()
    logging: LoggingOptions = LoggingOptions()
    resume: _Branch = ""
    report: Literal["each_task", "end", "off"] = "each_task"


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """Returns what a config file's `get_config` returns: typed, locked fields."""

    def convert(value: Any) -> ml_collections.ConfigDict:
        hints = typing.get_type_hints(type(value))
        result = ml_collections.ConfigDict()
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            if dataclasses.is_dataclass(item):
                result[field.name] = convert(item)
            elif type(None) in typing.get_args(hints[field.name]):
                # of type `object`, since a typed field rejects None or a number
                result[field.name] = config_dict.FieldReference(item, object)
            else:
                result[field.name] = item
        return result

    return convert(config).lock()


def to_json(config: Config) -> str:
    """Returns the resolved config as it is stored in a workdir."""
    return json.dumps(dataclasses.asdict(config), indent=2, sort_keys=True) + "\n"


def resolve(tree: ml_collections.ConfigDict | dict, stored: bool = False) -> Config:
    """Returns the checked config, after running user-defined code that it names.

    Args:
        tree: A `ConfigDict`, or the content of a workdir's `config.json`.
        stored: Whether a run has stored it, so that it may run no code, see `plugins`.

    Raises:
        ConfigError: There is an unknown or missing key, a wrong type, a value out of
            range or an impossible combination; the message begins with the path.
    """
    if isinstance(tree, ml_collections.ConfigDict):
        tree = tree.to_dict()
    if not isinstance(tree, dict):
        raise ConfigError(
            f"config: {tree!r} is no ConfigDict, which get_config must return"
        )
    if stored:
        tree = of_this_version(tree)
    if not isinstance(tree.get("stream"), dict):
        raise ConfigError("config.stream: missing; it defines the tasks to learn")
    kind = tree["stream"].get("kind")
    check_name("config.stream.kind", kind, registry.SOURCES)
    tree, options = plugins.resolve(tree, stored)
    chosen = {
        "config.stream": registry.SOURCES[kind].options,
        "config.method": MethodOptions,
        "config.method.options": options,
    }
    config = build(Config, tree, "config", chosen)
    _check(config)
    if getattr(config.stream, "online", None):
        config = dataclasses.replace(
            config, train=dataclasses.replace(config.train, epochs=1)
        )
    return config


def unread_sections(method: str) -> dict[str, Any]:
    """Returns the defaults of the sections of methods that a method does not read."""
    return {
        name: dataclasses.asdict(options())
        for name, options in _SECTIONS.items()
        if name != method
    }


def of_this_version(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns a stored config with the fields that came after its run.

    A new field's default is what runs did before it, except in a method's own section,
    where a published form may replace another default: what is missing there is named.
    Sections of other methods, which the run never read, may come and go.
    """
    method, stream = tree.get("method"), tree.get("stream")
    if not isinstance(method, dict) or not isinstance(stream, dict):
        return tree
    name = str(method.get("name"))
    read = {name, *(field.name for field in dataclasses.fields(MethodChoice))}
    own = {key: value for key, value in method.items() if key in read}
    chosen = {"config.method": MethodChoice}
    if source := registry.SOURCES.get(stream.get("kind", "")):
        chosen["config.stream"] = source.options
    tree = tree | {"method": own}
    filled = with_defaults(Config, tree, "config", chosen)
    return filled | {"method": unread_sections(name) | filled["method"]}


def load(path: pathlib.Path) -> Config:
    """Returns the checked config that the `config.json` of a workdir holds.

    Raises:
        ConfigError: The file cannot be read or holds no valid config; the message names
            it.
    """
    try:
        return resolve(
            read_json(
                path, "the config of a run; restore it, or start in another folder"
            ),
            stored=True,
        )
    except DataError as error:
        raise ConfigError(str(error)) from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _check(config: Config) -> None:
    stream, method = config.stream, config.method
    if config.resume and not config.resume.removeprefix("branch:"):
        raise ConfigError(
            "config.resume: give the folder, for instance branch:runs/one"
        )
    if config.resume and not config.resume.startswith("branch:"):
        raise ConfigError(f"config.resume: {config.resume!r} is not branch:DIR")
    for i, template in enumerate(config.encoder.templates):
        if template.count("{}") != 1 or template.count("{") != 1:
            raise ConfigError(
                f"config.encoder.templates[{i}]: {template!r} needs one {{}} for the "
                "name of a class, and no other brace"
            )
    try:
        names = available(method.module)
    except CodeError as error:
        raise ConfigError(f"config.method.module: {error}") from error
    own = "" if method.module else _OWN_METHOD
    check_name("config.method.name", method.name, names, own)
    if isinstance(method.options, tuple) and method.options:
        raise ConfigError(
            "config.method.options: only a method in config.method.module whose file "
            "has a class Options reads them"
        )
    check_name("config.method.adapter.kind", method.adapter.kind, ADAPTERS)
    if method.adapter.context is not None and not (
        names[method.name].learns_class_context
    ):
        learners = (
            name for name, entry in METHODS.items() if entry.learns_class_context
        )
        raise ConfigError(
            f"config.method.adapter.context: {method.name!r} embeds class names once; "
            "set it to None, or choose a method that learns words in front of them: "
            f"{', '.join(learners)}"
        )
    check_name("config.stream.order", stream.order, ORDERS)
    if config.data.on_error == "skip" and not config.data.verify:
        raise ConfigError(
            "config.data.on_error: 'skip' needs config.data.verify, which finds the "
            "samples to skip"
        )
    registry.check(stream)
