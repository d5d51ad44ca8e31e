"""How much of a host one process may take, and all of them together.

A *socket* here is a descriptor that a process holds, or a connection that waits at one of its listeners. What a
process has closed and its host still delivers is counted apart: it *lingers*.
"""

from dataclasses import dataclass

PER_PROCESS_MAX = 4096
PER_HOST_MAX = 16_384


@dataclass(frozen=True, slots=True)
class Quotas:
    """Defaults are for a lab on a desk: an idle connection costs its host about 130 KiB, a full one 3 MiB more."""

    sockets_per_process: int = 1024
    """One more is WSAEMFILE; a connection that would have to wait beyond it is refused to its peer."""
    sockets: int = 4096
    """On the whole host; one more is WSAENOBUFS."""
    lingering: int = 1024
    """Closed connections with bytes or a DisConn still to deliver; those beyond are cut, as Linux does with orphans."""

    def __post_init__(self) -> None:
        assert 1 <= self.sockets_per_process <= PER_PROCESS_MAX
        assert 1 <= self.sockets <= PER_HOST_MAX
        assert self.lingering >= 1
