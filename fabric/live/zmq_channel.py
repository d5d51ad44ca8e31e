"""The channels between nodes: one ROUTER that a node binds, DEALERs to the nodes it connects to.

A zmq socket's file descriptor is edge-triggered, and any call on the socket may consume the edge. So there is one
owner, the node's driver: it drains every socket until it would block, sends, and looks at the events once more before
it sleeps.

Who a message is from is never the sender's own claim alone. Over ipc:// the directory lets only one user in, and the
routing id names the node; over tcp:// CURVE is required, and the name is the one that the allow-list bound to the
peer's key (``curve.AllowList``); answers go to the connection that proved to be that node.
"""

from dataclasses import dataclass
from pathlib import Path

import zmq

from fabric.errors import EnvironmentLacks, UsageError
from fabric.live.curve import DOMAIN, AllowList, Credentials
from fabric.live.envelope import ENVELOPE_MAX

HIGH_WATER_MARK = 20_000
DRAIN_AT_ONCE = 256
HANDSHAKE_MS = 10_000
_PATH_MAX = 107


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a node is: the address that it binds, if it does, and those of the neighbours that it connects to."""

    bind: str | None
    neighbours: dict[str, str]


def ipc_address(directory: Path, node: str) -> str:
    """The address of a node on this machine; EnvironmentLacks if the path is too long for a socket."""
    path = directory / f"{node}.frames"
    if len(str(path)) > _PATH_MAX:
        raise EnvironmentLacks(
            f"the path {path} is longer than {_PATH_MAX} bytes; set XDG_RUNTIME_DIR to a shorter one"
        )
    return f"ipc://{path}"


class NodeChannels:
    """The zmq sockets of one node. UsageError for tcp:// without credentials, or a neighbour without a key."""

    def __init__(self, node: str, endpoints: Endpoints, credentials: Credentials | None = None) -> None:
        self._node = node
        self._credentials = credentials
        self._endpoints = endpoints
        for address in filter(None, (endpoints.bind, *endpoints.neighbours.values())):
            _check_address(address, credentials)
        self._context = zmq.Context()
        self._allow_list: AllowList | None = None
        self._router: zmq.Socket[bytes] | None = None
        self._dealers: dict[str, zmq.Socket[bytes]] = {}
        self._routes: dict[str, bytes] = {}
        self.refused = 0
        """Messages that no known peer can have sent, or of a wrong shape."""
        self.unsent = 0
        """Envelopes that no peer took: lost outside the model."""
        try:
            if credentials is not None:
                self._allow_list = AllowList(self._context, credentials.peers)
            if endpoints.bind is not None:
                self._router = self._bind(endpoints.bind)
            for name, address in endpoints.neighbours.items():
                self._dealers[name] = self._connect(name, address)
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str | None:
        """What is bound, with the port that a wildcard became."""
        if self._router is None:
            return None
        bound = self._router.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(bound, bytes)
        return bound.rstrip(b"\0").decode()

    @property
    def handshakes_refused(self) -> int:
        """Peers with unknown keys."""
        return 0 if self._allow_list is None else self._allow_list.refused

    def file_descriptors(self) -> list[int]:
        """What to wait on."""
        allow_list = [self._allow_list.socket] if self._allow_list is not None else []
        return [int(socket.getsockopt(zmq.FD)) for socket in [*allow_list, *self._sockets()]]

    def drain(self) -> tuple[list[tuple[str, bytes]], bool]:
        """Envelopes that have come, as (peer, bytes), and whether more wait."""
        if self._allow_list is not None:
            self._allow_list.serve()
        found: list[tuple[str, bytes]] = []
        more = self._router is not None and self._drain_router(self._router, found)
        for name, socket in self._dealers.items():
            for _ in range(DRAIN_AT_ONCE):
                try:
                    parts = socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                if len(parts) == 1:
                    found.append((name, parts[0]))
                else:
                    self.refused += 1
            else:
                more = True
        return found, more

    def has_input(self) -> bool:
        """Whether something waits; to be asked after sending, before sleeping."""
        sockets = [*self._sockets(), *([self._allow_list.socket] if self._allow_list is not None else [])]
        return any(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN for socket in sockets)

    def can_reach(self, neighbour: str) -> bool:
        """Whether there is a connection to try: always to those we connect to, once heard for those who connect."""
        return neighbour in self._dealers or neighbour in self._routes

    def send(self, neighbour: str, envelope: bytes) -> bool:
        """Give an envelope to a neighbour; false, and counted, if it cannot take it."""
        try:
            dealer = self._dealers.get(neighbour)
            if dealer is not None:
                dealer.send(envelope, zmq.NOBLOCK)
            elif self._router is not None and neighbour in self._routes:
                self._router.send_multipart([self._routes[neighbour], envelope], zmq.NOBLOCK)
            else:
                self.unsent += 1
                return False
        except zmq.ZMQError:
            self.unsent += 1
            return False
        return True

    def close(self) -> None:
        """Close the sockets and remove the file of a bound ipc:// address."""
        for socket in self._sockets():
            socket.close(0)
        if self._allow_list is not None:
            self._allow_list.close()
        self._context.term()
        bind = self._endpoints.bind
        if bind is not None and bind.startswith("ipc://"):
            Path(bind.removeprefix("ipc://")).unlink(missing_ok=True)

    # ------------------------------------------------------------------ private

    def _drain_router(self, router: "zmq.Socket[bytes]", found: list[tuple[str, bytes]]) -> bool:
        for _ in range(DRAIN_AT_ONCE):
            try:
                frames = router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            if len(frames) != 2:
                self.refused += 1
                continue
            route = frames[0].bytes
            if self._credentials is None:
                peer = route.decode(errors="replace")
            else:
                peer = str(frames[1].get("User-Id"))  # what our allow-list said of the key
            self._routes[peer] = route
            found.append((peer, frames[1].bytes))
        return True

    def _bind(self, address: str) -> "zmq.Socket[bytes]":
        router = self._configure(self._context.socket(zmq.ROUTER))
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a restarted node may be back before its old connection is gone
        if self._credentials is not None:
            router.setsockopt(zmq.CURVE_SERVER, 1)
            router.setsockopt(zmq.CURVE_SECRETKEY, self._credentials.keys.secret.encode())
            router.setsockopt(zmq.ZAP_DOMAIN, DOMAIN.encode())
        try:
            router.bind(address)
        except zmq.ZMQError as error:
            router.close(0)
            raise EnvironmentLacks(f"node {self._node} cannot bind {address}: {error.strerror}") from None
        return router

    def _connect(self, neighbour: str, address: str) -> "zmq.Socket[bytes]":
        dealer = self._configure(self._context.socket(zmq.DEALER))
        if self._credentials is not None:
            keys = self._credentials.keys
            dealer.setsockopt(zmq.CURVE_SERVERKEY, self._credentials.peers[neighbour].encode())
            dealer.setsockopt(zmq.CURVE_PUBLICKEY, keys.public.encode())
            dealer.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
        else:
            dealer.setsockopt(zmq.IDENTITY, self._node.encode())
        dealer.setsockopt(zmq.RECONNECT_IVL, 20)
        dealer.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        dealer.connect(address)
        return dealer

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
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        return socket


def _check_address(address: str, credentials: Credentials | None) -> None:
    if address.startswith("ipc://"):
        if credentials is not None:
            raise UsageError(f"{address}: a node with CURVE keys speaks over tcp:// only")
    elif not address.startswith("tcp://"):
        raise UsageError(f"{address}: an address begins with ipc:// or tcp://")
    elif credentials is None:
        raise UsageError(f"{address}: tcp:// needs CURVE keys for every node")
