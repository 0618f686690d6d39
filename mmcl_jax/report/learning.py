"""The section on training steps: loss, accuracy and gradient norm as they were."""

import math
from collections.abc import Iterator

from mmcl_jax.report import theme
from mmcl_jax.report.blocks import Key, Panels, Section
from mmcl_jax.report.charts import Lines, Series, shown
from mmcl_jax.report.run_data import Groups, RunData
from mmcl_jax.report.theme import Mark

TITLE = "While learning"
# of `metrics.jsonl`: title, and whether it is a share
_CURVES = {
    "loss": ("training loss", False),
    "accuracy": ("accuracy on the batch", True),
    "gradient_norm": ("norm of the gradient", False),
}
_POINTS = 400  # of a curve; of longer ones some are left out
_MARKED = 100  # longest curve with markers


def learning(groups: Groups) -> Section:
    """Returns curves over the training steps of the whole stream.

    Of one run, each modality has its colour; of several methods, each method shows its
    first run.
    """
    about = (
        "Loss, accuracy on the batch and norm of the gradient before it is clipped, "
        "at the training steps that were logged, over the whole stream."
    )
    if len(groups) == 1:
        run = next(iter(groups.values()))[0]
        marks = theme.of_modalities(run.modalities)
        found = [_chart(name, list(_by_modality(run, name, marks))) for name in _CURVES]
    else:
        about += " Of each method, its first run."
        marks = theme.of_methods(groups)
        found = [
            _chart(
                name,
                [
                    _series(g, marks[g], _points(runs[0], name))
                    for g, runs in groups.items()
                ],
            )
            for name in _CURVES
        ]
    charts = tuple(chart for chart in found if any(s.x for s in chart.series))
    legend = tuple(Key(shown(name), mark) for name, mark in marks.items())
    if not charts:
        return Section(
            "learning", TITLE, about, absent="nothing is trained step by step"
        )
    return Section("learning", TITLE, about, (Panels(charts, legend),))


def _points(run: RunData, name: str) -> list[tuple[float, float, int]]:
    """Returns step of the stream, value and stage of each logged step."""
    last: dict[int, int] = {}
    for row in run.steps:
        last[row.stage] = max(last.get(row.stage, 0), row.step)
    before = {s: sum(n for t, n in last.items() if t < s) for s in last}
    found: list[tuple[float, float, int]] = [
        (before[row.stage] + row.step, row.values[name], row.stage)
        for row in run.steps
        if name in row.values
    ]
    return found[:: math.ceil(len(found) / _POINTS) or 1]


def _by_modality(run: RunData, name: str, marks: dict[str, Mark]) -> Iterator[Series]:
    """Yields a curve for each modality, with a gap wherever another one is learnt."""
    stages = [run.tasks[stage[0]]["modality"] for stage in run.stream.stages]
    points = _points(run, name)
    for modality, mark in marks.items():
        own = [(x, y if stages[s] == modality else math.nan, s) for x, y, s in points]
        if any(not math.isnan(y) for _, y, _ in own):
            yield _series(modality, mark, own)


def _series(name: str, mark: Mark, points: list[tuple[float, float, int]]) -> Series:
    xs, ys = tuple(x for x, _, _ in points), tuple(y for _, y, _ in points)
    # without markers, a stage of one logged step would not be seen
    shown_as = mark if len(points) <= _MARKED else mark._replace(marker="")
    return Series(shown(name), shown_as, xs, ys)


def _chart(name: str, series: list[Series]) -> Lines:
    title, is_share = _CURVES[name]
    values = [y for each in series for y in each.y if not math.isnan(y)]
    top = 1.0 if is_share else max(values, default=0.0) or 1.0
    limits = -0.02 * top, 1.02 * top
    return Lines(
        f"learning-{name}",
        title.capitalize(),
        title,
        tuple(series),
        limits,
        "training steps",
        unit="%" if is_share else "",
    )
