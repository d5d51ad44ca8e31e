"""The requester: turns messages into packets, keeps the send window, and resends. Rules 11 to 13, 19, 24, 29 to 41, 43,
44 of wire.md 8.

Packets that the peer has not acknowledged stay in ``window``, oldest first, each as (PSN, opcode, payload slice, last
of its message, solicited, extension headers). ``cursor`` counts those of them that have been sent; going back to a PSN
(go-back-N) only moves the cursor, so a retransmission costs what a first transmission costs.

An RDMA READ owns one PSN per packet of its answer, and has as many places in the window. Its request moves the cursor
past all of them; every response empties the foremost one. So a request that is repeated asks for what is missing and no
more: the place at the cursor says where to begin. No acknowledgement empties the place of a response (rule 12); one
that reaches beyond it, or a response that does, shows that responses were lost, and the requester goes back.

An acknowledgement is asked for on the last packet of a message when nothing more waits to be sent, on the last packet
that the window lets out, and on every ACK_EVERY-th packet; so whatever was sent last always asks, and ACKs keep
flowing in a long burst.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from fabric.rc.work import (
    CompletionStatus,
    ReadWorkRequest,
    SendQueueRequest,
    SendWorkRequest,
    WorkCompletion,
    WriteWorkRequest,
)
from fabric.units import Duration, Instant
from fabric.wire.headers import ACK, NAK, NAK_PSN_SEQUENCE, RNR, RNR_TIMER, ImmDt, Reth
from fabric.wire.opcodes import Opcode
from fabric.wire.psn import PSN_MASK, psn_diff

WINDOW = 128
"""Packets that may be unacknowledged."""
ACK_EVERY = 16
READ_PACKETS_MAX = 1 << 16
"""Packets in the answer to one RDMA READ; a place in the window is kept for each."""
_SEND = (int(Opcode.RC_SEND_FIRST), int(Opcode.RC_SEND_MIDDLE), int(Opcode.RC_SEND_LAST), int(Opcode.RC_SEND_ONLY))
_WRITE = (int(Opcode.RC_WRITE_FIRST), int(Opcode.RC_WRITE_MIDDLE), int(Opcode.RC_WRITE_LAST), int(Opcode.RC_WRITE_ONLY))
_WRITE_IMMEDIATE = (*_WRITE[:2], int(Opcode.RC_WRITE_LAST_IMMEDIATE), int(Opcode.RC_WRITE_ONLY_IMMEDIATE))
"""Opcodes of a message's packets: first, middle, last, only."""
_READ = int(Opcode.RC_READ_REQUEST)
_ENDS_READ = (int(Opcode.RC_READ_RESPONSE_LAST), int(Opcode.RC_READ_RESPONSE_ONLY))
_pack_reth, _pack_immediate = Reth.FORMAT.pack, ImmDt.FORMAT.pack

Outgoing: TypeAlias = tuple[int, int, bytes | memoryview, bool, bool, bytes]
"""PSN, opcode, payload, last of its message (in the window) or whether to ask for an ACK (given out), solicited,
extension headers.
"""
_NAK_STATUS = {
    1: CompletionStatus.REMOTE_INVALID_REQUEST,
    2: CompletionStatus.REMOTE_ACCESS_ERROR,
    3: CompletionStatus.REMOTE_OPERATIONAL_ERROR,
}


@dataclass(slots=True, eq=False)
class _Read:
    """An RDMA READ that has been begun: its answer owns ``count`` PSNs from ``psn`` on."""

    request: ReadWorkRequest
    psn: int
    count: int


