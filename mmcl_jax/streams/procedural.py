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
from mmcl_jax.streams.world.concepts import DEVELOPMENT, NOVEL, Concept
from mmcl_jax.streams.world.render import VERSION, check_modality, render

DRAWS = 2**20
"""Number of seeds of a part of the data: the test draws of a class start at 0, its
validation draws at `DRAWS // 2`, its training draws under `data_seed` s at
`DRAWS * (s + 1)`."""

Concepts = Literal["novel", "development"]
CONCEPTS = {"novel": NOVEL, "development": DEVELOPMENT}


@dataclasses.dataclass(frozen=True)
class World:
    """A stream of novel concepts of the procedural world.

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
        concepts: Concepts of the benchmark (`novel`), or those on which
            hyper-parameters and the difficulty of the world are chosen
            (`development`).
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
    """

    shape: int
    manner: int
    modality_name: str
    seed: int

    def load(self, modality: Modality, spec: InputSpec) -> Media:
        """Renders the sample; the world does not depend on `spec`."""
        del spec
        if modality.name != self.modality_name:
            raise DataError(f"{self.describe()}: cannot be read as {modality.name}")
        return render(Concept(self.shape, self.manner), self.modality_name, self.seed)

    def describe(self) -> str:
        """Returns for example `world-1:image/spinning star#123`.

        The number after "world" changes whenever what is rendered does.
        """
        name = Concept(self.shape, self.manner).name
        return f"world-{VERSION}:{self.modality_name}/{name}#{self.seed}"

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
    evaluate_on: EvaluateOn = "test",
    first_tasks: int | None = None,
    reserve: str = "",
) -> Stream:
    """Builds a stream of concepts that the built-in encoder was not trained on.

    A concept is a class of one task only, hence of one modality. Modalities take turns
    over the tasks before these are put in order.

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
        evaluate_on: Whether the samples that score are test or validation draws.
        first_tasks: Number of tasks that are kept, in the final order; None: all.
        reserve: Globs of concepts that become control sets, see `streams.reserve`; a
            task without any left is dropped, others are not filled up.

    Returns:
        The stream; training, test and validation samples share no seed.

    Raises:
        ValueError: A number is out of range, a modality or the order is unknown, or
            more concepts are requested than there are.

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
    if tasks * classes_per_task > len(among):
        raise ValueError(
            f"{tasks} tasks of {classes_per_task} classes need "
            f"{tasks * classes_per_task} concepts, but only {len(among)} are {concepts}"
        )
    permutation = np.random.default_rng(order_seed).permutation(len(among))
    first_train = DRAWS * (data_seed + 1)
    first_test = DRAWS // 2 if evaluate_on == "validation" else 0
    drafts = []
    for task in range(tasks):
        modality = modalities[task % len(modalities)]
        chosen = permutation[task * classes_per_task : (task + 1) * classes_per_task]
        own = [among[i] for i in chosen]
        drafts.append(
            TaskDraft(
                name=f"{modality}-{task // len(modalities) + 1}",
                modality=modality,
                classes=tuple((concept.name, "world") for concept in own),
                train=_draws(own, modality, first_train, train_per_class),
                test=_draws(own, modality, first_test, test_per_class),
            )
        )
    learnt, reserved = apart(drafts, reserve)
    stream = build_stream(first(arrange(learnt, order, order_seed), first_tasks))
    return with_reserved(stream, reserved)


def _draws(
    concepts: list[Concept], modality: str, first: int, count: int
) -> tuple[tuple[WorldReference, ...], ...]:
    seeds = range(first, first + count)
    return tuple(
        tuple(WorldReference(*concept, modality, seed) for seed in seeds)
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
    if options.tasks < len(options.modalities):
        raise ConfigError(
            f"config.stream.tasks: {options.tasks} is less than the "
            f"{len(options.modalities)} of config.stream.modalities"
        )


SOURCE = StreamSource(World, build, check=_check_options, of_files=False)
