"""The worked examples of docs/metrics.md: their arithmetic, and what the code says."""

import re
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mmcl_jax import config
from mmcl_jax.evaluation import calibration, label_spaces, metrics, returning
from mmcl_jax.modalities.base import TextReference
from mmcl_jax.streams.base import TaskDraft, build_stream
from mmcl_jax.training import build, run_summary
from mmcl_jax.types import Prediction
from mmcl_jax.workdir import results
from tests.readme_test import PAGES, column

PAGE = "docs/metrics.md"
EXAMPLES = PAGES[PAGE].split("\n## Worked examples\n", 1)[1].split("\n## ", 1)[0]
SECTIONS = {part.partition("\n")[0]: part for part in EXAMPLES.split("\n### ")[1:]}
# a row of digits, points, brackets and operators, an equals sign and a number
ARITHMETIC = re.compile(r"([\d.()+*/ -]*\d[\d.()+*/ -]*) = (-?\d*\.?\d+)")


def table(heading: str, *columns: int) -> np.ndarray:
    """Returns columns of numbers of the table below a heading, as rows."""
    return np.array([column(PAGE, f"### {heading}", i) for i in columns], float).T


def said(heading: str) -> dict[str, float]:
    """Returns the results of the bullets of a section, by what stands before them."""
    bullet = r"^- `(\w+)`(.*?):(.*?)(?=\n- |\n\n|\Z)"
    bullets = re.findall(bullet, SECTIONS[heading], re.M | re.S)
    return {
        (name + more).replace("`", ""): float(text.rpartition(" = ")[2])
        for name, more, text in bullets
    }


MATRIX = table("An accuracy matrix", 1, 2, 3)
_RETURN = "Classes that return"
FROZEN = table("An accuracy matrix", 4, 5, 6)


def test_the_arithmetic_is_right() -> None:
    found = ARITHMETIC.findall(EXAMPLES)
    assert len(found) == EXAMPLES.count(" = ") > 20
    for terms, value in found:
        # digits and operators alone, by the pattern
        assert eval(terms) == pytest.approx(float(value), abs=5e-4), terms


@pytest.mark.parametrize("heading", ["An accuracy matrix", "Forgetting"])
def test_metrics_of_the_matrix(heading: str) -> None:
    before = np.append(np.nan, np.diagonal(FROZEN, offset=1))
    more: dict[str, list[Any]] = {
        "forward_transfer": [before],
        "excess_forgetting": [FROZEN],
    }
    for name, value in said(heading).items():
        found = getattr(metrics, name)(MATRIX, *more.get(name, []))
        assert found == pytest.approx(value, abs=5e-4), name


def test_metrics_of_returning_classes() -> None:
    rows = column(PAGE, f"### {_RETURN}", 1)
    train = np.array(rows, int)
    matrix = np.full((5, 5), np.nan)
    for i, j in enumerate((0, 1, 4)):
        cells = column(PAGE, f"### {_RETURN}", 2 + i)
        matrix[:, j] = [float(cell) if cell else np.nan for cell in cells]
    trains = np.zeros((5, 5), bool)
    trains[[0, 3, 1, 2, 4], [0, 0, 1, 1, 4]] = True
    test = np.array([10, 10, 0, 0, 10])
    found = returning.of_course(matrix, returning.Course(trains, train, test))
    shown = {name.split(",")[0]: value for name, value in said(_RETURN).items()}
    assert found.keys() == shown.keys()
    for name, value in shown.items():
        assert found[name] == pytest.approx(value, abs=5e-4), name


def test_every_metric_of_results_has_an_example() -> None:
    shown = said("An accuracy matrix") | said("Forgetting")
    in_results = results.of_stream(MATRIX, FROZEN)
    assert in_results.keys() <= shown.keys()
    for name, value in in_results.items():
        assert value == pytest.approx(shown[name], abs=5e-4), name


def test_every_metric_of_the_module_has_an_example() -> None:
    names = re.findall(r"^\| `(\w+)` \|", PAGES[PAGE].split("## Worked")[0], re.M)
    functions = {name for name in names if hasattr(metrics, name)}
    assert len(functions) >= 15
    headings = {"decomposition", "modality_identification"}  # a section of their own
    for name in functions - headings:
        assert f"- `{name}`" in EXAMPLES, name


def test_two_runs() -> None:
    heading = "With and without another modality"
    with_others, without = table(heading, 1, 2)
    found = metrics.transfer_across_modalities(with_others, without)
    assert said(heading) == {"transfer_across_modalities": pytest.approx(found)}


