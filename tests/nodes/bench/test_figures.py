"""The arithmetic of the benchmark: percentiles, ratios, and whether a bound holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.bench.figures import Figure, median, percentile

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=50)


@given(VALUES, st.floats(0.01, 1))
def test_a_percentile_is_one_of_the_values_and_enough_do_not_exceed_it(values, share):
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values) + 1e-9


def test_percentiles_by_hand():
    assert percentile(range(1, 101), 0.99) == 99
    assert median([3, 1, 2]) == 2
    assert median([1]) == 1
    with pytest.raises(ValueError, match="no values"):
        median([])


@pytest.mark.parametrize(
    ("figure", "ratio", "holds"),
    [
        (Figure("x", "u", 6, 2, at_least=3), 3, True),
        (Figure("x", "u", 5, 2, at_least=3), 2.5, False),
        (Figure("x", "u", 6, 2, at_most=3), 3, True),
        (Figure("x", "u", 7, 2, at_most=3), 3.5, False),
        (Figure("x", "u", 7, 2), 3.5, None),
        (Figure("x", "u", 7, 2, at_most=7, judge_value=True), 3.5, True),
        (Figure("x", "u", 7), None, None),
        (Figure("x", "u", 7, at_most=7), None, True),
        (Figure("x", "u", 7, 0, at_most=6), None, False),
    ],
)
def test_ratios_and_bounds(figure, ratio, holds):
    assert (figure.ratio, figure.holds) == (ratio, holds)
    assert figure.to_json()["holds"] is holds
