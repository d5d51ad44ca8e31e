"""Urgent data (MSG_OOB) of a SAN socket: it goes past the data channel, through the agent."""

import contextlib
from collections.abc import Callable
from typing import Any


class UrgentData:
    """A part of ``SanSocket``."""

    _call: Callable[..., dict[str, Any]]
    send: Callable[..., int]

    def _send_urgent(self, data: Any) -> int:
        """As the original with MSG_OOB: the last byte is urgent, the others go before it as usual.

        BlockingIOError, in whatever mode, while a whole send buffer waits for the peer.
        """
        view = memoryview(data).cast("B")
        head, last = view[:-1], view[-1:]
        sent = self.send(head) if head else 0
        if sent == len(head) and last:
            with contextlib.suppress(*((BlockingIOError,) if sent else ())):
                self._call("WSPSend", urgent=int(last[0]))
                sent += 1
        return sent

    def _receive_urgent(self, bufsize: int, peek: bool) -> bytes:
        """As the original with MSG_OOB: one byte; WSAEINVAL when there is none."""
        return bytes([self._call("WSPRecv", peek=peek)["urgent"]])[:bufsize]
