"""PSN arithmetic: rule 1 of wire.md 8."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.wire.psn import PSN_MASK, Psn, psn_add, psn_diff

PSNS = st.integers(0, PSN_MASK)


@given(PSNS, st.integers(1, 2**23 - 1))
def test_up_to_half_the_circle_is_ahead(psn, count):
    assert psn_diff(psn_add(psn, count), psn) == count
    assert Psn(psn) < Psn(psn) + count


@given(PSNS, st.integers(2**23, 2**24 - 1))
def test_the_other_half_is_behind(psn, count):
    assert psn_diff(psn_add(psn, count), psn) == count - 2**24
    assert Psn(psn) + count < Psn(psn)


@given(PSNS, PSNS)
def test_difference_and_sum_are_inverse(a, b):
    assert psn_add(b, psn_diff(a, b)) == a
    assert Psn(a) - Psn(b) == psn_diff(a, b)


@pytest.mark.parametrize("wrong", [-1, 2**24])
def test_a_value_has_24_bits(wrong):
    with pytest.raises(ValueError, match="not a 24-bit"):
        Psn(wrong)
