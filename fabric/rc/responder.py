"""The responder: what a queue pair does with requests. Rules 1 to 9, 14 to 17, 19 to 23, 43 of wire.md 8.

It accepts exactly the expected PSN. A request ahead of it draws one NAK until the next one in order; one behind it is
a duplicate: a READ is executed again, anything else never is, and is acknowledged again. Packets of a SEND are
collected and handed over as one ``bytes`` at the last; RDMA is ``remote_access``'s business.

Atomics, and SENDs that carry immediate data or a key, are invalid requests like a wrong order of opcodes; so is a READ
to a queue pair that was given no responder resources.
"""

from collections import deque
from collections.abc import Callable

from fabric.rc.memory import MemoryRegion
from fabric.rc.remote_access import IMMEDIATE, INVALID, NO_ACCESS, READ_REQUEST, WRITES, Refusal, RemoteAccess
from fabric.rc.work import CompletionStatus, ReceiveWorkRequest, WorkCompletion
from fabric.wire.fast import Packet
from fabric.wire.headers import (
    NAK_PSN_SEQUENCE,
    ack_syndrome,
    nak_syndrome,
    rnr_syndrome,
)
from fabric.wire.opcodes import Opcode
from fabric.wire.psn import PSN_MASK, psn_add, psn_diff

_FIRST, _MIDDLE = int(Opcode.RC_SEND_FIRST), int(Opcode.RC_SEND_MIDDLE)
_LAST, _ONLY = int(Opcode.RC_SEND_LAST), int(Opcode.RC_SEND_ONLY)
_SENDS = (_ONLY, _FIRST, _MIDDLE, _LAST)
_UNFINISHED, _BEGINNING = (_FIRST, _MIDDLE), (_FIRST, _ONLY)
"""Opcodes after which a message goes on, and with which one begins."""


READ_ANSWER = 0x100
"""Stands where an AETH's syndrome stands (8 bits): here the answer to a read is to be sent."""