class Requester:
    """See the module text. ``read_depth`` is how many RDMA READs may be unanswered at a time."""

    def __init__(
        self,
        *,
        path_mtu: int,
        next_psn: int,
        timeout: Duration,
        retry_count: int,
        rnr_retry: int,
        read_depth: int = 0,
        complete: Callable[[WorkCompletion], None],
    ) -> None:
        self.read_depth = read_depth
        self.deadline: Instant | None = None
        self.packets = 0
        self.retransmitted = 0
        self.timeouts = 0
        self.naks_received = 0
        self.rnr_received = 0
        self.responses_dropped = 0
        self._path_mtu = path_mtu
        self._next_psn = next_psn
        self._timeout = timeout
        self._retry_count = self._retries_left = retry_count
        self._rnr_retry = self._rnr_left = rnr_retry
        self._complete = complete
        self._queue: deque[SendQueueRequest] = deque()
        self._unfinished: deque[SendQueueRequest] = deque()
        self._reads: deque[_Read] = deque()
        self._window: deque[Outgoing] = deque()
        self._cursor = 0
        self._offset = 0
        self._sent_ever = 0
        """How many packets of the window have been sent at least once."""
        self._not_before: Instant | None = None
        """End of an RNR wait."""
        self._going_back = False

    def post(self, request: SendQueueRequest) -> None:
        """Queue a message, or a read."""
        self._queue.append(request)

    def poll(self, now: Instant, *, draining: bool = False) -> Outgoing | None:
        """The next packet: PSN, opcode, payload, whether to ask for an ACK, solicited, extension headers; ``None`` when
        none may go now. While ``draining`` a message that has been begun is finished, and none is begun.
        """
        if self._not_before is not None:
            if now < self._not_before:
                return None
            self._not_before = self.deadline = None
        window, cursor = self._window, self._cursor
        if cursor == len(window) and (
            not self._queue or cursor >= WINDOW or (draining and not self._offset) or not self._cut()
        ):
            return None
        psn, opcode, payload, last, solicited, extension = window[cursor]
        if opcode == _READ:
            extension, places = self._read_request(psn)
            self._cursor = cursor = cursor + places
        else:
            self._cursor = cursor = cursor + 1
        self.packets += 1
        if cursor <= self._sent_ever:
            self.retransmitted += 1
        else:
            self._sent_ever = cursor
        ask = (
            psn % ACK_EVERY == 0
            or cursor >= WINDOW
            or (cursor == len(window) and (not self._queue or (draining and last)))
        )
        if self.deadline is None and self._timeout:
            self.deadline = now + self._timeout
        return psn, opcode, payload, ask, solicited, extension

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
            if self._reads:
                self._acknowledge_up_to(ahead + 1, now)
            else:
                self._acknowledge(ahead + 1, now)
            return None
        if kind == RNR:
            if self._not_before is not None and not ahead:
                return None  # a copy of the one that we are waiting for
            self.rnr_received += 1
            if ahead:
                self._acknowledge_up_to(ahead, now)
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
            ahead -= self._acknowledge_up_to(ahead, now)
        if value != NAK_PSN_SEQUENCE:
            self._flush_before(ahead)
            return _NAK_STATUS[value]
        self._go_back()
        return None

    def handle_read_response(self, psn: int, opcode: int, payload: bytes, now: Instant) -> CompletionStatus | None:
        """One packet of the answer to a read; a status other than ``None`` is fatal.

        What fits no place, or would leave one before it empty, is counted and dropped (rules 39 and 40).
        """
        window = self._window
        ahead = psn_diff(psn, window[0][0]) if window else -1
        if not 0 <= ahead < self._sent_ever or window[ahead][1] != _READ:
            self.responses_dropped += 1
            return None
        if ahead:
            ahead -= self._acknowledge_up_to(ahead, now)
        if ahead:
            self.responses_dropped += 1
            return None
        read, last = self._reads[0], window[0][3]
        offset = psn_diff(psn, read.psn) * self._path_mtu
        expected = read.request.size - offset if last else self._path_mtu
        if len(payload) != expected or (opcode in _ENDS_READ) is not last:
            self.responses_dropped += 1
            return None
        try:
            read.request.place(offset, payload)
        except ValueError:
            return CompletionStatus.LOCAL_PROTECTION_ERROR
        self._acknowledge(1, now)
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
            self._complete(WorkCompletion(request.wr_id, request.kind, status))
            status = CompletionStatus.FLUSHED
        self._unfinished.clear()
        self._queue.clear()
        self._reads.clear()
        self._window.clear()
        self._cursor = self._sent_ever = self._offset = 0
        self.deadline = self._not_before = None

    def has_work(self) -> bool:
        """Whether anything is queued or unacknowledged."""
        return bool(self._queue or self._window)

    def _cut(self) -> bool:
        """Move the next packet's worth of the oldest queued message into the window; false if it must wait."""
        request = self._queue[0]
        opcodes: tuple[int, ...] = _SEND
        extension = b""
        if not isinstance(request, SendWorkRequest):
            if isinstance(request, ReadWorkRequest):
                return self._cut_read(request)
            opcodes, extension = self._write_headers(request)
        payload, mtu, offset = request.payload, self._path_mtu, self._offset
        size = len(payload)
        end = offset + mtu
        last = end >= size
        if offset == 0:
            self._unfinished.append(request)
            opcode = opcodes[3] if last else opcodes[0]
        else:
            opcode = opcodes[2] if last else opcodes[1]
        part = payload if offset == 0 and last else memoryview(payload)[offset:end]
        self._window.append((self._next_psn, opcode, part, last, last and request.solicited, extension))
        self._next_psn = (self._next_psn + 1) & PSN_MASK
        if last:
            self._queue.popleft()
            self._offset = 0
        else:
            self._offset = end
        return True

    def _write_headers(self, request: WriteWorkRequest) -> tuple[tuple[int, ...], bytes]:
        """Opcodes of an RDMA WRITE, and the extension headers of its next packet."""
        header, size = b"", len(request.payload)
        if self._offset == 0:
            header = _pack_reth(request.remote_address, request.rkey, size)
        if request.immediate is None:
            return _WRITE, header
        if self._offset + self._path_mtu >= size:
            header += _pack_immediate(request.immediate)
        return _WRITE_IMMEDIATE, header

    def _cut_read(self, request: ReadWorkRequest) -> bool:
        """Give the oldest queued read its places in the window, unless too many are unanswered (rule 19)."""
        if len(self._reads) >= self.read_depth:
            return False
        psn, count = self._next_psn, read_packets(request.size, self._path_mtu)
        self._reads.append(_Read(request, psn, count))
        self._unfinished.append(self._queue.popleft())
        self._window.extend(((psn + n) & PSN_MASK, _READ, b"", n == count - 1, False, b"") for n in range(count))
        self._next_psn = (psn + count) & PSN_MASK
        return True

    def _read_request(self, psn: int) -> tuple[bytes, int]:
        """The header that asks for a read's answer from ``psn`` on (rule 13), and how many places that fills."""
        for read in self._reads:
            begun = psn_diff(psn, read.psn)
            if begun < read.count:
                break
        request, offset = read.request, begun * self._path_mtu
        header = _pack_reth(request.remote_address + offset, request.rkey, request.size - offset)
        return header, read.count - begun

    def _acknowledge_up_to(self, count: int, now: Instant) -> int:
        """The peer has executed the first ``count`` packets of the window. An unanswered read among them stops it: its
        responses were lost. Returns how many places are empty now.
        """
        if not self._reads:
            self._acknowledge(count, now)
            return count
        window = self._window
        good = next((n for n, packet in enumerate(islice(window, count)) if packet[1] == _READ), count)
        if good:
            self._acknowledge(good, now)
        if good < count:
            self._go_back()
        return good

    def _go_back(self) -> None:
        """Resend from the oldest unacknowledged packet; not again while that is under way (rule 37)."""
        if not self._going_back:
            self._cursor = 0
            self._going_back = True

    def _flush_before(self, count: int) -> None:
        """A request ``count`` places into the window was refused: what stands before it ends without an answer."""
        for packet in islice(self._window, count):
            if packet[3]:
                done = self._unfinished.popleft()
                self._complete(WorkCompletion(done.wr_id, done.kind, CompletionStatus.FLUSHED))

    def _acknowledge(self, count: int, now: Instant) -> None:
        """The first ``count`` packets of the window have arrived, or been answered."""
        window = self._window
        for _ in range(count):
            packet = window.popleft()
            if packet[3]:
                if packet[1] == _READ:
                    self._reads.popleft()
                done = self._unfinished.popleft()
                self._complete(WorkCompletion(done.wr_id, done.kind, CompletionStatus.SUCCESS))
        self._cursor = max(0, self._cursor - count)
        self._sent_ever -= count
        self._retries_left, self._rnr_left = self._retry_count, self._rnr_retry
        self._going_back = False
        self._not_before = None  # what was not ready has been taken after all
        self.deadline = now + self._timeout if window and self._timeout else None


def read_packets(size: int, path_mtu: int) -> int:
    """How many PSNs the answer to a read of ``size`` bytes takes (rule 11)."""
    return max(1, -(-size // path_mtu))
