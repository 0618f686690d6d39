"""Panels of a page that show nearly the same: one in place of two."""

import math
from collections.abc import Sequence
from typing import Any

from mmcl_jax.report.blocks import Panels
from mmcl_jax.report.charts import Panel

# of shares; often a single test sample of a task
_POINT = 0.01 + 1e-9
_FIRST, _SECOND = "-predicted", "-given"


def merged(block: Panels) -> Panels:
    """Returns panels without those of a given modality that show nothing else.

    A panel is left out if no number of it is more than a point away from that of the
    predicted modality, whose title then says how far they are. Files of figures have
    all panels.
    """
    by_name = {chart.name: chart for chart in block.charts}
    found, left_out = [], set()
    for chart in block.charts:
        other = by_name.get(chart.name.removesuffix(_FIRST) + _SECOND)
        if chart.name.endswith(_FIRST) and other:
            if (most := difference(chart, other)) <= _POINT:
                left_out.add(other.name)
                # rounded up, to a tenth of a point
                tenths = math.ceil(1000 * most - 1e-6)
                unit = "point" if tenths == 10 else "points"
                near = f"within {tenths / 10:g} {unit}" if tenths else "the same"
                chart = chart._replace(title=f"{chart.title}; given: {near}")
        found.append(chart)
    return block._replace(charts=tuple(c for c in found if c.name not in left_out))


def difference(first: Panel, second: Panel) -> float:
    """Returns how far numbers of two charts are apart at most, inf if more differs.

    Numbers of samples and texts must be equal, and what is not defined in one chart
    must not be in the other.
    """
    (_, *rows), (_, *others) = first.rows(), second.rows()
    if len(rows) != len(others):
        return math.inf
    return max(map(_apart, rows, others), default=0.0)


def _apart(row: Sequence[Any], other: Sequence[Any]) -> float:
    if len(row) != len(other):
        return math.inf
    found = 0.0
    for a, b in zip(row, other, strict=True):
        if isinstance(a, float) and isinstance(b, float):
            if math.isnan(a) != math.isnan(b):
                return math.inf
            found = max(found, 0.0 if math.isnan(a) else abs(a - b))
        elif a != b:
            return math.inf
    return found