class Responder:
    """See the module text. ``answer(psn, syndrome)`` sends an AETH, with READ_ANSWER as the syndrome the answer to the
    next read of ``remote_access``; ``complete`` reports a receive.
    """

    def __init__(
        self,
        *,
        path_mtu: int,
        expected_psn: int,
        min_rnr_timer: int,
        answer: Callable[[int, int], None],
        complete: Callable[[WorkCompletion], None],
        receives: deque[ReceiveWorkRequest],
        remote_access: RemoteAccess,
    ) -> None:
        self.remote_access = remote_access
        self.expected_psn = expected_psn
        self.msn = 0
        self.duplicates = 0
        self.naks = 0
        self.rnr_naks = 0
        self._path_mtu = path_mtu
        self._min_rnr_timer = min_rnr_timer
        self._answer = answer
        self._complete = complete
        self._receives = receives
        self._parts: list[bytes] = []
        self._size = 0
        self._in_message = False
        self._nak_sent = False
        self._acknowledged = psn_add(expected_psn, -1)
        """The PSN that a duplicate is acknowledged with: of the last SEND or WRITE, never of a READ (rule 7)."""

    def handle_request(self, packet: Packet) -> CompletionStatus | None:
        """One request packet; a status other than ``None`` is fatal for the queue pair."""
        psn = packet.psn
        if psn != self.expected_psn:
            self._out_of_order(packet)
            return None
        opcode, payload = packet.opcode, packet.payload
        if opcode not in _SENDS:
            return self._handle_other(packet)
        size = len(payload)
        fault = self._check(opcode, size)
        if fault is not None:
            return self._refuse(psn, fault)
        if not self._in_message and not self._receives:
            self._not_ready(psn)
            return None
        self._nak_sent = False
        self._acknowledged = psn
        self.expected_psn = (psn + 1) & PSN_MASK
        if opcode in _UNFINISHED:
            self._in_message = True
            self._parts.append(payload)
            self._size += size
        else:
            if self._in_message:
                self._parts.append(payload)
                payload = b"".join(self._parts)
                self._parts.clear()
                self._in_message = False
            self._size = 0
            self.msn = (self.msn + 1) & PSN_MASK
            receive = self._receives.popleft()
            self._complete(WorkCompletion(receive.wr_id, "receive", CompletionStatus.SUCCESS, payload))
        if packet.ack_request:
            if self.remote_access.accepted:
                self.remote_access.forget_before(self.expected_psn)
            self._answer(psn, ack_syndrome())
        return None

    def revoke(self, region: MemoryRegion) -> CompletionStatus:
        """``region``, out of which a read is being answered, is not registered any more: the peer hears at the place of
        the next response that its access has ended. The status is fatal.
        """
        read = self.remote_access.begun_in(region)
        assert read is not None, "the caller has looked"
        return self._refuse(psn_add(read.psn, read.next), NO_ACCESS)

    def _handle_other(self, packet: Packet) -> CompletionStatus | None:
        """A request in its turn that is no SEND."""
        if packet.opcode in WRITES:
            return self._write(packet)
        if packet.opcode == READ_REQUEST:
            return self._read(packet)
        return self._refuse(packet.psn, INVALID)

    def _write(self, packet: Packet) -> CompletionStatus | None:
        """A packet of an RDMA WRITE in its turn."""
        psn, opcode = packet.psn, packet.opcode
        refusal = (
            INVALID
            if self._in_message
            else self.remote_access.check_write(opcode, packet.extension[:16], packet.payload)
        )
        if refusal is not None:
            return self._refuse(psn, refusal)
        if opcode in IMMEDIATE and not self._receives:
            self._not_ready(psn)
            return None
        refusal = self.remote_access.place(opcode, packet.extension, packet.payload)
        if refusal is not None:
            return self._refuse(psn, refusal)
        self._nak_sent = False
        self._acknowledged = psn
        self.expected_psn = (psn + 1) & PSN_MASK
        if not self.remote_access.writing:
            self.msn = (self.msn + 1) & PSN_MASK
            if opcode in IMMEDIATE:
                immediate = int.from_bytes(packet.extension[-4:], "big")
                wr_id = self._receives.popleft().wr_id
                self._complete(WorkCompletion(wr_id, "receive", CompletionStatus.SUCCESS, b"", immediate))
        if packet.ack_request:
            if self.remote_access.accepted:
                self.remote_access.forget_before(self.expected_psn)
            self._answer(psn, ack_syndrome())
        return None

    def _read(self, packet: Packet) -> CompletionStatus | None:
        """An RDMA READ in its turn; its answer acknowledges it."""
        accepted = (
            INVALID
            if self._in_message
            else self.remote_access.accept_read(packet.psn, packet.extension, packet.payload)
        )
        if isinstance(accepted, Refusal):
            return self._refuse(packet.psn, accepted)
        self._nak_sent = False
        self.expected_psn = psn_add(packet.psn, accepted.count)
        self.msn = (self.msn + 1) & PSN_MASK
        self._answer(packet.psn, READ_ANSWER)
        return None

    def _refuse(self, psn: int, refusal: Refusal) -> CompletionStatus:
        self.naks += 1
        self._answer(psn, nak_syndrome(refusal.nak))
        if refusal is INVALID and self._receives:
            self._complete(WorkCompletion(self._receives.popleft().wr_id, "receive", refusal.status))
        return refusal.status

    def _not_ready(self, psn: int) -> None:
        self.rnr_naks += 1
        self._nak_sent = True  # what follows is dropped until this PSN comes again (rule 21)
        self._answer(psn, rnr_syndrome(self._min_rnr_timer))

    def _out_of_order(self, packet: Packet) -> None:
        psn = packet.psn
        if psn_diff(psn, self.expected_psn) < 0:
            self.duplicates += 1
            if packet.opcode == READ_REQUEST:
                if self.remote_access.repeat_read(psn, packet.extension):
                    self._answer(psn, READ_ANSWER)
                return
            read = self.remote_access.first_read_behind(psn)
            # beyond a read whose answer may be lost an acknowledgement would say too much
            self._answer(self._acknowledged if read is None else psn_add(read.psn, -1), ack_syndrome())
        elif not self._nak_sent:
            self._nak_sent = True
            self.naks += 1
            self._answer(self.expected_psn, nak_syndrome(NAK_PSN_SEQUENCE))

    def _check(self, opcode: int, size: int) -> Refusal | None:
        """Rules 14, 15, 16: order of opcodes within a message, and lengths."""
        if (opcode in _BEGINNING) == self._in_message or self.remote_access.writing:
            return INVALID
        if opcode in _UNFINISHED:
            if size != self._path_mtu:
                return INVALID
        elif size > self._path_mtu or (opcode == _LAST and size == 0):
            return INVALID
        if self._receives and self._size + size > self._receives[0].length:
            return INVALID
        return None
