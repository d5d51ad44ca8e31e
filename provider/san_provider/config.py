"""How connections of a host are made."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """How connections of this host are made; the units are InfiniBand's codes where it has them."""

    path_mtu: int = 4096
    ack_timeout: int = 15
    """Local ACK timeout code t: 4.096 us * 2^t, here 134 ms."""
    retry_count: int = 7
    rnr_retry: int = 7
    min_rnr_timer: int = 12
    """RNR timer code: 0.64 ms."""
    message_size: int = 32_768
