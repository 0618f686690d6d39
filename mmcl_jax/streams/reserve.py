"""Classes that are never learnt, and scored after every stage: control sets.

They show what a frozen encoder knew from the start and what is left of it, and they are
unknown to a method at all times. Their class slots and sample ids are not those of the
stream: a method never meets them.
"""

import dataclasses
from collections.abc import Sequence

from mmcl_jax.errors import DataError
from mmcl_jax.streams.base import Stream, TaskDraft, build_stream
from mmcl_jax.streams.class_globs import globs, matches

# of a sample; far beyond those of the tasks, of which more may follow
_FIRST_ID = 2**30


def apart(
    drafts: Sequence[TaskDraft], reserve: str
) -> tuple[list[TaskDraft], list[TaskDraft]]:
    """Divides drafts into what is learnt and what is reserved.

    Args:
        drafts: Tasks that are not cut any more; one without a class left is dropped.
        reserve: Comma-separated globs of classes, see `class_globs`.

    Raises:
        DataError: A glob matches no class, or no class is left to learn.
    """
    wanted, used = globs(reserve), set()
    parts: tuple[list[TaskDraft], list[TaskDraft]] = ([], [])
    for draft in drafts:
        found = []
        for name, dataset in draft.classes:
            path = f"{draft.modality}/{dataset}"
            hits = {glob for glob in wanted if matches(glob, path, name)}
            used |= hits
            found.append(bool(hits))
        for part, of_part in zip(parts, (False, True), strict=True):
            if of_part in found:
                part.append(_some(draft, [hit == of_part for hit in found]))
    if unused := [glob for glob in wanted if glob not in used]:
        raise DataError(
            f"reserve: pattern {unused[0]!r} matches no class; a class is "
            f"{drafts[0].modality}/{drafts[0].classes[0][1]}/{drafts[0].classes[0][0]}"
        )
    if not parts[0]:
        raise DataError(f"reserve={reserve!r} leaves no class to learn")
    return parts


def _some(draft: TaskDraft, keep: Sequence[bool]) -> TaskDraft:
    def kept(items: Sequence) -> tuple:
        return tuple(item for item, wanted in zip(items, keep, strict=True) if wanted)

    return dataclasses.replace(
        draft,
        classes=kept(draft.classes),
        train=kept(draft.train),
        test=kept(draft.test),
    )


def with_reserved(stream: Stream, drafts: Sequence[TaskDraft]) -> Stream:
    """Returns a stream with control sets, one for each modality of the drafts.

    Args:
        stream: The stream that is learnt.
        drafts: Reserved classes with their test samples; training samples are dropped.
    """
    if not drafts:
        return stream
    by_modality: dict[str, list[TaskDraft]] = {}
    for draft in drafts:
        by_modality.setdefault(draft.modality, []).append(draft)
    sets = [
        TaskDraft(
            name=modality,
            modality=modality,
            classes=tuple(c for draft in own for c in draft.classes),
            train=tuple(() for draft in own for _ in draft.classes),
            test=tuple(samples for draft in own for samples in draft.test),
        )
        for modality, own in by_modality.items()
    ]
    reserved = build_stream(sets)
    tasks = tuple(
        dataclasses.replace(
            task, test=tuple(r._replace(id=_FIRST_ID + r.id) for r in task.test)
        )
        for task in reserved.tasks
    )
    reserved = dataclasses.replace(reserved, tasks=tasks)
    return dataclasses.replace(stream, reserved=reserved)
