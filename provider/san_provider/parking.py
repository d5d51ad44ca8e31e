"""Connections between two provider instances: duplicated by one, not yet adopted by the other.

The token that names one is what ``dwProviderReserved`` carries at the SPI: never zero, never used twice in the life of
this host, and good only for the process that WSPDuplicateSocket named (winsock-direct.md 1.10, statements 85 and 86).
"""

from dataclasses import dataclass

from fabric.ids import ProcessInstance
from fabric.rng import Stream
from provider.errors import WsaErrno, WsaError
from provider.san_provider.endpoint import Endpoint
from provider.spi import Address

PARKED_MAX = 1024


@dataclass(slots=True, eq=False)
class Parked:
    """A connection without a controlling instance, and what its next socket must look like."""

    endpoint: Endpoint
    target: ProcessInstance
    local: Address | None
    remote: Address | None
    options: dict[int, int]
    token: int = 0


class ParkingTable:
    """All parked connections of a host."""

    def __init__(self, rng: Stream) -> None:
        self._token = rng.getrandbits(32)
        self._stride = rng.getrandbits(32) | 1  # odd: all 32-bit numbers come before one comes again
        self._parked: dict[int, Parked] = {}

    def add(self, parked: Parked) -> int:
        """Park a connection; returns its token. WSAENOBUFS when PARKED_MAX wait."""
        if len(self._parked) >= PARKED_MAX:
            raise WsaError(WsaErrno.WSAENOBUFS, f"{PARKED_MAX} sockets wait to be adopted")
        token = parked.token = self.new_token()
        self._parked[token] = parked
        return token

    def new_token(self) -> int:
        """A token that stands for nothing yet; none comes again before all others have been."""
        token = self._next()
        while token == 0 or token in self._parked:
            token = self._next()
        return token

    def find(self, token: int, process: ProcessInstance | None) -> Parked:
        """The connection of ``token``; WSAEINVAL if there is none or it is meant for another process."""
        parked = self._parked.get(token)
        if parked is None or (process is not None and parked.target != process):
            raise WsaError(WsaErrno.WSAEINVAL, "dwProviderReserved names no socket that this process may adopt")
        return parked

    def take(self, parked: Parked) -> None:
        """It has been adopted or discarded."""
        del self._parked[parked.token]

    def _next(self) -> int:
        self._token = (self._token + self._stride) & 0xFFFF_FFFF
        return self._token

    def __len__(self) -> int:
        return len(self._parked)
