"""From logits to the accuracy matrix, and what results hold."""

import json
import pathlib

import numpy as np
import pytest

from mmcl_jax.evaluation import label_spaces, metrics
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES
from mmcl_jax.modalities.base import TextReference
from mmcl_jax.streams.base import Stream, TaskDraft, build_stream
from mmcl_jax.training.run_summary import level_of_knowledge
from mmcl_jax.types import Prediction
from mmcl_jax.workdir.predictions import save_predictions
from mmcl_jax.workdir.results import Results, plain
from tests.prompted import model_of


def _stream(*tasks: tuple[str, str], test: int = 2) -> Stream:
    """A task for each modality and class names, of `test` samples a class."""
    drafts = []
    for i, (modality, names) in enumerate(tasks):
        words = names.split()
        samples = [
            tuple(TextReference(word, f"{i}-{part}", row) for row in range(size))
            for part, size in (("train", 1), ("test", test))
            for word in words
        ]
        drafts.append(
            TaskDraft(
                name=f"task {i}",
                modality=modality,
                classes=tuple((word, f"set {i}") for word in words),
                train=tuple(samples[: len(words)]),
                test=tuple(samples[len(words) :]),
            )
        )
    return build_stream(drafts)


# slots 0 1 | 2 3 | 4 5; 0 and 2 are two slots of one name
STREAM = _stream(("image", "star dog"), ("audio", "star bell"), ("image", "cat fox"))


def _predictions(logits, scores=None, batch: int = 4) -> list[Prediction]:
    """Cuts `[routes, n, C]` into batches; rubbish fills the last one up."""
    logits = np.asarray(logits, np.float32)
    scores = np.zeros((*logits.shape[:2], 2)) if scores is None else np.asarray(scores)
    missing = -logits.shape[1] % batch
    padded = [
        np.concatenate([x, np.full((len(x), missing, x.shape[2]), 1e9)], axis=1)
        for x in (logits, scores)
    ]
    total = logits.shape[1] + missing
    return [
        Prediction(*(x[:, start : start + batch] for x in padded))
        for start in range(0, total, batch)
    ]


def _slots(mask: np.ndarray) -> dict[str, list[int]]:
    return {
        s: np.flatnonzero(row).tolist() for s, row in zip(SPACES[:4], mask, strict=True)
    }


def test_label_spaces_hold_the_classes_their_names_say() -> None:
    every = [0, 1, 2, 3, 4, 5]
    assert _slots(label_spaces.allowed_slots(STREAM, 0, [0])) == {
        "task": [0, 1],
        "modality": [0, 1],
        "union": [0, 1],
        "universe": every,
    }
    assert _slots(label_spaces.allowed_slots(STREAM, 0, [0, 1, 2])) == {
        "task": [0, 1],
        "modality": [0, 1, 4, 5],
        "union": every,
        "universe": every,
    }
    assert _slots(label_spaces.allowed_slots(STREAM, 1, [0, 1])) == {
        "task": [2, 3],
        "modality": [2, 3],
        "union": [0, 1, 2, 3],
        "universe": every,
    }


def test_spaces_of_learnt_classes_are_undefined_for_a_task_to_come() -> None:
    assert _slots(label_spaces.allowed_slots(STREAM, 2, [0, 1])) == {
        "task": [4, 5],
        "modality": [],
        "union": [],
        "universe": [0, 1, 2, 3, 4, 5],
    }
    logits = np.zeros((2, 4, 6))
    logits[..., 5] = 1
    got = label_spaces.predict_task(STREAM, 2, [0, 1], _predictions(logits))
    assert np.isnan(got.margin[[1, 2, 4]]).all()
    assert (got.chosen[[1, 2, 4]] == -1).all()
    scores = label_spaces.accuracy(STREAM, got)
    np.testing.assert_array_equal(scores[[0, 3]], 0.5)
    assert np.isnan(scores[[1, 2, 4]]).all()


