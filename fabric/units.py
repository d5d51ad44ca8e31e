"""Units: instants and durations in integer nanoseconds, rates in bits per second, sizes in bytes.

Time is never a float and never a date. An ``Instant`` counts nanoseconds of one clock (``CLOCK_MONOTONIC`` in a live
run, the virtual clock in the simulator); a ``Duration`` is the difference of two. Both are plain ``int`` so that
engines pay nothing for them. Texts follow tc's notation: ``2ms``, ``0.5%``, ``10Gbit``.
"""

import re
from decimal import Decimal, InvalidOperation
from typing import TypeAlias

Instant: TypeAlias = int
Duration: TypeAlias = int

NANOSECOND = 1
MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000

_QUANTITY = re.compile(r"^\s*([+-]?[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z%]*)\s*$")

_DURATION_UNITS = {
    "ns": 1,
    "us": MICROSECOND,
    "ms": MILLISECOND,
    "s": SECOND,
    "m": 60 * SECOND,
    "min": 60 * SECOND,
    "h": 3600 * SECOND,
}
_RATE_UNITS = {
    "bit": 1,
    "kbit": 10**3,
    "mbit": 10**6,
    "gbit": 10**9,
    "tbit": 10**12,
    "kibit": 2**10,
    "mibit": 2**20,
    "gibit": 2**30,
    "bps": 8,
    "kbps": 8 * 10**3,
    "mbps": 8 * 10**6,
    "gbps": 8 * 10**9,
}  # as in tc: "bit" counts bits, "bps" counts bytes per second
_SIZE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def _quantity(text: str, units: dict[str, int], what: str, example: str) -> Decimal:
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a {what}; write for example {example}")
    number, unit = match.groups()
    factor = units.get(unit.lower())
    if factor is None:
        given = f"has the unknown unit {unit!r}" if unit else "has no unit"
        known = ", ".join(name for name in units if name)
        raise ValueError(f"{text!r} {given}; a {what} takes one of {known}, for example {example}")
    try:
        return Decimal(number) * factor
    except InvalidOperation as error:  # pragma: no cover - the pattern admits only numbers
        raise ValueError(f"{text!r} is not a {what}") from error


def parse_duration(text: str) -> Duration:
    """``"2ms"`` -> 2_000_000. Units ns, us, ms, s, m, h; a bare ``0`` is allowed. ValueError says what was expected."""
    if text.strip() == "0":
        return 0
    value = _quantity(text, _DURATION_UNITS, "duration", "2ms")
    if value < 0:
        raise ValueError(f"{text!r} is negative; a duration is 0 or more, for example 2ms")
    return int(value)


def parse_rate(text: str) -> int:
    """``"10Gbit"`` -> 10_000_000_000 bits per second. Units as in tc(8); ValueError says what was expected."""
    value = int(_quantity(text, _RATE_UNITS, "rate", "10Gbit"))
    if value <= 0:
        raise ValueError(f"{text!r} is not a rate above zero; write for example 10Gbit")
    return value


def parse_size(text: str) -> int:
    """``"64KiB"`` -> 65536 bytes. Units B, kB, MB, GB, KiB, MiB, GiB; ValueError says what was expected."""
    value = int(_quantity(text, _SIZE_UNITS, "size", "64KiB"))
    if value < 0:
        raise ValueError(f"{text!r} is negative; write for example 64KiB")
    return value


def parse_ratio(text: str) -> float:
    """``"0.5%"`` -> 0.005; a bare number is a ratio from 0 to 1. ValueError says what was expected."""
    value = float(_quantity(text, {"": 1, "%": 1}, "ratio", "0.5%"))
    ratio = value / 100 if "%" in text else value
    if not 0 <= ratio <= 1:
        raise ValueError(f"{text!r} is not between 0% and 100%; write for example 0.5%")
    return ratio


def format_duration(duration: Duration) -> str:
    """A short text with at most three decimals: 2_000_000 -> ``"2ms"``; reads back with :func:`parse_duration`
    when exact.
    """
    for name, unit in (("s", SECOND), ("ms", MILLISECOND), ("us", MICROSECOND)):
        if abs(duration) >= unit:
            return f"{duration / unit:.3f}".rstrip("0").rstrip(".") + name
    return f"{duration}ns" if duration else "0"


def format_rate(bits_per_second: int) -> str:
    """10_000_000_000 -> ``"10Gbit"``."""
    for name, unit in (("Tbit", 10**12), ("Gbit", 10**9), ("Mbit", 10**6), ("kbit", 10**3)):
        if bits_per_second >= unit:
            return f"{bits_per_second / unit:.3f}".rstrip("0").rstrip(".") + name
    return f"{bits_per_second}bit"


def format_size(size: int) -> str:
    """33_554_432 -> ``"32MiB"``."""
    for name, unit in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= unit:
            return f"{size / unit:.1f}".rstrip("0").rstrip(".") + name
    return f"{size}B"


def format_ratio(ratio: float) -> str:
    """0.005 -> ``"0.5%"``."""
    return f"{ratio * 100:.6f}".rstrip("0").rstrip(".") + "%"


def transmission_time(size: int, rate: int) -> Duration:
    """Nanoseconds that ``size`` bytes take at ``rate`` bits per second, rounded up so that a sender never exceeds
    its rate.
    """
    return -(-size * 8 * SECOND // rate)
