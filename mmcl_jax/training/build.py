"""From a config to everything that a run needs: encoder, stream, model, learner."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from rich.console import Console

from mmcl_jax import config as configs
from mmcl_jax.errors import ConfigError, Faults
from mmcl_jax.methods import registry
from mmcl_jax.methods.base import Common, Method
from mmcl_jax.modalities import BUILT_IN, MODALITIES
from mmcl_jax.modalities.base import InputSpec
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models import pretrained
from mmcl_jax.models.adapters import make_adapter
from mmcl_jax.models.model import Model
from mmcl_jax.models.specs import ConseSpec, EncoderSpec, layer_width, with_trunks
from mmcl_jax.parallel import sharding
from mmcl_jax.streams import kept, loader, plausibility, verification
from mmcl_jax.streams import registry as sources
from mmcl_jax.streams.base import Stream, Task, joint
from mmcl_jax.streams.retirement import retired_after, without_retired_tests
from mmcl_jax.training import (
    capacity,
    class_slots,
    known_tasks,
    learner,
    stems,
    verified_samples,
)
from mmcl_jax.training.known_tasks import KnownTasks
from mmcl_jax.types import Capacity, Classes
from mmcl_jax.workdir.progress import Bar

BUILTIN_ENCODER = pathlib.Path(__file__).parents[1] / "models" / "assets"


class Run(NamedTuple):
    """Everything that does not change during a run.

    Attributes:
        config: The experiment.
        encoder: The frozen encoder; its weights are on the devices.
        stream: The stream to learn.
        model: The encoder as the method sees it.
        make_method: Builds the method around a model.
        method: The method, made for `model`.
        mesh: The devices.
        learner: The compiled functions.
        decoder: Reads and caches samples.
        skipped_samples: Number of samples left out because they cannot be decoded.
        notes: Lines for the log about those, and about duplicate samples.
        class_tokens: See `class_slots.class_tokens`.
        known: Tasks that are known from the workdir; None: those of the config.
    """

    config: configs.Config
    encoder: pretrained.Encoder
    stream: Stream
    model: Model
    make_method: Callable[[Model], Method]
    method: Method
    mesh: jax.sharding.Mesh
    learner: learner.Learner
    decoder: loader.Decoder
    skipped_samples: int
    notes: tuple[str, ...]
    class_tokens: np.ndarray | None
    known: KnownTasks | None = None

    @property
    def unscored(self) -> Collection[int]:
        """Returns the tasks whose test samples are gone."""
        return self.known.unscored if self.known else ()


def load_encoder(
    options: configs.EncoderOptions,
    mesh: jax.sharding.Mesh | None = None,
    layout: sharding.Layout = "replicated",
) -> pretrained.Encoder:
    """Reads the encoder that the config names.

    Args:
        options: Which encoder, and how it computes.
        mesh: Devices that receive each weight as soon as it is read; None keeps the
            weights in float32 on the host.
        layout: Layout of the weights on the mesh.
    """
    whole = []

    def place(path: str, leaf: np.ndarray) -> np.ndarray | jax.Array:
        if mesh is None:
            return leaf
        leaf = leaf.astype(encoders.leaf_dtype(path, options.dtype))
        if not sharding.divides(path, leaf.shape, mesh, layout):
            whole.append(f"{path} {leaf.shape}")
        return sharding.put_weight(path, leaf, mesh, layout)

    encoder = pretrained.load(encoder_name(options), place)
    if mesh and whole:
        logging.warning(
            "a mesh of %s does not divide these weights evenly; they are replicated "
            "along the axes that it does not divide: %s",
            " x ".join(f"{size} {axis}" for axis, size in mesh.shape.items()),
            ", ".join(whole),
        )
    spec = with_trunks(encoder.spec, remat=options.remat, sharded=layout == "sharded")
    return encoder._replace(spec=_with_own_modalities(spec))


def encoder_of(
    config: configs.Config,
    mesh: jax.sharding.Mesh | None = None,
    layout: sharding.Layout = "replicated",
) -> pretrained.Encoder:
    """Reads the encoder of a config, whose adapters act in some of its blocks.

    See `load_encoder`.
    """
    encoder = load_encoder(config.encoder, mesh, layout)
    first = config.method.adapter.first_block
    return encoder._replace(spec=with_trunks(encoder.spec, first_adapted=first))


def _with_own_modalities(spec: EncoderSpec) -> EncoderSpec:
    """Lets the image and text towers read user-defined modalities."""
    read, like = dict(spec.readers), {"visual": "image", "text": "text"}
    own = {
        name: like[kind.tower]
        for name, kind in MODALITIES.items()
        if name not in BUILT_IN and like[kind.tower] in read
    }
    readers = tuple((name, read[other]) for name, other in own.items())
    return dataclasses.replace(spec, readers=spec.readers + readers)


def encoder_name(options: configs.EncoderOptions) -> str:
    """Returns the name that `pretrained` knows an encoder by."""
    return str(BUILTIN_ENCODER) if options.path == "builtin" else options.path


def build_stream(config: configs.Config, faults: Faults | None = None) -> Stream:
    """Returns the stream that the config names, joined if its method requires that.

    Args:
        config: The experiment.
        faults: See `streams.registry.build`.
    """
    seeds = config.seeds
    stream = sources.build(config.stream, seeds.order, seeds.data, faults)
    return joint(stream) if learns_at_once(config) else stream


def learns_at_once(config: configs.Config) -> bool:
    """Returns whether the method learns all tasks in one stage."""
    methods = registry.available(config.method.module)
    return methods[config.method.name].on_joined_stream


def input_shapes(
    inputs: InputSpec, modalities: Sequence[str]
) -> tuple[dict[str, jax.ShapeDtypeStruct], ...]:
    """Returns shapes and dtypes of one preprocessed sample of each modality."""
    return tuple(
        {
            key: jax.ShapeDtypeStruct(*shape_and_dtype)
            for key, shape_and_dtype in MODALITIES[name].shapes(inputs).items()
        }
        for name in modalities
    )


def _check_modalities(encoder: pretrained.Encoder, stream: Stream) -> None:
    read, reserved = dict(encoder.spec.readers), stream.control_sets
    names = dict.fromkeys([*stream.modalities, *(task.modality for task in reserved)])
    if missing := [name for name in names if name not in read]:
        raise ConfigError(
            f"config.encoder.path: the encoder reads {', '.join(read)}; the stream has "
            f"{', '.join(missing)} too. Leave that out of the stream, or add an "
            "encoder for it with '+'"
        )
    style = encoder.inputs.style
    if other := [n for n in names if style not in MODALITIES[n].styles]:
        raise ConfigError(
            f"config.encoder.path: the encoder takes inputs in the style {style!r}, in "
            f"which {', '.join(other)} cannot be prepared; leave that out of the "
            "stream, or choose another encoder"
        )


def build_model(encoder: pretrained.Encoder) -> Model:
    """Returns the encoder's static facts, for all modalities that it reads."""
    style = encoder.inputs.style
    modalities = tuple(
        name for name, _ in encoder.spec.readers if style in MODALITIES[name].styles
    )
    # CLIP clips its logit scale at 100 in training; stored ones may exceed it
    log_scale = min(float(encoder.frozen["log_scale"]), float(np.log(100.0)))
    return Model(
        spec=encoder.spec,
        modalities=modalities,
        logit_scale=float(np.exp(log_scale)),
        input_shapes=stems.decoded_shapes(
            encoder.spec,
            encoder.frozen,
            modalities,
            input_shapes(encoder.inputs, modalities),
        ),
        embed=functools.partial(encoders.embed, encoder.spec),
        embed_layers=functools.partial(encoders.embed_layers, encoder.spec),
    )