def test_chosen_slot_and_its_lead_by_hand() -> None:
    # the modality given and predicted differ; labels are 0 0 1 1
    given = [
        [5, 1, 6, 0, 7, 0],
        [2, 3, 0, 0, 0, 9],
        [0, 1, 0, 4, 0, 0],
        [3, 3, 0, 0, 0, 0],
    ]
    predicted = [[0, 1, 0, 0, 0, 0]] * 4
    got = label_spaces.predict_task(
        STREAM, 0, [0, 1, 2], _predictions([given, predicted])
    )
    np.testing.assert_array_equal(got.label, [0, 0, 1, 1])
    chosen = {s: got.chosen[i, 0].tolist() for i, s in enumerate(SPACES)}
    assert chosen == {
        "task": [0, 1, 1, 0],
        "modality": [4, 5, 1, 0],
        "union": [4, 5, 3, 0],
        "universe": [4, 5, 3, 0],
        "routed": [4, 5, 1, 0],
    }
    margin = {s: got.margin[i, 0].tolist() for i, s in enumerate(SPACES)}
    assert margin == {
        "task": [4, 1, 1, 0],
        "modality": [2, 6, 1, 0],
        "union": [1, 6, 3, 0],
        "universe": [1, 6, 3, 0],
        "routed": [2, 6, 1, 0],
    }
    assert (got.chosen[:, 1] == 1).all()
    scores = label_spaces.accuracy(STREAM, got)
    np.testing.assert_allclose(scores[:, 0], [0.5, 0.25, 0, 0, 0.25])
    np.testing.assert_allclose(scores[:, 1], 0.5)


def test_an_equal_name_of_another_data_set_is_right() -> None:
    assert STREAM.classes[0].canonical == STREAM.classes[2].canonical
    logits = np.zeros((2, 4, 6))
    logits[..., 2] = 1  # the other star
    got = label_spaces.predict_task(STREAM, 0, [0, 1], _predictions(logits))
    scores = dict(zip(SPACES, label_spaces.accuracy(STREAM, got)[:, 0], strict=True))
    # two of four samples are stars; among the task's own, all logits are 0: slot 0 wins
    assert scores == dict.fromkeys(SPACES, 0.5)
    assert (got.chosen[SPACES.index("union")] == 2).all()


def test_more_classes_never_help() -> None:
    stream = _stream(
        ("image", "a b"), ("audio", "c d"), ("image", "e f"), ("audio", "g h"), test=40
    )
    assert len({slot.canonical for slot in stream.classes}) == 8
    rng = np.random.default_rng(0)
    for task, seen in ((0, [0, 1, 2]), (1, [0, 1]), (2, [0, 1, 2, 3])):
        logits = rng.normal(size=(2, 80, 8))
        got = label_spaces.predict_task(stream, task, seen, _predictions(logits))
        right = got.chosen == got.label
        for smaller, larger in zip(range(3), range(1, 4), strict=True):
            for route in range(2):
                assert not (right[larger, route] & ~right[smaller, route]).any()
        assert right[0].mean() > right[3].mean()


def test_one_route_serves_a_method_without_hints() -> None:
    logits = np.random.default_rng(0).normal(size=(1, 4, 6))
    got = label_spaces.predict_task(STREAM, 0, [0], _predictions(logits))
    assert got.chosen.shape == (len(SPACES), len(ROUTES), 4)
    np.testing.assert_array_equal(got.chosen[:, 0], got.chosen[:, 1])
    both = np.repeat(logits, 2, axis=0)
    same = label_spaces.predict_task(STREAM, 0, [0], _predictions(both))
    np.testing.assert_array_equal(got.chosen, same.chosen)


