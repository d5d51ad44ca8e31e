"""Handing a SAN socket over: the process half of WSPDuplicateSocket."""

import io
import weakref
from collections.abc import Callable
from typing import Any

from provider import ipc
from provider.errors import WsaErrno, WsaError

WAIT_MAX = 15.0
"""Seconds; a request to the agent may take no longer."""


class Shareable:
    """A part of ``SanSocket``: ``share``, and ``makefile``, whose files may have read ahead."""

    _readers: "weakref.WeakSet[io.BufferedReader]"
    _call_controlled: Callable[..., dict[str, Any]]
    _fetch_control: Callable[..., None]

    def share(self, process_id: int, mode: str | None = None, *, back: bool = False) -> bytes:
        """WSPDuplicateSocket: hand the connection to the process ``process_id``; returns the 628 bytes to send it.

        ``mode`` is ``"suspend"``, ``"local"`` or ``"rehome"``, by default the host's. ``back`` marks the return trip
        (step 10) in the journal. Raises one of WSAENETDOWN, WSAEINVAL, WSAEMFILE, WSAENOBUFS, WSAENOTSOCK; the socket
        stays usable then.
        """
        for reader in list(self._readers):
            if not reader.closed and _has_read_ahead(reader):
                raise WsaError(
                    WsaErrno.WSAEINVAL, "a file object of this socket has read ahead; its bytes would be lost"
                )
        members = {} if mode is None else {"mode": mode}
        return ipc.from_text(
            self._call_controlled("WSPDuplicateSocket", pid=int(process_id), back=back, **members)["info"]
        )

    def wait_for_return(self, timeout: float = 6.0) -> None:
        """Wait until control is back at this socket: the other process has closed its descriptor, or has died before it
        used the connection, or its ticket has expired. At once if control never went away.

        ``timeout`` is in seconds, at most 15; the default is longer than a ticket lives. WSAEINVAL when another process
        still controls the socket then, WSAECONNABORTED or the like when the connection is gone.
        """
        self._fetch_control(wait=round(min(max(timeout, 0.0), WAIT_MAX) * 1000))

    def makefile(self, mode: str = "r", buffering: int | None = None, **options: Any) -> Any:
        """As the original; a file that has read ahead keeps the socket from being shared."""
        made = super().makefile(mode, buffering, **options)  # type: ignore[misc]
        reader = getattr(made, "buffer", made)
        if isinstance(reader, io.BufferedRWPair):
            return made
        if isinstance(reader, io.BufferedReader):
            self._readers.add(reader)
        return made


def _has_read_ahead(reader: io.BufferedReader) -> bool:
    """Whether a buffered reader holds bytes that its user has not had, found without reading any from the socket."""
    raw = reader.raw
    sock = getattr(raw, "_sock", None)
    if sock is None:
        return False
    original = raw.readinto
    try:
        raw.readinto = lambda _buffer: None  # type: ignore[method-assign]
    except AttributeError:
        return False
    try:
        return bool(reader.peek(1))
    except (BlockingIOError, ValueError):
        return False
    finally:
        raw.readinto = original  # type: ignore[method-assign]
