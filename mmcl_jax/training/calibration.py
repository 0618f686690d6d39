"""What a stage keeps of its training samples: temperatures and novelty quantiles."""

from collections.abc import Callable, Iterator

import numpy as np

from mmcl_jax.evaluation import calibration, novelty
from mmcl_jax.ops import rngs
from mmcl_jax.training.batches import Feed, Records
from mmcl_jax.training.build import Run
from mmcl_jax.training.learner import LearnerState
from mmcl_jax.training.unknowns import Gauge, Watch, gauge
from mmcl_jax.types import Classes, Prediction, PyTree
from mmcl_jax.workdir.results import Results

# predictions of samples; the list receives what the tower gave for them
Predict = Callable[[Records, list[tuple[PyTree, PyTree]]], Iterator[Prediction]]


def calibrate(
    run: Run,
    feed: Feed,
    state: LearnerState,
    classes: Classes,
    index: int,
    predict: Predict,
    results: Results,
) -> Gauge:
    """Fills what a stage keeps into `results`, and returns what measures novelty.

    Temperatures are those of `calibration.temperature` for each route, among the
    classes seen of the modality that is given or predicted; samples of which another
    modality is predicted count for neither. Quantiles are those of the novelty of all
    these samples, by modality.

    Args:
        run: The run.
        feed: Holds the cached queries of the stage.
        state: State after the stage.
        classes: Class slots as seen in the stage.
        index: Index of the stage.
        predict: Predicts samples.
        results: Results that are filled in place.
    """
    stream = run.stream
    order = np.random.default_rng(
        rngs.host_seed(run.config.seeds.data, "calibration", index)
    )
    seen = np.asarray(classes.seen)[: len(stream.classes)]
    of = np.array([stream.modalities.index(slot.modality) for slot in stream.classes])
    met = np.unique(of[seen])
    logits, allowed, samples = [], [], {}
    for name, rows in feed.records(stream.stages[index], "train").items():
        rows = [rows[i] for i in order.permutation(len(rows))[: calibration.SAMPLES]]
        predictions = list(predict({name: rows}, []))
        found = [np.asarray(prediction.logits) for prediction in predictions]
        found = np.concatenate(found, axis=1)[:, : len(rows)]
        logits.append(found[[0, -1]])  # a method without a hint has one route
        scores = [np.asarray(prediction.modality)[-1] for prediction in predictions]
        picked = met[np.concatenate(scores)[: len(rows), met].argmax(-1)]
        given = np.full_like(picked, stream.modalities.index(name))
        allowed.append(seen & (of == np.stack([given, picked])[..., None]))
        label = np.array([row.label for row in rows])
        samples[name] = label, feed.queries(rows), feed.layers(rows), predictions
    logits, allowed = np.concatenate(logits, 1), np.concatenate(allowed, 1)
    label = np.concatenate([own for own, *_ in samples.values()])
    results.temperatures[index] = {}
    for r, route in enumerate(calibration.ROUTES):
        may_win = allowed[r, np.arange(len(label)), label]
        results.temperatures[index][route] = calibration.temperature(
            logits[r, may_win], label[may_win], allowed[r, may_win]
        )
    so_far = calibration.at_snapshot(results.temperatures, index)
    given = so_far[calibration.ROUTES[0]] if so_far else 1.0
    model = run.model
    measure = gauge(run.method, state.memory, classes, model.modalities, given, {})
    results.novelty[index] = {}
    for name, (own, queries, layers, predictions) in samples.items():
        watch = Watch(measure, name)
        for prediction in predictions:
            watch.add(prediction)
        scores = watch.novelty(queries, layers, own)
        if (kept := novelty.quantiles(scores)) is not None:
            results.novelty[index][name] = kept._asdict()
    return measure._replace(kept=novelty.kept_at(results.novelty, index) or {})
