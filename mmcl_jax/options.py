"""Types of options that carry the values they may have; `config.resolve` checks them.

A choice among names is a `typing.Literal`.
"""

import math
from typing import Annotated, Literal, NamedTuple

Number = float | int


class Range(NamedTuple):
    """The numbers from `low` to `high`; `is_open`: without these two."""

    low: Number
    high: Number = math.inf
    is_open: bool = False

    def complaint(self, value: Number) -> str | None:
        """Returns what is wrong with `value`, or None.

        >>> Range(0, 1).complaint(2)
        '2 is not between 0 and 1'
        """
        low, high, is_open = self
        # NaN fails every comparison
        inside = low < value < high if is_open else low <= value <= high
        if inside:
            return None
        if not math.isinf(high):
            return f"{value} is not between {low} and {high}"
        return (
            f"{value} is not above {low}" if is_open else f"{value} is less than {low}"
        )


Positive = Annotated[float, Range(0, is_open=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Fraction = Annotated[float, Range(0, 1, is_open=True)]
Count = Annotated[int, Range(1)]
NonNegativeInt = Annotated[int, Range(0)]
# JAX takes the lower half of a larger one, so that two of them would be alike
Seed = Annotated[int, Range(0, 2**32 - 1)]

Sharing = Literal["shared", "per_modality_given", "per_modality_routed"]