def assemble(
    config: configs.Config,
    console: Console,
    mesh: jax.sharding.Mesh | None = None,
    known: KnownTasks | None = None,
) -> Run:
    """Reads the encoder and the data and checks them; writes and compiles nothing.

    Args:
        config: The experiment.
        console: Shows progress.
        mesh: Devices to compute on; None makes the mesh of the config, of all devices.
        known: Tasks that are known from the workdir; None: those of the config.

    Raises:
        ValueError: Something cannot be read or does not fit together; names it.
    """
    stream = known.stream if known else build_stream(config)
    mesh = mesh or sharding.make_mesh(model=config.mesh.model)
    rows, groups = config.train.batch_size, mesh.shape["data"]
    if rows % groups:
        raise ConfigError(
            f"config.train.batch_size: {rows} rows cannot be split evenly over "
            f"{groups} {'devices' if config.mesh.model == 1 else 'groups of devices'}; "
            f"choose a multiple of {groups}"
        )
    encoder = encoder_of(config, mesh, config.mesh.encoder)
    _check_modalities(encoder, stream)
    method = method_of(config)(build_model(encoder))
    if method.drives_tower and config.method.adapter.first_block:
        raise ConfigError(
            "config.method.adapter.first_block: the method runs the tower itself, and "
            "gets inputs that have not passed its first blocks; leave it at 0"
        )
    # what it cannot do with this encoder, it says before data are read
    jax.eval_shape(lambda: method.init(jax.random.key(0), Capacity(1, 1)))
    room = int(config.data.memory_gib * 2**30)
    stem = stems.make_stem(encoder.spec, encoder.frozen)
    decoder = loader.Decoder(encoder.inputs, room, stem)
    failures, notes = {}, []
    if config.data.verify and sources.SOURCES[config.stream.kind].of_files:
        needed = known_tasks.needed(stream, known)
        verified = _verify(decoder, needed, config.data, encoder.inputs, console)
        failures = verified.failures
        stream = verification.without(stream, failures)
        needed = known_tasks.needed(stream, known)
        notes = [f"skipped: {failure}" for failure in failures.values()]
        notes += verification.describe_leaks(verification.leaks(needed))
        notes += plausibility.describe(needed, verified)
    left = without_retired_tests(stream)
    made = compose(config, encoder, left, mesh, decoder, len(failures), tuple(notes))
    if known is None:
        return made
    known = known._replace(stream=stream)
    for i, path in known.kept.items():
        kept.check(path, stream.tasks[i].test, producer(encoder, stream.tasks[i]))
    # what was kept may have no layer features, if an older version did so
    short = {
        i: place
        for i, place in known.featured.items()
        if made.method.needs_inputs
        or kept.features(known.kept[i], len(stream.tasks[i].test)).shape[1]
        != view_width(encoder.spec, made.method, stream.tasks[i].modality)
    }
    featured = {i: p for i, p in known.featured.items() if i not in short}
    known = known._replace(unscored=known.unscored | short, featured=featured)
    return made._replace(known=known, notes=made.notes + known_tasks.notes(known))


