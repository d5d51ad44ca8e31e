"""Offers one file: ``python -m nodes.apps.file_sender --port 7000 FILE``.

Listens, sends to the first process that connects eight bytes of length (big-endian) and then the file, waits for the
other side to finish, and reports the SHA-256 of what it sent.
"""

import argparse
import hashlib
import socket as stdlib
import sys
from pathlib import Path

from nodes.apps.steps import report
from provider import socket

CHUNK = 1 << 18


def main() -> int:
    """Entry point; status 0 when the whole file was sent and the peer ended gracefully."""
    parser = argparse.ArgumentParser(prog="file_sender", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--port", type=int, default=7000)
    parser.add_argument("--tcpip", metavar="IP", help="listen at this address of TCP/IP instead of on the SAN")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for everything")
    options = parser.parse_args()
    digest = hashlib.sha256()
    size = options.file.stat().st_size
    create_server = stdlib.create_server if options.tcpip else socket.create_server
    with create_server((options.tcpip or "", options.port)) as server:
        server.settimeout(options.timeout)
        report("sender", "listening", port=server.getsockname()[1])
        connection, peer = server.accept()
    with connection, options.file.open("rb") as source:
        connection.settimeout(options.timeout)
        report("sender", "accepted", peer=list(peer))
        connection.sendall(size.to_bytes(8, "big"))
        while chunk := source.read(CHUNK):
            connection.sendall(chunk)
            digest.update(chunk)
        connection.shutdown(socket.SHUT_WR)
        report("sender", "sent", bytes=size, sha256=digest.hexdigest())
        while connection.recv(CHUNK):
            pass
    report("sender", "done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
