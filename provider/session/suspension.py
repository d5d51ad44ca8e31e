"""The suspension machine of a session, with the control messages that it has due and its deadlines."""

from collections import deque

from fabric.units import MILLISECOND, Instant
from fabric.wire.sdp import Mid, Resume, Suspend, encode_resume, encode_suspend
from provider.session.credits import Credits
from provider.session.states import Role, SuspensionEvent, SuspensionState, next_suspension

LONGEST_DEADLINE_MS = 600_000
"""A peer may announce any number of 32 bits; no session waits longer than this."""
STANDARD_DEADLINE_MS = 10_000
"""For a SuspComm that names a service, as the standard has it: it announces none."""

_MASK = 0xFFFFFFFF


class Suspension:
    """Owned by a session, which asks it what to say and whether it may speak at all."""

    def __init__(self, role: Role, window: Credits) -> None:
        self.state = SuspensionState.RUNNING
        self.deadline: Instant | None = None
        self._role = role
        self._credits = window
        self._due: deque[tuple[Mid, Suspend | Resume | None]] = deque()
        self._epoch = 0  # of the suspension under way, or 0
        self._resume_epoch = 0
        self._peer_epoch = 0  # of the peer's last Resume
        self.service_id = 0
        """The service that the SuspComm under way names, ours or the peer's; 0 if the connection stays."""

    @property
    def is_ours(self) -> bool:
        """``suspend`` was called and ``resume`` was not."""
        return self.state in (SuspensionState.SUSPENDING, SuspensionState.SUSPENDED)

    @property
    def is_peers(self) -> bool:
        """The peer is suspended by its own wish."""
        return self.state is SuspensionState.PEER_SUSPENDED

    @property
    def is_given_up(self) -> bool:
        """Our SuspComm is out although nobody wants it any more: a new one must wait for its answer."""
        return self.state is SuspensionState.CANCELLING

    @property
    def is_remaking(self) -> bool:
        """The connection goes down or is down, and is made anew."""
        return self.state is SuspensionState.REMAKING or (self.is_peers and self.service_id != 0)

    @property
    def may_speak(self) -> bool:
        """Whether Data, DisConn and updates of credits may go."""
        return self.state is SuspensionState.RUNNING and not self._due

    @property
    def may_hear(self) -> bool:
        """Whether the peer may say anything but Resume and AbortConn."""
        return self.state in (SuspensionState.RUNNING, SuspensionState.SUSPENDING, SuspensionState.CANCELLING)

    @property
    def answer_may_come(self) -> bool:
        """Our SuspComm has been sent and not been answered."""
        return self.state in (SuspensionState.SUSPENDING, SuspensionState.CANCELLING) and not self._due

    # ------------------------------------------------------------------ commands

    def suspend(self, suspend: Suspend, now: Instant) -> None:
        """SuspComm is due; unanswered for twice its deadline the connection ends."""
        self._move(SuspensionEvent.SUSPEND)
        self._epoch, self.service_id = suspend.epoch, suspend.service_id
        self._due.append((Mid.SUSPEND, suspend))
        self.deadline = now + 2 * suspend.deadline_ms * MILLISECOND

    def resume(self, epoch: int) -> None:
        """Resume is due, after the answer if there is none yet."""
        self._resume_epoch = epoch
        self._move(SuspensionEvent.RESUME)
        if self.state is SuspensionState.RUNNING:
            self._say_resume()

    def remake(self) -> None:
        """The connection on which the peer holds still goes down; a new one is on its way."""
        self._move(SuspensionEvent.REMAKE)

    def remade(self, epoch: int, window: Credits) -> bool:
        """The peer's Hello or HelloAck has come; the numbers of messages begin anew with ``window``.

        False if it goes back to an older epoch.
        """
        if self.is_peers:
            if epoch < self._peer_epoch:
                return False
            self._peer_epoch = epoch
        self._move(SuspensionEvent.REMADE)
        self._credits, self.deadline, self.service_id = window, None, 0
        self._due.clear()  # the new connection itself was the answer
        return True

    def drop(self) -> int | None:
        """The stream has ended; returns the epoch of a suspension of ours that was not answered."""
        unanswered = self._epoch if self.state is SuspensionState.SUSPENDING else None
        self.state, self.deadline = SuspensionState.RUNNING, None
        self._due.clear()
        return unanswered

    # --------------------------------------------------------- what the peer said

    def on_suspend(self, suspend: Suspend, now: Instant) -> tuple[bool, int | None]:
        """SuspComm: whether it counts (a winner ignores the loser's), and the epoch of our suspension that it beat."""
        if self.state in (SuspensionState.SUSPENDING, SuspensionState.CANCELLING) and self._role is Role.INITIATOR:
            return False, None
        beaten = self._epoch if self.state is SuspensionState.SUSPENDING else None
        self._move(SuspensionEvent.PEER_SUSPENDS)
        self.service_id = suspend.service_id
        self._due.clear()  # a SuspComm of ours that did not get away
        self._due.append((Mid.SUSPEND_ACK, None))
        announced = STANDARD_DEADLINE_MS if suspend.service_id else suspend.deadline_ms
        self.deadline = now + min(announced, LONGEST_DEADLINE_MS) * MILLISECOND
        return True, beaten

    def on_answer(self) -> int | None:
        """SuspCommAck in SUSPENDING or CANCELLING: the epoch now suspended, or None if it was being given up."""
        self._move(SuspensionEvent.ANSWERED)
        self.deadline = None
        if self.state is SuspensionState.SUSPENDED:
            return self._epoch
        self._say_resume()
        return None

    def on_resume(self, resume: Resume) -> bool:
        """Resume in PEER_SUSPENDED; false if it does not fit what was said and heard, or goes back to an older epoch.

        Our own count of received messages includes the Resume itself already.
        """
        heard, said = (self._credits.received - 1) & _MASK, self._credits.sent & _MASK
        if (resume.last_sent, resume.last_received) != (heard, said) or resume.epoch < self._peer_epoch:
            return False
        if self._due:
            return False  # it cannot have had our answer
        self._move(SuspensionEvent.PEER_RESUMES)
        self._peer_epoch = resume.epoch
        self.deadline, self.service_id = None, 0
        return True

    # --------------------------------------------------------------------- output

    def next_control(self) -> tuple[Mid, bytes] | None:
        """The next control message that is due; the caller has a credit for it."""
        if not self._due:
            return None
        mid, what = self._due.popleft()
        if isinstance(what, Suspend):
            return mid, encode_suspend(what)
        if isinstance(what, Resume):
            # Nothing has gone since, so these are the last numbers before Resume itself.
            last = Resume(what.epoch, self._credits.sent & _MASK, self._credits.received & _MASK)
            return mid, encode_resume(last)
        return mid, b""

    def _say_resume(self) -> None:
        self.deadline = None
        self._due.append((Mid.RESUME, Resume(self._resume_epoch, 0, 0)))

    def _move(self, event: SuspensionEvent) -> None:
        self.state = next_suspension(self.state, event, self._role)
