"""``python -m provider.run [-m MODULE | FILE | -c CODE] [ARGUMENT...]``: an unmodified Python program on the SAN.

The program's ``import socket``, and that of every library that it uses, finds the names of :mod:`provider.socket`:
AF_INET stream sockets are SAN sockets, names of the topology resolve, and what is off the SAN goes over TCP/IP. What
a library imported before (``from socket import socket``) is not reached, so the program is started afresh.
"""

import runpy
import socket as stdlib
import ssl
import sys
from typing import Any

from provider import socket as san
from provider.client.channel_table import find_entry
from provider.client.san_socket import SanSocket
from provider.errors import WsaErrno, WsaError

REPLACED = (
    "SocketType",
    "create_connection",
    "create_server",
    "fromfd",
    "fromshare",
    "getaddrinfo",
    "getfqdn",
    "gethostbyname",
    "gethostname",
    "socket",
    "socketpair",
)
USAGE = "usage: python -m provider.run [-m MODULE | FILE | -c CODE] [ARGUMENT...]\n"


class SanSslSocket(ssl.SSLSocket):
    """TLS over whatever socket it wraps; over a SAN socket, what the kernel does not know is asked of the agent."""

    def accept(self) -> tuple[ssl.SSLSocket, Any]:
        """As the original."""
        if find_entry(self.fileno()) is None:
            return super().accept()
        with SanSocket(fileno=stdlib.dup(self.fileno())) as listener:
            listener.settimeout(self.gettimeout())
            accepted, address = listener.accept()
        return (
            self.context.wrap_socket(
                accepted,
                do_handshake_on_connect=self.do_handshake_on_connect,  # type: ignore[attr-defined]
                suppress_ragged_eofs=self.suppress_ragged_eofs,  # type: ignore[attr-defined]
                server_side=True,
            ),
            address,
        )

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As the original; WSAENOTCONN on a listener, which ``wrap_socket`` asks in this way what it is."""
        try:
            return super().recv(buflen, flags)
        except BlockingIOError:
            entry = find_entry(self.fileno())
            if entry is not None:
                entry.peer_name()
            raise

    def getpeername(self) -> Any:
        """As the original."""
        entry = find_entry(self.fileno())
        return super().getpeername() if entry is None else entry.peer_name()

    def getsockname(self) -> Any:
        """As the original."""
        entry = find_entry(self.fileno())
        return super().getsockname() if entry is None else entry.own_name()

    def share(self, process_id: int) -> bytes:
        """WSAEINVAL: a TLS session lives in its process and cannot be handed over."""
        raise WsaError(WsaErrno.WSAEINVAL, "a TLS session cannot be handed over; hand over before the handshake")


def replace_socket_module() -> None:
    """From here on ``socket`` means the SAN, for all who look its names up."""
    for name in REPLACED:
        setattr(stdlib, name, getattr(san, name))
    ssl.SSLContext.sslsocket_class = SanSslSocket


def main() -> None:
    """Entry point; the program's exit status is ours."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help") or (arguments[0] in ("-m", "-c") and len(arguments) == 1):
        sys.stderr.write(USAGE)
        sys.exit(0 if arguments and arguments[0] in ("-h", "--help") else 2)
    replace_socket_module()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = ""
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path[0] = ""
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = arguments
        sys.path[0] = str(arguments[0]).rpartition("/")[0]
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