def test_a_run_on_its_way() -> None:
    for name, value in said("What was not evaluated").items():
        found = getattr(metrics, name)(MATRIX[:2, :2])
        assert found == pytest.approx(value), name
    unfinished = MATRIX.copy()
    unfinished[2] = np.nan
    assert np.isnan(metrics.forgetting_chaudhry(unfinished))
    assert np.isnan(metrics.forgetting_chaudhry(MATRIX[:1, :1]))
    empty = MATRIX.copy()
    empty[:, 1] = np.nan
    assert metrics.last_average_accuracy(empty) == pytest.approx((0.85 + 0.60) / 2)


def test_label_spaces() -> None:
    heading = "### One sample in five label spaces"
    tasks, names = column(PAGE, heading, 0), column(PAGE, heading, 1)
    drafts = []
    for task in dict.fromkeys(tasks):
        own = [n for t, n in zip(tasks, names, strict=True) if t == task]
        sample = tuple((TextReference(n, f"{task} {n}", 0),) for n in own)
        drafts.append(
            TaskDraft(
                name=task,
                modality=task.rpartition(" ")[2],
                classes=tuple((n, "set") for n in own),
                train=sample,
                test=sample,
            )
        )
    stream = build_stream(drafts)
    logits = np.tile(np.array(column(PAGE, heading, 2), np.float32), (2, 2, 1))
    scores = np.zeros((2, 2, len(stream.modalities)), np.float32)
    found = label_spaces.predict_task(
        stream, 0, [0, 1, 2], [Prediction(logits, scores)]
    )
    cat = found.chosen[:, 1, 0]
    chosen = [stream.classes[c].name for c in cat]
    told = re.findall(r"^- `(\w+)`: (\w+), (\w+)$", SECTIONS[heading[4:]], re.M)
    assert [space for space, _, _ in told] == list(label_spaces.SPACES)
    assert [name for _, name, _ in told] == chosen
    assert [right == "right" for *_, right in told] == [c == "cat" for c in chosen]


def test_what_knowing_is_worth() -> None:
    heading = "What knowing the modality is worth"
    (known_own, known_union), (own, union) = table(heading, 1, 2)
    found = metrics.decomposition(known_own, known_union, own, union)
    assert said(heading) == pytest.approx(
        {
            "gap": found.gap,
            "label_confusion, modality given": found.label_confusion[0],
            "label_confusion, modality predicted": found.label_confusion[1],
            "routing, own classes": found.routing[1],
            "routing, all classes": found.routing[0],
        }
    )


def test_telling_modalities_apart() -> None:
    confusion = table("Telling modalities apart", 1, 2).astype(int)
    true, predicted = np.indices(confusion.shape).reshape(2, -1)
    found = metrics.modality_identification(
        np.repeat(true, confusion.ravel()), np.repeat(predicted, confusion.ravel()), 2
    )
    np.testing.assert_array_equal(found.confusion, confusion)
    shown = said("Telling modalities apart")
    assert shown == pytest.approx(
        {"accuracy": found.accuracy, "balanced": found.balanced}, abs=5e-4
    )


def test_probabilities() -> None:
    section = SECTIONS["Probabilities"]
    for temperature in (1, 2):
        log = calibration.log_softmax(
            np.log([[8.0, 2.0, 1.0]]), np.ones((1, 3), bool), temperature
        )
        first, second, third = (f"{p:.3f}"[1:] for p in np.exp(log[0]))
        shown = f"{first}, {second} and {third} at temperature {temperature}"
        assert shown in " ".join(section.split())
    probability, right = table("Probabilities", 0, 1).T
    found = metrics.expected_calibration_error(probability, right > 0)
    assert said("Probabilities") == pytest.approx({"expected_calibration_error": found})


def test_mistakes_drift_and_runs() -> None:
    cat, dog, owl = range(3)
    label, chosen = np.array([cat, cat, dog, owl]), np.array([dog, dog, dog, cat])
    found = metrics.most_confused(label, chosen, np.arange(3), 5)
    assert found == [(cat, dog, 2), (owl, cat, 1)]
    assert metrics.relative_change([np.array([3.0, 4])], [np.array([3.0, 5])]) == 0.2
    assert metrics.mean_and_deviation(np.array([70.0, 72, 74])) == (72.0, 2.0)


def test_trained_parameters() -> None:
    options = config.Config(stream=config.World(tasks=5, classes_per_task=2))
    run = build.assemble(options, Console(quiet=True))
    number = run_summary.sizes(run)["parameters_trained"]
    assert f"= {number}\n" in SECTIONS["Mistakes, drift, runs, cost"]