@pytest.mark.parametrize("batch", [1, 3, 4, 8])
def test_padding_behind_the_last_sample_is_dropped(batch: int) -> None:
    rng = np.random.default_rng(0)
    logits, scores = rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 4, 2))
    got = label_spaces.predict_task(
        STREAM, 1, [0, 1], _predictions(logits, scores, batch=batch)
    )
    np.testing.assert_array_equal(got.chosen[3], logits.argmax(-1))
    np.testing.assert_array_equal(got.modality, scores[1].argmax(-1))
    np.testing.assert_array_equal(got.id, [row.id for row in STREAM.tasks[1].test])


def test_modality_is_predicted_without_the_hint_among_those_met() -> None:
    hinted, blind = np.array([[9, 0]] * 4), np.array([[0, 1], [1, 0], [0, 1], [2, 1]])
    given = _predictions(np.zeros((2, 4, 6)), [hinted, blind])
    got = label_spaces.predict_task(STREAM, 1, [0, 1], given)
    np.testing.assert_array_equal(got.modality, [1, 0, 1, 0])
    alone = label_spaces.predict_task(STREAM, 0, [0], given)
    np.testing.assert_array_equal(alone.modality, 0)


def test_an_answer_is_a_class_of_the_modality_that_was_predicted() -> None:
    rng = np.random.default_rng(0)
    logits, scores = rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 4, 2))
    got = label_spaces.predict_task(STREAM, 0, [0, 1, 2], _predictions(logits, scores))
    of = np.array([STREAM.modalities.index(slot.modality) for slot in STREAM.classes])
    given, predicted = got.chosen[SPACES.index("routed")]
    np.testing.assert_array_equal(given, got.chosen[SPACES.index("modality"), 0])
    np.testing.assert_array_equal(of[predicted], got.modality)
    assert set(got.modality) == {0, 1}
    # the best of those classes, from the logits of all label spaces
    own = np.where(of == got.modality[:, None], logits[1], -np.inf)
    np.testing.assert_array_equal(predicted, own.argmax(-1))


def test_a_modality_of_which_nothing_is_left_restricts_nothing() -> None:
    allowed = label_spaces.allowed_slots(STREAM, 0, [0, 1])
    allowed[:, 2:4] = False
    found = label_spaces.routed_slots(STREAM, allowed, np.array([0, 1]))
    np.testing.assert_array_equal(found, [allowed[2]] * 2)


def test_an_empty_test_set_has_no_accuracy() -> None:
    stream = _stream(("image", "a b"), ("image", "c d"), test=0)
    got = label_spaces.predict_task(stream, 0, [0], [])
    assert np.isnan(label_spaces.accuracy(stream, got)).all()


def test_zero_shot_accuracy_by_hand() -> None:
    text, queries = np.eye(6), np.eye(6)[[4, 4, 1, 5]]
    labels = np.array([4, 5, 4, 5])
    scores = label_spaces.zero_shot_accuracy(
        STREAM, 2, [], queries, labels, text, np.zeros(4, int)
    )
    # among its own two, the third sample is a tie that the first slot wins
    assert scores[0] == 0.75
    assert scores[3] == 0.5
    assert np.isnan(scores[[1, 2, 4]]).all()


def test_zero_shot_accuracy_falls_as_the_label_space_grows() -> None:
    # both samples look like slot 4 of the image task to come
    text, queries = np.eye(6), np.eye(6)[[4, 4]] + 0.5 * np.eye(6)[[0, 1]]
    labels = np.array([0, 1])
    first, last = (
        label_spaces.zero_shot_accuracy(
            STREAM, 0, seen, queries, labels, text, np.array(modality)
        )
        for seen, modality in (([0], [0, 0]), ([0, 1, 2], [0, 1]))
    )
    np.testing.assert_array_equal(first, [1, 1, 1, 0, 1])
    # among the classes of a wrong modality, no answer is right
    np.testing.assert_array_equal(last, [1, 0, 0, 0, 0])


