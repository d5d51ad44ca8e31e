"""The requester: turns messages into packets, keeps the send window, and resends. Rules 24, 29 to 38, 41, 43, 44
of wire.md 8.

Packets that the peer has not acknowledged stay in ``window``, oldest first, each as (PSN, opcode, payload slice, last
of its message, solicited). ``cursor`` counts those of them that have been sent; going back to a PSN (go-back-N) only
moves the cursor, so a retransmission costs what a first transmission costs.

An acknowledgement is asked for on the last packet of a message when nothing more waits to be sent, on the last packet
that the window lets out, and on every ACK_EVERY-th packet; so whatever was sent last always asks, and ACKs keep
flowing in a long burst.
"""

from collections import deque
from collections.abc import Callable

from fabric.rc.work import CompletionStatus, SendWorkRequest, WorkCompletion
from fabric.units import Duration, Instant
from fabric.wire.headers import ACK, NAK, NAK_PSN_SEQUENCE, RNR, RNR_TIMER
from fabric.wire.opcodes import Opcode
from fabric.wire.psn import PSN_MASK, psn_diff

WINDOW = 128
"""Packets that may be unacknowledged."""
ACK_EVERY = 16
_FIRST, _MIDDLE = int(Opcode.RC_SEND_FIRST), int(Opcode.RC_SEND_MIDDLE)
_LAST, _ONLY = int(Opcode.RC_SEND_LAST), int(Opcode.RC_SEND_ONLY)
_NAK_STATUS = {
    1: CompletionStatus.REMOTE_INVALID_REQUEST,
    2: CompletionStatus.REMOTE_ACCESS_ERROR,
    3: CompletionStatus.REMOTE_OPERATIONAL_ERROR,
}


