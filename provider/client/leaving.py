"""How a SAN socket becomes one of the operating system: the destination is off the SAN, or nobody but TCP/IP listens.

A connection to the host itself that the SAN refuses is tried over TCP/IP, where a listener of the operating system may
wait (a dual-stack one of IPv6, say). Windows Sockets Direct does the same: its providers leave connections to the host
itself to TCP/IP (winsock-direct.md 1.12). A refusal by another host is final (1.5).
"""

import os
import socket as stdlib
from socket import socket as _Stdlib  # as it was when we were imported: ``provider.run`` replaces it

from provider.client.any_socket import AnySocket, SystemSocket
from provider.client.channel_table import ChannelEntry


class Leaver(AnySocket):
    """A part of ``SanSocket``."""

    _entry: ChannelEntry

    def _leave_the_san(self, system: _Stdlib | None = None) -> None:
        """From here on this object is a socket of the operating system, under the same descriptor number.

        ``system``, by default a fresh one with the options that this one was given, takes its place and is closed.
        """
        entry, timeout, number = self._entry, self.gettimeout(), self.fileno()
        with self._counterpart() if system is None else system as taken:
            if entry.leave(self):  # type: ignore[arg-type]
                entry.agent.call("WSPCloseSocket", s=entry.s)
            os.dup2(taken.fileno(), number, inheritable=False)
        self.__class__ = SystemSocket  # type: ignore[assignment]
        _Stdlib.__init__(self, stdlib.AF_INET, stdlib.SOCK_STREAM, 0, fileno=number)
        self.settimeout(timeout)

    def _connect_over_tcpip(self, name: tuple[str, int]) -> bool:
        """Whether a listener of the operating system took the connection; if not, this is the SAN socket it was."""
        if self._entry.named:
            return False  # the name that it has on the SAN is not ours to take there
        system = self._counterpart()
        try:
            system.settimeout(self.gettimeout())
            system.connect(name)
        except OSError:
            system.close()
            return False
        self._leave_the_san(system)
        return True

    def _counterpart(self) -> _Stdlib:
        made = _Stdlib(stdlib.AF_INET, stdlib.SOCK_STREAM)
        try:
            for (level, name), value in self._entry.options.items():
                made.setsockopt(level, name, value)
        except BaseException:
            made.close()
            raise
        return made
