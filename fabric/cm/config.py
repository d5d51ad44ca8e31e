"""Settings of the connection manager, and the codes in which management datagrams carry times and sizes."""

from dataclasses import dataclass

from fabric.errors import SanloomError
from fabric.units import Duration

MTU_CODES = {256: 1, 512: 2, 1024: 3, 2048: 4, 4096: 5}
"""Path MTU in bytes -> code (InfiniBand Architecture volume 1, 12.7.27)."""


class InvalidParameter(SanloomError, ValueError):
    """The caller gave the connection manager something that its messages cannot carry; the text says what."""


def timeout_of(code: int) -> Duration:
    """Nanoseconds of a 5-bit time code: 4.096 us * 2^code (12.7.14). 16 is 268 ms, 20 is 4.29 s."""
    return 4096 << code


def mtu_code(path_mtu: int) -> int:
    """Code of a path MTU in bytes; InvalidParameter if InfiniBand has no such MTU."""
    code = MTU_CODES.get(path_mtu)
    if code is None:
        raise InvalidParameter(f"path MTU {path_mtu}: InfiniBand has {', '.join(map(str, MTU_CODES))}")
    return code


@dataclass(frozen=True, slots=True)
class CmConfig:
    """How patient we are, and how much strangers may cost us. Times are 5-bit codes, see :func:`timeout_of`.

    The peer's codes stand in its REQ: how long to wait for its RTU or DREP and how often to repeat ourselves. They are
    honoured within the bounds given here, since code 0 would be a flood and code 31 would hold a record for hours.
    """

    response_timeout: int = 16
    """For an answer to our REQ and DREQ, and what we tell peers to allow for: 268 ms, above any lab's round trip."""
    max_retries: int = 8
    """Repetitions after the first transmission, 0..15; a dead peer is given up after 9 * 268 ms = 2.4 s."""
    shortest_response_timeout: int = 10
    """Floor of a peer's code: 4.2 ms."""
    longest_response_timeout: int = 21
    """Ceiling of a peer's code: 8.6 s; Linux asks for 20."""
    longest_service_timeout: int = 23
    """Ceiling of the patience that an MRA asks for: 34 s."""
    max_extensions: int = 16
    """How many MRAs one connection honours; more are ignored."""
    half_open_limit: int = 256
    """Connections begun by peers and never established, those refused and in timewait included; beyond it REJ 3."""
    outbox_limit: int = 4096
    """Datagrams that wait for ``poll_transmit``; more are dropped like on a full wire."""
    path_mtu: int = 4096
    """The largest path MTU in bytes that we accept."""
    target_ack_delay: int = 10
    """Code of the time that our adapter may take to acknowledge, told in REP: 4.2 ms."""
    longest_timewait: int = 20
    """Ceiling of the local ACK timeout code that TIMEWAIT is derived from: 4.3 s."""

    def __post_init__(self) -> None:
        mtu_code(self.path_mtu)
        codes = (self.response_timeout, self.longest_response_timeout, self.longest_service_timeout)
        if not all(0 <= code <= 31 for code in (*codes, self.target_ack_delay, self.longest_timewait)):
            raise InvalidParameter("a time code is 0..31")
        if not 0 <= self.shortest_response_timeout <= self.longest_response_timeout:
            raise InvalidParameter("the shortest response timeout must not exceed the longest")
        if not 0 <= self.max_retries <= 15:
            raise InvalidParameter("max_retries is 0..15")

    def peer_timeout(self, code: int) -> Duration:
        """Nanoseconds of a peer's response timeout code, within our bounds."""
        return timeout_of(min(max(code, self.shortest_response_timeout), self.longest_response_timeout))
