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
    responder_resources: int = 4
    """RDMA READs of the peer that a connection takes at a time."""
    initiator_depth: int = 4
    """RDMA READs of ours that a connection may have under way."""
    rdma_size: int = 1 << 24
    """Bytes of one RDMA operation (SO_MAX_RDMA_SIZE)."""
    rdma_threshold: int = 4096
    """From how many bytes on RDMA is worth its while (SO_RDMA_THRESHOLD_SIZE)."""
    rdma_read: bool = True
    """Whether the provider has WSPRdmaRead; without it the peers' WSPRdmaWrite must do."""
    registration_cache: bool = True
    """Whether memory stays registered for the next time, and the provider has WSPMemoryRegistrationCacheCallback."""
