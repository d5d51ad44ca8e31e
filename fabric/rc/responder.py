"""The responder: what a queue pair does with requests. Rules 1 to 8, 14 to 16, 20, 21, 23, 43 of wire.md 8.

It accepts exactly the expected PSN. A request ahead of it draws one NAK until the next one in order; one behind it is
a duplicate: never executed again, acknowledged again. Packets of a message are collected and handed over as one
``bytes`` at the last.

Only SEND is served: no memory is registered and the connection manager announces no responder resources, so WRITE, READ
and atomics, and SENDs that carry immediate data or a key, are invalid requests like a wrong order of opcodes.
"""

from collections import deque
from collections.abc import Callable

from fabric.rc.work import CompletionStatus, ReceiveWorkRequest, WorkCompletion
from fabric.wire.fast import Packet
from fabric.wire.headers import (
    NAK_INVALID_REQUEST,
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


class Responder:
    """See the module text. ``answer(psn, syndrome)`` sends an AETH; ``complete`` reports a receive."""

    def __init__(
        self,
        *,
        path_mtu: int,
        expected_psn: int,
        min_rnr_timer: int,
        answer: Callable[[int, int], None],
        complete: Callable[[WorkCompletion], None],
        receives: deque[ReceiveWorkRequest],
    ) -> None:
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

    def handle_request(self, packet: Packet) -> CompletionStatus | None:
        """One request packet; a status other than ``None`` is fatal for the queue pair."""
        psn = packet.psn
        if psn != self.expected_psn:
            self._out_of_order(psn)
            return None
        opcode, payload = packet.opcode, packet.payload
        size = len(payload)
        fault = self._check(opcode, size)
        if fault is not None:
            self.naks += 1
            self._answer(psn, nak_syndrome(NAK_INVALID_REQUEST))
            if self._receives:
                self._complete(WorkCompletion(self._receives.popleft().wr_id, "receive", fault))
            return fault
        if not self._in_message and not self._receives:
            self.rnr_naks += 1
            self._nak_sent = True  # what follows is dropped until this PSN comes again (rule 21)
            self._answer(psn, rnr_syndrome(self._min_rnr_timer))
            return None
        self._nak_sent = False
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
            self._answer(psn, ack_syndrome())
        return None

    def _out_of_order(self, psn: int) -> None:
        if psn_diff(psn, self.expected_psn) < 0:
            self.duplicates += 1
            self._answer(psn_add(self.expected_psn, -1), ack_syndrome())  # rules 6 and 7
        elif not self._nak_sent:
            self._nak_sent = True
            self.naks += 1
            self._answer(self.expected_psn, nak_syndrome(NAK_PSN_SEQUENCE))

    def _check(self, opcode: int, size: int) -> CompletionStatus | None:
        """Rules 14, 15, 16: order of opcodes within a message, and lengths."""
        if opcode not in _SENDS or (opcode in _BEGINNING) == self._in_message:
            return CompletionStatus.LOCAL_LENGTH_ERROR
        if opcode in _UNFINISHED:
            if size != self._path_mtu:
                return CompletionStatus.LOCAL_LENGTH_ERROR
        elif size > self._path_mtu or (opcode == _LAST and size == 0):
            return CompletionStatus.LOCAL_LENGTH_ERROR
        if self._receives and self._size + size > self._receives[0].length:
            return CompletionStatus.LOCAL_LENGTH_ERROR
        return None
