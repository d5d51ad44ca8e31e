"""The channels between nodes: one ROUTER that a node binds, DEALERs to the nodes it connects to. The only importer of
zmq.

A zmq socket's file descriptor is edge-triggered, and any call on the socket may consume the edge. So there is one
owner, the node's driver: it drains every socket until it would block, sends, and looks at the events once more before
it sleeps.
"""

from pathlib import Path

import zmq

from fabric.errors import EnvironmentLacks

ENVELOPE_MAX = 4 << 20
HIGH_WATER_MARK = 20_000
DRAIN_AT_ONCE = 256
_PATH_MAX = 107


class NodeChannels:
    """The zmq sockets of one node, over ipc:// in a directory that only its owner may enter."""

    def __init__(self, node: str, directory: Path) -> None:
        self._node = node
        self._directory = directory
        self._context = zmq.Context()
        self._router: zmq.Socket[bytes] | None = None
        self._dealers: dict[str, zmq.Socket[bytes]] = {}
        self.refused = 0
        """Envelopes that no peer took: lost outside the model."""

    def bind(self) -> None:
        """Accept the neighbours that connect to us."""
        router = self._configure(self._context.socket(zmq.ROUTER))
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.bind(self._address(self._node))
        self._router = router

    def connect(self, neighbour: str) -> None:
        """Connect to a neighbour that binds; it may come up later."""
        dealer = self._configure(self._context.socket(zmq.DEALER))
        dealer.setsockopt(zmq.IDENTITY, self._node.encode())
        dealer.setsockopt(zmq.RECONNECT_IVL, 20)
        dealer.connect(self._address(neighbour))
        self._dealers[neighbour] = dealer

    def file_descriptors(self) -> list[int]:
        """What to wait on."""
        return [int(socket.getsockopt(zmq.FD)) for socket in self._sockets()]

    def drain(self) -> tuple[list[tuple[str, bytes]], bool]:
        """Envelopes that have come, as (peer, bytes), and whether more wait."""
        found: list[tuple[str, bytes]] = []
        more = False
        for name, socket in [("", self._router), *self._dealers.items()]:
            if socket is None:
                continue
            for _ in range(DRAIN_AT_ONCE):
                try:
                    parts = socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                if name and len(parts) == 1:
                    found.append((name, parts[0]))
                elif not name and len(parts) == 2:
                    found.append((parts[0].decode(errors="replace"), parts[1]))
                else:
                    self.refused += 1
            else:
                more = True
        return found, more

    def has_input(self) -> bool:
        """Whether something waits; to be asked after sending, before sleeping."""
        return any(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN for socket in self._sockets())

    def send(self, neighbour: str, envelope: bytes) -> bool:
        """Give an envelope to a neighbour; false, and counted, if it cannot take it."""
        try:
            dealer = self._dealers.get(neighbour)
            if dealer is not None:
                dealer.send(envelope, zmq.NOBLOCK)
            elif self._router is not None:
                self._router.send_multipart([neighbour.encode(), envelope], zmq.NOBLOCK)
            else:
                raise zmq.Again
        except zmq.ZMQError:
            self.refused += 1
            return False
        return True

    def close(self) -> None:
        """Close the sockets and remove the file of the bound one."""
        for socket in self._sockets():
            socket.close(0)
        self._context.term()
        (self._directory / f"{self._node}.frames").unlink(missing_ok=True)

    def _sockets(self) -> list["zmq.Socket[bytes]"]:
        router = [self._router] if self._router is not None else []
        return [*router, *self._dealers.values()]

    def _configure(self, socket: "zmq.Socket[bytes]") -> "zmq.Socket[bytes]":
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        socket.setsockopt(zmq.MAXMSGSIZE, ENVELOPE_MAX)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 5000)
        return socket

    def _address(self, node: str) -> str:
        path = self._directory / f"{node}.frames"
        if len(str(path)) > _PATH_MAX:
            raise EnvironmentLacks(
                f"the path {path} is longer than {_PATH_MAX} bytes; set XDG_RUNTIME_DIR to a shorter one"
            )
        return f"ipc://{path}"
