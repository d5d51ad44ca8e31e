"""The responder's RDMA half: where an RDMA WRITE is placed, and what an RDMA READ is answered with. Rules 9, 11, 14,
15, 17, 19, 22 of wire.md 8.

One ``RemoteAccess`` belongs to a responder, which hands it requests whose PSN is the expected one. What it refuses, it
refuses by a :class:`Refusal`: the NAK code for the peer and the status that this side's consumer hears of.

A READ that has been accepted is remembered as an ``AcceptedRead`` until as many younger ones have come as the queue
pair has responder resources, so that a duplicate can be executed again. Its answer is made packet by packet, when the
adapter can send one, from the memory as it is then.
"""

from collections import deque
from dataclasses import dataclass

from fabric.rc.memory import MESSAGE_MAX, Access, MemoryRegion, MemoryTable
from fabric.rc.requester import read_packets
from fabric.rc.work import CompletionStatus
from fabric.wire.headers import NAK_INVALID_REQUEST, NAK_REMOTE_ACCESS, NAK_REMOTE_OPERATIONAL, Reth
from fabric.wire.opcodes import OPCODES, Opcode
from fabric.wire.psn import psn_add, psn_diff

WRITES = frozenset(int(opcode) for opcode in Opcode if opcode.name.startswith("RC_WRITE"))
IMMEDIATE = frozenset((int(Opcode.RC_WRITE_LAST_IMMEDIATE), int(Opcode.RC_WRITE_ONLY_IMMEDIATE)))
READ_REQUEST = int(Opcode.RC_READ_REQUEST)
_FIRST, _MIDDLE = int(Opcode.RC_READ_RESPONSE_FIRST), int(Opcode.RC_READ_RESPONSE_MIDDLE)
_LAST, _ONLY = int(Opcode.RC_READ_RESPONSE_LAST), int(Opcode.RC_READ_RESPONSE_ONLY)
_LONG_AGO = 1 << 22
"""PSNs; far more than can be unacknowledged, far less than half of them all."""
_unpack_reth = Reth.FORMAT.unpack_from


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not executed; the queue pair ends with it."""

    nak: int
    status: CompletionStatus


INVALID = Refusal(NAK_INVALID_REQUEST, CompletionStatus.LOCAL_LENGTH_ERROR)
NO_ACCESS = Refusal(NAK_REMOTE_ACCESS, CompletionStatus.LOCAL_ACCESS_ERROR)
NO_BUFFER = Refusal(NAK_REMOTE_OPERATIONAL, CompletionStatus.LOCAL_OPERATION_ERROR)


@dataclass(slots=True, eq=False)
class AcceptedRead:
    """A read that was executed: its answer owns ``count`` PSNs from ``psn`` on."""

    psn: int
    count: int
    address: int
    rkey: int
    size: int
    region: MemoryRegion | None
    """``None`` when nothing is read."""
    begin: int = 0
    """Place among its PSNs at which the answer that is now being sent begins: a FIRST or ONLY stands there."""
    next: int = 0
    """Place of the next packet of the answer."""
    pending: bool = True
    """Whether packets of the answer have yet to be sent."""
    answered: bool = False
    """Whether all of it has been sent before; what is sent now is a repetition."""


class RemoteAccess:
    """See the module text. ``domain`` is the queue pair's number; ``resources`` READs may wait for their answer."""

    def __init__(self, memory: MemoryTable, *, domain: int, path_mtu: int, resources: int) -> None:
        self.reads: deque[AcceptedRead] = deque()
        """Reads whose answer is not all sent, in the order of their answers."""
        self._memory = memory
        self._domain = domain
        self._path_mtu = path_mtu
        self._resources = resources
        self.accepted: deque[AcceptedRead] = deque(maxlen=max(1, resources))
        """Reads that can be repeated, oldest first."""
        self._region: MemoryRegion | None = None
        self._address = 0
        self._remaining = 0
        self.writing = False
        """Whether an RDMA WRITE has been begun and not ended; then ``_remaining`` bytes of it are yet to come."""

    def check_write(self, opcode: int, extension: bytes, payload: bytes) -> Refusal | None:
        """Whether a packet of an RDMA WRITE may be executed; ``place`` then does it. May be asked again."""
        info, size, mtu = OPCODES[opcode], len(payload), self._path_mtu
        if info.first is self.writing or size > mtu:
            return INVALID
        if not info.last and size != mtu:
            return INVALID
        if info.first:
            address, rkey, remaining = _unpack_reth(extension)
            if remaining > MESSAGE_MAX:
                return INVALID
        else:
            remaining = self._remaining
        if info.last is not (remaining == size) or remaining < size or (info.last and not info.first and not size):
            return INVALID
        if info.first and remaining:
            found = self._memory.remote(rkey, address, remaining, Access.REMOTE_WRITE, domain=self._domain)
            return NO_ACCESS if found is None else None
        if remaining and (self._region is None or not self._memory.is_registered(self._region)):
            return NO_ACCESS  # it was deregistered in the middle of the message
        return None

    def place(self, opcode: int, extension: bytes, payload: bytes) -> Refusal | None:
        """Execute a packet that ``check_write`` has let pass."""
        info, size = OPCODES[opcode], len(payload)
        if info.first:
            address, rkey, remaining = _unpack_reth(extension)
            self._region = (
                self._memory.remote(rkey, address, remaining, Access.REMOTE_WRITE, domain=self._domain)
                if remaining
                else None
            )
            self._address, self._remaining = address, remaining
        if size:
            assert self._region is not None
            try:
                part = self._region.part(self._address, size)
                assert part is not None, "the whole range was checked"
                part[:] = payload
            except ValueError:  # the owner has released the buffer without deregistering it
                return NO_BUFFER
        self._address += size
        self._remaining -= size
        self.writing = not info.last
        if info.last:
            self._region = None
        return None

    def accept_read(self, psn: int, extension: bytes, payload: bytes) -> Refusal | AcceptedRead:
        """A READ request in its turn; the answer waits in ``reads``."""
        address, rkey, size = _unpack_reth(extension)
        if self.writing or payload or size > MESSAGE_MAX:
            return INVALID
        if sum(not read.answered for read in self.reads) >= self._resources:
            return INVALID
        region = None
        if size:
            region = self._memory.remote(rkey, address, size, Access.REMOTE_READ, domain=self._domain)
            if region is None:
                return NO_ACCESS
        read = AcceptedRead(psn, read_packets(size, self._path_mtu), address, rkey, size, region)
        self.accepted.append(read)
        self.reads.append(read)
        return read

    def repeat_read(self, psn: int, extension: bytes) -> bool:
        """A duplicate READ request: answer it again from ``psn`` on, if it asks for a tail of a read that is still
        remembered and whose memory is still there (rule 9). Whether there is one more answer to send.
        """
        address, rkey, size = _unpack_reth(extension)
        for read in self.accepted:
            place = psn_diff(psn, read.psn)
            if not 0 <= place < read.count:
                continue
            skipped = place * self._path_mtu
            if (address, rkey, size) != (read.address + skipped, read.rkey, read.size - skipped):
                return False
            if read.region is not None and not self._memory.is_registered(read.region):
                return False
            read.begin = read.next = place
            if read.pending:
                return False  # the answer under way goes back to there
            read.pending = True
            self.reads.append(read)
            return True
        return False

    def forget_before(self, expected_psn: int) -> None:
        """Reads from so long ago that their PSNs would soon pass for new ones are not repeated any more."""
        while self.accepted and psn_diff(expected_psn, self.accepted[0].psn) > _LONG_AGO:
            self.accepted.popleft()

    def first_read_behind(self, psn: int) -> AcceptedRead | None:
        """The oldest remembered read that came later than ``psn``."""
        return next((read for read in self.accepted if psn_diff(read.psn, psn) > 0), None)

    def next_response(self) -> tuple[int, int, bytes | memoryview, bool, bool]:
        """The next packet of the oldest answer: PSN, opcode, payload, whether an AETH goes with it, whether the answer
        ends with it.
        """
        read = self.reads[0]
        place = read.next
        read.next = place + 1
        first, last = place == read.begin, read.next == read.count
        opcode = (_ONLY if last else _FIRST) if first else (_LAST if last else _MIDDLE)
        payload: bytes | memoryview = b""
        if read.region is not None:
            offset = place * self._path_mtu
            part = read.region.part(read.address + offset, min(self._path_mtu, read.size - offset))
            assert part is not None, "the whole range was checked"
            payload = part
        if last:
            read.pending, read.answered = False, True
            self.reads.popleft()
        return psn_add(read.psn, place), opcode, payload, first or last, last

    def begun_in(self, region: MemoryRegion) -> AcceptedRead | None:
        """The oldest read of ``region`` whose answer is not all sent."""
        return next((read for read in self.reads if read.region is region), None)
