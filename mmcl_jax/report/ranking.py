"""Sections that rank several methods, and weigh what they reach against its cost."""

import math
from collections.abc import Mapping

import numpy as np

from mmcl_jax.analysis import statistics
from mmcl_jax.analysis.measures import METRICS, ROUTE, SPACE, cost
from mmcl_jax.report import tables, theme
from mmcl_jax.report.blocks import Key, Panels, Section
from mmcl_jax.report.charts import Pareto, Ranked, Ranks, Spot, shown
from mmcl_jax.report.run_data import Groups
from mmcl_jax.report.tables import Table
from mmcl_jax.report.theme import Mark

RANKS, COSTS = "Ranks", "Accuracy and cost"
_METRIC = "last_average_accuracy"
_ALONE = "it needs finished runs of two methods"
# by key of the cost of a run: name of the chart's files, title, and label of its axis
_AXES = {
    "bytes_remembered": ("bytes", "Against what is remembered", "bytes at the end"),
    "seconds": ("seconds", "Against the time it takes", "seconds of a run"),
}


def ranks(groups: Groups) -> Section:
    """Returns the ranks of all methods, and which of them tests do not tell apart."""
    about = (
        "By last average accuracy, modality predicted, over the finished runs that all "
        "methods have; orders of one seed count once, by their mean. Ticks: the rank "
        "under each seed; marker: their mean. "
    )
    values = _by_seed(_finished(groups))
    if len(values) < 2:
        return Section("ranks", RANKS, about, absent=_ALONE)
    chart = rank_chart(values, theme.of_methods(groups))
    if not chart.methods:
        absent = "no seed and order has a finished run of every method"
        return Section("ranks", RANKS, about, absent=absent)
    about += (
        "Two methods on one line of a group are not told apart by paired t tests of "
        "all pairs of methods, p < 0.05 after Holm's correction; any other two are. "
        "With few seeds, the tests find only large, consistent differences."
        if chart.groups
        else "Of a single seed, no test can tell methods apart."
    )
    body = [
        (
            tables.word(method.text),
            tables.word(chart.groups_of(i) or tables.NONE),
            tables.number(len(method.ranks)),
            tables.number(method.mean, 2),
            tables.number(min(method.ranks), 1),
            tables.number(max(method.ranks), 1),
        )
        for i, method in enumerate(chart.methods)
    ]
    head = ("method", "groups", "seeds", "mean rank", "best", "worst")
    table = Table("ranks-table", "Ranks; 1 is best", head, tuple(body), 2)
    return Section("ranks", RANKS, about, (Panels((chart,), ()), table))


def rank_chart(values: statistics.Values, marks: Mapping[str, Mark]) -> Ranks:
    """Returns the ranks of methods, best mean first.

    Args:
        values: Values of each method, by what identifies a run; more is better.
        marks: Mark of each method.
    """
    found, title = statistics.ranks(values), "Ranks"
    runs = len(next(iter(found.values())))
    if not runs:
        return Ranks("ranks", title, (), ())
    means = {name: float(np.mean(of)) for name, of in found.items()}
    names = sorted(found, key=lambda name: means[name])
    methods = (Ranked(shown(n, 24), marks[n], found[n], means[n]) for n in names)
    different = statistics.distinguished(values)
    groups = statistics.groups_of(names, different) if runs > 1 else []
    rows = (tuple(map(names.index, group)) for group in groups)
    return Ranks("ranks", title, tuple(methods), tuple(rows))


def costs(groups: Groups) -> Section:
    """Returns accuracy against bytes and seconds, with the front of the best methods.

    What was not measured for a method leaves it out of the chart.
    """
    about = (
        "Last average accuracy, modality predicted, against all that a method "
        "remembers at the end and against the seconds of a run without its reports; "
        "means over finished runs, with 95 % t intervals of the accuracy. On the "
        "dashed front are methods that no other one beats in both; it is one of "
        "means, and intervals say how sure it is. Costs are on a logarithmic scale. "
        "Compare seconds of one machine only."
    )
    finished = _finished(groups)
    gains = {
        name: statistics.summary([r.metrics(SPACE, ROUTE)[_METRIC] for r in runs])
        for name, runs in finished.items()
    }
    paid = {
        name: {
            key: float(np.mean([cost(run.results)[key] for run in runs]))
            for key in _AXES
        }
        for name, runs in finished.items()
    }
    marks = theme.of_methods(groups)
    charts = tuple(
        chart for key in _AXES if (chart := pareto_chart(key, gains, paid, marks)).spots
    )
    if len(finished) < 2 or not charts:
        return Section("costs", COSTS, about, absent=_ALONE)
    legend = tuple(Key(shown(name), marks[name]) for name in finished)
    return Section("costs", COSTS, about, (Panels(charts, legend),))


def pareto_chart(
    key: str,
    gains: Mapping[str, statistics.Summary],
    paid: Mapping[str, Mapping[str, float]],
    marks: Mapping[str, Mark],
) -> Pareto:
    """Returns accuracy against one cost.

    Args:
        key: The cost, a key of the cost of a run.
        gains: Accuracy of each method.
        paid: Costs of each method.
        marks: Mark of each method.
    """
    name, title, label = _AXES[key]
    places = {
        method: (paid[method][key], gain.mean)
        for method, gain in gains.items()
        if not math.isnan(paid[method][key] + gain.mean)
    }
    front = undominated(places)
    spots = tuple(
        Spot(
            shown(method, 24),
            marks[method],
            *place,
            gains[method].low,
            gains[method].high,
            method in front,
        )
        for method, place in places.items()
    )
    return Pareto(f"pareto-{name}", title, label, METRICS[_METRIC], spots)


def undominated(places: Mapping[str, tuple[float, float]]) -> set[str]:
    """Returns the names of the Pareto front.

    On it are those for which no other name costs less and gains as much, or gains more
    and costs as little.

    Args:
        places: Cost, of which less is better, and gain, of which more is, by name.

    >>> sorted(undominated({"a": (1, 0.5), "b": (2, 0.5), "c": (3, 0.9)}))
    ['a', 'c']
    """
    return {
        name
        for name, (cost, gain) in places.items()
        if not any(
            c <= cost and g >= gain and (c, g) != (cost, gain)
            for c, g in places.values()
        )
    }


def _finished(groups: Groups) -> Groups:
    """Returns the finished runs of the methods that have any."""
    ended = {name: [r for r in runs if r.finished] for name, runs in groups.items()}
    return {name: runs for name, runs in ended.items() if runs}


def _by_seed(groups: Groups) -> statistics.Values:
    """Returns the accuracy of each method by seeds, over the runs that all have.

    Orders of one seed have the same classes and samples, so they are no independent
    runs for a test.
    """
    found: statistics.Values = {
        name: {
            (run.stored.hash, tuple(sorted(run.seeds.items()))): run.metrics(
                SPACE, ROUTE
            )[_METRIC]
            for run in runs
        }
        for name, runs in groups.items()
    }
    common = statistics.common_runs(found)
    seeds = dict.fromkeys(seeds for _, seeds in common)
    return {
        name: {
            (one,): float(np.mean([of[place] for place in common if place[1] == one]))
            for one in seeds
        }
        for name, of in found.items()
    }