def test_stored_predictions_are_plain_columns(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    made = {
        task: label_spaces.predict_task(
            STREAM,
            task,
            [0, 1],
            _predictions(rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 4, 2))),
        )
        for task in (0, 1, 2)
    }
    path = tmp_path / "there.npz"
    save_predictions(path, "run", 1, made)
    with np.load(path) as columns:
        stored = dict(columns)
    assert (str(stored.pop("run")), int(stored.pop("stage"))) == ("run", 1)
    expected = {"task", "id", "label", "modality", "novelty", "percentile"} | {
        f"{name}/{space}/{route}"
        for name in ("chosen", "margin")
        for space in SPACES
        for route in ROUTES
    }
    assert stored.keys() == expected
    assert {len(column) for column in stored.values()} == {12}
    for task, predictions in made.items():
        rows = stored["task"] == task
        np.testing.assert_array_equal(stored["label"][rows], predictions.label)
        np.testing.assert_array_equal(stored["modality"][rows], predictions.modality)
        for s, space in enumerate(SPACES):
            for r, route in enumerate(ROUTES):
                column = stored[f"chosen/{space}/{route}"][rows]
                np.testing.assert_array_equal(column, predictions.chosen[s, r])


def test_identification_pairs_true_and_predicted_modalities() -> None:
    scores = np.array([[[0, 1], [1, 0], [1, 0], [1, 0]]] * 2)
    made = {
        task: label_spaces.predict_task(
            STREAM, task, [0, 1], _predictions(np.zeros((2, 4, 6)), scores)
        )
        for task in (0, 1, 2)
    }
    true, predicted = label_spaces.identification(STREAM, made, [0, 1])
    np.testing.assert_array_equal(true, [0] * 4 + [1] * 4)
    np.testing.assert_array_equal(predicted, [1, 0, 0, 0] * 2)
    found = metrics.modality_identification(true, predicted, 2)
    assert (found.accuracy, found.balanced) == (0.5, 0.5)
    assert found.confusion.tolist() == [[3, 1], [3, 1]]


def test_results_survive_their_file() -> None:
    results = Results.start(2)
    results.accuracy[0, 1, 1, 0] = 0.25
    results.identification = {"accuracy": np.float64(0.5), "confusion": np.eye(2)}
    results.count({("train_step", "image"): 1, ("predict", "image"): 9}, {"predict": 2})
    with results.timed("nothing"):
        pass
    text = json.dumps(results.to_json(), allow_nan=False)
    again = Results.from_json(json.loads(text), 2)
    # a run that was extended has more tasks than were stored
    longer = Results.from_json(json.loads(text), 3)
    assert longer.accuracy[0, 1, 1, 0] == 0.25
    assert np.isnan(longer.accuracy[..., 2]).all()
    np.testing.assert_array_equal(again.accuracy, results.accuracy)
    assert np.isnan(again.zero_shot).all()
    assert again.zero_shot.shape == (len(SPACES), 2, 2)
    assert again.compilations == {"image": 1}
    assert again.forwards == {"predict": 2}
    assert again.seconds.keys() == {"nothing"}
    # a resumed run compiles again; the most that one process needed is what counts
    again.count({("train_step", "image"): 1, ("train_step", "video"): 1}, {})
    assert again.compilations == {"image": 1, "video": 1}


def test_plain_knows_no_nan_and_no_arrays() -> None:
    value = {"a": np.array([1.5, np.nan]), "b": (np.int32(3), np.inf), "c": "text"}
    assert plain(value) == {"a": [1.5, None], "b": [3, None], "c": "text"}


@pytest.mark.parametrize(
    ("modalities", "level"),
    [
        (("image", "audio"), "neither: L3"),
        (("text",), "neither: L3"),
        (("image", "text"), "neither: L2 between the towers of image | text"),
        (
            ("image", "text", "video"),
            "L3 among image, video; L2 between the towers of image, video | text",
        ),
    ],
)
def test_level_of_knowledge_depends_on_the_towers(
    modalities: tuple, level: str
) -> None:
    assert level_of_knowledge(model_of(), modalities).endswith(level)
