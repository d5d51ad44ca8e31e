"""The one contract that every engine keeps: link model, network switch, channel adapter, connection manager, host
stack.

An engine is a plain object. It never asks for the time, never waits and never touches the outside world; whoever drives
it (the live driver or the simulator) passes ``now`` in and carries out what it asks for.

============  ===============================================  =====================================================
family        methods                                          rule
============  ===============================================  =====================================================
input         ``handle_frame(port, frame, now)``,              never raise for what a peer does; ``now`` never goes
              ``handle_timeout(now)``                          back; any number of calls with equal ``now``. A timeout
                                                               that comes early or spuriously changes nothing; one that
                                                               comes late does all the overdue work
command       named after the domain's verb                    raise only for the *caller's* mistakes
output        ``poll_transmit(now)``, ``poll_event()``,        after any input or command drain the first two until
              ``poll_timeout()``                               ``None``, then ask ``poll_timeout``; it is pure, and
                                                               ``None`` means that only input can wake the engine
getter        ``statistics()``                                 a frozen snapshot
============  ===============================================  =====================================================
"""

from typing import NamedTuple, Protocol

from fabric.units import Instant


class Transmit(NamedTuple):
    """A frame that an engine gives out.

    ``at`` is when it reaches the far side of ``port``: ``now`` for nodes, the due time for a link.
    """

    port: int
    frame: bytes
    at: Instant


class Engine(Protocol):
    """What a driver needs of an engine; see the module text for the rules."""

    def handle_frame(self, port: int, frame: bytes, now: Instant) -> None:
        """A frame arrived on ``port`` at ``now``."""
        ...

    def handle_timeout(self, now: Instant) -> None:
        """``now`` has reached (or passed) what ``poll_timeout`` said."""
        ...

    def poll_transmit(self, now: Instant) -> Transmit | None:
        """The next frame to carry away, or ``None``."""
        ...

    def poll_event(self) -> object | None:
        """The next event, or ``None``."""
        ...

    def poll_timeout(self) -> Instant | None:
        """When ``handle_timeout`` is wanted next."""
        ...

    def statistics(self) -> object:
        """A frozen snapshot of counters."""
        ...
