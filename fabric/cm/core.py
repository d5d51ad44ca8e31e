"""What commands, messages and timers of the connection manager share: the records, their indexes, timers and outputs.

All state changes go through :meth:`Core.move`, which keeps the indexes true:

- ``connections`` by our communication id, which is unpredictable and not given out again while a record holds it;
- ``by_request``: a peer's REQ by (address, CA GUID, its communication id), for as long as the record lives;
- ``by_pair``: a peer's queue pair by (address, CA GUID, number), until TIMEWAIT.
"""

from collections import deque

from fabric.cm.config import CmConfig
from fabric.cm.connection import Connection, Refusal, disconnect_reply, reject_message
from fabric.cm.events import CmEvent, CmStatistics, Datagram, TimewaitEnded
from fabric.cm.states import RELEASED_PAIRS, Move, Role, State, following
from fabric.cm.timers import Deadlines
from fabric.ids import CommId
from fabric.rng import Stream
from fabric.units import Duration, Instant
from fabric.wire.cm import CmMessage, DisconnectRequest, RejectReason, encode_mad


class Core:
    """See the module text."""

    def __init__(self, guid: int, rng: Stream, config: CmConfig) -> None:
        self.guid = guid
        self.config = config
        self.listeners: dict[int, None] = {}
        self.connections: dict[CommId, Connection] = {}
        self.by_request: dict[tuple[bytes, int, int], Connection] = {}
        self.by_pair: dict[tuple[bytes, int, int], Connection] = {}
        self.deadlines = Deadlines()
        self.outbox: deque[Datagram] = deque()
        self.events: deque[CmEvent] = deque()
        self.half_open = 0
        self._timewait = 0
        self._rng = rng
        self._received: dict[str, int] = {}
        self._sent: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._retransmitted = 0

    # ------------------------------------------------------------- records

    def new_comm_id(self) -> CommId:
        """An id that no record holds; 0 means "unknown" in messages and is never given out."""
        while True:
            comm_id = CommId(self._rng.getrandbits(32))
            if comm_id and comm_id not in self.connections:
                return comm_id

    def new_transaction_id(self) -> int:
        """A transaction id, 64 bits, not 0."""
        return self._rng.getrandbits(64) | 1

    def add(self, connection: Connection) -> None:
        """Take a new record in."""
        self.connections[connection.comm_id] = connection
        if connection.role is Role.PASSIVE:
            self.half_open += 1
        if connection.request_key is not None:
            self.by_request[connection.request_key] = connection
        if connection.pair_key is not None:
            self.by_pair[connection.pair_key] = connection

    def add_pair(self, connection: Connection) -> None:
        """Index the peer's queue pair, once a REP told it."""
        assert connection.remote_qpn is not None
        connection.pair_key = (connection.remote_ip, connection.remote_guid, connection.remote_qpn)
        self.by_pair[connection.pair_key] = connection

    def move(self, connection: Connection, target: State, now: Instant) -> None:
        """Change the state to what the table gave, and do what every entry into that state needs."""
        before, connection.state = connection.state, target
        if target is State.ESTABLISHED:
            self.deadlines.clear(connection.comm_id)
            if not connection.was_established:
                connection.was_established = True
                self.half_open -= connection.role is Role.PASSIVE
        elif target is State.TIMEWAIT and before is not State.TIMEWAIT:
            self._timewait += 1
            connection.last_said, connection.last_kind = b"", ""
            self.deadlines.set(connection.comm_id, now + connection.timewait)
        elif target is State.DREQ_RCVD:
            self.deadlines.set(connection.comm_id, now + connection.patience)
        if target in RELEASED_PAIRS and connection.pair_key is not None:
            if self.by_pair.get(connection.pair_key) is connection:
                del self.by_pair[connection.pair_key]
            connection.pair_key = None
        if target is State.CLOSED:
            self._release(connection)

    def _release(self, connection: Connection) -> None:
        self._timewait -= 1
        del self.connections[connection.comm_id]
        self.deadlines.clear(connection.comm_id)
        if connection.request_key is not None:
            del self.by_request[connection.request_key]
        if not connection.was_established:
            self.half_open -= connection.role is Role.PASSIVE
        self.events.append(TimewaitEnded(connection.comm_id))

    def arrive(self, connection: Connection, move: Move, now: Instant) -> State | None:
        """A message's or hint's move: the state before it, or ``None`` (counted) if the table does not list it."""
        before = connection.state
        target = following(before, move)
        if target is None:
            self.drop("out of turn")
            return None
        self.move(connection, target, now)
        return before

    def tell(self, connection: Connection, event: CmEvent) -> None:
        """Tell the consumer that the connection is over, unless it knows."""
        if not connection.is_told:
            connection.is_told = True
            self.events.append(event)

    # -------------------------------------------------------------- output

    def send(self, remote_ip: bytes, message: CmMessage) -> bytes:
        """Put a message out; it is not repeated. Returns its bytes."""
        mad = encode_mad(message)
        self._put(remote_ip, mad, type(message).__name__)
        return mad

    def send_remembered(self, connection: Connection, message: CmMessage) -> None:
        """Put a message out and keep it, so that :meth:`say_again` can give it again."""
        connection.last_said = self.send(connection.remote_ip, message)
        connection.last_kind = type(message).__name__

    def send_timed(self, connection: Connection, message: CmMessage, now: Instant) -> None:
        """Put a message out and repeat it until something stops the timer or the retries are used up."""
        self.send_remembered(connection, message)
        connection.retries_left = connection.max_retries
        self.deadlines.set(connection.comm_id, now + connection.response_timeout)

    def say_again(self, connection: Connection) -> None:
        """Repeat the last remembered message because the peer asked again."""
        self._put(connection.remote_ip, connection.last_said, connection.last_kind)

    def retransmit(self, connection: Connection, now: Instant) -> None:
        """Repeat the last remembered message because nobody answered."""
        connection.retries_left -= 1
        self._retransmitted += 1
        self.say_again(connection)
        self.deadlines.set(connection.comm_id, now + connection.response_timeout)

    def send_disconnect(self, connection: Connection, private_data: bytes, now: Instant) -> None:
        """Put a DREQ out, with a transaction id of its own."""
        self.send_timed(connection, connection.disconnect_request(self.new_transaction_id(), private_data), now)

    def answer_disconnect(self, remote_ip: bytes, request: DisconnectRequest, private_data: bytes = b"") -> None:
        """Put a DREP out."""
        self.send(remote_ip, disconnect_reply(request, private_data))

    def refuse(
        self, remote_ip: bytes, transaction_id: int, local_comm_id: int, remote_comm_id: int, refusal: Refusal
    ) -> None:
        """A REJ on our own account, for a message that no record of ours stands behind."""
        try:
            name = RejectReason(refusal.reason).name
        except ValueError:
            name = str(refusal.reason)
        self._refused[name] = self._refused.get(name, 0) + 1
        message = reject_message(
            transaction_id=transaction_id,
            local_comm_id=local_comm_id,
            remote_comm_id=remote_comm_id,
            refusal=refusal,
        )
        self.send(remote_ip, message)

    def _put(self, remote_ip: bytes, mad: bytes, kind: str) -> None:
        if len(self.outbox) >= self.config.outbox_limit:
            self.drop("overflow")
            return
        self.outbox.append(Datagram(remote_ip, mad))
        self._sent[kind] = self._sent.get(kind, 0) + 1

    # ------------------------------------------------------------ counting

    def receive(self, kind: str) -> None:
        """Count a well-formed message."""
        self._received[kind] = self._received.get(kind, 0) + 1

    def drop(self, cause: str) -> None:
        """Count a message that changed nothing."""
        self._dropped[cause] = self._dropped.get(cause, 0) + 1

    def statistics(self) -> CmStatistics:
        """A frozen snapshot."""
        return CmStatistics(
            connections=len(self.connections),
            half_open=self.half_open,
            timewait=self._timewait,
            listeners=len(self.listeners),
            received=tuple(sorted(self._received.items())),
            sent=tuple(sorted(self._sent.items())),
            retransmitted=self._retransmitted,
            refused=tuple(sorted(self._refused.items())),
            dropped=tuple(sorted(self._dropped.items())),
        )

    def extend(self, connection: Connection, service_timeout: Duration, now: Instant) -> bool:
        """Honour a peer's MRA: wait that much longer before repeating ourselves. False if it asks too often."""
        if connection.extensions >= self.config.max_extensions:
            return False
        connection.extensions += 1
        self.deadlines.set(connection.comm_id, now + service_timeout + connection.response_timeout)
        return True
