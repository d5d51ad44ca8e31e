"""``SanTap``: live frames of a running lab for scapy.

    >>> from scapy.all import sniff                         # doctest: +SKIP
    >>> from fabric.capture import SanTap
    >>> sniff(opened_socket=SanTap("client"), count=10)     # doctest: +SKIP

Importing this module imports scapy and all layers of ``fabric.wire.scapy_layers``; ``fabric.capture`` does it only when
``SanTap`` is asked for.

One read of the stream may bring several frames, and scapy asks for one at a time: frames already read wait here, and
``select`` reports a tap that holds some as ready, though its descriptor is not.
"""

import os
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import scapy.layers.inet
import scapy.layers.inet6  # noqa: F401 - binds IPv6
from scapy.config import conf
from scapy.data import MTU
from scapy.layers.l2 import Ether
from scapy.supersocket import SuperSocket
from scapy.utils import EDecimal

import fabric.wire.scapy_layers  # noqa: F401 - binds the RoCEv2, CM and SDP layers
from fabric.capture.live_stream import LiveCapture, open_live_capture
from fabric.wire.pcapng import CapturedPacket, PcapngReader


class SanTap(SuperSocket):
    """A receiving scapy socket on a node or link of a running lab.

    ``where`` and ``lab`` are those of ``fabric.capture.live_stream.open_live_capture``, which also says what is raised;
    ``opener`` replaces it. Packets carry what scapy's own pcapng reader would give them: ``time`` (exact, seconds since
    the epoch), ``comments``, ``direction`` (1 in, 2 out) and ``sniffed_on``, the side of a link (``client->s1 entry``),
    which ``sniff`` replaces by its own label for the socket.
    """

    desc = "live frames of a Sanloom lab"

    def __init__(
        self,
        where: str,
        lab: str | os.PathLike[str] | None = None,
        *,
        opener: Callable[[str, str | os.PathLike[str] | None], LiveCapture] = open_live_capture,
    ) -> None:
        self.closed = True  # until there is something to close: scapy's __del__ asks
        self.where = where
        self.iface = where
        self.outs = None
        self._ready: deque[CapturedPacket] = deque()
        self._reader = PcapngReader()
        self._at_end = False
        self.ins: LiveCapture = opener(where, lab)
        self.closed = False

    def recv(self, x: int = MTU, **options: Any) -> Any:
        """The next frame as a packet, waiting for one if need be. EOFError when the stream has ended."""
        while not self._ready:
            if self._at_end or self.closed:
                raise EOFError(f"the capture of {self.where} has ended")
            self._read()
        captured = self._ready.popleft()
        return self._dissect(captured, options)

    def recv_raw(self, x: int = MTU) -> tuple[Any, bytes | None, float | None]:
        """(layer class, bytes, seconds since the epoch) of the next frame."""
        packet = self.recv(x)
        return Ether, packet.original, packet.time

    def send(self, x: Any) -> int:
        """Always OSError: a tap only listens."""
        raise OSError("a SanTap only listens; it cannot send")

    def fileno(self) -> int:
        """The descriptor of the stream."""
        return self.ins.fileno()

    def close(self) -> None:
        """End the capture at the node. Closing twice is harmless."""
        if not self.closed:
            self.closed = True
            self.ins.close()

    @staticmethod
    def select(sockets: list[Any], remain: float | None = None) -> list[Any]:
        """The sockets with something to receive, waiting at most ``remain`` seconds (``None``: until there is one)."""
        ready = [sock for sock in sockets if isinstance(sock, SanTap) and sock._has_frame()]
        return ready or SuperSocket.select(sockets, remain)

    def _has_frame(self) -> bool:
        return bool(self._ready) or self._at_end

    def _read(self) -> None:
        chunk = self.ins.read()
        if not chunk:
            self._at_end = True
            return
        self._reader.feed(chunk)
        self._ready.extend(self._reader.packets())

    def _dissect(self, captured: CapturedPacket, options: dict[str, Any]) -> Any:
        try:
            packet = Ether(captured.data, **options)
        except Exception:
            # A frame that a layer cannot digest is still a frame that was on the wire.
            packet = conf.raw_layer(captured.data)
        packet.time = EDecimal(Decimal(captured.at_ns).scaleb(-9))
        packet.comments = [comment.encode() for comment in captured.comments]
        packet.direction = {"in": 1, "out": 2}.get(captured.direction or "", 0)
        packet.sniffed_on = captured.interface_description
        packet.wirelen = len(captured.data)
        return packet
