"""Several pcapng streams -> one, ordered by time.

Two tools for two situations, both with bounded memory:

- ``merge_captures`` reads finished captures side by side, as far as each is needed: the result is in exact order
  although each input may be out of order by up to ``window`` nanoseconds or ``MAX_HELD`` packets (a node's tap records
  arrivals and departures as it handles them, so neighbours may be swapped). A packet later than that comes out where
  it is found.
- ``LiveMerge`` takes the bytes of running captures as they come. It holds each packet until no earlier one is expected:
  until it is older than the newest packet, or than what ``advance`` says, by ``window``. Packets that come even later
  are passed on at once, out of order, and counted.

Equal times keep the order of the sources, then the order within a source. Interfaces are kept apart by name and
description, so the entry and the exit of one link stay two interfaces, and one interface seen by several sources is
one.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from fabric.units import MILLISECOND, SECOND, Duration
from fabric.wire.pcapng import CapturedPacket, PcapngReader, PcapngWriter

CHUNK = 256 * 1024
DEFAULT_WINDOW = SECOND
MAX_HELD = 100_000
DEFAULT_LIVE_WINDOW = 200 * MILLISECOND
DEFAULT_LIVE_PACKETS = 50_000


class PacketWriter:
    """Copies packets into one pcapng section; keeps comments, direction, CRC-error flag and packet id."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._writer = PcapngWriter(write)
        self._interfaces: dict[tuple[str, str], int] = {}

    def write(self, packet: CapturedPacket) -> None:
        """Append ``packet``; several comments become one, line by line."""
        key = (packet.interface_name, packet.interface_description)
        interface = self._interfaces.get(key)
        if interface is None:
            interface = self._interfaces[key] = self._writer.add_interface(*key)
        self._writer.write_packet(
            interface,
            packet.at_ns,
            packet.data,
            comment="\n".join(packet.comments),
            direction=packet.direction,
            crc_error=packet.crc_error,
            packet_id=packet.packet_id,
        )


def merge_captures(
    inputs: Sequence[BinaryIO], write: Callable[[bytes], object], *, window: Duration = DEFAULT_WINDOW
) -> int:
    """Merge open binary files into one pcapng section through ``write``; returns the number of packets.

    A file that ends in the middle of a block (its writer was killed) contributes what is whole. Raises
    ``fabric.wire.pcapng.MalformedCapture`` for a file that is not pcapng or is damaged.
    """
    writer = PacketWriter(write)
    count = 0
    sources = [_in_order(_packets(source), window) for source in inputs]
    for packet in heapq.merge(*sources, key=_time):
        writer.write(packet)
        count += 1
    return count


@dataclass(frozen=True, slots=True)
class MergeStatistics:
    """Counters of a live merge."""

    packets: int
    """Written."""
    late: int
    """Written out of order, because they came after a later one had been written."""
    held: int
    """Waiting for their turn."""


class LiveMerge:
    """Merges running captures; see the module text.

    ``window`` (ns of capture time) is how long a packet waits for earlier ones; ``max_packets`` bounds how many wait.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        *,
        window: Duration = DEFAULT_LIVE_WINDOW,
        max_packets: int = DEFAULT_LIVE_PACKETS,
    ) -> None:
        self._writer = PacketWriter(write)
        self._window, self._max_packets = window, max_packets
        self._readers: list[PcapngReader] = []
        self._held: list[tuple[int, int, int, CapturedPacket]] = []  # time, source, sequence, packet
        self._sequence = self._packets = self._late = 0
        self._newest = self._written_up_to = 0

    def add_source(self) -> int:
        """A further capture; its number for ``feed``."""
        self._readers.append(PcapngReader())
        return len(self._readers) - 1

    def feed(self, source: int, data: bytes) -> None:
        """Bytes of a source, in pieces of any size. Raises ``MalformedCapture`` if they are no pcapng; others go on."""
        reader = self._readers[source]
        reader.feed(data)
        try:
            for packet in reader.packets():
                self._sequence += 1
                heapq.heappush(self._held, (packet.at_ns, source, self._sequence, packet))
                self._newest = max(self._newest, packet.at_ns)
                if len(self._held) > self._max_packets:
                    self._write_oldest()
        finally:
            self._write_up_to(self._newest - self._window)

    def advance(self, epoch_now: int) -> None:
        """It is ``epoch_now`` (ns since the epoch): what has waited long enough goes out though nothing new came."""
        self._write_up_to(epoch_now - self._window)

    def finish(self) -> None:
        """No more input: everything goes out."""
        while self._held:
            self._write_oldest()

    def statistics(self) -> MergeStatistics:
        """A snapshot of the counters."""
        return MergeStatistics(self._packets, self._late, len(self._held))

    def _write_up_to(self, time: int) -> None:
        while self._held and self._held[0][0] <= time:
            self._write_oldest()

    def _write_oldest(self) -> None:
        at, _, _, packet = heapq.heappop(self._held)
        if at < self._written_up_to:
            self._late += 1
        else:
            self._written_up_to = at
        self._packets += 1
        self._writer.write(packet)


def _time(packet: CapturedPacket) -> int:
    return packet.at_ns


def _packets(source: BinaryIO) -> Iterator[CapturedPacket]:
    reader = PcapngReader()
    while chunk := source.read(CHUNK):
        reader.feed(chunk)
        yield from reader.packets()


def _in_order(packets: Iterable[CapturedPacket], window: Duration) -> Iterator[CapturedPacket]:
    held: list[tuple[int, int, CapturedPacket]] = []
    newest = 0
    for sequence, packet in enumerate(packets):
        heapq.heappush(held, (packet.at_ns, sequence, packet))
        newest = max(newest, packet.at_ns)
        while held and (held[0][0] <= newest - window or len(held) > MAX_HELD):
            yield heapq.heappop(held)[2]
    while held:
        yield heapq.heappop(held)[2]
