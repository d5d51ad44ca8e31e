"""What a measurement gives, and the arithmetic on it."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value beside its baseline. ``ratio`` is ours / baseline; a bound of ``None`` is not judged."""

    name: str
    unit: str
    ours: float
    baseline: float | None = None
    baseline_name: str = ""
    at_least: float | None = None
    """The ratio must not be below this."""
    at_most: float | None = None
    """The ratio must not be above this; without a baseline, or with ``judge_value``, the value itself."""
    judge_value: bool = False
    rounds: tuple[float, ...] = field(default_factory=tuple)
    """The ratios, or the values, of the single rounds."""

    @property
    def ratio(self) -> float | None:
        """Ours / baseline."""
        return None if not self.baseline else self.ours / self.baseline

    @property
    def holds(self) -> bool | None:
        """Whether the bounds hold; ``None`` if there are none."""
        if self.at_least is None and self.at_most is None:
            return None
        judged = self.ours if self.ratio is None or self.judge_value else self.ratio
        return (self.at_least is None or judged >= self.at_least) and (self.at_most is None or judged <= self.at_most)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"ratio": self.ratio, "holds": self.holds}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` (0..1) of the values do not exceed. ValueError without values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """``percentile(values, 0.5)``."""
    return percentile(values, 0.5)
