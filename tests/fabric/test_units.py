"""Units: exact integers, tc's notation, and messages that say what was expected."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric import units


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("2ms", 2_000_000),
        ("0.2 ms", 200_000),
        ("1.5us", 1500),
        (".5s", 500_000_000),
        ("3m", 180_000_000_000),
        ("1h", 3_600_000_000_000),
        ("7ns", 7),
    ],
)
def test_durations(text, nanoseconds):
    assert units.parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("parse", "text", "told"),
    [
        (units.parse_duration, "2", "has no unit; a duration takes one of ns, us, ms"),
        (units.parse_duration, "-1ms", "is negative"),
        (units.parse_duration, "fast", "is not a duration; write for example 2ms"),
        (units.parse_rate, "10Gbits", "unknown unit 'Gbits'"),
        (units.parse_rate, "0bit", "not a rate above zero"),
        (units.parse_ratio, "101%", "not between 0% and 100%"),
        (units.parse_ratio, "5 apples", "unknown unit 'apples'"),
        (units.parse_size, "1XB", "unknown unit 'XB'"),
        (units.parse_size, "-1kB", "is negative"),
    ],
)
def test_mistakes_say_what_was_expected(parse, text, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        parse(text)


def test_rates_count_bits_and_bps_counts_bytes_as_in_tc():
    assert units.parse_rate("10Gbit") == 10**10
    assert units.parse_rate("1kbps") == 8000
    assert units.parse_rate("1mibit") == 2**20
    assert units.format_rate(10**10) == "10Gbit"


def test_ratios_and_sizes():
    assert units.parse_ratio("0.5%") == 0.005
    assert units.parse_ratio("1") == 1.0
    assert units.format_ratio(0.005) == "0.5%"
    assert units.parse_size("64KiB") == 65536
    assert units.format_size(33_554_432) == "32MiB"


@given(st.integers(0, 10**6), st.sampled_from([1, 1000, 10**6, 10**9]))
def test_a_formatted_duration_reads_back(count, unit):
    duration = count * unit
    text = units.format_duration(duration)
    read = units.parse_duration(text)
    assert read == duration or abs(read - duration) <= max(1, duration // 1000), text


@given(st.text(max_size=20))
def test_any_text_is_a_value_or_a_value_error(text):
    for parse in (units.parse_duration, units.parse_rate, units.parse_ratio, units.parse_size):
        try:
            assert parse(text) >= 0
        except ValueError:
            pass


@given(st.integers(1, 10_000), st.integers(1, 10**12))
def test_a_sender_never_exceeds_its_rate(size, rate):
    time = units.transmission_time(size, rate)
    assert size * 8 * units.SECOND <= rate * time < size * 8 * units.SECOND + rate
