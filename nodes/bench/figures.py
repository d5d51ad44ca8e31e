"""What a measurement gives, and the arithmetic on it."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
    paired: bool = False
    """Whether the ratio is that of the pairs of rounds."""
    ours_rounds: tuple[float, ...] = ()
    """Our value in each round (of a percentile: that of the round's own samples)."""
    baseline_rounds: tuple[float, ...] = ()
    """The baseline's value in each round; they take turns with ours."""

    @property
    def ratio(self) -> float | None:
        """Ours / baseline; with rounds on both sides the median of the rounds' own ratios.

        A machine that slows down in mid-run slows both of a pair, so that ratio moves less than the medians do. It is
        not used for percentiles, whose rounds hold few samples each.
        """
        if not self.baseline:
            return None
        if self.paired and all(self.baseline_rounds):
            return median([a / b for a, b in zip(self.ours_rounds, self.baseline_rounds, strict=True)])
        return self.ours / self.baseline

    @property
    def spread(self) -> float | None:
        """Half the distance between our lowest and highest round, against their median; ``None`` without rounds."""
        middle = median(self.ours_rounds) if self.ours_rounds else 0.0
        return (max(self.ours_rounds) - min(self.ours_rounds)) / 2 / middle if middle else None

    @property
    def holds(self) -> bool | None:
        """Whether the bounds hold; ``None`` if there are none."""
        if self.at_least is None and self.at_most is None:
            return None
        by_value = self.judge_value or self.baseline is None
        judged = self.ours if by_value else self.ratio
        if judged is None:
            return False  # a baseline of 0: something is wrong with the run
        return (self.at_least is None or judged >= self.at_least) and (self.at_most is None or judged <= self.at_most)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"ratio": self.ratio, "spread": self.spread, "holds": self.holds}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` (0..1) of the values do not exceed. ValueError without values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """``percentile(values, 0.5)``."""
    return percentile(values, 0.5)


def from_rounds(
    name: str,
    unit: str,
    ours: Sequence[float],
    baseline: Sequence[float],
    baseline_name: str,
    *,
    at_least: float | None = None,
) -> Figure:
    """One value per round on both sides, in turns: medians, and the ratio of the pairs."""
    assert len(ours) == len(baseline)
    return Figure(
        name,
        unit,
        median(ours),
        median(baseline),
        baseline_name,
        at_least=at_least,
        paired=True,
        ours_rounds=tuple(ours),
        baseline_rounds=tuple(baseline),
    )


def from_samples(
    name: str,
    unit: str,
    share: float,
    ours: Sequence[Sequence[float]],
    baseline: Sequence[Sequence[float]],
    baseline_name: str,
    *,
    at_most: float | None = None,
    judge_value: bool = False,
) -> Figure:
    """Samples per round on both sides, in turns: the percentile of the samples of all rounds together."""
    return Figure(
        name,
        unit,
        percentile([sample for one in ours for sample in one], share),
        percentile([sample for one in baseline for sample in one], share),
        baseline_name,
        at_most=at_most,
        judge_value=judge_value,
        ours_rounds=tuple(percentile(one, share) for one in ours),
        baseline_rounds=tuple(percentile(one, share) for one in baseline),
    )
