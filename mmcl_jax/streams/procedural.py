"""Streams over the procedural world: no files, no download, equal in every run."""

import dataclasses
from typing import Literal

import numpy as np

from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.fields import Count, check_name
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import InputSpec, Media, Modality
from mmcl_jax.streams.base import (
    EvaluateOn,
    Stream,
    StreamSource,
    TaskDraft,
    arrange,
    build_stream,
    first,
)
from mmcl_jax.streams.reserve import apart, with_reserved
from mmcl_jax.streams.transfer import WORLD, WORLD_SAMPLES
from mmcl_jax.streams.world.concepts import BENCHMARK, DEVELOPMENT, NOVEL, Concept
from mmcl_jax.streams.world.render import (
    CLUTTER_VERSION,
    VERSION,
    check_modality,
    render,
    render_cluttered,
)

DRAWS = 2**20
"""Number of seeds of a part of the data: the test draws of a class start at 0, its
validation draws at `DRAWS // 2`, its training draws under `data_seed` s at
`DRAWS * (s + 1)`."""

Concepts = Literal["novel", "benchmark", "development"]
CONCEPTS = {"novel": NOVEL, "benchmark": BENCHMARK, "development": DEVELOPMENT}


@dataclasses.dataclass(frozen=True)
class World:
    """A stream of concepts of the procedural world that the encoder never saw.

    Attributes:
        kind: Name of this kind of stream.
        tasks: Number of tasks, dealt to the modalities in turn; at least one of each.
        classes_per_task: Number of concepts of a task.
        modalities: Modalities that take part.
        order: Order of the tasks: `by_modality`: all of one modality, then all of the
            next; `interleaved`: one of each in turn; `recurring`: two of each in turn;
            `random`.
        train_per_class: Number of training samples of a class.
        test_per_class: Number of test samples of a class.
        concepts: All that the built-in encoder was not trained on (`novel`), those of
            mmcl-world (`benchmark`), or those on which hyper-parameters and its
            difficulty are chosen (`development`), which share neither a shape nor a
            manner with the benchmark's.
        recurring_concepts: Whether the k-th task of every modality has the same
            concepts, so that each is a class in every modality; else each is one class.
        clutter: Whether a sample also holds another concept, more weakly.
        transfer: Two modalities of the stream in an order of their own, such as
            `sounds_after_pictures`, see `streams/transfer.py`; the earlier one has 16
            training samples of a class. Empty: all tasks in `order`.
        evaluate_on: Samples that score: `test` draws or `validation` draws, which do
            not overlap.
        first_tasks: Number of tasks that are kept, in the final order; None: all.
        reserve: Comma-separated globs on `<modality>/world/<concept>`: concepts of
            these tasks that are never learnt, such as `audio`: after every stage they
            are scored among themselves, by modality; empty: none.
    """

    kind: str = "world"
    tasks: Count = 10
    classes_per_task: Count = 5
    modalities: tuple[str, ...] = ("image", "video", "audio", "depth", "text")
    order: str = "interleaved"
    train_per_class: Count = 40
    test_per_class: Count = 20
    concepts: Concepts = "novel"
    recurring_concepts: bool = False
    clutter: bool = False
    transfer: str = ""
    evaluate_on: EvaluateOn = "test"
    first_tasks: Count | None = None
    reserve: str = ""


@dataclasses.dataclass(frozen=True)
class WorldReference:
    """A sample of the procedural world, rendered when it is read.

    Attributes:
        shape: Index into `SHAPES`.
        manner: Index into `MANNERS`.
        modality_name: One of `WORLD_MODALITIES`.
        seed: Seed of everything but the concept.
        clutter: Whether another concept is in the sample, too.
    """

    shape: int
    manner: int
    modality_name: str
    seed: int
    clutter: bool = False

    def load(self, modality: Modality, spec: InputSpec) -> Media:
        """Renders the sample; the world does not depend on `spec`."""
        del spec
        if modality.name != self.modality_name:
            raise DataError(f"{self.describe()}: cannot be read as {modality.name}")
        renderer = render_cluttered if self.clutter else render
        concept = Concept(self.shape, self.manner)
        return renderer(concept, self.modality_name, self.seed)

    def describe(self) -> str:
        """Returns for example `world-1:image/spinning star#123`.

        The number after "world" changes whenever what is rendered does; clutter has
        another one, `world-1.1`.
        """
        name = Concept(self.shape, self.manner).name
        version = f"{VERSION}.{CLUTTER_VERSION}" if self.clutter else VERSION
        return f"world-{version}:{self.modality_name}/{name}#{self.seed}"

    def identity(self) -> str:
        """Returns the description, which determines the sample."""
        return self.describe()


