"""The handoff registry of a host: which descriptor controls which socket, and every transfer of control under way.

**References.** A socket lives while a descriptor refers to it or a ticket for it is out (G11). The last one to go
reports ``LastReferenceClosed``.

**Epoch.** Counts how often control has moved: +1 at each commit. A RETURN of a transfer that never committed moved
nothing and leaves it; a RETURN after the commit moves control back and adds one.

**Outcomes.** Before the commit any single failure ends in RETURN: the source controls again; if the descriptor that was
handed over is closed by then, in ABORT. After it the target owns the socket: its death (``owner_died``) is an ABORT,
unless the source still holds that descriptor and the target moved no byte and set no option (``used``), then RETURN
with a new epoch. An owner that merely closes its descriptor while others are left gives control to the one it came
from.
"""

from collections import deque
from dataclasses import dataclass

from fabric.errors import IllegalTransition
from fabric.ids import ProcessInstance
from fabric.units import SECOND, Duration, Instant
from provider.errors import WsaErrno, WsaError
from provider.handoff.decisions import (
    CLOSED,
    ControlMoved,
    ControlReturned,
    Grant,
    Holder,
    LastReferenceClosed,
    RegistryEvent,
    RegistryStatistics,
    SocketAborted,
    TransferId,
)
from provider.handoff.tickets import NONCE_SIZE, is_genuine, seal, ticket_number
from provider.handoff.transfer_state import TransferState, next_state
from provider.protocol_info import WSAPROTOCOL_INFOW

__all__ = [
    "CLOSED",
    "DEFAULT_LIFETIME",
    "TICKETS_MAX",
    "TICKETS_PER_PROCESS",
    "ControlMoved",
    "ControlReturned",
    "Grant",
    "HandoffRegistry",
    "Holder",
    "LastReferenceClosed",
    "RegistryEvent",
    "RegistryStatistics",
    "SocketAborted",
    "TransferId",
]

TICKETS_MAX = 1024
TICKETS_PER_PROCESS = 256
DEFAULT_LIFETIME: Duration = 5 * SECOND


@dataclass(slots=True, eq=False)
class _Transfer:
    number: TransferId
    socket: "_Socket"
    source: Holder
    target: ProcessInstance
    nonce: bytes
    lifetime: Duration
    state: TransferState = TransferState.SUSPENDING
    ticket: int = 0
    info: bytes = b""
    expires_at: Instant | None = None


@dataclass(slots=True, eq=False)
class _Socket:
    number: int
    holders: list[Holder]
    controlling: Holder | None
    epoch: int = 0
    transfer: _Transfer | None = None
    came_from: Holder | None = None
    """The source of the last commit."""
    untouched: bool = False
    """The controlling process has neither moved a byte nor set an option since the commit."""


