"""Experience replay."""

import dataclasses
from typing import Literal

from mmcl_jax.fields import Count
from mmcl_jax.methods.base import Common, Method
from mmcl_jax.methods.replay import DEFAULT_BYTES, label_term, with_replay
from mmcl_jax.methods.sequential import sequential
from mmcl_jax.models.model import Model


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of experience replay.

    Attributes:
        modality_bytes: Bytes of the remembered samples of each modality.
        label_space: Classes that the loss of remembered samples is over: those seen so
            far in the sample's modality (`modality_seen`), or all seen so far.
    """

    modality_bytes: Count = DEFAULT_BYTES
    label_space: Literal["modality_seen", "all_seen"] = "all_seen"


def make(model: Model, options: Options, common: Common) -> Method:
    """Returns sequential tuning on the task's samples and as many remembered ones.

    Deviation: the buffer takes a task's samples after its training, where the published
    code offers those of each step, so that a task also rehearses itself. The classes of
    the loss are chosen separately for both halves; with `train.label_space` "all_seen"
    it is one cross-entropy of both, as published.

    References:
        A. Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", 2019.
        L. Caccia et al., "New Insights on Reducing Abrupt Representation Change in
        Online Continual Learning" (ER-ACE), ICLR 2022: label space "task".
    """
    rehearsed = common._replace(label_space=options.label_space)
    return with_replay(
        sequential(model, common),
        model,
        options.modality_bytes,
        terms={"replay": label_term(model, sequential(model, rehearsed))},
        mix=lambda value, replayed: (value + replayed["replay"]) / 2,
    )