def build(
    *,
    tasks: int,
    classes_per_task: int,
    modalities: tuple[str, ...],
    order: str,
    train_per_class: int,
    test_per_class: int,
    order_seed: int,
    data_seed: int,
    concepts: Concepts = "novel",
    recurring_concepts: bool = False,
    clutter: bool = False,
    transfer: str = "",
    evaluate_on: EvaluateOn = "test",
    first_tasks: int | None = None,
    reserve: str = "",
) -> Stream:
    """Builds a stream of concepts that the built-in encoder was not trained on.

    A concept is a class of one task only, hence of one modality, or of one task of
    every modality. Modalities take turns over the tasks before these are put in order.

    Args:
        tasks: Number of tasks, at least one for each modality.
        classes_per_task: Number of concepts of a task.
        modalities: Names out of `WORLD_MODALITIES`.
        order: One of `mmcl_jax.streams.base.ORDERS`.
        train_per_class: Number of training samples of a class.
        test_per_class: Number of test samples of a class; accuracies are undefined
            for 0.
        order_seed: Seed of the permutations of concepts and tasks.
        data_seed: Seed of the training samples; test samples do not depend on it.
        concepts: Key of `CONCEPTS`: where the classes are taken from.
        recurring_concepts: Whether a concept is a class of every modality.
        clutter: Whether samples hold another concept, too.
        transfer: Key of `transfer.WORLD`, whose tasks are taken in their order in place
            of `order`, the earlier ones with `WORLD_SAMPLES` of a class; empty: none.
        evaluate_on: Whether the samples that score are test or validation draws.
        first_tasks: Number of tasks that are kept, in the final order; None: all.
        reserve: Globs of concepts that become control sets, see `streams.reserve`; a
            task without any left is dropped, others are not filled up.

    Returns:
        The stream; training, test and validation samples share no seed.

    Raises:
        ValueError: A number is out of range, a modality or the order is unknown, more
            concepts are requested than there are, or a task of `transfer` is missing.

    >>> stream = build(
    ...     tasks=4, classes_per_task=2, modalities=("image", "audio"), order="random",
    ...     train_per_class=3, test_per_class=1, order_seed=0, data_seed=0)
    >>> len(stream.classes), len(stream.tasks[0].train)
    (8, 6)
    """
    _check(
        tasks=(tasks, 1, None),
        classes_per_task=(classes_per_task, 1, None),
        train_per_class=(train_per_class, 1, DRAWS),
        test_per_class=(test_per_class, 0, DRAWS // 2),
        order_seed=(order_seed, 0, None),
        data_seed=(data_seed, 0, None),
    )
    for name in modalities:
        check_modality(name)
    if not 0 < len(set(modalities)) == len(modalities) <= tasks:
        raise ValueError(
            f"{tasks} tasks over the modalities {modalities}: expected at least one "
            "modality, each once, and at least one task for each"
        )
    among = CONCEPTS[concepts]
    rounds = -(-tasks // len(modalities))
    needed = (rounds if recurring_concepts else tasks) * classes_per_task
    if needed > len(among):
        raise ValueError(
            f"{tasks} tasks of {classes_per_task} classes need {needed} concepts, but "
            f"only {len(among)} are {concepts} ones"
        )
    permutation = np.random.default_rng(order_seed).permutation(len(among))
    first_train = DRAWS * (data_seed + 1)
    first_test = DRAWS // 2 if evaluate_on == "validation" else 0
    earlier = WORLD[transfer].earlier if transfer else ()
    drafts = []
    for task in range(tasks):
        turn, place = divmod(task, len(modalities))
        name, modality = f"{modalities[place]}-{turn + 1}", modalities[place]
        start = (turn if recurring_concepts else task) * classes_per_task
        own = [among[i] for i in permutation[start : start + classes_per_task]]
        shots = WORLD_SAMPLES if name in earlier else train_per_class
        drafts.append(
            TaskDraft(
                name=name,
                modality=modality,
                classes=tuple((concept.name, "world") for concept in own),
                train=_draws(own, modality, first_train, shots, clutter),
                test=_draws(own, modality, first_test, test_per_class, clutter),
            )
        )
    learnt, reserved = apart(drafts, reserve)
    if transfer:
        ordered = _transferred(learnt, transfer)
    else:
        ordered = arrange(learnt, order, order_seed)
    return with_reserved(build_stream(first(ordered, first_tasks)), reserved)


def _transferred(drafts: list[TaskDraft], transfer: str) -> list[TaskDraft]:
    """Returns the tasks of a stream of two modalities, in its order."""
    known = {draft.name: draft for draft in drafts}
    names = *WORLD[transfer].earlier, *WORLD[transfer].later
    if missing := [name for name in names if name not in known]:
        raise ValueError(
            f"{transfer} needs the tasks {', '.join(names)}, and there is no "
            f"{', '.join(missing)}: give more tasks, the modalities image and audio, "
            "and reserve none of them"
        )
    return [known[name] for name in names]


def _draws(
    concepts: list[Concept], modality: str, first: int, count: int, clutter: bool
) -> tuple[tuple[WorldReference, ...], ...]:
    seeds = range(first, first + count)
    return tuple(
        tuple(WorldReference(*concept, modality, seed, clutter) for seed in seeds)
        for concept in concepts
    )


def _check(**limits: tuple[int, int, int | None]) -> None:
    for name, (value, lowest, highest) in limits.items():
        if value < lowest or (highest is not None and value > highest):
            upper = "" if highest is None else f" and at most {highest}"
            raise ValueError(f"{name} is {value}, expected at least {lowest}{upper}")


def _check_options(options: World) -> None:
    if not options.modalities:
        raise ConfigError("config.stream.modalities: empty; give at least one")
    for i, name in enumerate(options.modalities):
        check_name(f"config.stream.modalities[{i}]", name, MODALITIES)
    if len(set(options.modalities)) < len(options.modalities):
        raise ConfigError("config.stream.modalities: a modality is given twice")
    if options.transfer:
        check_name("config.stream.transfer", options.transfer, WORLD)
        if not options.recurring_concepts:
            raise ConfigError(
                "config.stream.transfer: concepts are not the same in two modalities; "
                "set config.stream.recurring_concepts"
            )
    if options.tasks < len(options.modalities):
        raise ConfigError(
            f"config.stream.tasks: {options.tasks} is less than the "
            f"{len(options.modalities)} of config.stream.modalities"
        )


SOURCE = StreamSource(World, build, check=_check_options, of_files=False)