class HandoffRegistry:
    """See the module text. All methods are synchronous; ``secret`` bytes come from the caller, who has entropy."""

    def __init__(self, node_key: bytes) -> None:
        assert len(node_key) >= 16, "the node's key is too short"
        self._key = node_key
        self._sockets: dict[int, _Socket] = {}
        self._by_holder: dict[Holder, _Socket] = {}
        self._transfers: dict[TransferId, _Transfer] = {}
        self._tickets: dict[int, _Transfer] = {}
        self._resuming: dict[TransferId, _Transfer] = {}
        self._events: deque[RegistryEvent] = deque()
        self._next = 0
        self._commits = self._returns = self._aborts = self._refused = 0

    # ----------------------------------------------------------------- commands

    def open(self, socket_id: int, holder: Holder, now: Instant) -> None:
        """A new socket with its first descriptor, which controls it."""
        assert socket_id not in self._sockets, "the socket is known already"
        assert holder not in self._by_holder, "a descriptor has one socket"
        socket = _Socket(socket_id, [holder], holder)
        self._sockets[socket_id] = socket
        self._by_holder[holder] = socket

    def join(self, socket_id: int, holder: Holder, now: Instant) -> None:
        """One more descriptor of a socket, which does not control it: a child process has inherited it."""
        assert holder not in self._by_holder, "a descriptor has one socket"
        socket = self._sockets[socket_id]
        socket.holders.append(holder)
        self._by_holder[holder] = socket

    def begin(
        self,
        socket_id: int,
        source: Holder,
        target: ProcessInstance,
        now: Instant,
        *,
        secret: bytes,
        lifetime: Duration = DEFAULT_LIFETIME,
    ) -> TransferId:
        """WSPDuplicateSocket begins. WSAEINVAL if ``source`` does not control the socket, WSAENOBUFS without room."""
        socket = self._sockets.get(socket_id)
        if socket is None or source not in socket.holders:
            raise WsaError(WsaErrno.WSAENOTSOCK, "no such socket")
        if socket.transfer is not None:
            raise WsaError(WsaErrno.WSAEINVAL, "the socket is being handed over already")
        if socket.controlling != source:
            raise WsaError(WsaErrno.WSAEINVAL, "another process controls the socket")
        mine = sum(t.source.process == source.process for t in self._transfers.values())
        if len(self._transfers) >= TICKETS_MAX or mine >= TICKETS_PER_PROCESS:
            raise WsaError(WsaErrno.WSAENOBUFS, "too many hand-overs are under way")
        assert len(secret) >= NONCE_SIZE
        self._next += 1
        transfer = _Transfer(TransferId(self._next), socket, source, target, secret[:NONCE_SIZE], lifetime)
        self._transfers[transfer.number] = transfer
        socket.transfer = transfer
        return transfer.number

    def drained(self, number: TransferId, now: Instant) -> None:
        """The stream stands still."""
        transfer = self._open_transfer(number, "drained")
        transfer.state = next_state(transfer.state, "drained")

    def record_ticket(self, number: TransferId, template: WSAPROTOCOL_INFOW, now: Instant) -> WSAPROTOCOL_INFOW:
        """Issue the ticket; its lifetime runs from now."""
        transfer = self._open_transfer(number, "ticket recorded")
        transfer.state = next_state(transfer.state, "ticket recorded")
        assert template.dwProviderReserved not in self._tickets, "the provider reused a number that is out"
        info = seal(template, self._key, transfer.nonce, transfer.target)
        transfer.ticket, transfer.info = template.dwProviderReserved, info.pack()
        transfer.expires_at = now + transfer.lifetime
        self._tickets[transfer.ticket] = transfer
        return info

    def check(self, info: bytes, process: ProcessInstance, now: Instant) -> Grant:
        """WSPSocket with a ticket: WSAEINVAL, and no effect at all, unless it is good for this process now."""
        transfer = self._tickets.get(ticket_number(info)) if len(info) >= 116 else None
        good = (
            transfer is not None
            and transfer.info == info
            and is_genuine(info, self._key, process)
            and transfer.target == process
            and transfer.expires_at is not None
            and now < transfer.expires_at
        )
        if not good or transfer is None:
            self._refused += 1
            raise WsaError(WsaErrno.WSAEINVAL, "this WSAPROTOCOL_INFOW is not, or no longer, good for this process")
        return Grant(transfer.number, transfer.socket.number)

    def commit(self, grant: Grant, holder: Holder, now: Instant) -> int:
        """THE commit record: ``holder`` owns the socket. Returns the new epoch.

        WSAEINVAL, without any effect, if the ticket was redeemed, expired or taken back since ``check``.
        """
        transfer = self._transfers.get(grant.transfer)
        if transfer is None or transfer.expires_at is None or now >= transfer.expires_at:
            self._refused += 1
            raise WsaError(WsaErrno.WSAEINVAL, "the ticket is no longer good")
        assert holder.process == transfer.target, "the grant was given to another process"
        assert holder not in self._by_holder, "a redeemed ticket makes a new descriptor"
        transfer.socket.holders.append(holder)
        self._by_holder[holder] = transfer.socket
        self._commit(transfer, holder, "commit")
        transfer.socket.came_from = transfer.source if transfer.source in transfer.socket.holders else None
        return transfer.socket.epoch

    def take(self, number: TransferId, holder: Holder, now: Instant) -> int:
        """The commit of a transfer that needs no ticket, to a descriptor that the socket has already (``join``)."""
        transfer = self._open_transfer(number, "taken")
        assert holder in transfer.socket.holders, "only a relative of the source takes"
        self._commit(transfer, holder, "taken")
        transfer.socket.came_from = None
        return transfer.socket.epoch

    def resumed(self, number: TransferId, now: Instant) -> None:
        """The stream runs under its new owner; nothing is left of the transfer. IllegalTransition before the commit."""
        transfer = self._resuming.get(number) or self._open_transfer(number, "resumed")
        transfer.state = next_state(transfer.state, "resumed")
        del self._resuming[number]

    def cancel(self, number: TransferId, now: Instant) -> None:
        """The transfer failed before its commit."""
        transfer = self._transfers.get(number)
        if transfer is not None:
            self._give_back(transfer, "the hand-over failed")

    def used(self, socket_id: int) -> None:
        """The controlling process moved a byte or set an option."""
        socket = self._sockets.get(socket_id)
        if socket is not None:
            socket.untouched = False

    def close(self, holder: Holder, now: Instant) -> None:
        """A descriptor ends; unknown ones are ignored, so closing is idempotent.

        The end of the controlling one gives control to the dormant descriptor that it came from (else the newest one);
        the end of one that has a ticket out changes nothing for the ticket.
        """
        socket = self._by_holder.pop(holder, None)
        if socket is None:
            return
        socket.holders.remove(holder)
        if socket.came_from == holder:
            socket.came_from = None
        transfer = socket.transfer
        if transfer is not None:
            if transfer.state is not TransferState.TICKETED and transfer.source == holder:
                self._give_back(transfer, "the source closed its descriptor")
        elif socket.controlling == holder:
            socket.controlling = None
            heir = socket.came_from or (socket.holders[-1] if socket.holders else None)
            if heir is not None:
                self._move_back(socket, heir, CLOSED)
        self._collect(socket)

    def process_exited(self, process: ProcessInstance, now: Instant) -> None:
        """A process instance is gone: transfers to it fail; its descriptors are closed by the switch, one by one."""
        for transfer in list(self._transfers.values()):
            if transfer.target == process:
                self._give_back(transfer, "the target process ended")

    def owner_died(self, holder: Holder, now: Instant, relative: Holder | None = None) -> bool:
        """The controlling process died without closing; ask before ``close(holder)``.

        True: RETURN, the source has the untouched socket again, or ``relative``, a descriptor inherited over fork, has
        it in whatever state. False: it did not control, or ABORT: nobody controls
        the socket from here on, and its other descriptors, if any, can only be closed.
        """
        socket = self._by_holder.get(holder)
        if socket is None or socket.controlling != holder or socket.transfer is not None:
            return False
        if relative is not None:
            self._move_back(socket, relative, "a process that shares the socket over fork died")
            return True
        source = socket.came_from
        if socket.untouched and source is not None and source.process != holder.process:
            self._move_back(socket, source, "the target died before it used the socket")
            return True
        socket.controlling = None
        self._aborts += 1
        if len(socket.holders) > 1:
            self._events.append(SocketAborted(socket.number, "the controlling process died"))
        return False

    # -------------------------------------------------------------------- timers

    def handle_timeout(self, now: Instant) -> None:
        """Tickets that nobody redeemed in time."""
        for transfer in list(self._tickets.values()):
            if transfer.expires_at is not None and now >= transfer.expires_at:
                self._give_back(transfer, "the ticket expired")

    def poll_timeout(self) -> Instant | None:
        """When the next ticket expires."""
        return min((t.expires_at for t in self._tickets.values() if t.expires_at is not None), default=None)

    def poll_event(self) -> RegistryEvent | None:
        """The next decision."""
        return self._events.popleft() if self._events else None

    # ------------------------------------------------------------------- getters

    def may_use(self, socket_id: int, holder: Holder) -> bool:
        """Whether ``holder`` may move bytes and set options now."""
        socket = self._sockets.get(socket_id)
        return socket is not None and socket.transfer is None and socket.controlling == holder

    def is_untouched(self, socket_id: int) -> bool:
        """Whether the controlling process has moved no byte and set no option since the last commit, as far as told."""
        socket = self._sockets.get(socket_id)
        return socket is not None and socket.untouched

    def controlling(self, socket_id: int) -> Holder | None:
        """The descriptor that controls the socket; ``None`` in transfer and for unknown sockets."""
        socket = self._sockets.get(socket_id)
        return None if socket is None or socket.transfer is not None else socket.controlling

    def epoch(self, socket_id: int) -> int:
        """How often control has moved."""
        socket = self._sockets.get(socket_id)
        return 0 if socket is None else socket.epoch

    def expects(self, process: ProcessInstance) -> bool:
        """Whether a socket is being handed to this process."""
        return any(transfer.target == process for transfer in self._transfers.values())

    def statistics(self) -> RegistryStatistics:
        """A frozen snapshot."""
        return RegistryStatistics(
            len(self._sockets),
            len(self._by_holder),
            len(self._transfers),
            self._commits,
            self._returns,
            self._aborts,
            self._refused,
            len(self._resuming),
        )

    # ------------------------------------------------------------------- private

    def _commit(self, transfer: _Transfer, holder: Holder, event: str) -> None:
        transfer.state = next_state(transfer.state, event)
        self._end(transfer)
        self._resuming[transfer.number] = transfer
        socket = transfer.socket
        socket.controlling = holder
        socket.epoch += 1
        socket.untouched = True
        self._commits += 1
        self._events.append(ControlMoved(socket.number, holder, socket.epoch))

    def _open_transfer(self, number: TransferId, event: str) -> _Transfer:
        transfer = self._transfers.get(number)
        if transfer is None:
            raise IllegalTransition("transfer", "ended", event, "registry")
        return transfer

    def _end(self, transfer: _Transfer) -> None:
        self._transfers.pop(transfer.number, None)
        self._tickets.pop(transfer.ticket, None)
        transfer.socket.transfer = None

    def _give_back(self, transfer: _Transfer, reason: str) -> None:
        """RETURN if the source still holds its descriptor, else ABORT."""
        socket = transfer.socket
        alive = transfer.source in socket.holders
        transfer.state = next_state(transfer.state, "return" if alive else "abort")
        self._end(transfer)
        if alive:
            self._returns += 1
            socket.controlling = transfer.source
            self._events.append(ControlReturned(socket.number, transfer.source, socket.epoch, reason))
        else:
            self._aborts += 1
            socket.controlling = None
            self._events.append(SocketAborted(socket.number, reason))
            self._collect(socket)

    def _move_back(self, socket: _Socket, to: Holder, reason: str) -> None:
        socket.controlling = to
        socket.epoch += 1
        socket.untouched = False
        socket.came_from = None
        self._returns += 1
        self._events.append(ControlReturned(socket.number, to, socket.epoch, reason))

    def _collect(self, socket: _Socket) -> None:
        if not socket.holders and socket.transfer is None and self._sockets.pop(socket.number, None) is not None:
            self._events.append(LastReferenceClosed(socket.number))
