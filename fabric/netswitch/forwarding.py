"""Where a network switch sends what: destination address -> equal-cost ports, and the choice among them per flow."""

import zlib
from collections.abc import Iterator, Mapping, Sequence


class ForwardingTable:
    """Static forwarding by destination IP address. Immutable.

    ``entries`` maps a destination address (4 or 16 bytes) to the ports of all its shortest paths, in an order that is
    the same in every run. ``salt`` (the network switch's name, say) makes network switches choose independently of each
    other: with the same choice everywhere, the second tier would see only flows that all choose alike. Raises
    ValueError for an entry without ports or an address of another length.
    """

    __slots__ = ("_multiplier", "_ports")

    def __init__(self, entries: Mapping[bytes, Sequence[int]], salt: str = "") -> None:
        self._ports: dict[bytes, tuple[int, ...]] = {}
        for destination, ports in entries.items():
            if len(destination) not in (4, 16):
                raise ValueError(f"{destination.hex()} is not an IP address of 4 or 16 bytes")
            if not ports:
                raise ValueError(f"the entry for {destination.hex()} names no port")
            self._ports[destination] = tuple(ports)
        self._multiplier = zlib.crc32(salt.encode()) << 1 | 1

    def ports(self, destination: bytes) -> tuple[int, ...]:
        """All equal-cost ports towards ``destination``; empty if there is no entry."""
        return self._ports.get(destination, ())

    def choose(self, ports: tuple[int, ...], flow: bytes) -> int:
        """One of ``ports`` for the flow with this key: always the same one, and flows spread evenly.

        CRC-32 of the key, mixed by an odd multiplier that comes from the salt; the high bits of the product then scale
        to the number of ports. (The CRC alone would not do: with another start value it changes by a constant.)
        """
        mixed = (zlib.crc32(flow) * self._multiplier) & 0xFFFF_FFFF
        return ports[mixed * len(ports) >> 32]

    def __iter__(self) -> Iterator[tuple[bytes, tuple[int, ...]]]:
        return iter(self._ports.items())

    def __len__(self) -> int:
        return len(self._ports)