def view_width(spec: EncoderSpec, method: Method, modality: str) -> int:
    """Returns the width of the cached views of a sample: query and layer features."""
    if not method.layer_blocks:
        return spec.embedding
    tower = spec.tower(spec.tower_of(modality))
    return spec.embedding + layer_width(tower, method.layer_blocks)


def producer(encoder: pretrained.Encoder, task: Task) -> str:
    """Returns what decides the encoder's inputs and features of a task's samples."""
    version = MODALITIES[task.modality].version(encoder.inputs)
    reader = encoder.spec.reader(encoder.spec.tower_of(task.modality))
    plain = 0 if isinstance(reader, ConseSpec) else reader.trunk.plain_layers
    after = f" after block {plain}" if plain else ""
    return f"{encoder.fingerprint} {version}{after}"


def method_of(config: configs.Config) -> Callable[[Model], Method]:
    """Returns a function that builds the method of a config around a model."""
    chosen = config.method
    entry = registry.available(chosen.module)[chosen.name]
    options = chosen.options_of(entry.options)
    common = Common(
        make_adapter(chosen.adapter),
        chosen.sharing,
        config.train.label_space,
        chosen.adapter.context,
    )
    return lambda model: entry.make(model, options, common)


def compose(
    config: configs.Config,
    encoder: pretrained.Encoder,
    stream: Stream,
    mesh: jax.sharding.Mesh,
    decoder: loader.Decoder,
    skipped_samples: int = 0,
    notes: tuple[str, ...] = (),
) -> Run:
    """Builds model, method and learner from loaded parts; compiles nothing."""
    model, make_method = build_model(encoder), method_of(config)
    compiled = learner.make_learner(
        make_method,
        model,
        config.train.optimizer,
        config.seeds.init,
        mesh,
        config.train.on_nonfinite == "skip_step",
    )
    method = make_method(model)
    return Run(
        config,
        encoder,
        stream,
        model,
        make_method,
        method,
        mesh,
        compiled,
        decoder,
        skipped_samples,
        notes,
        class_slots.class_tokens(config, encoder.inputs, stream),
    )


def _verify(
    decoder: loader.Decoder,
    stream: Stream,
    options: configs.DataOptions,
    inputs: InputSpec,
    console: Console,
) -> verification.Verified:
    """Decodes every sample once, but those that an earlier run has decoded."""
    known = verified_samples.known(stream, inputs) if options.feature_cache else {}
    with Bar(console, "reading every file once", None) as bar:
        verified = verification.verify(
            decoder,
            stream,
            bar.reach,
            threads=options.threads,
            worker_processes=options.worker_processes,
            collect=options.on_error == "skip",
            known=known,
        )
    if options.feature_cache:
        verified_samples.store(stream, inputs, verified)
    return verified


def classes_at(
    run: Run, text: np.ndarray, stage: int, upcoming: bool = False
) -> Classes:
    """Returns the class slots of a stage, on the devices of the run.

    Args:
        run: The run, for its stream and its mesh.
        text: Unit text embeddings `[n d]` of all classes of the stream.
        stage: Index of the stage, counted from 0.
        upcoming: Whether classes of later stages have their names, and there is room
            for all of them; not so where the stage is learnt.
    """
    stream = run.stream
    slots = [[c for i in s for c in stream.tasks[i].classes] for s in stream.stages]
    last = len(slots) - 1 if upcoming else stage
    named = capacity.met_classes(stream, last)
    tokens = run.class_tokens
    if tokens is not None:
        encoder = run.encoder
        tokens = class_slots.cut(tokens[:named], encoder.spec.text, encoder.inputs)
    modalities = [slot.modality for slot in stream.classes[:named]]
    return class_slots.make_classes(
        text[:named],
        [run.model.modalities.index(modality) for modality in modalities],
        seen=sorted(
            set(sum(slots[: stage + 1], [])) - retired_after(stream, stage + 1)
        ),
        of_task=slots[stage],
        mesh=run.mesh,
        tokens=tokens,
        room=capacity.at_stage(stream, last).classes,
    )
