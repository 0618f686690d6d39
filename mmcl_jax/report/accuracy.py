"""The stream, accuracy matrices and metrics; `metrics` computes every number."""

import math

from mmcl_jax.analysis.measures import METRICS, ROUTE, SPACE, VIEWS
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES
from mmcl_jax.report import tables, theme
from mmcl_jax.report.blocks import (
    Block,
    Card,
    Cards,
    Section,
    Switch,
    Text,
)
from mmcl_jax.report.charts import Label, Matrix, Stop, Timeline, shown, shown_end
from mmcl_jax.report.run_data import Groups, RunData, flat, summary
from mmcl_jax.report.tables import Table

# limits of tasks, and of classes per task, that keep the page small
_STOPS, _CLASSES = 200, 12
_TITLES = {
    "last_average_accuracy": "last average",
    "average_incremental_accuracy": "average incremental",
    "learning_accuracy": "learning accuracy",
    "forgetting_chaudhry": "forgetting",
    "excess_forgetting": "excess forgetting",
    "backward_transfer": "backward transfer",
    "forward_transfer": "forward transfer",
    "transfer_zscl": "transfer (ZSCL)",
    "average_zscl": "average (ZSCL)",
}
# shown if classes return in later tasks
_OF_RETURNS = {
    "forgetting_since_last": "forgetting since the last time",
    "forgetting_before_return": "forgetting before a return",
    "backward_transfer_since_last": "backward transfer since the last time",
    "relearning_gain": "gain of a return",
    "anytime_area": "area under the curve",
}
# shown if all upcoming tasks were evaluated
_OF_ALL_TASKS = ("transfer_zscl", "average_zscl")
# largest number of task orders that are shown
_FEW = 5
_UNITS = "accuracies in percent, differences in points"


def cards(run: RunData) -> Cards:
    """Returns the first numbers of a run."""
    found = run.metrics(SPACE, ROUTE)
    given = run.metrics(SPACE, "given")
    learnt = run.tasks[: run.rows[-1] + 1]
    classes = {name for task in learnt for name in task["classes"]}
    average = _card("last average accuracy", found, given, "last_average_accuracy")
    chance = f"; chance: {tables.percent(1 / len(classes)).text}"
    identified = run.results["modality_identification"]
    return Cards(
        (
            average._replace(note=average.note + chance),
            _card("average incremental", found, given, "average_incremental_accuracy"),
            _card("forgetting", found, given, "forgetting_chaudhry"),
            _card("excess forgetting", found, given, "excess_forgetting"),
            Card(
                "modality identification",
                tables.percent(_float(identified.get("accuracy"))).text,
                "of the test samples",
            ),
        )
    )


def _card(title: str, found: dict, given: dict, name: str) -> Card:
    note = f"modality given: {tables.percent(given[name]).text}"
    return Card(title, tables.percent(found[name]).text, note)


def describe(run: RunData) -> str:
    """Returns a line on what a run learns."""
    listed = ", ".join(map(shown, run.modalities))
    tasks, classes = len(run.tasks), len(run.stream.classes)
    return f"{tasks} tasks, {classes} classes; {listed}"


def stream(groups: Groups) -> Section:
    """Returns the tasks in order, once for each order among the runs."""
    timelines: dict[str, Timeline] = {}
    orders: dict[str, list[str]] = {}
    for name, runs in groups.items():
        for run in runs:
            key = run.stored.hash
            orders.setdefault(key, []).append(name)
            if key not in timelines and len(timelines) < _FEW:
                number = f"-{len(timelines) + 1}" if timelines else ""
                timelines[key] = _timeline(run, f"stream{number}")
    blocks: list[Block] = []
    for key, timeline in timelines.items():
        if len(orders) > 1:
            title = f"{timeline.title}; {len(orders[key])} of the runs"
            timeline = timeline._replace(title=title)
        blocks.append(timeline)
    if len(orders) > len(timelines):
        others = len(orders) - len(timelines)
        blocks.append(Text(f"Task orders that are not shown: {others}."))
    about = "Tasks in the order of learning, with their new classes."
    return Section("stream", "The stream", about, tuple(blocks))


