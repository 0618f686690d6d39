"""Experience replay."""

import dataclasses
from typing import Literal

from mmcl_jax.fields import Count, Sharing
from mmcl_jax.methods.base import LabelSpace, Method
from mmcl_jax.methods.replay import DEFAULT_BYTES, with_replay
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.models import Model
from mmcl_jax.models.adapters import Adapter


@dataclasses.dataclass(frozen=True)
class ErOptions:
    """Options of experience replay.

    Attributes:
        buffer_bytes: of the remembered samples of all modalities together.
        label_space: classes that the loss of remembered samples is over: those met so
            far in the sample's modality (`modality_seen`), or all met so far.
    """

    buffer_bytes: Count = DEFAULT_BYTES
    label_space: Literal["modality_seen", "all_seen"] = "all_seen"


def er(
    model: Model,
    adapter: Adapter,
    options: ErOptions,
    sharing: Sharing,
    train_label_space: LabelSpace,
) -> Method:
    """Returns sequential tuning on the task's samples and as many remembered ones.

    Deviation: the classes of the loss are chosen apart for both halves; with
    `train.label_space` "all_seen" it is one cross-entropy of both, as published.

    References:
        A. Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", 2019.
        L. Caccia et al., "New Insights on Reducing Abrupt Representation Change in
        Online Continual Learning" (ER-ACE), ICLR 2022: label space "task".
    """
    rehearsed = sequential(model, adapter, sharing, options.label_space)
    return with_replay(
        sequential(model, adapter, sharing, train_label_space),
        model,
        options.buffer_bytes,
        terms={
            "replay": lambda params, context, batch, logits, key: rehearsed.loss(
                params, context, batch, key
            )[0]
        },
        mix=lambda value, replayed: (value + replayed["replay"]) / 2,
    )
