"""Streams whose classes return: blurry borders of tasks, and tasks in slices.

Every draw has a name: it depends on a seed, a purpose, and the class and task it is
for. So a class or a task that is added at the end changes nothing before it.

References:
    H. Koh, D. Kim, J.-W. Ha, J. Choi, "Online Continual Learning on Class Incremental
    Blurry Task Configuration with Anytime Inference", ICLR 2022, section 3.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mmcl_jax.modalities.base import Reference
from mmcl_jax.ops import rngs
from mmcl_jax.streams.base import TaskDraft, display_name

# a class, by its name and its data set
_Class = tuple[str, str]


def blurry(
    drafts: Sequence[TaskDraft], disjoint_share: float, blurry_share: float, seed: int
) -> list[TaskDraft]:
    """Returns tasks in which some classes return in smaller numbers.

    With probability `1 - disjoint_share` a class is blurry. Then a share
    `blurry_share` of its training samples is taken out of its task. Each later task of
    the modality takes none of what is left of them, with probability 1/2, or else a
    part that is uniform between nothing and all. What is left at the end is not used.

    Deviation: i-Blurry deals these samples to all tasks, also to those before the
    class has its own. Here classes are never met early, so that a stream that is
    extended does not change before its old end.

    Args:
        drafts: Tasks in their order.
        disjoint_share: Probability of a class to be met in its own task alone.
        blurry_share: Share of the samples of other classes that come later.
        seed: Seed of all draws.
    """
    classes = [dict(zip(d.classes, d.train, strict=True)) for d in drafts]
    for home, draft in enumerate(drafts):
        for each in draft.classes:
            name = "/".join((draft.modality, each[1], display_name(each[0]).casefold()))
            rng = _rng(seed, "blurry class", name)
            if rng.random() < disjoint_share:
                continue
            own = classes[home][each]
            order = rng.permutation(len(own))
            cut = len(own) - min(round(blurry_share * len(own)), len(own) - 1)
            classes[home][each] = [own[i] for i in sorted(order[:cut])]
            waiting = [own[i] for i in order[cut:]]
            for later in range(home + 1, len(drafts)):
                if drafts[later].modality == draft.modality:
                    part = _rng(seed, "blurry return", name, drafts[later].name)
                    count = round(max(0.0, 2 * part.random() - 1) * len(waiting))
                    _add(classes[later], each, waiting[:count])
                    waiting = waiting[count:]
    return [_with_train(d, train) for d, train in zip(drafts, classes, strict=True)]


def _add(
    classes: dict[_Class, Sequence[Reference]], each: _Class, more: list[Reference]
) -> None:
    if more:
        classes[each] = [*classes.get(each, ()), *more]


def _with_train(
    draft: TaskDraft, train: dict[_Class, Sequence[Reference]]
) -> TaskDraft:
    """Returns a task with other training samples, perhaps of further classes."""
    test = dict(zip(draft.classes, draft.test, strict=True))
    return dataclasses.replace(
        draft,
        classes=tuple(train),
        train=tuple(train.values()),
        test=tuple(test.get(each, ()) for each in train),
    )


def slices(drafts: Sequence[TaskDraft], size: int, seed: int) -> list[TaskDraft]:
    """Cuts tasks into slices of training samples, in a drawn order.

    A slice is a task of its own, `<name>.<k>`, with the classes of its samples. The
    test samples of a class are in the first slice of the task that has the class, so
    that the accuracy on the test sets so far is that of all classes seen.

    Args:
        drafts: Tasks in their order.
        size: Number of training samples of a slice; the last of a task may have fewer.
        seed: Seed of the order of the samples of a task.
    """
    found = []
    for draft in drafts:
        pairs = [
            (each, reference)
            for each, train in zip(draft.classes, draft.train, strict=True)
            for reference in train
        ]
        order = _rng(seed, "online", draft.name).permutation(len(pairs))
        test = dict(zip(draft.classes, draft.test, strict=True))
        for k, start in enumerate(range(0, len(pairs), size)):
            train: dict[_Class, list[Reference]] = {}
            for i in order[start : start + size]:
                each, reference = pairs[i]
                train.setdefault(each, []).append(reference)
            kept = tuple(each for each in draft.classes if each in train)
            found.append(
                TaskDraft(
                    f"{draft.name}.{k}",
                    draft.modality,
                    kept,
                    tuple(train[each] for each in kept),
                    tuple(test.pop(each, ()) for each in kept),
                )
            )
    return found


def _rng(seed: int, purpose: str, *names: str) -> np.random.Generator:
    return np.random.default_rng(rngs.host_seed(seed, "\0".join((purpose, *names))))
