"""Snapshots and predictions of a run over time; each file is read once."""

import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmcl_jax.errors import DataError
from mmcl_jax.evaluation import metrics
from mmcl_jax.types import PyTree
from mmcl_jax.workdir import layout
from mmcl_jax.workdir.predictions import StoredPredictions, read_predictions
from mmcl_jax.workdir.reading import StoredRun
from mmcl_jax.workdir.states import read_part, sealed

# limit for each path of a snapshot; stored samples and second moments are not read
_MAX_BYTES = 256 * 2**20
_RELEVANCE = "memory/router/mean_relevance"
_GEOMETRY = {
    "count": "memory/layers/count",
    "frozen": "memory/layers/mean",
    "adapted": "memory/adapted/mean",
}
# paths of prompts: those in use, else those that are trained, else all params
_PROMPTS = ("memory/anchor", "params/adapters", "params")


class History:
    """Reads what is new in `snapshots/` and `predictions/` on request.

    Attributes:
        stages: Stages that were read, in order.
        relevance: Mean blend weights `[m m]` by stage; own modality by the others.
        drift: Relative change of each group of prompts since the stage before.
        geometry: Arrays of the newest snapshot by name, as far as the method has them:
            class means of layer features, `frozen [C d]` and `adapted [C d]`, and the
            `count [C]` of their samples.
        just_learnt: Predictions for the samples of each task after the stage that
            learnt it.
        newest: Predictions after the newest stage; None if there is no file.
        absent: Why there is no `relevance`, `drift` or `geometry`, or (`changes`) why
            `just_learnt` lacks a stage.
    """

    def __init__(self, workdir: pathlib.Path) -> None:
        """Reads nothing yet."""
        self._workdir, self._folder = workdir, workdir / layout.SNAPSHOTS
        self._prompts: dict[str, list[np.ndarray]] = {}
        self.stages: list[int] = []
        self.relevance: dict[int, np.ndarray] = {}
        self.drift: dict[int, dict[str, float]] = {}
        self.geometry: dict[str, np.ndarray] = {}
        self.just_learnt: list[StoredPredictions] = []
        self.newest: StoredPredictions | None = None
        self.absent: dict[str, str] = {}

    def follow_predictions(self, run: StoredRun, learnt: int) -> None:
        """Reads the new files of predictions.

        Args:
            run: Run of the workdir.
            learnt: Number of stages learnt by now.

        Raises:
            DataError: The newest file is damaged; earlier ones are `absent`.
        """
        last = learnt - 1
        there = layout.predictions(self._workdir, last).is_file()
        self.newest = (
            read_predictions(run.workdir, run.owner, run.stream, last)
            if there
            else None
        )
        self.absent.pop("changes", None)
        try:
            for stage in range(len(self.just_learnt), learnt):
                known = self.newest if stage == last else None
                found = known or read_predictions(
                    run.workdir, run.owner, run.stream, stage
                )
                own = np.isin(found.task, run.stream.stages[stage])
                self.just_learnt.append(
                    StoredPredictions(*(column[..., own] for column in found))
                )
        except DataError as error:
            self.absent["changes"] = str(error).splitlines()[0]

    def follow(
        self,
        towers: Mapping[str, str],
        modalities: Sequence[str],
        damaged: Mapping[int, str] = types.MappingProxyType({}),
    ) -> None:
        """Reads the new snapshots.

        Args:
            towers: Tower of each modality that the encoder reads, in the order of the
                slots of a state.
            modalities: Modalities of the stream, in its order.
            damaged: What is wrong with snapshots that are not read, by number.
        """
        new = [n for n in sealed(self._folder) if n not in self.stages]
        for number in new:
            newest = number == new[-1]
            try:
                if reason := damaged.get(number):
                    raise DataError(reason)
                self._read(number, towers, modalities, newest)
            except (OSError, ValueError, KeyError, TypeError) as error:
                reason = (str(error).strip() or repr(error)).splitlines()[0]
                name = layout.snapshot(self._workdir, number).relative_to(self._workdir)
                reason = f"{name} cannot be read: {reason}"
                self.absent |= dict.fromkeys(("relevance", "drift", "geometry"), reason)
        if not self.stages and not new:
            reason = "there is no snapshot in the workdir"
            self.absent |= dict.fromkeys(("relevance", "drift", "geometry"), reason)

    def _read(
        self,
        number: int,
        towers: Mapping[str, str],
        modalities: Sequence[str],
        newest: bool,
    ) -> None:
        own = [list(towers).index(name) for name in modalities]
        others = (_RELEVANCE, *(_GEOMETRY.values() if newest else ()))

        def pick(tree: PyTree) -> list[str]:
            prompts = [path for path in _PROMPTS if _at(tree, path)][:1]
            return prompts + [p for p in others if _at(tree, p) is not None]

        tree, left_out = read_part(self._folder, number, pick, _MAX_BYTES)
        self.stages.append(number)
        for part in ("relevance", "drift", "geometry"):
            self.absent.pop(part, None)
        relevance = _at(tree, _RELEVANCE)
        if relevance is not None:
            self.relevance[number] = relevance[np.ix_(own, own)]
        else:
            self.absent["relevance"] = (
                "this method does not blend prompts by relevance: its snapshots lack "
                f"{_RELEVANCE}"
            )
        self._note_drift(number, tree, towers, modalities, left_out)
        if newest:
            named = {name: _at(tree, path) for name, path in _GEOMETRY.items()}
            self.geometry = {k: v for k, v in named.items() if v is not None}
        if not {"count", "frozen"} <= self.geometry.keys():
            self.absent["geometry"] = "this method keeps no class means of them"

    def _note_drift(
        self,
        number: int,
        tree: PyTree,
        towers: Mapping[str, str],
        modalities: Sequence[str],
        left_out: tuple[str, ...],
    ) -> None:
        prompts = next((p for path in _PROMPTS if (p := _at(tree, path))), None)
        if prompts is None:
            self.absent["drift"] = "this method trains no prompts"
            if left_out:
                self.absent["drift"] = (
                    f"the params of this method are larger than {_MAX_BYTES >> 20} MiB"
                )
            return
        groups = _groups(prompts, towers, modalities)
        self.drift[number] = {
            name: metrics.relative_change(self._prompts[name], arrays)
            for name, arrays in groups.items()
            if name in self._prompts
        }
        self._prompts = groups
        if len(self.stages) < 2:
            self.absent["drift"] = "drift needs two snapshots; there is one"


def _at(tree: PyTree, path: str) -> Any:
    """Returns what is at a path of nested dicts, or None."""
    for key in path.split("/"):
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree


def _groups(
    prompts: Mapping[str, PyTree], towers: Mapping[str, str], modalities: Sequence[str]
) -> dict[str, list[np.ndarray]]:
    """Returns the arrays of each modality if a tower has one slot for each, else all.

    Args:
        prompts: Stacks of prompts by tower, or by another key of the method.
        towers: Tower that reads each modality, in the order of the slots.
        modalities: Modalities that are wanted.
    """
    groups: dict[str, list[np.ndarray]] = {}
    for part, tree in prompts.items():
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
        own = [name for name, tower in towers.items() if tower == part]
        slots = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves}
        if own and slots == {len(own)}:
            groups |= {
                name: [leaf[i] for leaf in leaves]
                for i, name in enumerate(own)
                if name in modalities
            }
        else:
            groups[f"all of {part}"] = leaves
    return groups
