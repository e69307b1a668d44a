"""An estimate with the bounds around it."""

from typing import NamedTuple


class Interval(NamedTuple):
    """A figure with what it may lie between: a 95 % interval, unless said otherwise."""

    value: float
    low: float
    high: float
