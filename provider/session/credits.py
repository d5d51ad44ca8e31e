"""Credits: no message goes without a receive that the peer has posted for it.

Every message carries ``mseq``, the number of it (the Hellos are 0); ``mseqack``, the last number that its sender had
received; and ``bufs``, the receives that its sender had posted then. So the highest number that may be sent is
``mseqack + bufs``: receiving a message takes one from ``bufs`` and adds one to ``mseqack``, posting adds one to the
limit, and the limit never goes back. Inside this file numbers are plain growing integers; only the wire has 32 bits.

**The reserve.** A peer whose application does not read keeps its buffers. So that this silences data but nothing
else, credits are used in three steps: Data only while more than ``reserve`` are left, an update of credits (an empty
Data message) only while more than ``floor`` are left (5 of 8), control messages down to the last. Buffers of control
messages are posted again at once, whatever the application does.

**An update is sent only when it is useful**: when it gives the peer a good part of the window back, or when the peer
(as far as it can know) has less than the reserve left, by two or more. The second rule cannot play ping-pong: an
update takes one credit of its sender and renews all of its receiver's, so for another update to answer, two more
messages must come first; each round halves what is said.

**Why nothing locks.** An end says at most five control messages without hearing from the other: Resume, DisConn,
SuspComm, SuspCommAck, AbortConn. That many are left below the floor, so they always go. SuspComm and its answer renew
both ends' credits. Updates could be stuck only if both ends had sent three or more messages beyond Data that the
other had not acknowledged with its last word; without SuspComm these are Resume (of one end only), DisConn, and
updates, and an update that arrives lifts its receiver over the reserve again. So at least one end can speak, and what
it says frees the other.
"""

_MASK = 0xFFFFFFFF
_HALF = 0x80000000


def reserve_of(buffers: int) -> int:
    """Credits that Data leaves over, of a window of ``buffers`` (8 of 32 or more; fewer for a small foreign window)."""
    return min(8, max(1, buffers // 4))


def unwrap(wire: int, near: int) -> int:
    """The growing number whose low 32 bits are ``wire``, nearest to ``near``."""
    return near + ((wire - near + _HALF) & _MASK) - _HALF


class Credits:
    """Both directions' numbers of one session."""

    def __init__(self, buffers: int) -> None:
        self.sent = 0
        """Number of the last message sent."""
        self.received = 0
        """Number of the last message received."""
        self.acknowledged = 0
        """The last of ours that the peer says it had received."""
        self.limit = 0
        """The last number that we may send."""
        self.posted = 0
        """Receives ever posted: the last number that the peer may send."""
        self.told = 0
        """The ``posted`` that our last message told."""
        self.reserve = self.floor = 0
        self._own_reserve = reserve_of(buffers)
        self._batch = max(1, (buffers - self._own_reserve) // 3)

    def open(self, peer_buffers: int) -> None:
        """The peer's Hello or HelloAck said how many receives it posted."""
        self.limit = peer_buffers
        self.reserve = reserve_of(peer_buffers)
        self.floor = self.reserve * 5 // 8

    @property
    def left(self) -> int:
        """Messages that may be sent now."""
        return self.limit - self.sent

    @property
    def outstanding(self) -> int:
        """Receives that are posted now, ``bufs`` of a message; at most 16 bits are told."""
        return min(self.posted - self.received, 0xFFFF)

    @property
    def wants_update(self) -> bool:
        """Whether telling the peer its credits is useful (see the module text)."""
        gain = self.posted - self.told
        known_left = self.told - self.received
        return gain >= self._batch or (gain >= 1 and known_left <= self._own_reserve - 2)

    def tell(self) -> tuple[int, int, int]:
        """Number the next message: ``(bufs, mseq, mseqack)`` of its header."""
        assert self.left > 0
        self.sent += 1
        self.told = self.received + self.outstanding
        return self.outstanding, self.sent & _MASK, self.received & _MASK

    def hear(self, bufs: int, mseqack: int) -> bool:
        """Take what a received header says; false if it acknowledges what was never sent, or takes back."""
        acknowledged = unwrap(mseqack, self.sent)
        if not self.acknowledged <= acknowledged <= self.sent:
            return False
        self.acknowledged = acknowledged
        self.limit = max(self.limit, acknowledged + bufs)
        return True

    def arrive(self, mseq: int) -> bool:
        """Count a received message; false on a gap, a repetition, or a message beyond what was posted."""
        number = self.received + 1
        if mseq != number & _MASK or number > self.posted:
            return False
        self.received = number
        return True
