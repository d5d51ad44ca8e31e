"""Urgent data of a session (MSG_OOB): one byte that is marked in the stream.

It travels as SDP has it: the last byte of a Data message whose header says OOB_PRES, and messages before it that go
while it waits say OOB_PEND. The receiving end takes it out of the stream and keeps it apart, the newest one only, as
TCP does; with SO_OOBINLINE it stays in the stream.
"""

from collections import deque

OOB_PRESENT, OOB_PENDING = 0x01, 0x02
"""Bits of the flags in the base header (annex A4)."""


class Urgent:
    """Positions count the bytes of a direction from its beginning."""

    def __init__(self) -> None:
        self.inline = False
        """SO_OOBINLINE of this end."""
        self.byte: int | None = None
        """The newest urgent byte that was heard and not read."""
        self._marks: deque[int] = deque()

    def mark(self, position: int) -> None:
        """The last byte before ``position``, which has not been sent, is urgent."""
        self._marks.append(position)

    def cut(self, position: int, limit: int) -> int:
        """How long the message that begins at ``position`` may be, so that an urgent byte is its last."""
        return min(limit, self._marks[0] - position) if self._marks else limit

    def flags(self, position: int) -> int:
        """The flags of a message that ends before ``position``."""
        found = 0
        if self._marks and self._marks[0] == position:
            self._marks.popleft()
            found = OOB_PRESENT
        return found | OOB_PENDING if self._marks else found

    def hear(self, flags: int, payload: memoryview) -> memoryview:
        """Take an urgent byte out of a message; what is left is the stream's."""
        if not flags & OOB_PRESENT or self.inline:
            return payload
        self.byte = payload[-1]
        return payload[:-1]
