"""The novelty of samples under what a method remembers, see `evaluation.novelty`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from mmcl_jax.evaluation import label_spaces, novelty
from mmcl_jax.evaluation.control_sets import ControlPredictions
from mmcl_jax.methods.base import Method
from mmcl_jax.ops.discriminant import oas_shrinkage
from mmcl_jax.ops.gaussians import Gaussians
from mmcl_jax.streams.base import Stream
from mmcl_jax.types import Classes, Prediction, PyTree

# What is compared with the classes; None: nothing, logits are read.
View = Literal["layers", "queries"] | None

# one program, where each of its twenty operations would have had its own
_shrinkage = jax.jit(oas_shrinkage)


class Gauge(NamedTuple):
    """What novelty is measured by, at one snapshot.

    Attributes:
        view: Features whose Gaussians are remembered; None: the energy is used.
        own: Class slots seen of each modality that has any.
        spreads: Gaussians of each modality; empty if the energy is used.
        temperature: Temperature of the energy.
        kept: Quantiles of each modality.
    """

    view: View
    own: dict[str, Bool[np.ndarray, " C"]]
    spreads: dict[str, novelty.Spread]
    temperature: float
    kept: dict[str, list[novelty.Quantiles]]


def gauge(
    method: Method,
    memory: PyTree,
    classes: Classes,
    modalities: Sequence[str],
    temperature: float,
    kept: dict[str, list[novelty.Quantiles]],
) -> Gauge:
    """Returns what novelty is measured by.

    Args:
        method: The method.
        memory: What it remembers. Gaussians of all classes, whose covariances are those
            of modalities, are found by their names: `layers` of layer features, which
            count more, as they have kept what the final embedding drops, or else
            `queries` of frozen queries.
        classes: Class slots as seen in the stage.
        modalities: Modalities of the model.
        temperature: Temperature of logits with the modality given.
        kept: Quantiles of each modality.
    """
    seen, modality = np.asarray(classes.seen), np.asarray(classes.modality)
    own = {
        name: slots
        for i, name in enumerate(modalities)
        if (slots := seen & (modality == i)).any()
    }
    known = _remembered(memory, seen.shape, len(modalities))
    if not method.layer_blocks or method.drives_tower:
        known.pop("layers", None)
    for view in ("layers", "queries"):
        if view in known:
            stats = jax.device_get(known[view])
            spreads = {
                name: spread
                for name, slots in own.items()
                if (spread := _spread(stats, modalities.index(name), slots))
            }
            return Gauge(view, own, spreads, temperature, kept)
    return Gauge(None, own, {}, temperature, kept)


def _spread(stats: Gaussians, group: int, own: np.ndarray) -> novelty.Spread | None:
    """Returns the Gaussians, shrunk as the methods that answer by them do."""
    scatter = np.asarray(stats.scatter[group], np.float64)
    count = np.asarray(stats.count)[own].sum()
    # features of a narrower tower are padded with zeros
    width = np.count_nonzero(np.diagonal(scatter))
    share = _shrinkage(*map(np.float32, (scatter, count, max(width, 1))))
    return novelty.spread(stats, group, own, float(share))


def _remembered(
    memory: PyTree, slots: tuple[int, ...], modalities: int
) -> dict[str, Gaussians]:
    """Returns the Gaussians of all classes in a memory, by the names of their entries.

    Those of fewer rows than classes, or of other groups, are not meant.
    """
    leaves = jax.tree_util.tree_leaves_with_path(
        memory, is_leaf=lambda leaf: isinstance(leaf, Gaussians)
    )
    return {
        jax.tree_util.keystr(path[-1:], simple=True): leaf
        for path, leaf in leaves
        if isinstance(leaf, Gaussians)
        and leaf.count.shape == slots
        and len(leaf.scatter) == modalities
    }


class Watch:
    """Measures the novelty of samples of one modality while they are predicted."""

    def __init__(self, gauge: Gauge, modality: str) -> None:
        """Starts with no sample."""
        self._gauge, self._modality = gauge, modality
        self._energies: list[np.ndarray] = []

    def watch(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Passes on the predictions of samples, in order and padded at the end."""
        for prediction in predictions:
            self.add(prediction)
            yield prediction

    def add(self, prediction: Prediction) -> None:
        """Takes the prediction of the next samples into account."""
        own = self._gauge.own.get(self._modality)
        if self._gauge.view is None and own is not None:
            given = np.asarray(prediction.logits)[0]  # with the modality given
            own = own[: given.shape[-1]]  # slots without a class may have been cut off
            at = self._gauge.temperature
            self._energies.append(novelty.energy(given, own, at))

    def scores(
        self,
        queries: Float[np.ndarray, "n d"],
        layers: Float[np.ndarray, "n k"] | None,
    ) -> novelty.Scores:
        """Returns novelty and percentiles of the samples, as they are stored.

        Arguments are those of `novelty`.
        """
        found = self.novelty(queries, layers)
        shares = novelty.percentile(self._gauge.kept.get(self._modality, []), found)
        return novelty.Scores(found.astype(np.float32), shares.astype(np.float32))

    def novelty(
        self,
        queries: Float[np.ndarray, "n d"],
        layers: Float[np.ndarray, "n k"] | None,
        label: np.ndarray | None = None,
    ) -> Float[np.ndarray, " n"]:
        """Returns the novelty of the samples.

        Args:
            queries: Their frozen queries.
            layers: Their frozen layer features; None: the method has none.
            label: Their class slots, if the Gaussians are of these samples too.

        Returns:
            Distances, or energies of the predictions that were watched; NaN if nothing
            of the modality has been learnt.
        """
        view, total = self._gauge.view, len(queries)
        if not total or self._modality not in self._gauge.own:
            return np.full(total, np.nan)
        if view is None:
            return np.concatenate(self._energies)[:total]
        spread = self._gauge.spreads.get(self._modality)
        if spread is None:
            return np.full(total, np.nan)
        seen = queries if view == "queries" or layers is None else layers
        # those of a narrower tower are padded with zeros
        seen = np.pad(seen, ((0, 0), (0, len(spread.centre) - seen.shape[1])))
        return novelty.distance(spread, seen, label)


def of_stage(
    stream: Stream,
    index: int,
    by_task: label_spaces.ByTask,
    controls: ControlPredictions | None,
) -> dict[str, Any]:
    """Returns how well the unknown is told apart, see `novelty.of_stage`."""
    seen = [task for stage in stream.stages[: index + 1] for task in stage]
    task = np.concatenate([np.full(len(p.id), i) for i, p in by_task.items()])
    label, *scores = (
        np.concatenate([getattr(p, name) for p in by_task.values()])
        for name in ("label", *novelty.Scores._fields)
    )
    told = novelty.Scores(*scores)
    return novelty.of_stage(stream, seen, task, label, told, controls)
