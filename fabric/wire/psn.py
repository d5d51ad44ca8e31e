"""Packet sequence numbers: 24-bit serial arithmetic (IBA vol. 1, 9.7.2). One half of the circle is ahead, the
other behind.
"""

from dataclasses import dataclass

PSN_MASK = 0xFFFFFF
_HALF = 0x800000


def psn_add(psn: int, count: int) -> int:
    """``count`` packets further, modulo 2^24."""
    return (psn + count) & PSN_MASK


def psn_diff(a: int, b: int) -> int:
    """How far ``a`` is ahead of ``b``: -2^23 .. 2^23 - 1."""
    return ((a - b + _HALF) & PSN_MASK) - _HALF


@dataclass(frozen=True, slots=True)
class Psn:
    """A packet sequence number as a value; for the data path use the functions on plain ints."""

    value: int

    def __post_init__(self) -> None:
        if not 0 <= self.value <= PSN_MASK:
            raise ValueError(f"{self.value} is not a 24-bit packet sequence number")

    def __add__(self, count: int) -> "Psn":
        return Psn(psn_add(self.value, count))

    def __sub__(self, other: "Psn") -> int:
        return psn_diff(self.value, other.value)

    def __lt__(self, other: "Psn") -> bool:
        return psn_diff(self.value, other.value) < 0
