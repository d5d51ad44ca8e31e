"""Captured frames -> pcapng bytes, for a file or for a live reader such as Wireshark.

Every side of every link direction is an interface of its own: name ``client->s1``, description ``client->s1 entry`` or
``client->s1 exit``. Interfaces are announced when their first frame comes, which pcapng allows at any point of a
section; announce them beforehand with ``add_link`` to have them in a fixed order.

Frames are stamped with the monotonic clock; a capture wants the time since the epoch. The difference between the two is
passed in by whoever can read both clocks, once, so that a stepping wall clock does not bend a capture.
"""

from collections.abc import Callable, Iterable

from fabric.capture.tap import CapturedFrame, Direction, side
from fabric.units import Duration
from fabric.wire import MalformedFrame, decode
from fabric.wire.pcapng import PcapngWriter


class CaptureStream:
    """Writes captured frames as one pcapng section.

    ``write`` receives the bytes (whole blocks). ``epoch_offset`` (ns) is what to add to an instant to get the time
    since the epoch. ``check_icrc`` marks frames whose ICRC is wrong with pcapng's CRC-error flag; that costs a decode
    per frame.
    """

    def __init__(self, write: Callable[[bytes], object], *, epoch_offset: Duration, check_icrc: bool = False) -> None:
        self._writer = PcapngWriter(write)
        self._epoch_offset = epoch_offset
        self._check_icrc = check_icrc
        self._interfaces: dict[tuple[str, Direction], int] = {}

    def add_link(self, link: str, direction: Direction) -> int:
        """Announce one side of a link direction, if it is new; its interface id."""
        interface = self._interfaces.get((link, direction))
        if interface is None:
            interface = self._writer.add_interface(link, f"{link} {side(direction)}")
            self._interfaces[link, direction] = interface
        return interface

    def write(self, captured: CapturedFrame) -> None:
        """Append one frame. A frame before which others are missing says so in its comment."""
        self._writer.write_packet(
            self.add_link(captured.link, captured.direction),
            captured.at + self._epoch_offset,
            captured.frame,
            comment=_comment(captured),
            direction=captured.direction,
            crc_error=self._check_icrc and has_icrc_error(captured.frame),
            packet_id=captured.number,
        )

    def write_all(self, frames: Iterable[CapturedFrame]) -> None:
        """Append several frames in the order given."""
        for captured in frames:
            self.write(captured)


def has_icrc_error(frame: bytes) -> bool:
    """Whether ``frame`` is a well-formed RoCEv2 frame whose ICRC (and nothing else) is wrong."""
    try:
        decode(frame)
    except MalformedFrame:
        try:
            decode(frame, verify_icrc=False)
        except MalformedFrame:
            return False
        return True
    return False


def _comment(captured: CapturedFrame) -> str:
    if not captured.missing:
        return captured.comment
    missing = f"{captured.missing} frames before this one are missing from the capture: the tap's queue was full"
    return f"{captured.comment}; {missing}" if captured.comment else missing