def _timeline(run: RunData, name: str) -> Timeline:
    marks = theme.of_modalities(run.modalities)
    stops = []
    for i, task in enumerate(run.tasks[:_STOPS]):
        classes = [shown(text, 40) for text in task["classes"][:_CLASSES]]
        if more := len(task["classes"]) - len(classes):
            classes.append(f"and {more} more")
        modality = str(task["modality"])
        stops.append(
            Stop(
                i + 1,
                shown(task["name"], 40),
                modality,
                marks[modality].colour,
                tuple(classes),
                i <= run.rows[-1],
            )
        )
    return Timeline(
        name, shown(describe(run), 200), tuple(stops), len(run.tasks) - len(stops)
    )


def matrices(run: RunData) -> Section:
    """Returns the accuracy matrix of every label space and route."""
    marks = theme.of_modalities(run.modalities)
    names = [shown_end(task["name"], 17) for task in run.tasks]
    colours = [marks[str(task["modality"])].colour for task in run.tasks]
    rows = tuple(Label(f"after {row + 1}", colours[row]) for row in run.rows)
    columns = tuple(map(Label, names, colours))
    about = (
        "Accuracy in percent on the test set of each task (columns) after each task "
        "(rows): below the diagonal on earlier tasks; above it on the next task, or on "
        "all to come with config.evaluation.upcoming=all, where their classes can be "
        "answered already (labels task and universe). "
        "Colours of rows and columns mark the modality."
    )
    found = []
    order = sorted(SPACES, key=lambda space: space != SPACE)
    for space in order:
        for route in reversed(ROUTES):
            values = run.accuracy(space, route)[list(run.rows)]
            title = f"Accuracy, {space} labels, modality {route}"
            matrix = Matrix(
                f"accuracy-{space}-{route}",
                title,
                "after task, on test set",
                rows,
                columns,
                tuple(map(tuple, values.tolist())),
            )
            found.append((f"{space}, {route}", matrix))
    return Section(
        "accuracy",
        "Accuracy matrices",
        about,
        (Switch("space", tuple(found)), _metrics_table(run)),
    )


def _metrics_table(run: RunData) -> Table:
    places = [(space, route) for space in SPACES for route in ROUTES]
    # what is counted again here, and what follows from who returns when
    found = {
        (s, r): run.results["metrics"][s][r] | run.metrics(s, r) for s, r in places
    }
    all_scored = flat(run.config).get("evaluation.upcoming") == "all"
    titles = {
        name: title
        for name, title in _TITLES.items()
        if all_scored or name not in _OF_ALL_TASKS
    }
    stored = found[SPACE, ROUTE]
    titles |= {name: title for name, title in _OF_RETURNS.items() if name in stored}
    body = []
    for (space, route), numbers in found.items():
        cells = [tables.percent(_float(numbers[name])) for name in titles]
        body.append((tables.word(space), tables.word(route), *cells))
    head = ("labels", "modality", *titles.values())
    title = f"Metrics of the stream: {_UNITS}"
    return Table("metrics", title, head, tuple(body), 2)


def comparison(groups: Groups) -> Section:
    """Returns a table of all methods with intervals."""
    body = []
    for space, route in VIEWS.values():
        for name, runs in groups.items():
            cells = [
                tables.summarized(summary(runs, space, route, metric))
                for metric in METRICS
            ]
            body.append(
                (
                    tables.word(shown(name)),
                    tables.word(space),
                    tables.word(route),
                    tables.number(len(runs)),
                    *cells,
                )
            )
    head = ("method", "labels", "modality", "n", *METRICS.values())
    title = f"By label space and whether the modality is given: {_UNITS}"
    about = (
        "Mean ± sample standard deviation over runs, each with its own order and "
        "seeds, and the 95 % t interval of the mean. n is the number of runs."
    )
    table = Table("comparison", title, head, tuple(body), 3)
    return Section("comparison", "Methods", about, (table,))


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)
