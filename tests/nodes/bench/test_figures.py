"""The arithmetic of the benchmark: percentiles, ratios, and whether a bound holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.bench.figures import Figure, from_rounds, from_samples, median, percentile

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
        (Figure("x", "u", 7, 0, at_least=3), None, False),
        (Figure("x", "u", 7, 0, at_most=9, judge_value=True), None, True),
    ],
)
def test_ratios_and_bounds(figure, ratio, holds):
    assert (figure.ratio, figure.holds) == (ratio, holds)
    assert figure.to_json()["holds"] is holds


def test_the_ratio_of_rates_is_that_of_the_pairs_so_a_machine_that_slows_down_does_not_move_it():
    figure = from_rounds("x", "u", [100, 10, 50], [200, 20, 100], "b", at_least=0.5)
    assert (figure.ours, figure.baseline, figure.ratio, figure.holds) == (50, 100, 0.5, True)
    assert figure.spread == (100 - 10) / 2 / 50
    uneven = from_rounds("x", "u", [100, 10, 50], [100, 100, 500], "b", at_least=0.5)
    assert (uneven.ours / uneven.baseline, uneven.ratio, uneven.holds) == (0.5, 0.1, False)


def test_the_percentile_of_samples_is_that_of_all_rounds_together():
    figure = from_samples("x", "u", 0.5, [[1, 1, 1], [9, 9]], [[2], [2]], "b", at_most=0.5)
    assert (figure.ours, figure.baseline, figure.ratio, figure.holds) == (1, 2, 0.5, True)
    assert (figure.ours_rounds, figure.baseline_rounds) == ((1, 9), (2, 2))


def test_the_rounds_are_in_the_json_and_a_figure_without_rounds_has_no_spread():
    shown = from_rounds("x", "u", [1, 3], [2, 2], "b").to_json()
    assert (shown["ours_rounds"], shown["baseline_rounds"], shown["spread"]) == ((1, 3), (2, 2), 1)
    assert Figure("x", "u", 7).spread is None