class Requester:
    """See the module text."""

    def __init__(
        self,
        *,
        path_mtu: int,
        next_psn: int,
        timeout: Duration,
        retry_count: int,
        rnr_retry: int,
        complete: Callable[[WorkCompletion], None],
    ) -> None:
        self.deadline: Instant | None = None
        self.packets = 0
        self.retransmitted = 0
        self.timeouts = 0
        self.naks_received = 0
        self.rnr_received = 0
        self._path_mtu = path_mtu
        self._next_psn = next_psn
        self._timeout = timeout
        self._retry_count = self._retries_left = retry_count
        self._rnr_retry = self._rnr_left = rnr_retry
        self._complete = complete
        self._queue: deque[SendWorkRequest] = deque()
        self._unfinished: deque[SendWorkRequest] = deque()
        self._window: deque[tuple[int, int, bytes | memoryview, bool, bool]] = deque()
        self._cursor = 0
        self._offset = 0
        self._sent_ever = 0
        """How many packets of the window have been sent at least once."""
        self._not_before: Instant | None = None
        """End of an RNR wait."""
        self._going_back = False

    def post(self, request: SendWorkRequest) -> None:
        """Queue a message."""
        self._queue.append(request)

    def poll(self, now: Instant, *, draining: bool = False) -> tuple[int, int, bytes | memoryview, bool, bool] | None:
        """The next packet: PSN, opcode, payload, whether to ask for an ACK, solicited; ``None`` when none may go
        now. While ``draining`` a message that has been begun is finished, and none is begun.
        """
        if self._not_before is not None:
            if now < self._not_before:
                return None
            self._not_before = self.deadline = None
        window, cursor = self._window, self._cursor
        if cursor == len(window):
            if not self._queue or cursor >= WINDOW or (draining and not self._offset):
                return None
            self._cut()
        psn, opcode, payload, last, solicited = window[cursor]
        self._cursor = cursor = cursor + 1
        self.packets += 1
        if cursor <= self._sent_ever:
            self.retransmitted += 1
        else:
            self._sent_ever = cursor
        ask = (
            psn % ACK_EVERY == 0
            or cursor == WINDOW
            or (cursor == len(window) and (not self._queue or (draining and last)))
        )
        if self.deadline is None and self._timeout:
            self.deadline = now + self._timeout
        return psn, opcode, payload, ask, solicited

    def handle_acknowledge(self, psn: int, syndrome: int, now: Instant) -> CompletionStatus | None:
        """An AETH for ``psn``; a status other than ``None`` is fatal."""
        window = self._window
        if not window:
            return None
        ahead = psn_diff(psn, window[0][0])
        if not 0 <= ahead < self._sent_ever:
            return None  # behind: an old duplicate (rule 36); ahead of all that was sent: a ghost (rule 35)
        kind, value = syndrome >> 5, syndrome & 0x1F
        if kind == ACK:
            self._acknowledge(ahead + 1, now)
            return None
        if kind == RNR:
            if self._not_before is not None and not ahead:
                return None  # a copy of the one that we are waiting for
            self.rnr_received += 1
            if ahead:
                self._acknowledge(ahead, now)
            self._retries_left = self._retry_count  # the peer answers: losses within a long wait are not its death
            if self._rnr_retry != 7:
                if self._rnr_left == 0:
                    return CompletionStatus.RNR_RETRY_EXCEEDED
                self._rnr_left -= 1
            self._cursor = 0
            self._not_before = self.deadline = now + RNR_TIMER[value]
            return None
        if kind != NAK or not (value == NAK_PSN_SEQUENCE or value in _NAK_STATUS):
            return None
        self.naks_received += 1
        if ahead:
            self._acknowledge(ahead, now)
        if value != NAK_PSN_SEQUENCE:
            return _NAK_STATUS[value]
        if not self._going_back:
            self._cursor = 0
            self._going_back = True
        return None

    def handle_timeout(self, now: Instant) -> CompletionStatus | None:
        """Resend from the oldest unacknowledged packet, unless the retries are used up."""
        if self.deadline is None or now < self.deadline:
            return None
        self.deadline = None
        if self._not_before is not None:
            self._not_before = None  # the RNR wait is over; poll sends again
            return None
        if not self._window:
            return None
        self.timeouts += 1
        if self._retries_left == 0:
            return CompletionStatus.RETRY_EXCEEDED
        self._retries_left -= 1
        self._cursor = 0
        self._going_back = True
        return None

    def flush(self, first: CompletionStatus) -> None:
        """End all work: the oldest with ``first``, the rest flushed."""
        if self._offset:
            self._queue.popleft()  # it has been cut in part and stands among the unfinished
        status = first
        for request in [*self._unfinished, *self._queue]:
            self._complete(WorkCompletion(request.wr_id, "send", status))
            status = CompletionStatus.FLUSHED
        self._unfinished.clear()
        self._queue.clear()
        self._window.clear()
        self._cursor = self._sent_ever = self._offset = 0
        self.deadline = self._not_before = None

    def has_work(self) -> bool:
        """Whether anything is queued or unacknowledged."""
        return bool(self._queue or self._window)

    def _cut(self) -> None:
        """Move the next packet's worth of the oldest queued message into the window."""
        request = self._queue[0]
        payload, mtu, offset = request.payload, self._path_mtu, self._offset
        size = len(payload)
        end = offset + mtu
        last = end >= size
        if offset == 0:
            self._unfinished.append(request)
            opcode = _ONLY if last else _FIRST
        else:
            opcode = _LAST if last else _MIDDLE
        part = payload if offset == 0 and last else memoryview(payload)[offset:end]
        self._window.append((self._next_psn, opcode, part, last, last and request.solicited))
        self._next_psn = (self._next_psn + 1) & PSN_MASK
        if last:
            self._queue.popleft()
            self._offset = 0
        else:
            self._offset = end

    def _acknowledge(self, count: int, now: Instant) -> None:
        """The first ``count`` packets of the window have arrived."""
        window = self._window
        for _ in range(count):
            if window.popleft()[3]:
                done = self._unfinished.popleft()
                self._complete(WorkCompletion(done.wr_id, "send", CompletionStatus.SUCCESS))
        self._cursor = max(0, self._cursor - count)
        self._sent_ever -= count
        self._retries_left, self._rnr_left = self._retry_count, self._rnr_retry
        self._going_back = False
        self._not_before = None  # what was not ready has been taken after all
        self.deadline = now + self._timeout if window and self._timeout else None
