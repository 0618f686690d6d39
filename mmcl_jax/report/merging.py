"""Panels of a page that would look alike: one in place of two."""

import math
from collections.abc import Sequence
from typing import Any

from mmcl_jax.report.blocks import Panels
from mmcl_jax.report.charts import Panel

# half a point cannot be seen in a panel
_UNSEEN = 0.005
_FIRST, _SECOND = "-predicted", "-given"
_TITLE = "modality predicted"


def merged(block: Panels) -> Panels:
    """Returns panels without those of a given modality that show nothing else.

    They are left out beside the panel of the predicted modality, whose title says so.
    Files of figures have all of them.
    """
    by_name = {chart.name: chart for chart in block.charts}
    found, left_out = [], set()
    for chart in block.charts:
        other = by_name.get(chart.name.removesuffix(_FIRST) + _SECOND)
        if chart.name.endswith(_FIRST) and other and look_alike(chart, other):
            left_out.add(other.name)
            title = chart.title.replace(_TITLE, f"{_TITLE}; given looks the same")
            chart = chart._replace(title=title)
        found.append(chart)
    return block._replace(charts=tuple(c for c in found if c.name not in left_out))


def look_alike(first: Panel, second: Panel) -> bool:
    """Returns whether two charts of one kind cannot be told apart by eye.

    Their texts are equal, and so are their numbers but for half a point.
    """
    (_, *rows), (_, *others) = first.rows(), second.rows()
    return len(rows) == len(others) and all(map(_alike, rows, others))


def _alike(row: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(row) == len(other) and all(
        math.isnan(a) == math.isnan(b) and not abs(a - b) >= _UNSEEN
        if isinstance(a, float) and isinstance(b, float)
        else a == b
        for a, b in zip(row, other, strict=True)
    )
